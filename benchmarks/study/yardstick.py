"""Autoencoders that are compared by metrics of others: how they are trained, and what they are compared with."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import usae
from study.labelled import Labelled, Size

RATES = (1e-3, 3e-3, 1e-2)
"""Learning rates of which the best on the training tokens is chosen, for each library and network."""

SAMPLE = 20_000
"""Training tokens of which the unexplained variance chooses the rate."""

LIBRARIES = {"sae_lens": "SAELens", "dictionary_learning": "dictionary_learning", "overcomplete": "overcomplete"}

WORKER = Path(__file__).resolve().parents[1] / "workers" / "independent_training.py"


@dataclasses.dataclass(frozen=True)
class Training:
    """What all trainings have in common. All libraries get the same schedule of the learning rate, as far as they have one."""

    steps: int = 400
    batch: int = 512
    warmup: int = 100

    @property
    def decay(self) -> int:
        return self.steps // 5

    @property
    def dead_steps(self) -> int:
        """Steps without firing after which a concept is dead: the default recipe's share of the run."""
        return max(1, self.steps // 20)


@dataclasses.dataclass(frozen=True)
class Compared:
    """A line of the table, for one network and seed.

    Attributes
    ----------
    method : str
        What the line is called.
    seed : int
        The seed of its training, and of the metrics' splits and shuffles.
    what : str
        "autoencoder" for a folder that VISAEBench loads, and else what workers/independent_metrics.py knows.
    path : Path or None
        The folder, or the file of rows.
    codes : bool
        Whether metrics of codes mean something.
    rate : float or None
        The learning rate that was chosen among `RATES`.
    """

    method: str
    seed: int
    what: str = "autoencoder"
    path: Path | None = None
    codes: bool = True
    rate: float | None = None


class Autoencoders:
    """Trains what is not in `folder` yet.

    Parameters
    ----------
    world, size, training : Labelled, Size, Training
        The activations, the size of each autoencoder, and what all trainings have in common.
    folder : Path
        Where everything is kept.
    networks : list of str
        The networks that are compared. The universal autoencoder is trained on all of the world.
    """

    def __init__(self, world: Labelled, size: Size, training: Training, folder: Path, networks: list[str]):
        self.world, self.size, self.training, self.folder, self.networks = world, size, training, folder, networks

    def ours(self, seed: int) -> Iterator[tuple[str, Compared]]:
        """Yield the network and the line of each autoencoder of usae."""
        yield from self._default("usae, all networks", list(self.world.train), seed)
        for name in self.networks:
            yield from self._default("usae, one network", [name], seed)
            yield name, self._plain(name, seed)

    def _default(self, method: str, names: list[str], seed: int) -> Iterator[tuple[str, Compared]]:
        recipe = usae.recipes.default(batch_size=self.training.batch)
        paths = {name: self.folder / name / f"{method}, {seed}" for name in names}
        if not all(made_by(recipe, path) for path in paths.values()):
            sae = self._fit(recipe, names, seed)
            for name, path in paths.items():
                save_exported(sae, name, recipe, path)
        for name in self.networks:
            if name in paths:
                yield name, Compared(method, seed, path=paths[name])

    def _plain(self, name: str, seed: int) -> Compared:
        """Train TopK with rows of norm 1, auxiliary loss and nothing else, with the best of the libraries' rates."""

        def path_at(rate: float, of: int) -> Path:
            return self.folder / name / f"plain at {rate}, {of}"

        def train(rate: float, of: int) -> None:
            recipe = plain(self.training.batch, rate)
            if made_by(recipe, path_at(rate, of)):
                return
            sae = self._fit(recipe, [name], of)
            x = self.world.train[name][:SAMPLE]
            residual = x - sae.decode(sae.encode(x, name), name)
            fvu = float(np.square(residual).sum() / np.square(x).sum())
            save_exported(sae, name, recipe, path_at(rate, of), {"train_fvu": fvu})

        for rate in RATES:
            train(rate, 0)
        best = min(RATES, key=lambda rate: _train_fvu(path_at(rate, 0)))
        train(best, seed)
        return Compared("usae, plain TopK", seed, path=path_at(best, seed), rate=best)

    def _fit(self, recipe: usae.Recipe, names: list[str], seed: int) -> usae.UniversalSAE:
        sae = usae.UniversalSAE(self.size.n_concepts, self.size.k, recipe=recipe, seed=seed, n_threads=1)
        return sae.fit({name: self.world.train[name] for name in names}, steps=self.training.steps, progress=False)

    def of_library(self, library: str, python: Path, seeds: int) -> Iterator[tuple[str, Compared]]:
        """Train with a library, import what it saves, and yield the network and the line of each."""
        names = self.networks
        self._train(library, python, [(name, rate, 0) for name in names for rate in RATES])
        best = {n: min(RATES, key=lambda rate: _train_fvu(self._folder_of(library, n, rate, 0))) for n in names}
        self._train(library, python, [(name, best[name], seed) for name in names for seed in range(1, seeds)])
        for name in names:
            for seed in range(seeds):
                path = self._folder_of(library, name, best[name], seed)
                if not (path / "export").exists():
                    imported = imported_from(path, library, self.size.k)
                    compare(imported, self.sample(name), path)
                    imported.export(path / "export", "visaebench")
                yield name, Compared(LIBRARIES[library], seed, path=path / "export", rate=best[name])

    def _train(self, library: str, python: Path, runs: list[tuple[str, float, int]]) -> None:
        jobs = []
        for name, rate, seed in runs:
            path = self._folder_of(library, name, rate, seed)
            if (path / "told.json").exists():
                continue
            path.mkdir(parents=True, exist_ok=True)
            np.save(self.folder / f"sample.{name}.npy", self.sample(name))
            job = dataclasses.asdict(self.training) | {"decay": self.training.decay, "dead_steps": self.training.dead_steps}
            job |= {"n_concepts": self.size.n_concepts, "k": self.size.k, "seed": seed, "rate": rate, "sample": SAMPLE}
            job |= {"train": str(self.folder / f"train.{name}.npy"), "held_out": str(self.folder / f"sample.{name}.npy")}
            jobs.append(job | {"out": str(path)})
        if jobs:
            file = self.folder / f"{library}.json"
            file.write_text(json.dumps(jobs))
            subprocess.run([python, WORKER, library, file], check=True, env=os.environ | {"TQDM_DISABLE": "1"})

    def _folder_of(self, library: str, name: str, rate: float, seed: int) -> Path:
        return self.folder / name / f"{library} at {rate}, {seed}"

    def sample(self, name: str) -> np.ndarray:
        """Return 4,000 held-out tokens, in which codes of a library are compared with those of its import."""
        x = self.world.held_out[name]
        return x.reshape(-1, x.shape[-1])[:: max(1, x.shape[0] * x.shape[1] // 4000)][:4000]

    def others(self, seed: int) -> Iterator[tuple[str, Compared]]:
        """Yield the network and the line of each null, baseline and ceiling."""
        for name in self.networks:
            x, folder = self.world.train[name], self.folder / name
            folder.mkdir(exist_ok=True)
            spread = np.maximum(x.std(0), 1e-6)
            save_topk(folder / "neurons", np.diag(1 / spread), np.diag(spread), self.size.k)
            encoder = np.random.default_rng(seed).standard_normal((self.size.n_concepts, x.shape[1]))
            encoder /= np.linalg.norm(encoder, axis=1, keepdims=True)
            save_topk(folder / f"random, {seed}", encoder, best_decoder(x[:SAMPLE], encoder, self.size.k), self.size.k)
            components = np.linalg.eigh(x.T.astype(np.float64) @ x)[1][:, ::-1][:, : self.size.k].T
            for file, rows in {"components": components, "mean": 0 * components[:1], "all": np.eye(x.shape[1])}.items():
                np.save(folder / f"{file}.npy", rows.astype(np.float32))
            yield name, Compared("random encoder", seed, path=folder / f"random, {seed}")
            if seed > 0:
                continue  # the others have no seed
            yield name, Compared("neurons, k largest", seed, path=folder / "neurons")
            yield name, Compared("neurons, all", seed, "linear", folder / "all.npy")
            yield name, Compared("k principal components", seed, "linear", folder / "components.npy", codes=False)
            yield name, Compared("mean token", seed, "linear", folder / "mean.npy", codes=False)
            for what in ("told", "half of the grid", "3 x 3 tokens"):
                yield name, Compared("class and kind, told" if what == "told" else what, seed, what)


def plain(batch: int, rate: float) -> usae.Recipe:
    """Return the recipe of one network that is nearest to what the libraries do."""
    changes = {"merge_cosine": None, "prefixes": None, "prefix_loss": "mean", "dictionary_norm": "unit"}
    return usae.recipes.default(batch_size=batch, learning_rate=rate, **changes)


def made_by(recipe: usae.Recipe, path: Path) -> bool:
    """Whether the export in `path` was trained with this recipe. The default of an older version may have been another one."""
    file = path / "recipe.json"
    return file.exists() and json.loads(file.read_text()) == json.loads(json.dumps(dataclasses.asdict(recipe)))


def save_exported(sae: usae.UniversalSAE, name: str, recipe: usae.Recipe, path: Path, told: dict[str, float] | None = None):
    """Replace the export of a model, what was told of its training, and last the recipe."""
    shutil.rmtree(path, ignore_errors=True)
    sae.export(path, "visaebench", model=name)
    if told is not None:
        (path / "told.json").write_text(json.dumps(told))
    (path / "recipe.json").write_text(json.dumps(dataclasses.asdict(recipe)))


def _train_fvu(path: Path) -> float:
    return float(json.loads((path / "told.json").read_text())["train_fvu"])


def imported_from(path: Path, library: str, k: int) -> usae.UniversalSAE:
    """Import what workers/independent_training.py saved."""
    return usae.import_sae(path / "save" / "state.pt" if library == "overcomplete" else path / "save", k=k)


def compare(sae: usae.UniversalSAE, x: np.ndarray, path: Path) -> None:
    """Write how the codes and reconstructions of an import differ from those that the library computed."""
    (name,) = sae.model_names_
    with np.load(path / "told.npz") as told:
        codes, values = told["codes"], told["values"]
    own = sae.encode(x, name)
    dense, decoded = own.to_dense(), sae.decode(own, name)
    same = ((dense > 0) == (codes > 0)).all(1)
    found = {
        "same concepts": float(same.mean()),
        "codes": float(np.abs(dense - codes)[same].max() / codes.max()),
        "reconstructions": float(np.abs(decoded - values)[same].max() / np.abs(values).max()),
    }
    (path / "import.json").write_text(json.dumps(found))


def save_topk(path: Path, encoder: np.ndarray, decoder: np.ndarray, k: int) -> None:
    """Write a TopK autoencoder without biases in VISAEBench's format; both arrays are [n_concepts, width]."""
    path.mkdir(parents=True, exist_ok=True)
    tensors = {"encoder.weight": encoder, "decoder.weight": decoder, "encoder.bias": np.zeros(len(encoder))}
    save_file({name: np.ascontiguousarray(x, np.float32) for name, x in tensors.items()}, path / "model.safetensors")
    config = {"activation": "topk", "k": k, "input_dim": encoder.shape[1], "hidden_dim": len(encoder)}
    (path / "config.json").write_text(json.dumps(config))


def best_decoder(x: np.ndarray, encoder: np.ndarray, k: int) -> np.ndarray:
    """Return the dictionary, [n_concepts, width], that reconstructs `x` best from the encoder's TopK codes."""
    p = np.maximum(x @ encoder.T, 0)
    codes = np.where(p >= np.partition(p, -k, axis=1)[:, -k, None], p, 0)
    moments = codes.T @ codes
    return np.linalg.solve(moments + 1e-6 * np.trace(moments) / len(moments) * np.eye(len(moments)), codes.T @ x)
