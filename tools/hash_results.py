"""Prints hashes of everything that twelve recipes compute, to show that a change of the code changes no bit.

    python tools/hash_results.py > before.txt        # then change the code
    python tools/hash_results.py | diff before.txt -
    USAE_KERNELS=avx2 python tools/hash_results.py   # all kernels but x86-64's portable ones print the same

It prints a line for each recipe: parameters and optimiser state after training, codes of held-out tokens, and their evaluation.
"""

import dataclasses
import hashlib
import pathlib
import tempfile

import numpy as np

import usae

STEPS, N_CONCEPTS, K = 60, 256, 8


def recipes() -> dict[str, usae.Recipe]:
    """Return twelve recipes that together use each value of each choice, and each kind of step."""
    default, published = usae.recipes.default, usae.recipes.published
    short = {"batch_size": 512, "warmup_steps": 10}
    return {
        "default": default(**short, merge_every=20, merge_cosine=0.6),
        "matryoshka": usae.recipes.matryoshka(**short),
        "published": published(total_steps=STEPS).replace(batch_size=512),
        "published-mse": published(total_steps=STEPS).replace(batch_size=512, loss="mse", clip_norm=None, clock="global"),
        "published-all": published(total_steps=STEPS).replace(batch_size=600, update="all", aux_detach=True),
        "batchtopk": default(**short, selection="batchtopk", k_max=20),
        "batchtopk-batchnorm": default(
            **short, selection="batchtopk", encoder="batchnorm", prefixes=(0.25, 1.0), prefix_loss="mean"
        ),
        "plain": default(**short, prefixes=None, merge_cosine=None, aux="none", schedule="cosine", decay_share=1.0),
        "dead": default(**short, dead_tokens=600, aux_scale="none", aux_k=32, loss="l1", initialization="tied", clip_norm=1.0),
        "dimension": default(
            **short, scale="dimension", statistics_tokens=1000, initialization="random", schedule="constant", weight_decay=0.01
        ),
        "bounded": default(**short, dictionary_norm="bounded", merge_every=20),
        "two": default(**short, encoded_models="two", agreement=0.1, dead_tokens=600, merge_every=20),
        "all": default(
            **short, encoded_models="all", agreement=0.1, agreement_on="codes", encoder="batchnorm", selection="batchtopk"
        ),
    }


def activations() -> dict[str, np.ndarray]:
    """Make activations of three models for 40 images, with widths that are no multiples of a vector and three types."""
    random = np.random.default_rng(0)
    n_tokens, n_shared = 40 * 64, 120
    codes = random.uniform(0.5, 2.0, (n_tokens, n_shared)) * (random.random((n_tokens, n_shared)) < 0.05)
    acts = {}
    for name, width, dtype in (("a", 24, np.float32), ("b", 53, np.float16), ("c", 72, np.float64)):
        directions = random.standard_normal((n_shared, width))
        values = codes @ directions + 0.3 * random.standard_normal((n_tokens, width)) + random.standard_normal(width)
        acts[name] = values.astype(dtype).reshape(40, 64, width)
    return acts


def of_arrays(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def of_file(file: pathlib.Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def main() -> None:
    acts = activations()
    train, held_out = ({name: x[images] for name, x in acts.items()} for images in (slice(0, 32), slice(32, None)))
    for name, recipe in recipes().items():
        sae = usae.UniversalSAE(N_CONCEPTS, K, recipe=recipe, seed=7).fit(train, steps=STEPS, progress=False)
        with tempfile.TemporaryDirectory() as folder:
            sae.save(pathlib.Path(folder, "sae"), training_state=True)
            state = of_file(next(pathlib.Path(folder, "sae").glob("*.safetensors")))
        codes = {}
        for model, x in held_out.items():
            of_model = sae.encode(x, model)
            codes |= {f"{model}.values": of_model.values, f"{model}.indices": of_model.indices}
        found = sae.evaluate(held_out)
        values = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
        evaluation = of_arrays({key: value for key, value in values.items() if isinstance(value, np.ndarray)})
        print(f"{name:20} state {state} codes {of_arrays(codes)} evaluation {evaluation}", flush=True)


if __name__ == "__main__":
    main()
