"""Coordinated activation maximization: for one concept, the image that each model wants to see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from usae import _checks
from usae._errors import InvalidInputError
from usae._evaluation import Evaluation
from usae._image_models import ImageModel, as_image_models
from usae._inputs import check_known
from usae._maximization import Firing, Maximization
from usae._maximizer import Maximizer, resized
from usae._objective import Objective, check_kind, check_power, objective
from usae._progress import progress_bar
from usae._sae import UniversalSAE


def maximize(
    sae: UniversalSAE,
    concept: int,
    models: Mapping[str, Any],
    *,
    steps: int = 256,
    kind: Objective = "alignment",
    power: float = 2.0,
    token: int | None = None,
    warmup: int = 0,
    joint: bool = False,
    dataset: Evaluation | None = None,
    n_seeds: int = 1,
    seed: int = 0,
    progress: bool | None = None,
    **options: Any,
) -> Maximization:
    """Optimise one image for each model so that the model fires a concept, and say how far that went.

    All images start alike and are seen through the same crops, so that what differs between them differs between the models.

    Parameters
    ----------
    sae : UniversalSAE
        Only read.
    concept : int
    models : mapping of str to model
        Networks by the names they have in `sae`, all of them or some: a `usae.torch.Model`, a PyTorch module whose layer
        `usae.torch.Model` finds, or a `FunctionModel`. The layer must be the one whose activations `sae` was trained on, at
        the scale they had.
    steps : int
    kind, power, token
        What is maximised; see `usae.objective`.
    warmup : int
        Steps with "preactivation" before `kind`, for "code", which has no gradient until the concept fires.
    joint : bool
        One image that fires the concept in all models at once.
    dataset : Evaluation, optional
        Of `sae` on natural images: peaks are compared with its largest codes.
    n_seeds : int
        Optimise from so many seeds; the images are those of the first, the others give `Maximization.stability`.
    seed : int
        Of start, crops and noise.
    progress : bool, optional
        True or False; None shows a bar where somebody looks.
    **options
        Of `Maximizer`: `canvas`, `views`, `parametrization`, `crops`, `learning_rate`, ...

    Returns
    -------
    Maximization

    Raises
    ------
    InvalidInputError
        For an unknown concept or model, activations of another width than `sae` was trained on, a network in training mode or
        without a gradient, and gradients that are not finite.

    Examples
    --------
    >>> net = usae.torch.Model(timm.create_model("vit_base_patch16_224", pretrained=True).eval())
    >>> found = usae.maximize(sae, concept=1530, models={"dinov2": dino, "vit": net}, seed=0)
    >>> print(found.report())
    >>> found.plot()
    """
    if not isinstance(sae, UniversalSAE):
        raise InvalidInputError(f"sae must be a usae.UniversalSAE, got {type(sae).__name__}")
    fitted = sae._initialized()
    concept = _checks.integer(concept, "concept", 0, fitted.n_concepts - 1, ", the autoencoder's concepts")
    for name in models if isinstance(models, Mapping) else ():
        check_known(name, fitted.names, "models")
    networks = as_image_models(models)
    check_kind(kind)
    power = check_power(power)
    n_seeds = _checks.integer(n_seeds, "n_seeds", 1, 2**16)
    warmup = _checks.integer(warmup, "warmup", 0, 2**30)
    seed = _checks.integer(seed, "seed", 0, 2**64 - n_seeds)
    peaks = _dataset_peaks(dataset, networks, concept, fitted.n_concepts)
    ascent = _Ascent(sae, concept, kind, power, token, warmup, steps, options)
    groups = [networks] if joint else [{name: network} for name, network in networks.items()]
    runs = []
    with progress_bar(n_seeds * len(groups) * ascent.steps, progress, f"concept {concept}") as bar:
        for number in range(n_seeds):
            runs.append(_Run.of([ascent.run(group, seed + number, bar) for group in groups], networks))
    return _result(sae, concept, networks, joint, runs, peaks)


class _Ascent:
    """One concept's way uphill."""

    def __init__(
        self, sae: UniversalSAE, concept: int, kind: Objective, power: float, token: int | None, warmup: int, steps: int,
        options: Mapping[str, Any],
    ):  # fmt: skip
        self.sae, self.concept, self.kind, self.power, self.token, self.warmup = sae, concept, kind, power, token, warmup
        self.steps = _checks.integer(steps, "steps", 1, 2**30)
        self.options = dict(options)

    def run(self, models: Mapping[str, ImageModel], seed: int, bar: Any) -> _Image:
        """One image for these models."""
        maximizer = Maximizer(dict(models), steps=self.steps, seed=seed, **self.options)
        history, lengths = [], []
        for step in range(self.steps):
            values, gradients = {}, {}
            for name, views in maximizer.ask().items():
                values[name], gradients[name] = self._slope(models[name], name, views, step)
            lengths.append(maximizer.tell(gradients))
            history.append(values)
            bar.set_postfix_str(", ".join(f"{name} {value:.3g}" for name, value in values.items()), refresh=False)
            bar.update()
        return _Image(
            maximizer.image,
            maximizer.attribution,
            {name: np.array([values[name] for values in history]) for name in models},
            {name: any(length[name] > 0 for length in lengths) for name in models},
            _crops(maximizer, self.options),
        )

    def _slope(self, model: ImageModel, name: str, views: np.ndarray, step: int) -> tuple[float, np.ndarray]:
        activations, pull = model.vjp(views)
        if len(activations) != len(views):
            raise InvalidInputError(f"models[{name!r}] must give activations of {len(views)} images, got {len(activations)}")
        values, gradient = objective(
            self.sae,
            activations,
            name,
            self.concept,
            kind="preactivation" if step < self.warmup else self.kind,
            power=self.power,
            token=self.token,
        )
        if not gradient.any():
            return float(values.mean()), np.zeros_like(views)
        return float(values.mean()), pull(gradient)


