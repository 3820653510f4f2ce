"""Coordinated activation maximization: for one concept, an image for each model that makes the model fire the concept."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from usae._base import checks
from usae._base.progress import progress_bar
from usae._data.activations import check_known
from usae._estimator.universal_sae import UniversalSAE, checked_sae
from usae.analysis.evaluation import Evaluation
from usae.errors import InvalidInputError
from usae.maximization.image_models import ImageModel, as_image_models
from usae.maximization.maximizer import Maximizer, default_canvas
from usae.maximization.objective import Objective, check_kind, check_power, objective
from usae.maximization.result import Maximization
from usae.maximization.scores import ConceptScores, as_firing, peak_ratio, score_image


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
    """Optimise one image for each model so that the model fires a concept, and measure how far that succeeds.

    All images start alike and are optimised on the same crops, so that differences between images are due to the models.

    Parameters
    ----------
    sae : UniversalSAE
        The autoencoder. It is not changed.
    concept : int
        Number of the concept.
    models : mapping of str to model
        Networks by their names in `sae`, all of them or some: a `usae.torch.Model`, a PyTorch module whose layer
        `usae.torch.Model` finds, or a `FunctionModel`. The layer must be the one whose activations `sae` was trained on, in the
        same units.
    steps : int
        Number of optimisation steps. Default: 256.
    kind : "alignment", "preactivation", "code" or "logsumexp"
        Objective; see `usae.objective`. Default: "alignment".
    power : float
        Exponent of "alignment"; see `usae.objective`. Default: 2.0.
    token : int, optional
        The one token of each view that counts; see `usae.objective`. Default: None, which takes the mean over all tokens.
    warmup : int
        Number of steps with the objective "preactivation" before `kind`. "code" needs it, because it has no gradient until the
        concept fires. Default: 0.
    joint : bool
        Whether to optimise one image that fires the concept in all models. Default: False.
    dataset : Evaluation, optional
        Evaluation of `sae` on natural images, with whose largest codes the peaks are compared. Default: None.
    n_seeds : int
        Number of seeds to optimise from. The images are those of the first seed; the others are used for
        `Maximization.stability`. Default: 1.
    seed : int
        Seed of start, crops and noise. Default: 0.
    progress : bool, optional
        Whether to show a progress bar. Default: None, which shows it in a terminal or a notebook.
    **options
        Options of `Maximizer`, such as `canvas`, `views`, `parametrization`, `crops` and `learning_rate`. All images have the
        same canvas, by default that for the model with the largest images.

    Returns
    -------
    Maximization
        The images and their scores.

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
    autoencoder = checked_sae(sae)._initialized()
    concept = checks.integer(concept, "concept", 0, autoencoder.n_concepts - 1, ", the autoencoder's concepts")
    for name in models if isinstance(models, Mapping) else ():
        check_known(name, autoencoder.names, "models")
    networks = as_image_models(models)
    check_kind(kind)
    power = check_power(power)
    joint = checks.boolean(joint, "joint")
    n_seeds = checks.integer(n_seeds, "n_seeds", 1, 2**16)
    warmup = checks.integer(warmup, "warmup", 0, 2**30)
    seed = checks.integer(seed, "seed", 0, 2**64 - n_seeds)
    _check_dataset(dataset, networks, autoencoder.n_concepts)
    steps = checks.integer(steps, "steps", 1, 2**30)
    _check_options(options)
    options = {"canvas": default_canvas(networks)} | {name: value for name, value in options.items() if value is not None}
    ascent = _Ascent(sae, concept, kind, power, token, warmup, steps, options)
    groups = [networks] if joint else [{name: network} for name, network in networks.items()]
    runs: list[dict[str, _Image]] = []
    with progress_bar(n_seeds * len(groups) * steps, progress, f"concept {concept}") as bar:
        for number in range(n_seeds):
            found = [(group, ascent.run(group, seed + number, bar)) for group in groups]
            runs.append({name: image for group, image in found for name in group})
    return _result(sae, concept, networks, joint, runs, dataset)


@dataclasses.dataclass(frozen=True)
class _Image:
    """The optimised image of one seed, for one model, or for all models if it is a joint image."""

    image: np.ndarray
    attribution: np.ndarray
    history: dict[str, np.ndarray]
    started: dict[str, bool]
    before: np.ndarray
    """The image before the first step."""
    crops: np.ndarray
    views: int


