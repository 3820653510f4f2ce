"""`concept_effects`: what ablating a concept changes in each network, and whether the same changes in all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch

from usae._base import checks
from usae._estimator.universal_sae import UniversalSAE
from usae.analysis import effect_agreement
from usae.analysis.effects import ConceptEffects, most_energetic, with_controls
from usae.analysis.evaluation import Evaluation
from usae.errors import InvalidInputError
from usae.torch._autoencoder import Autoencoder
from usae.torch._edits import checked_concepts
from usae.torch._effect_passes import Passes
from usae.torch._effect_sums import Drawn, Effects
from usae.torch._layer_output import without_graph
from usae.torch._model import Model
from usae.torch._modules_of import names_of
from usae.torch._preprocessing import Crop
from usae.torch._reader import SkippedPicture
from usae.torch._running import Batches, Kind, Reading, Run, Running, functions_of

SCORES = {
    "labels": "logit of the label",
    "logits": "logit of the predicted class",
    "embedding": "share of the code's contribution",
    "value": "value",
}

MOST_ENERGETIC = 50
"""Universal concepts that are ablated if none are named."""


def concept_effects(
    models: Mapping[str, Model],
    sae: UniversalSAE | Autoencoder,
    images: Any,
    concepts: Any = None,
    *,
    evaluation: Evaluation | None = None,
    n_controls: int = 4,
    outputs: Kind | Mapping[str, Kind] = "logits",
    run: Mapping[str, Run] | None = None,
    labels: Any = None,
    first_order: bool = True,
    most_images: int = 2000,
    batch_size: int = 32,
    crop: Crop = False,
    seed: int = 0,
    progress: bool | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    skipped: list[SkippedPicture] | None = None,
    num_workers: int | None = None,
    prefetch: int | None = None,
    reduce: bool = False,
) -> ConceptEffects:
    """Measure what the output of each network loses when a concept is ablated, and whether networks agree on it.

    Chosen concepts are ablated one at a time, in the images in which they are active, as
    ``usae.torch.intervene(models, sae, Edit.ablate(concept))`` does: what the autoencoder does not explain of the tokens stays.
    For all concepts the change is estimated to first order, by code x gradient, from one backward pass of a batch. Images are
    read once, and memory does not grow with their number.

    Parameters
    ----------
    models : mapping of str to Model
        The models by name: the layer of each network whose tokens are edited.
    sae : UniversalSAE or Autoencoder
        The autoencoder.
    images : array, folder, data set, or a sequence or iterable
        Pictures, as for `extract`; preferably held-out ones. Labels of a data set are not read; give them as `labels`.
    concepts : int or sequence of int, optional
        Concepts that are ablated. Default: None, which takes the fifty most energetic universal concepts of `evaluation`, and
        none without it. (Energy is the smallest in any model. Of a single model any concepts are taken.)
    evaluation : Evaluation, optional
        Evaluation of the same autoencoder. With it, other concepts of about equal energy and firing rate are ablated too, as
        controls. Default: None: each concept is compared with the other `concepts`.
    n_controls : int
        How many controls are added for each concept. Default: 4.
    outputs : "logits", "embedding", "value" or mapping of str to these
        What the output of each network is. Logits are [n, classes]; their score is the logit of the label, or of the class that
        is predicted without ablation, relative to the image's mean logit. An embedding may have any shape, [n, ...]; its
        score is the change along what the whole code contributes, as a share of that. A value is [n]; it is its own score.
        Default: "logits".
    run : mapping of str to callable, optional
        For some or all networks the function from normalised images, [n, channels, height, width], to the output that is
        looked at, with gradients. It has to run the network, or its layer and what follows. Networks of different classes can
        be compared by functions that give the logits of those that they share. Default: None, which runs the network, and
        takes its logits, its pooled output, or its first tensor.
    labels : sequence or iterable of int, or mapping of str to these, optional
        The class of each picture, as for `faithfulness`. Default: None.
    first_order : bool
        Whether to estimate the changes of all concepts. Otherwise no gradients are needed. Default: True.
    most_images : int
        Most images over which the effects of two networks are correlated; of more, so many are drawn. Default: 2000.
    batch_size : int
        Number of images that are computed at a time. Default: 32.
    crop, on_error, skipped, num_workers, prefetch, reduce
        As for `extract`. Default: False, "raise", None, None, None and False.
    seed : int
        Seed of the images that are drawn. Default: 0.
    progress : bool, optional
        Whether to show a progress bar, as for `extract`. Default: None.

    Returns
    -------
    ConceptEffects
        Changes of each network's output by each concept, and the agreement of networks beside its null.

    Raises
    ------
    InvalidInputError
        For arguments and pictures that cannot be used, for networks whose output differs between two passes of the same images,
        or does not depend on the layer's tokens, and for outputs that are not finite.

    Notes
    -----
    Beside two passes for a batch, and one with gradients, each network runs once for every image and ablated concept that is
    active in it. Embeddings need another pass. Memory is 4 M m `most_images` bytes for M models and m concepts.

    **Agreement** of two networks on a concept is the rank correlation over images of the sizes of their changes: do the same
    images change? Images in which it is not active do not change, so a concept that fires in the same images agrees to some
    degree. `ConceptEffects.active_agreement` leaves these out, and `ConceptEffects.code_agreement` says what there would be if
    effects were as large as codes.

    **Null.** The same is computed for up to twenty other concepts with the nearest mean code and firing rate, on a logarithmic
    scale and in both models, in place of the concept in one of the two networks. `EffectAgreement.p_value` is the rank of the
    concept among itself and its controls. For the mean over concepts, one control of each is drawn at random 1,000 times.

    Examples
    --------
    >>> effects = usae.torch.concept_effects(models, sae, held_out, [3, 1530], outputs={"dinov2": "embedding"})
    >>> print(effects.summary())
    >>> effects.to_frame().join(sae.evaluate(acts).to_frame())
    """
    reading = Reading(batch_size, crop, progress, on_error, skipped, num_workers, prefetch, reduce)
    batches = Batches(models, sae, images, labels, outputs, ("logits", "embedding", "value"), reading)
    functions = functions_of(run, batches.plan.models)
    names = tuple(batches.plan.models)
    with_estimate = checks.boolean(first_order, "first_order")
    drawn = Drawn(checks.integer(most_images, "most_images", 1, 2**24), checks.integer(seed, "seed", 0, 2**62 - 1))
    parts = {
        name: Running(sae, name, model, batches.kinds[name], functions[name]) for name, model in batches.plan.models.items()
    }
    m = parts[names[0]].encoder.n_concepts
    chosen, controls = _concepts(concepts, evaluation, checks.integer(n_controls, "n_controls", 0, 1000), names, sae, m)
    ablated = np.concatenate([chosen, controls])
    effects = {name: Effects(m, len(ablated), drawn.most, with_estimate) for name in names}
    with contextlib.closing(batches("effects")) as found, without_graph():
        for inputs, of_classes in found:
            slots = drawn.slots(len(next(iter(inputs.values()))))
            for name, part in parts.items():
                part.take(inputs)
                passes = Passes(part, of_classes.get(name))
                if not batches.n_done:
                    part.check_repeats(passes.output)
                effects[name].add(passes, torch.from_numpy(ablated).to(part.tokens.device), batches.plan.batch_size, slots)
    batches.check_some()
    labelled = batches.labels.names
    scores = tuple(SCORES["labels" if name in labelled else kind] for name, kind in batches.kinds.items())
    return _result(effects, batches.n_done, scores, ablated, len(chosen), drawn.n_kept, with_estimate)


def _result(
    effects: Mapping[str, Effects],
    n_images: int,
    scores: tuple[str, ...],
    ablated: np.ndarray,
    n_chosen: int,
    n_kept: int,
    with_estimate: bool,
) -> ConceptEffects:
    parts = list(effects.values())
    code, rate, active = (
        np.stack([getattr(part, name) for part in parts]) for name in ("mean_code", "firing_rate", "images_active")
    )
    estimates, sizes, codes = zip(*(part.kept(n_kept) for part in parts), strict=True)
    enough = n_kept >= effect_agreement.LEAST_IMAGES
    known = (active > 0) & enough
    exact = np.stack([part.exact for part in parts], 1)
    classes = [part.classes for part in parts]
    of_ablated = code[:, ablated], rate[:, ablated], known[:, ablated]
    given = [each.shape[1] for each in classes if each is not None]
    first_order = np.stack([part.first_order for part in parts], 1) if with_estimate else None
    return ConceptEffects(
        model_names=tuple(effects),
        n_images=n_images,
        scores=scores,
        concepts=ablated,
        n_chosen=n_chosen,
        images_active=active,
        mean_code=code,
        firing_rate=rate,
        first_order=None if first_order is None else first_order[0],
        first_order_size=None if first_order is None else first_order[1],
        change=exact[0],
        size=exact[1],
        class_changes={name: each for name, each in zip(effects, classes, strict=True) if each is not None},
        agreement=effect_agreement.compared(effect_agreement.of_images(sizes), *of_ablated),
        active_agreement=effect_agreement.compared(effect_agreement.of_active_images(sizes, codes), *of_ablated),
        code_agreement=effect_agreement.compared(effect_agreement.of_active_images(codes, codes), *of_ablated),
        class_agreement=effect_agreement.compared(effect_agreement.of_classes(classes), *of_ablated)
        if len(set(given)) < len(given)
        else None,
        first_order_agreement=effect_agreement.compared(effect_agreement.of_images(estimates), code, rate, known)
        if with_estimate
        else None,
    )


def _concepts(
    concepts: Any,
    evaluation: object,
    n_controls: int,
    names: tuple[str, ...],
    sae: UniversalSAE | Autoencoder,
    m: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the concepts that are ablated and their controls, each int64."""
    known = None if evaluation is None else _checked_evaluation(evaluation, sae, m)
    models = [] if known is None else [known.model_names.index(name) for name in names]
    if concepts is not None:
        given = checked_concepts(concepts)
        for each in given:
            checks.integer(each, "concepts", 0, m - 1)
        chosen = np.array(given, np.int64)
    elif known is None:
        chosen = np.empty(0, np.int64)
    else:
        among = known.universal() if len(known.model_names) > 1 else ~known.dead[0]
        chosen = most_energetic(known.energy[models], among, MOST_ENERGETIC)
    if known is None:
        return chosen, np.empty(0, np.int64)
    rate = known.firing_counts[models] / known.n_tokens
    return chosen, with_controls(chosen, known.mean_activation[models], rate, n_controls)


def _checked_evaluation(evaluation: object, sae: UniversalSAE | Autoencoder, m: int) -> Evaluation:
    """Check the argument `evaluation`, which has to be of the same autoencoder."""
    if not isinstance(evaluation, Evaluation):
        raise InvalidInputError(f"evaluation must be a usae.Evaluation, got {checks.shown(evaluation)}")
    if len(evaluation.cofire_counts) != m or tuple(evaluation.model_names) != tuple(names_of(sae)):
        raise InvalidInputError(
            f"evaluation must be of this autoencoder, with {m} concepts of {', '.join(names_of(sae))}, got "
            f"{len(evaluation.cofire_counts)} of {', '.join(evaluation.model_names)}"
        )
    return evaluation
