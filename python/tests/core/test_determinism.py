import os
import subprocess
import sys

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

import usae
from support.autoencoders import RECIPE, planted
from support.kernels import SCREENING_KERNELS

pytestmark = pytest.mark.slow

# Larger than a tile of tokens and than a block of concepts, and multiples of neither.
WIDE = {"a": 48, "b": 67, "c": 31}
N_TOKENS, N_CONCEPTS, K = 1100, 333, 9


@pytest.fixture(scope="module")
def wide_acts():
    return planted(N_TOKENS, seed=2, widths=WIDE)


@pytest.fixture(scope="module")
def wide(wide_acts):
    return usae.UniversalSAE(N_CONCEPTS, K, recipe=RECIPE, seed=1).fit(wide_acts, steps=5)


RECIPES = {
    "default": RECIPE.replace(batch_size=700, dead_tokens=300),
    "published": usae.recipes.published(total_steps=8, warmup_steps=2).replace(batch_size=700, statistics_tokens=900),
    "prefixes": RECIPE.replace(batch_size=700, dead_tokens=300, prefixes=(0.05, 0.3, 1), loss="l1"),
    "batchtopk": RECIPE.replace(batch_size=700, dead_tokens=300, selection="batchtopk", k_max=20, prefixes=(0.25, 1)),
    "bounded": RECIPE.replace(batch_size=700, dictionary_norm="bounded", dead_tokens=300, merge_cosine=0.5, merge_every=2),
    "noise": RECIPE.replace(batch_size=700, input_noise=0.5, encoded_models="two", agreement=0.1, encoder="batchnorm"),
    "merging": RECIPE.replace(batch_size=700, merge_cosine=0.5, merge_every=2, warmup_steps=1),
    "two": RECIPE.replace(
        batch_size=700, encoded_models="two", agreement=0.1, same_model_weight=3.0, dead_tokens=300, prefix_loss="drawn"
    ),
    "all": RECIPE.replace(
        batch_size=1100, encoded_models="all", agreement=0.1, agreement_on="codes", selection="batchtopk", encoder="batchnorm"
    ),
    "per dimension": RECIPE.replace(batch_size=700, scale="dimension", initialization="tied", clip_norm=0.01),
}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_saved_bytes_do_not_depend_on_the_number_of_threads(wide_acts, tmp_path, recipe):
    saved = {}
    for n_threads in (1, 2, 4):
        sae = usae.UniversalSAE(N_CONCEPTS, K, recipe=RECIPES[recipe], seed=5, n_threads=n_threads)
        sae.fit(wide_acts, steps=8, validation=wide_acts).save(tmp_path / str(n_threads), training_state=True)
        saved[n_threads] = [(tmp_path / str(n_threads) / name).read_bytes() for name in ("model.safetensors", "usae.json")]
    assert saved[1] == saved[2] == saved[4]


@pytest.mark.parametrize("every", [1, 8])
@pytest.mark.parametrize("selection", ["topk", "batchtopk"])
def test_dead_concepts_learn_the_same_with_any_number_of_threads_and_after_a_save(wide_acts, tmp_path, selection, every):
    recipe = RECIPE.replace(dead_tokens=1, prefixes=None, selection=selection, aux_every=every)

    def new(n_threads):
        return usae.UniversalSAE(N_CONCEPTS, K, recipe=recipe, seed=5, n_threads=n_threads)

    def step(sae, number):
        batch = {name: x[100 * number :][:531] for name, x in wide_acts.items()}
        if not number:
            sae.initialize(WIDE)
        for model in range(len(batch)):
            sae._autoencoder.write(model, "silent_tokens", np.where(np.arange(N_CONCEPTS) % 3 == 0, 500, 0))
        assert sae.partial_fit(batch).dead > 0

    states = []
    for n_threads in (1, 2, 4, "after a save"):
        sae = new(n_threads if n_threads != "after a save" else 2)
        for number in range(6):
            if n_threads == "after a save" and number == 3:
                sae.save(tmp_path / "midway", training_state=True)
                sae = usae.load(tmp_path / "midway", n_threads=3)
            step(sae, number)
        sae.save(tmp_path / str(n_threads), training_state=True)
        states.append((tmp_path / str(n_threads) / "model.safetensors").read_bytes())
    assert len(set(states)) == 1


