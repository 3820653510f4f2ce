"""The formats of files that usae reads: a whole example of each, ways to damage it, and what is done with the result."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import pathlib
import pickle
import random
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy
from file_mutations import damaged, replace_file, strange_archive, strange_json, written_json

import usae
from usae._files import checksummed_json
from usae.cli.activations import load_activations
from usae.interop.published_caches import import_published

WIDTHS = {"a": 3, "网/b": 5}
STEPS = 6


class Format(NamedTuple):
    """`make` writes an example into a folder. `damage` changes it. `use` reads, and perhaps writes, what is there."""

    make: Callable[[pathlib.Path], None]
    damage: Callable[[pathlib.Path, random.Random], None]
    use: Callable[[pathlib.Path], None]


def activations(rows: int = 64) -> dict[str, np.ndarray]:
    values = np.random.default_rng(0)
    return {name: values.standard_normal((rows, width), dtype=np.float32) for name, width in WIDTHS.items()}


def autoencoder() -> usae.UniversalSAE:
    recipe = usae.recipes.default(batch_size=32)
    return usae.UniversalSAE(8, 2, recipe=recipe, n_threads=1)


def state(sae: usae.UniversalSAE) -> str:
    """Return a sum of everything that decides what an autoencoder computes."""
    core = sae._autoencoder
    names = core.parameter_names() + core.training_state_names()
    digest = hashlib.sha256(repr((sae.n_concepts, sae.k, sae.seed, sae.n_steps_, core.recipe, sae.history_)).encode())
    for i, _ in enumerate(core.names):
        for name in names:
            digest.update(core.read(i, name))
    return digest.hexdigest()


class Wrong(Exception):
    """A file was read as what was never written."""


# --- Ways to damage a folder ------------------------------------------------------------------------------------------


def files_of(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def damage_bytes(folder: pathlib.Path, draw: random.Random) -> None:
    file = draw.choice(files_of(folder))
    file.write_bytes(damaged(file.read_bytes(), draw))


def damage_places(folder: pathlib.Path, draw: random.Random, planted: tuple[str, ...] = ()) -> None:
    file = draw.choice(files_of(folder))
    names = [file, *([file.parent / name for name in planted] if draw.random() < 0.6 else [])]
    replace_file(draw.choice(names), draw, folder.parent / "victim")


def damage_json(folder: pathlib.Path, draw: random.Random, name: str, tensors: str | None = None) -> None:
    """Change what a file of JSON with a checksum says, and its checksum, as somebody would who knows how."""
    file = draw.choice(sorted(folder.rglob(name)))
    content = json.loads(file.read_bytes())
    del content["sha256"]
    if tensors is not None and draw.random() < 0.3:
        changed = damaged((file.parent / tensors).read_bytes(), draw)
        (file.parent / tensors).write_bytes(changed)
        content["tensors"] = {"bytes": len(changed), "sha256": hashlib.sha256(changed).hexdigest()}
    else:
        content = strange_json(content, draw)
    text = written_json(content)
    if text is not None:
        file.write_text(checksummed_json.with_checksum(text.decode()) if draw.random() < 0.9 else text.decode())


def one_of(*ways: Callable[[pathlib.Path, random.Random], None]) -> Callable[[pathlib.Path, random.Random], None]:
    return lambda folder, draw: draw.choice(ways)(folder, draw)


def damage_archive(folder: pathlib.Path, draw: random.Random, of_pickle: bool) -> None:
    file = draw.choice(files_of(folder))
    file.write_bytes(strange_archive(file.read_bytes(), draw, of_pickle))


# --- Saves ------------------------------------------------------------------------------------------------------------


def make_save(folder: pathlib.Path) -> None:
    autoencoder().fit(activations(), steps=3, progress=False).save(folder / "save", training_state=True)


def use_save(folder: pathlib.Path) -> None:
    try:
        sae = usae.load(folder / "save", n_threads=1)
        x = np.zeros((3, next(iter(sae.n_features_in_.values()))), np.float32)
        sae.decode(sae.encode(x, next(iter(sae.n_features_in_))), next(iter(sae.n_features_in_)))
    finally:
        small = usae.UniversalSAE(4, 1, n_threads=1).initialize({"a": 3})
        small.save(folder / "save")
        if usae.load(folder / "save", n_threads=1).n_concepts != 4:
            raise Wrong("a save was replaced, but the older one is read")


def use_save_as_it_was(folder: pathlib.Path, expected: list[str]) -> None:
    if state(usae.load(folder / "save", n_threads=1)) not in expected:
        raise Wrong("a damaged save was read")


# --- Checkpoints ------------------------------------------------------------------------------------------------------


def checkpoints(folder: pathlib.Path) -> usae.Checkpoints:
    return usae.Checkpoints(folder / "run", every_steps=2, keep=3)


def make_run(folder: pathlib.Path) -> None:
    autoencoder().fit(activations(), steps=STEPS, checkpoint=checkpoints(folder), progress=False)


def use_run(folder: pathlib.Path, expected: list[str]) -> None:
    with contextlib.suppress(usae.UsaeError):  # resuming says it too
        if state(checkpoints(folder).load(n_threads=1)) not in expected:
            raise Wrong("a checkpoint was loaded that the run never wrote")
    sae = autoencoder().fit(activations(), steps=STEPS, checkpoint=checkpoints(folder), resume=True, progress=False)
    if state(sae) != expected[-1]:
        raise Wrong("a run was resumed to another end")


def use_checksummed_run(folder: pathlib.Path) -> None:
    """Load and resume what somebody who can sign has made: to any end, but to one, or to an error of ours."""
    with contextlib.suppress(usae.UsaeError):
        checkpoints(folder).load(n_threads=1)
    autoencoder().fit(activations(), steps=STEPS, checkpoint=checkpoints(folder), resume=True, progress=False)


# --- Stores -----------------------------------------------------------------------------------------------------------


def make_store(folder: pathlib.Path) -> None:
    shards = np.random.default_rng(1)
    with usae.ActivationStore.create(folder / "acts", grid=(2, 2)) as store:
        for n in (2, 3):
            acts = {name: shards.standard_normal((n, 4, width)).astype(np.float32) for name, width in WIDTHS.items()}
            store.append(acts, mask=shards.random((n, 4)) < 0.7 if n == 3 else None)


def use_store(folder: pathlib.Path) -> None:
    store = usae.ActivationStore(folder / "acts")
    for name in store:
        store[name][:]
    list(store.batches(7))
    counts = store.mask
    store.verify()
    with store:
        store.set_mask(counts)
        store.append({name: np.ones((1, 4, width), np.float32) for name, width in store.widths.items()})
    usae.ActivationStore(folder / "acts").verify()


# --- Arrays -----------------------------------------------------------------------------------------------------------


def make_npy(folder: pathlib.Path) -> None:
    np.save(folder / "x.npy", activations(8)["a"])


def use_npy(folder: pathlib.Path) -> None:
    acts = load_activations([f"a={folder / 'x.npy'}"], "--acts")
    usae.UniversalSAE(4, 1, n_threads=1).fit(acts, steps=1, progress=False)


def make_npz(folder: pathlib.Path) -> None:
    for image in "xy":
        for name in WIDTHS:
            values = np.random.default_rng(2).standard_normal((5, WIDTHS[name])).astype(np.float32)
            (np.savez if image == "x" else np.savez_compressed)(folder / f"{image}_{name[-1]}.npz", activation=values, label=1)


def use_npz(folder: pathlib.Path) -> None:
    import_published(folder, folder / "acts", {name: name[-1] for name in WIDTHS}, progress=False)


# --- Files of the published code --------------------------------------------------------------------------------------


class _Tensor(NamedTuple):
    key: str
    array: np.ndarray


class _Pickler(pickle._Pickler):  # type: ignore[name-defined]  # the one in Python, whose `save_global` can be replaced
    def persistent_id(self, obj: Any) -> Any:
        return ("storage", _Global("torch", "FloatStorage"), obj[1], "cpu", obj[2]) if _is_storage(obj) else None

    def save_global(self, obj: Any, name: str | None = None) -> None:
        self.write(f"c{obj.module}\n{obj.name}\n".encode())

    def save_tensor(self, obj: _Tensor) -> None:
        strides = [stride // 4 for stride in obj.array.strides]
        whole = (("a storage", obj.key, obj.array.size), 0, obj.array.shape, tuple(strides), False, {})
        self.save_reduce(_Global("torch._utils", "_rebuild_tensor_v2"), whole)


class _Global:
    def __init__(self, module: str, name: str):
        self.module, self.name = module, name

    def __call__(self) -> None:
        """Only what can be called can be reduced."""


_Pickler.dispatch = {**pickle._Pickler.dispatch, _Global: _Pickler.save_global, _Tensor: _Pickler.save_tensor}  # type: ignore[attr-defined]


def _is_storage(obj: object) -> bool:
    return isinstance(obj, tuple) and len(obj) == 3 and obj[0] == "a storage"


def published_state() -> dict[str, np.ndarray]:
    values = np.random.default_rng(3)
    shapes = {"0.weight": (8, 3), "0.bias": 8, "1.weight": 8, "1.bias": 8, "1.running_mean": 8, "1.running_var": 8}
    state = {f"encoder.final_block.{name}": values.random(shape, np.float32) for name, shape in shapes.items()}
    return state | {"dictionary._weights": values.random((8, 3), np.float32)}


def make_pth(folder: pathlib.Path) -> None:
    tensors = {name: _Tensor(str(i), array) for i, (name, array) in enumerate(published_state().items())}
    content = {
        "epoch": 1,
        "model_state_dict": tensors,
        "optimizer_state_dict": {"state": {0: {"step": 1.0}}},
        "learning_rate": 0.1,
    }
    pickled = io.BytesIO()
    _Pickler(pickled, 2).dump(content)
    with zipfile.ZipFile(folder / "x.pth", "w") as archive:
        archive.writestr("x/data.pkl", pickled.getvalue())
        archive.writestr("x/byteorder", "little")
        for tensor in tensors.values():
            archive.writestr(f"x/data/{tensor.key}", tensor.array.tobytes())


def use_published(folder: pathlib.Path, name: str) -> None:
    sae = usae.load_published({"a": folder / name}, statistics={"a": None}, k=2, n_threads=1)
    sae.encode(np.zeros((2, sae.n_features_in_["a"]), np.float32), "a")


def make_many_pth(folder: pathlib.Path) -> None:
    tensors = {name: _Tensor(str(i), array) for i, (name, array) in enumerate(published_state().items())}
    pickled = io.BytesIO()
    _Pickler(pickled, 2).dump({f"model {i}": tensors for i in range(3)})
    with zipfile.ZipFile(folder / "x.pth", "w") as archive:
        archive.writestr("x/data.pkl", pickled.getvalue())
        for tensor in tensors.values():
            archive.writestr(f"x/data/{tensor.key}", tensor.array.tobytes())


def use_many_pth(folder: pathlib.Path) -> None:
    usae.load_published(folder / "x.pth", statistics={f"model {i}": None for i in range(3)}, k=2, n_threads=1)


def make_safetensors(folder: pathlib.Path) -> None:
    safetensors.numpy.save_file(published_state(), folder / "x.safetensors")


def damage_safetensors(folder: pathlib.Path, draw: random.Random) -> None:
    """Change the part before the numbers, and let its length fit."""
    data = (folder / "x.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    text = written_json(strange_json(json.loads(data[8 : 8 + length]), draw))
    if text is not None:
        (folder / "x.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


@functools.cache
def states(folder: pathlib.Path) -> tuple[list[str], list[str]]:
    """Return the sums of what the examples below a folder hold: of the save, and of the run's checkpoints in order."""
    run = sorted((folder / "checkpoints" / "run").glob("step-*"))
    return (
        [state(usae.load(folder / "save" / "save", n_threads=1))],
        [state(usae.load(place, n_threads=1)) for place in run],
    )