@dataclasses.dataclass(frozen=True)
class _Ascent:
    """Gradient ascent for one concept."""

    sae: UniversalSAE
    concept: int
    kind: Objective
    power: float
    token: int | None
    warmup: int
    steps: int
    options: dict[str, Any]

    def run(self, models: Mapping[str, ImageModel], seed: int, bar: Any) -> _Image:
        """Optimise one image for these models."""
        maximizer = Maximizer(dict(models), steps=self.steps, seed=seed, **self.options)
        history: dict[str, list[float]] = {name: [] for name in models}
        started = dict.fromkeys(models, False)
        before = maximizer.image
        for step in range(self.steps):
            gradients = {}
            for name, views in maximizer.ask().items():
                value, gradients[name] = self._gradient(models[name], name, views, step)
                history[name].append(value)
            for name, length in maximizer.tell(gradients).items():
                started[name] |= length > 0
            bar.set_postfix_str(", ".join(f"{name} {values[-1]:.3g}" for name, values in history.items()), refresh=False)
            bar.update()
        crops = self._crops(maximizer)
        values = {name: np.array(of_model) for name, of_model in history.items()}
        return _Image(maximizer.image, maximizer.attribution, values, started, before, crops, maximizer.views)

    def _gradient(self, model: ImageModel, name: str, views: np.ndarray, step: int) -> tuple[float, np.ndarray]:
        """Return the objective and its gradient with respect to the views."""
        activations, pull = model.vjp(views)
        if len(activations) != len(views):
            raise InvalidInputError(f"models[{name!r}] must give activations of {len(views)} images, got {len(activations)}")
        kind: Objective = "preactivation" if step < self.warmup else self.kind
        values, gradient = objective(self.sae, activations, name, self.concept, kind=kind, power=self.power, token=self.token)
        return float(values.mean()), pull(gradient) if gradient.any() else np.zeros_like(views)

    def _crops(self, maximizer: Maximizer) -> np.ndarray:
        """Return sixteen boxes, [n, 4], on a lattice. They are as large as the crops were halfway through the steps."""
        height, width = maximizer.shape
        side = max(1, round(sum(maximizer.crops) / 2 * min(height, width)))
        tops, lefts = (np.linspace(0, length - side, 4).round().astype(int) for length in (height, width))
        return np.array([[top, left, side, side] for top in tops for left in lefts])


def _result(
    sae: UniversalSAE,
    concept: int,
    networks: Mapping[str, ImageModel],
    joint: bool,
    runs: list[dict[str, _Image]],
    dataset: Evaluation | None,
) -> Maximization:
    names = tuple(networks)
    first = runs[0]

    def score(image: np.ndarray, model: str, crops: np.ndarray | None = None) -> ConceptScores:
        return score_image(sae, concept, networks[model], model, image, crops, first[model].views)

    def scores(parts: bool) -> list[list[ConceptScores]]:
        """Score each image in each model. A joint image is scored once."""
        images = [first[name] for name in (names[:1] if joint else names)]
        rows = [[score(image.image, name, image.crops if parts else None) for name in names] for image in images]
        return rows * len(names) if joint else rows

    started = np.array([first[name].started[name] for name in names])
    shown = np.full_like(started, started.any()) if joint else started  # one model's gradient is enough for a joint image
    images = np.stack([first[name].image for name in names])
    images[~shown] = np.nan
    whole, parts = scores(parts=False), scores(parts=True)
    before = [score(first[name].before, name) for name in names]
    peaks = [[whole[i][i].peak for i in range(len(names))]]
    peaks += [[score(run[name].image, name).peak for name in names] for run in runs[1:]]
    return Maximization(
        concept=concept,
        model_names=names,
        joint=joint,
        images=images,
        attribution=np.stack([first[name].attribution for name in names]),
        history=np.stack([first[name].history[name] for name in names]),
        started=started,
        whole=as_firing(whole).of_images(shown),
        parts=as_firing(parts).of_images(shown),
        before=as_firing([before] * len(names)),
        dataset_peak=_of_dataset(dataset, names, lambda data, i: data.max_activation[i, concept]),
        dataset_r2=_of_dataset(dataset, names, lambda data, i: data.r2[i, i]),
        r2=np.where(shown, [whole[i][i].r2 for i in range(len(names))], np.nan),
        stability=np.where(shown, [peak_ratio([seed[i] for seed in peaks]) for i in range(len(names))], np.nan),
    )


def _check_options(options: Mapping[str, Any]) -> None:
    known = [name for name in inspect.signature(Maximizer).parameters if name not in ("models", "steps", "seed")]
    for name in options:
        if name not in known:
            hint = checks.closest_or_all(name, known)
            raise InvalidInputError(f"options: unknown option {name!r} of usae.maximize or usae.Maximizer{hint}")


def _of_dataset(dataset: Evaluation | None, names: tuple[str, ...], number: Callable[[Evaluation, int], Any]) -> np.ndarray:
    if dataset is None:
        return np.full(len(names), np.nan)
    return np.array([number(dataset, dataset.model_names.index(name)) for name in names], float)


def _check_dataset(dataset: object, networks: Mapping[str, ImageModel], n_concepts: int) -> None:
    if dataset is None:
        return
    if not isinstance(dataset, Evaluation):
        raise InvalidInputError(f"dataset must be what UniversalSAE.evaluate returns, got {type(dataset).__name__}")
    if dataset.max_activation.shape[1] != n_concepts:
        raise InvalidInputError(f"dataset must be of {n_concepts} concepts, got {dataset.max_activation.shape[1]}")
    for name in networks:
        check_known(name, dataset.model_names, "models")