class _Image:
    """What became of one start."""

    def __init__(
        self, image: np.ndarray, attribution: np.ndarray, history: dict[str, np.ndarray], started: dict[str, bool],
        crops: np.ndarray,
    ):  # fmt: skip
        self.image, self.attribution, self.history, self.started, self.crops = image, attribution, history, started, crops


class _Run:
    """The images of one seed, by model; a joint one stands for all."""

    def __init__(self, images: dict[str, _Image]):
        self.images = images

    @classmethod
    def of(cls, found: list[_Image], names: Mapping[str, Any]) -> _Run:
        return cls({name: next(image for image in found if name in image.history) for name in names})


def _crops(maximizer: Maximizer, options: Mapping[str, Any]) -> np.ndarray:
    """Sixteen boxes [n, 4] on a lattice, as large as the crops were halfway."""
    height, width = maximizer.shape
    side = max(1, round(sum(options.get("crops", (0.5, 0.1))) / 2 * min(height, width)))
    tops, lefts = (np.linspace(0, length - side, 4).round().astype(int) for length in (height, width))
    return np.array([[top, left, side, side] for top in tops for left in lefts])


def _dataset_peaks(dataset: object, networks: Mapping[str, ImageModel], concept: int, n_concepts: int) -> np.ndarray:
    if dataset is None:
        return np.full(len(networks), np.nan)
    if not isinstance(dataset, Evaluation):
        raise InvalidInputError(f"dataset must be what UniversalSAE.evaluate returns, got {type(dataset).__name__}")
    if dataset.max_activation.shape[1] != n_concepts:
        raise InvalidInputError(f"dataset must be of {n_concepts} concepts, got {dataset.max_activation.shape[1]}")
    for name in networks:
        check_known(name, dataset.model_names, "models")
    found = np.array([dataset.max_activation[dataset.model_names.index(name), concept] for name in networks], float)
    return np.where(found > 0, found, np.nan)


def _result(
    sae: UniversalSAE, concept: int, networks: Mapping[str, ImageModel], joint: bool, runs: list[_Run], peaks: np.ndarray
) -> Maximization:
    names = tuple(networks)
    first = runs[0].images
    started = np.array([first[name].started[name] for name in names])
    images = np.stack([first[name].image for name in names])
    images[~started] = np.nan
    whole = [[_Look.of(sae, concept, networks[j], j, first[i].image, None) for j in names] for i in names]
    parts = [[_Look.of(sae, concept, networks[j], j, first[i].image, first[i].crops) for j in names] for i in names]
    codes = [[whole[i][i].mean_code for i in range(len(names))]]
    for run in runs[1:]:
        codes.append([_Look.of(sae, concept, networks[name], name, run.images[name].image, None).mean_code for name in names])
    return Maximization(
        concept=concept,
        model_names=names,
        joint=bool(joint),
        images=images,
        attribution=np.stack([first[name].attribution for name in names]),
        history=np.stack([first[name].history[name] for name in names]),
        started=started,
        whole=_firing(whole),
        parts=_firing(parts),
        dataset_peak=peaks,
        r2=np.array([whole[i][i].r2 for i in range(len(names))]),
        stability=np.array([_stability([seed[i] for seed in codes]) for i in range(len(names))]),
    )


class _Look:
    """What one model sees in one image."""

    def __init__(self, share: float, peak: float, rank: float, of_code: float, r2: float, mean_code: np.ndarray):
        self.share, self.peak, self.rank, self.of_code, self.r2, self.mean_code = share, peak, rank, of_code, r2, mean_code

    @classmethod
    def of(
        cls, sae: UniversalSAE, concept: int, model: ImageModel, name: str, image: np.ndarray, boxes: np.ndarray | None
    ) -> _Look:
        activations = np.asarray(model.vjp(resized(image, model, boxes))[0], np.float32)
        tokens = activations.reshape(-1, activations.shape[-1])
        codes = sae.encode(tokens, name)
        here = (codes.indices == concept) & (codes.values > 0)
        mean_code = np.bincount(
            codes.indices[codes.indices >= 0], weights=codes.values[codes.indices >= 0], minlength=codes.n_concepts
        ) / len(tokens)
        total = mean_code.sum()
        about_mean = np.square(tokens - sae.parameters(name)["mean"], dtype=np.float64).sum()
        error = np.square(tokens - sae.decode(codes, name), dtype=np.float64).sum()
        return cls(
            share=float(here.any(1).mean()),
            peak=float(codes.values[here].max(initial=0)),
            rank=float(np.nonzero(here)[1].mean() + 1) if here.any() else float("nan"),
            of_code=float(mean_code[concept] / total) if total > 0 else 0.0,
            r2=float(1 - error / about_mean) if about_mean > 0 else float("nan"),
            mean_code=mean_code,
        )


def _firing(looks: list[list[_Look]]) -> Firing:
    names = ("share", "peak", "rank", "of_code")
    return Firing(**{name: np.array([[getattr(look, name) for look in row] for row in looks]) for name in names})


def _stability(codes: list[np.ndarray]) -> float:
    """Mean cosine over pairs of seeds."""
    unit = [code / max(np.linalg.norm(code), 1e-30) for code in codes]
    cosines = [float(a @ b) for i, a in enumerate(unit) for b in unit[:i]]
    return float(np.mean(cosines)) if cosines else float("nan")
