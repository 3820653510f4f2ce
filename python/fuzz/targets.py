"""Public functions and methods of usae, each with arguments that it takes."""

from __future__ import annotations

import contextlib
import inspect
import pathlib
import pickle
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

import usae

WIDTHS = {"dinov2": 5, "vit": 6}
Arguments = dict[str, Any]
Target = tuple[Callable[..., Any], Arguments]


class Context:
    """What targets work on. Made once; each case gets copies of what it could change."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        rng = np.random.default_rng(0)
        self.truth = usae.synthetic.universal(
            WIDTHS, n_tokens=64, n_shared=4, n_private=2, frequency=0.2, private_frequency=0.2
        )
        self.acts = {name: x[:60].copy() for name, x in self.truth.tokens.acts.items()}
        recipe = usae.recipes.default(batch_size=16)
        self.sae = usae.UniversalSAE(12, 3, recipe=recipe, n_threads=1).fit(self.acts, steps=4, progress=False)
        self.blob = pickle.dumps(self.sae)
        self.codes = self.sae.encode(self.acts["vit"], "vit")
        self.evaluation = self.sae.evaluate(self.acts, partners=True)
        self.partners = self.evaluation.partners
        self.cofire_null = usae.controls(self.sae, self.acts, include=("tokens",), n_draws=20, progress=False).tokens
        self.top = usae.top_examples(self.sae, self.acts, 3, grid=(2, 3))
        self.rows = usae.TextRows(["abcdef"] * 10, np.repeat(np.arange(10), 6), [(i % 6, i % 6 + 1) for i in range(60)])
        self.top_of_texts = usae.top_examples(self.sae, self.acts, 3, text_rows=self.rows)
        self.sae.save(folder / "saved")
        self.sae.export(folder / "exported", "saelens", model="vit")
        (folder / "labels.csv").write_text("concept,label,starred\n1,fur,1\n")
        with usae.ActivationStore.create(folder / "store", grid=(2, 3), dtype="float32") as store:
            store.append({name: x.reshape(10, 6, -1) for name, x in self.acts.items()}, [f"{i}.png" for i in range(10)])
        self.independent = usae.UniversalSAE(12, 3, seed=1).initialize(WIDTHS)
        self.consistency = usae.consistency(self.sae, self.independent)
        weights = rng.standard_normal((3 * 8 * 8, 4 * 6)).astype(np.float32)
        self.network = usae.FunctionModel(
            lambda x: (np.asarray(x).reshape(len(x), -1) @ weights).reshape(len(x), 4, 6),
            lambda x, g: (np.asarray(g).reshape(len(x), -1) @ weights.T).reshape(np.shape(x)),
            size=8,
        )
        self.maximization = usae.maximize(self.sae, 1, {"vit": self.network}, steps=1, views=1, canvas=16, progress=False)


def all_of(c: Context) -> dict[str, Callable[[], Target]]:
    """Return, by name, functions that make a fresh target and its arguments."""

    def sae() -> usae.UniversalSAE:
        return pickle.loads(c.blob)

    def acts() -> Arguments:
        return {name: x.copy() for name, x in c.acts.items()}

    def fresh() -> pathlib.Path:
        return pathlib.Path(tempfile.mkdtemp(dir=c.folder)) / "new"

    def mask() -> np.ndarray:
        return np.arange(60) % 5 > 0

    x = lambda: c.acts["vit"].copy()  # noqa: E731
    quiet = {"progress": False}
    targets: dict[str, Callable[[], Target]] = {
        "UniversalSAE": lambda: (
            lambda **a: usae.UniversalSAE(**a).initialize(WIDTHS),
            {"n_concepts": 12, "k": 3, "recipe": usae.Recipe(), "seed": 0, "n_threads": 1},
        ),
        "fit": lambda: (sae().fit, {"acts": acts(), "epochs": None, "steps": 2, "validation": acts(), "callbacks": [],
        "mask": mask(), "frozen": ["vit"], **quiet}),
        "fit to a checkpoint": lambda: (
            sae().fit, {"acts": acts(), "steps": 2, "checkpoint": fresh(), "resume": True, **quiet}
        ),
        "fit_stream": lambda: (
            sae().fit_stream,
            {"batches": [acts()], "steps": 2, "buffer_tokens": 32, "validation": acts(), "callbacks": [], **quiet},
        ),
        "partial_fit": lambda: (sae().partial_fit, {"batch": acts(), "encoder": "vit", "mask": mask()}),
        "partial_fit of a new one": lambda: (usae.UniversalSAE(12, 3).partial_fit, {"batch": acts(), "encoder": None}),
        "initialize": lambda: (usae.UniversalSAE(12, 3).initialize, {"widths": dict(WIDTHS)}),
        "set_total_steps": lambda: (sae().set_total_steps, {"total_steps": 9}),
        "gradients": lambda: (sae().gradients, {"batch": acts(), "encoder": "vit", "mask": mask()}),
        "encode": lambda: (sae().encode, {"x": x(), "model": "vit", "mask": mask()}),
        "decode": lambda: (sae().decode, {"codes": c.codes, "model": "vit"}),
        "reconstruct": lambda: (sae().reconstruct, {"x": x(), "source": "vit", "target": "dinov2", "mask": mask()}),
        "preactivations": lambda: (sae().preactivations, {"x": x(), "model": "vit", "mask": mask()}),
        "evaluate": lambda: (sae().evaluate, {"acts": acts(), "threshold": 0.1, "partners": True, "mask": mask()}),
        "evaluate images": lambda: (
            sae().evaluate,
            {"acts": acts(), "vision": True, "grid": (2, 3), "embeddings": np.arange(20.0).reshape(10, 2),
             "labels": np.arange(10) % 3, "mask": mask()},
        ),
        "evaluate labels": lambda: (
            sae().evaluate, {"acts": acts(), "grid": (2, 3), "labels": {"a": np.arange(60) < 9, "b": np.arange(60) % 2 > 0}}
        ),
        "dictionary": lambda: (sae().dictionary, {"model": "vit", "units": "model"}),
        "parameters": lambda: (sae().parameters, {"model": "vit"}),
        "set_parameters": lambda: (sae().set_parameters, {"model": "vit", "parameters": c.sae.parameters("vit")}),
        "save": lambda: (sae().save, {"path": fresh(), "training_state": True}),
        "save_history": lambda: (sae().save_history, {"path": fresh()}),
        "set_params": lambda: (sae().set_params, {"n_concepts": 3, "k": 2}),
        "export": lambda: (
            sae().export,
            {"path": fresh(), "format": "saelens", "model": "vit", "target": None, "unit_rows": True, "acts": acts()},
        ),
        "push_to_hub": lambda: (  # nothing is uploaded: the name is none
            sae().push_to_hub,
            {"repo": "none", "license": "mit", "networks": {"vit": "a/b"},
             "store": usae.ActivationStore(c.folder / "store"),
             "data": "a line", "evaluation": c.evaluation, "saelens": True, "private": True, "token": "none",
             "message": "none"},
        ),
        "import_sae": lambda: (
            usae.import_sae,
            {"path": c.folder / "exported", "format": "saelens", "names": ["vit"], "k": 3, "k_max": None, "tolerance": 1e-5,
             "n_threads": 1},
        ),
        "load": lambda: (usae.load, {"path": c.folder / "saved", "n_threads": 1}),
        "Codes": lambda: (
            usae.Codes, {"values": c.codes.values.copy(), "indices": c.codes.indices.copy(), "n_concepts": 12}
        ),
        "Codes[]": lambda: (c.codes.__getitem__, {"rows": slice(2)}),
        "explorer": lambda: (
            usae.explorer,
            {"sae": sae(), "acts": acts(), "pictures": np.zeros((10, 8, 8, 3), np.uint8), "path": fresh(), "one_file": True,
             "title": "a title", "grid": (2, 3), "n": 2, "bands": 2, "side": 16, "images": 10, "seed": 0, **quiet},
        ),
        "read_labels": lambda: (usae.read_labels, {"path": c.folder / "labels.csv"}),
        "Recipe": lambda: (usae.Recipe, usae.Recipe(total_steps=200).to_dict()),
        "Recipe.replace": lambda: (usae.Recipe().replace, {"learning_rate": 1e-3, "prefixes": (0.5, 1)}),
        "Recipe.from_dict": lambda: (usae.Recipe.from_dict, {"fields": usae.Recipe().to_dict()}),
        "Recipe.from_json": lambda: (usae.Recipe.from_json, {"text": usae.Recipe().to_json()}),
        "recipes.published": lambda: (usae.recipes.published, {"total_steps": 60, "warmup_steps": 2}),
        "set_num_threads": lambda: (usae.set_num_threads, {"n": None}),
        "top_examples": lambda: (
            usae.top_examples,
            {"sae": sae(), "acts": acts(), "n": 2, "models": ["vit"], "grid": (2, 3), "one_per_image": True},
        ),
        "top_examples and others": lambda: (
            usae.top_examples,
            {"sae": sae(), "acts": acts(), "n": 2, "grid": (2, 3), "bands": 2, "disagreements": 1, "negatives": 1, "seed": 0,
             "mask": mask()},
        ),
        "top_examples of texts": lambda: (
            usae.top_examples,
            {"sae": sae(), "acts": acts(), "n": 2, "text_rows": c.rows, "one_per_text": True, "mask": mask()},
        ),
        "contexts": lambda: (c.top_of_texts.contexts, {"model": "vit", "concept": 1, "before": 3, "after": 3}),
        "report": lambda: (c.top_of_texts.report, {"concept": 1, "before": 3, "after": 3}),
        "TextRows": lambda: (
            usae.TextRows, {"texts": list(c.rows.texts), "text": c.rows.text.copy(), "spans": c.rows.spans.copy()}
        ),
        "TextRows.context": lambda: (c.rows.context, {"row": 3, "before": 3, "after": 3}),
        "TextRows.joined": lambda: (usae.TextRows.joined, {"parts": [c.rows, c.rows]}),
        "TextActivations": lambda: (
            lambda **a: sae().evaluate(usae.TextActivations(**a)), {"acts": acts(), "text_rows": c.rows, "dropped": {}}
        ),
        "align_tokens": lambda: (
            usae.align_tokens,
            {"texts": ["a bc", "d"], "spans": {"vit": [[(0, 1), (2, 4)], [(0, 1)]], "dinov2": [[(0, 2), (2, 3)], [(0, 1)]]},
             "mask": {"vit": [[True, False], [True]]}, "take": "mean"},
        ),
        "TokenAlignment.activations": lambda: (
            usae.align_tokens(["a bc"], {"vit": [[(0, 1), (2, 4)]]}).activations, {"acts": {"vit": [x()[:2]]}}
        ),
        "TokenAlignment.tokens": lambda: (usae.align_tokens(["a"], {"vit": [[(0, 1)]]}).tokens, {"model": "vit"}),
        "outlying_rows": lambda: (usae.outlying_rows, {"acts": acts(), "multiple": 5.0}),
        "consistency": lambda: (
            usae.consistency,
            {"sae": sae(), "independent": c.independent, "concepts": [0, 1, 2], "threshold": 0.5, "seed": 0},
        ),
        "fit_independent": lambda: (usae.fit_independent, {"acts": acts(), "like": sae(), "seed": 1, "steps": 2, **quiet}),
        "controls": lambda: (
            usae.controls,
            {"sae": sae(), "acts": acts(), "train": acts(), "include": ("tokens", "linear"), "threshold": 0.0,
             "tokens_per_image": 6, "level": 0.9, "n_draws": 5, "n_permutations": 5, "steps": 2, "seed": 0, **quiet},
        ),
        "latent_scaling": lambda: (
            usae.latent_scaling, {"sae": sae(), "acts": acts(), "concepts": [0, 1], "owner": None, "center": True, **quiet}
        ),
        "energy_fit": lambda: (c.evaluation.energy_fit, {"least_cofires": 1}),
        "universal": lambda: (
            c.evaluation.universal, {"share": 0.05, "entropy": 0.9, "error_rate": 0.05, "null": c.cofire_null},
        ),
        "Partners.share": lambda: (c.partners.share, {"top": 1, "weighted": True}),
        "mean_agreement": lambda: (c.evaluation.mean_agreement, {"least_firings": 1}),
        "mean_cofire_proportion": lambda: (c.evaluation.mean_cofire_proportion, {"top": 5}),
        "objective": lambda: (
            usae.objective,
            {"sae": sae(), "activations": x().reshape(10, 6, 6), "model": "vit", "concept": 1, "kind": "alignment",
            "power": 2.0,
             "token": None},
        ),
        "maximize": lambda: (
            usae.maximize,
            {"sae": sae(), "concept": 1, "models": {"vit": c.network}, "steps": 1, "kind": "code", "power": 2.0, "token": 0,
             "warmup": 0, "joint": False, "dataset": c.evaluation, "n_seeds": 1, "seed": 0, "views": 1, "canvas": 16, **quiet},
        ),
        "Maximizer": lambda: (
            usae.Maximizer,
            {"models": {"vit": c.network}, "canvas": 16, "steps": 2, "views": 1, "parametrization": "pixels", "magnitude": None,
             "start": None, "crops": (1.0, 0.5), "noise": 0.05, "total_variation": 0.0, "l2": 0.0, "contrast": 1.0,
             "decorrelate": True, "optimizer": "adam", "learning_rate": 0.1, "seed": 0, "n_threads": 1},
        ),
        "Maximizer.tell": lambda: _told(c),
        "FunctionModel": lambda: (
            usae.FunctionModel,
            {"forward": c.network.__call__, "vjp": c.network.vjp, "size": 8, "mean": (0.5, 0.5, 0.5), "std": 1.0},
        ),
        "Checkpoints": lambda: (
            usae.Checkpoints, {"path": fresh(), "every_steps": 2, "every_minutes": 1.0, "keep": 2}
        ),
        "ActivationStore": lambda: (usae.ActivationStore, {"path": c.folder / "store"}),
        "ActivationStore.create": lambda: (
            _created, {"path": fresh(), "models": dict(WIDTHS), "dtype": "float16", "grid": (2, 3), "metadata": {"a": 1}}
        ),
        "append": lambda: (
            usae.ActivationStore.create(fresh(), grid=(2, 3)).append,
            {"acts": {name: a.reshape(10, 6, -1) for name, a in acts().items()}, "image_names": [str(i) for i in range(10)]},
        ),
        "MaskedActivations": lambda: (
            lambda **a: sae().evaluate(usae.MaskedActivations(**a)), {"acts": acts(), "mask": np.arange(60) % 3 > 0}
        ),
        "WeaklyPaired": lambda: (
            lambda part, other, shares: sae().fit(usae.WeaklyPaired(part, other, shares=shares), steps=2, progress=False),
            {"part": acts(), "other": {"vit": x()}, "shares": [0.5, 0.5]},
        ),
        "set_mask": lambda: (
            lambda **a: usae.ActivationStore(_copied(c)).set_mask(**a), {"mask": np.arange(60).reshape(10, 6) % 3 > 0}
        ),
        "batches": lambda: (
            lambda **a: next(iter(usae.ActivationStore(c.folder / "store").batches(**a))),
            {"batch_size": 4, "seed": 0, "position": 0},
        ),
        "StoredArray[]": lambda: (usae.ActivationStore(c.folder / "store")["vit"].__getitem__, {"rows": slice(2)}),
        "load_published": lambda: (
            usae.load_published, {"models": {"vit": fresh()}, "statistics": {"vit": (0.0, 1.0)}, "k": 3, "recipe": None,
            "seed": 0}
        ),
        "import_published": lambda: (
            usae.import_published,
            {"folder": c.folder, "path": fresh(), "models": {"vit": "vit"}, "tokens": None, "grid": (2, 3), "dtype": "float16",
             "shard_images": 4, **quiet},
        ),
        "synthetic.universal": lambda: (
            usae.synthetic.universal,
            {"widths": dict(WIDTHS), "n_tokens": 32, "n_shared": 4, "n_pairwise": 1, "n_private": 2, "noise": 0.1,
             "correlation": 0.1, "group_size": 2, "frequency": 0.1, "shape": 2.0, "offset": 1.0, "scale_spread": 2.0,
             "seed": 0},
        ),
        "synthetic.sample": lambda: (c.truth.sample, {"n_tokens": 8, "seed": 1}),
        "synthetic.score": lambda: (
            usae.synthetic.score,
            {"sae": sae(), "truth": c.truth, "held_out": None, "cosine": 0.9, "correlation": 0.8, "f1": 0.5},
        ),
        "plot.maximization": lambda: (usae.plot.maximization, {"results": [c.maximization], "top": None, "images": None,
        "n": 2}),
        "demo.run": lambda: (
            usae.demo.run, {"output": fresh(), "small": "only with a bad argument", "seed": -1}
        ),
    }  # fmt: skip
    for name, more in {"cross_reconstruction": {}, "firing_entropy": {"bins": 4}, "cofire_proportion": {"top": 5, "window": 1},
                       "energy_cofires": {"least_cofires": 1}}.items():  # fmt: skip
        targets[f"plot.{name}"] = lambda name=name, more=more: (  # type: ignore[misc]
            getattr(usae.plot, name), {"evaluation": c.evaluation, "ax": None, "null": c.evaluation, **more}
        )  # fmt: skip
    targets["plot.consistency"] = lambda: (usae.plot.consistency, {"consistency": c.consistency, "ax": None})
    images = np.zeros((10, 4, 6, 3), np.uint8)
    targets["plot.concept"] = lambda: (
        usae.plot.concept,
        {"sae": sae(), "concept": 1, "acts": acts(), "pictures": images.copy(), "top": None, "model": "vit", "n": 1,
         "title": "fur", "grid": (2, 3), "crop": False, "mask": mask()},
    )  # fmt: skip
    targets["plot.concepts"] = lambda: (
        usae.plot.concepts,
        {"sae": sae(), "concepts": [1, 2], "acts": acts(), "pictures": images.copy(), "top": c.top, "n": 1,
         "titles": ["fur", "sky"], "grid": (2, 3), "crop": True, "mask": None},
    )  # fmt: skip
    targets["plot.training"] = lambda: (usae.plot.training, {"run": sae().history_, "window": 2})
    return targets


def _copied(c: Context) -> pathlib.Path:
    return shutil.copytree(c.folder / "store", pathlib.Path(tempfile.mkdtemp(dir=c.folder)) / "store")


def _created(**arguments: Any) -> None:
    usae.ActivationStore.create(**arguments).close()


def _told(c: Context) -> Target:
    maximizer = usae.Maximizer({"vit": c.network}, canvas=16, steps=2, views=1, n_threads=1)
    views = maximizer.ask()
    shape = views["vit"].shape if isinstance(views, dict) else np.shape(views)
    return maximizer.tell, {"gradient": {"vit": np.ones(shape, np.float32)}}


def covered() -> set[str]:
    """Public names of usae that are called above."""
    return set(inspect.getsource(all_of).replace("(", ".").replace(",", ".").replace("\n", ".").split("."))


def fingerprint(given: Any, depth: int = 3) -> Any:
    """Return a value that differs if an argument was modified."""
    with contextlib.suppress(Exception):
        if isinstance(given, np.ndarray):
            return given.dtype.str, given.shape, b"" if given.dtype.hasobject else given.tobytes()
        if isinstance(given, dict) and depth:
            return [(repr(key)[:99], fingerprint(item, depth - 1)) for key, item in given.items()]
        if type(given) in (list, tuple) and depth:
            return [fingerprint(item, depth - 1) for item in given[:50]], len(given)
        if isinstance(given, (usae.Codes,)):
            return given.values.tobytes(), given.indices.tobytes()
        if isinstance(given, usae.UniversalSAE):
            return state_of(given)
    return type(given).__name__


def state_of(sae: usae.UniversalSAE) -> Any:
    """Return everything that an autoencoder is, as values that compare."""
    learned = None
    if sae.__sklearn_is_fitted__():
        parameters = {name: {key: a.tobytes() for key, a in sae.parameters(name).items()} for name in sae.model_names_}
        learned = sae.n_steps_, repr(sae.history_), sae.recipe_, parameters
    params = {
        name: item if isinstance(item, (int, float, str, type(None))) else type(item) for name, item in sae.get_params().items()
    }
    return params, learned


def owner_of(function: Callable[..., Any]) -> Any:
    owner = getattr(function, "__self__", None)
    return owner if isinstance(owner, usae.UniversalSAE) else None