def test_results_do_not_depend_on_the_number_of_threads(wide, wide_acts, tmp_path):
    wide.save(tmp_path / "run")
    alone, many = usae.load(tmp_path / "run", n_threads=1), usae.load(tmp_path / "run", n_threads=4)
    assert alone.evaluate(wide_acts).to_dict() == many.evaluate(wide_acts).to_dict()
    for name, x in wide_acts.items():
        assert alone.encode(x, name) == many.encode(x, name)
        assert np.array_equal(alone.reconstruct(x, name, "a"), many.reconstruct(x, name, "a"))
        assert np.array_equal(alone.preactivations(x, name), many.preactivations(x, name))


def test_the_number_of_threads_of_the_process_does_not_matter_either(wide, wide_acts):
    before, results = usae.show_config()["n_threads"], []
    for n in (1, 3, None):
        usae.set_num_threads(n)
        assert usae.show_config()["n_threads"] == (n or before)
        results.append(wide.evaluate(wide_acts).to_dict())
    assert results[0] == results[1] == results[2]


@hypothesis.given(st.data())
def test_a_tokens_code_is_the_same_bits_in_any_batch(wide, wide_acts, data):
    name = data.draw(st.sampled_from(list(WIDE)))
    rows = data.draw(
        st.lists(st.integers(0, N_TOKENS - 1), min_size=1, max_size=40)
        | st.slices(N_TOKENS).filter(lambda rows: len(range(N_TOKENS)[rows]))
    )
    whole, part = wide.encode(wide_acts[name], name)[rows], wide.encode(wide_acts[name][rows], name)
    assert part.values.tobytes() == whole.values.tobytes()
    assert part.indices.tobytes() == whole.indices.tobytes()


def test_a_token_is_decoded_to_the_same_bits_in_any_batch(wide, wide_acts):
    codes = wide.encode(wide_acts["a"], "a")
    whole = wide.decode(codes, "b")
    for rows in (slice(0, 1), slice(3, 700), slice(None, None, -7)):
        assert wide.decode(codes[rows], "b").tobytes() == whole[rows].tobytes()


PROGRAM = """
import hashlib, sys
import numpy as np
import usae
from support.autoencoders import planted
from test_determinism import RECIPES, WIDE

acts, digest = planted(1500, seed=2, widths=WIDE), hashlib.sha256()
for recipe in RECIPES.values():
    sae = usae.UniversalSAE(580, 9, recipe=recipe, seed=5).fit(acts, steps=8)  # no whole panels of any kernels
    for name, x in acts.items():
        codes = sae.encode(x, name)
        for array in (codes.values, codes.indices, *sae.parameters(name).values()):
            digest.update(array.tobytes())
print(usae.show_config()["kernels"], digest.hexdigest())
"""


@pytest.mark.slow
def test_all_kernels_with_a_fused_multiply_add_give_the_same_bits():
    """Screening with bytes included: it decides what is computed, never what comes out."""
    results = {}
    for kernels in (*SCREENING_KERNELS, "avx512", "avx2"):
        environment = os.environ | {"USAE_KERNELS": kernels, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", PROGRAM]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
        if done.returncode and "USAE_KERNELS" in done.stderr:
            continue  # this processor has no such instruction set
        used, digest = done.stdout.split()
        assert used == kernels
        results[used] = digest
    assert len(set(results.values())) <= 1, results


@pytest.mark.parametrize("word", ["typo", "AVX2", "avx2 ", "portable,avx2", "\N{SNOWMAN}"])
def test_an_instruction_set_that_there_is_not_is_refused_when_it_is_first_used(word):
    script = (
        "import numpy as np, usae\n"
        "network = usae.FunctionModel(abs, abs, size=8)\n"
        "made = [lambda: usae.UniversalSAE(4, 2).initialize({'a': 3}), lambda: usae.Maximizer({'a': network}, canvas=16)]\n"
        "for make in made:\n"
        "    try: make()\n"
        "    except usae.InvalidInputError as error: print(str(error).split(':')[0], 'portable' in str(error))\n"
    )
    environment = os.environ | {"USAE_KERNELS": word, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=600)
    assert done.stdout == "USAE_KERNELS True\nUSAE_KERNELS True\n", done.stderr


def test_a_step_says_what_screening_left_to_do(wide_acts):
    sae = usae.UniversalSAE(600, 9, recipe=RECIPE, seed=5).initialize(WIDE)
    report = sae.partial_fit(wide_acts, encoder="b")
    if usae.show_config()["kernels"] not in SCREENING_KERNELS:
        assert report.screening is None
        return
    assert report.screening.tokens == N_TOKENS
    assert 9 * N_TOKENS <= report.screening.computed <= report.screening.candidates < 600 * N_TOKENS
    assert report.screening.fallbacks == 0
    assert "screening" not in report.to_dict()