def formats(examples: pathlib.Path) -> dict[str, Format]:
    """Return all formats by name. `examples` is the folder in which each has one of its name."""
    planted = ("usae.json.new", "model.safetensors.new")
    of_run = (*planted, "usae-run.json.new", "step-000000009", ".usae-step-000000002", "writer.lock", "damaged-step-000000006")
    of_store = (
        "usae-store.json.new",
        "shard-000001-mask-0123456789abcdef.npy",
        "shard-000002-0.npy.new",
        "shard-000002-0.npy",
        "writer.lock",
    )
    pth = functools.partial(damage_archive, of_pickle=True)
    return {
        "save": Format(make_save, damage_bytes, lambda folder: use_save_as_it_was(folder, states(examples)[0])),
        "save, checksummed again": Format(
            make_save, functools.partial(damage_json, name="usae.json", tensors="model.safetensors"), use_save
        ),
        "place of a save": Format(make_save, functools.partial(damage_places, planted=planted), use_save),
        "checkpoints": Format(make_run, damage_bytes, lambda folder: use_run(folder, states(examples)[1])),
        "checkpoints, checksummed again": Format(
            make_run,
            one_of(
                functools.partial(damage_json, name="usae.json", tensors="model.safetensors"),
                functools.partial(damage_json, name="usae-run.json"),
            ),
            use_checksummed_run,
        ),
        "place of a checkpoint": Format(
            make_run, functools.partial(damage_places, planted=of_run), lambda folder: use_run(folder, states(examples)[1])
        ),
        "store": Format(make_store, damage_bytes, use_store),
        "store, checksummed again": Format(make_store, functools.partial(damage_json, name="usae-store.json"), use_store),
        "place of a store": Format(make_store, functools.partial(damage_places, planted=of_store), use_store),
        "npy": Format(make_npy, one_of(damage_bytes, damage_bytes, damage_places), use_npy),
        "npz": Format(
            make_npz, one_of(damage_bytes, functools.partial(damage_archive, of_pickle=False), damage_places), use_npz
        ),
        "pth": Format(make_pth, one_of(damage_bytes, pth, pth, damage_places), lambda folder: use_published(folder, "x.pth")),
        "pth of many models": Format(make_many_pth, pth, use_many_pth),
        "safetensors": Format(
            make_safetensors,
            one_of(damage_bytes, damage_safetensors, damage_safetensors, damage_places),
            lambda folder: use_published(folder, "x.safetensors"),
        ),
    }
