"""`faithfulness`: how much of a network's output is kept when its tokens are replaced by their reconstruction."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from usae._base import checks
from usae._base.progress import progress_bar
from usae._data.activations import Activations, as_aligned, check_known
from usae._estimator.universal_sae import UniversalSAE
from usae.analysis.baselines import LinearMap, linear_maps
from usae.errors import InvalidInputError
from usae.torch._autoencoder import Autoencoder, Decoder, Encoder
from usae.torch._evaluation_mode import check_evaluating
from usae.torch._extraction_plan import Inputs, Plan
from usae.torch._faithfulness_scores import Faithfulness, Replacements
from usae.torch._feeder import Feeder, Feeding, Outcome, kept
from usae.torch._images import named_pictures
from usae.torch._intervene import modules_of, names_of
from usae.torch._labels import Labels
from usae.torch._layer_output import Grid, found_tensor, without_graph
from usae.torch._model import Model
from usae.torch._preprocessing import Crop
from usae.torch._reader import Reader, SkippedPicture
from usae.torch._threads import using_threads
from usae.torch._token_hook import editing

Output = Literal["logits", "embedding"]
Run = Callable[[Tensor], Tensor]

LOSSES = {"labels": "cross-entropy", "logits": "KL divergence", "embedding": "1 - cosine"}

LARGEST_NOISE = 1e-3
"""Largest difference of two outputs of the same images, relative to the largest number, that is called rounding."""


def faithfulness(
    models: Mapping[str, Model],
    sae: UniversalSAE | Autoencoder,
    images: Any,
    *,
    outputs: Output | Mapping[str, Output] = "logits",
    run: Mapping[str, Run] | None = None,
    labels: Any = None,
    train: Mapping[str, Any] | None = None,
    batch_size: int = 32,
    crop: Crop = False,
    progress: bool | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    skipped: list[SkippedPicture] | None = None,
    num_workers: int | None = None,
    prefetch: int | None = None,
    reduce: bool = False,
) -> Faithfulness:
    """Measure how much of its output each network keeps when the tokens of its layer are replaced.

    Tokens are replaced by what their own code says of them, by what the code of each other model says (stitching), and for
    comparison by a linear map of the tokens of each model, by the mean token, and by 0. Prefix tokens pass through. Images are
    read once, and memory does not grow with their number.

    Parameters
    ----------
    models : mapping of str to Model
        The models by name: the layer of each network after which it runs on with other tokens.
    sae : UniversalSAE or Autoencoder
        The autoencoder.
    images : array, folder, data set, or a sequence or iterable
        Pictures, as for `extract`. Labels of a data set are not read; give them as `labels`.
    outputs : "logits", "embedding" or mapping of str to these
        What the output of each network is. Logits are [n, classes]; their loss is the cross-entropy where there are labels,
        otherwise the KL divergence of the classes' probabilities from the original ones. An embedding may have any shape,
        [n, ...]; its loss is 1 minus its cosine with the original one. Default: "logits".
    run : mapping of str to callable, optional
        For some or all networks the function from normalised images, [n, channels, height, width], to the output that is
        compared, [n, ...]. It has to run the network, or its layer and what follows. Default: None, which runs the network,
        and takes its logits, its pooled output, or its first tensor.
    labels : sequence or iterable of int, or mapping of str to these, optional
        The class of each picture, also of those that cannot be read; a mapping has them for some networks. Default: None.
    train : mapping of str to array, optional
        Activations of all models, as for `UniversalSAE.fit`, on which linear maps are fitted and from which mean tokens come.
        Default: None: there is no linear map, and mean tokens are those of the autoencoder's standardisation.
    batch_size : int
        Number of images that are computed at a time. Default: 32.
    crop, on_error, skipped, num_workers, prefetch, reduce
        As for `extract`. Default: False, "raise", None, None, None and False.
    progress : bool, optional
        Whether to show a progress bar, as for `extract`. Default: None.

    Returns
    -------
    Faithfulness
        Losses, cosines, top-1 agreement and accuracy of every replacement, the share of the loss that is recovered, and tables.

    Raises
    ------
    InvalidInputError
        For arguments and pictures that cannot be used, for networks whose output differs between two passes of the same images,
        and for outputs that are not finite.

    Notes
    -----
    Each network runs 3 + M times for M models, and 3 + 2 M times with `train`. Tokens of model i come to the grid of network j
    by antialiased bilinear interpolation before they are encoded. The error term is not kept, so all that a network knows after
    its layer is the code, and its prefix tokens.
    """
    reader = Reader(on_error, skipped)
    plan = Plan.of(models, batch_size, None, crop, reduce)
    for name, model in plan.models.items():
        check_known(name, names_of(sae), "models")
        check_evaluating(model.module)
    kinds = _kinds(outputs, plan.models)
    given = Labels(labels, [name for name, kind in kinds.items() if kind == "logits"])
    functions = _functions(run, plan.models)
    trained = _training_rows(train, sae, plan.models)
    feeding = Feeding.of(num_workers, prefetch, plan.models, images)
    named, n = named_pictures(images, plan.channels)
    given.check_number(n)
    maps = {} if trained is None else linear_maps(trained, progress)
    parts = {name: _Part(sae, name, model, kinds[name], maps, trained) for name, model in plan.models.items()}
    sums: dict[str, _Sums] = {name: _Sums() for name in parts}
    numbers: list[int] = []
    done = 0
    with (
        progress_bar(n, progress, "faithfulness", "image") as bar,
        Feeder(feeding, plan, lambda picture, pixels: Outcome(picture, plan.inputs_of(pixels))) as feeder,
        without_graph(),
    ):
        rows = _rows(feeder.outcomes(named), reader, numbers)
        while batch := list(itertools.islice(rows, plan.batch_size)):
            inputs = {kind: torch.stack([row[kind] for row in batch]) for kind in batch[0]}
            _add_batch(parts, functions, inputs, kinds, given.of(numbers), sums, check_repeats=not done)
            numbers.clear()
            done += len(batch)
            bar.update(len(batch))
    reader.check_some(done)
    given.check_used_up(reader.number + 1)
    losses = tuple(LOSSES["labels" if name in given.names else kind] for name, kind in kinds.items())
    loss, cosine, agreement, accuracy = (_collected(sums, measure, done, bool(maps)) for measure in _Measures._fields)
    return Faithfulness(tuple(parts), done, losses, loss, cosine, agreement, accuracy if given.names else None)


class _Measures(NamedTuple):
    """What is summed over images, each as a float64 tensor [n] for one batch."""

    loss: Tensor
    cosine: Tensor
    agreement: Tensor
    accuracy: Tensor


class _Sums(dict[str, list[float]]):
    """Sums of each measure of a network, by what its tokens were replaced by."""

    def add(self, replacement: str, measures: _Measures) -> None:
        before = self.get(replacement, [0.0] * len(measures))
        self[replacement] = [sum_ + float(values.sum()) for sum_, values in zip(before, measures, strict=True)]


class _Part:
    """One model: its network's layer, its modules, and what its tokens are replaced by."""

    def __init__(
        self,
        sae: UniversalSAE | Autoencoder,
        name: str,
        model: Model,
        kind: Output,
        maps: Mapping[tuple[str, str], LinearMap],
        train: Mapping[str, Activations] | None,
    ):
        self.name, self.model, self.kind = name, model, kind
        self.encoder: Encoder
        self.decoder: Decoder
        self.encoder, self.decoder = modules_of(sae, name, model.device)
        self._maps = {
            source: tuple(
                torch.from_numpy(x).to(model.device, torch.float32) for x in (each.weights, each.source_mean, each.target_mean)
            )
            for (source, target), each in maps.items()
            if target == name
        }
        self._mean = self._mean_token(maps, train is not None)
        self.images: Tensor
        self.shape: tuple[int, ...]
        self.tokens: Tensor
        self.grid: Grid | None

    def _mean_token(self, maps: Mapping[tuple[str, str], LinearMap], is_trained: bool) -> Tensor:
        if is_trained:
            return torch.from_numpy(maps[self.name, self.name].target_mean).to(self.model.device, torch.float32)
        mean = (self.decoder.mean + self.decoder.mean_rest).detach()
        if len(mean) > 1 and bool((mean == mean[0]).all()):
            raise InvalidInputError(
                f"train must be given for {self.name!r}, whose standardisation has one number as the mean of all dimensions, "
                f"got None; give some of the activations that the autoencoder was trained on"
            )
        return mean

    def replacements(self, others: Mapping[str, _Part]) -> Iterator[tuple[str, Tensor]]:
        """Yield what tokens are replaced by, [n, tokens, width], each with its name."""
        n_tokens = self.tokens.shape[1]
        for source, part in others.items():
            tokens = on_grid(part.tokens, part.grid, self.grid).to(part.encoder.weight.device)
            if tokens.shape[1] != n_tokens:
                raise InvalidInputError(
                    f"models must have tokens at the same places, got {tokens.shape[1]} of {source!r} and {n_tokens} of "
                    f"{self.name!r}, which have no grid; give Model(..., grid=(rows, columns))"
                )
            codes = part.encoder.sparse(tokens)
            codes = codes._replace(values=codes.values.to(self.tokens.device), indices=codes.indices.to(self.tokens.device))
            yield f"code of {source}", self.decoder(codes)
            if source in self._maps:
                weights, source_mean, target_mean = self._maps[source]
                yield f"map of {source}", (tokens.to(weights.device).float() - source_mean) @ weights + target_mean
        yield "mean", self._mean.expand_as(self.tokens)
        yield "zero", torch.zeros_like(self.tokens)


def _add_batch(
    parts: Mapping[str, _Part],
    functions: Mapping[str, Run],
    inputs: Inputs,
    kinds: Mapping[str, Output],
    labels: Mapping[str, Tensor],
    sums: Mapping[str, _Sums],
    *,
    check_repeats: bool,
) -> None:
    """Run all networks on a batch of images with all replacements, and add what comes of it to `sums`."""
    originals = {}
    for name, part in parts.items():
        part.images = part.model._as_input(part.model.normalized(inputs[part.model.input_kind]))
        originals[name] = _original(part, functions[name])
        if check_repeats:
            _check_repeats(part, functions[name], originals[name])
    for name, part in parts.items():
        original, of_classes = originals[name], labels.get(name)
        sums[name].add("original", _measures(original, original, kinds[name], of_classes, name))
        for replacement, tokens in part.replacements(parts):
            with editing([(part.model, lambda own, _grid, new=tokens: new.to(own.dtype))]):  # type: ignore[misc]
                output = _output(part, functions[name])
            sums[name].add(replacement, _measures(output, original, kinds[name], of_classes, name))


def _original(part: _Part, function: Run) -> Tensor:
    """Return the output of a network as it is, and keep its tokens."""

    def keep(tokens: Tensor, grid: Grid | None) -> None:
        part.tokens, part.grid = tokens.detach().clone(), grid

    with editing([(part.model, keep)], must_run=False):
        vars(part).pop("tokens", None)
        output = _output(part, function)
    if "tokens" not in vars(part):
        raise InvalidInputError(
            f"run must run {part.model._label}, whose tokens are replaced, got nothing from it for {part.name!r}; call the "
            f"network, or its layer and what follows, in the function"
        )
    if part.kind == "logits" and (output.shape[1] < 2 or output.shape[1] != part.shape[1]):
        raise InvalidInputError(
            f'outputs must be "embedding" for {part.name!r}, which gives no logits [{len(output)}, classes], of two classes at '
            f'least, got "logits" for an output {list(part.shape)}; or give run={{{part.name!r}: a function of images}}'
        )
    part.model._check_finite(part.tokens)
    if part.tokens.shape[-1] != part.encoder.width:
        raise InvalidInputError(
            f"models[{part.name!r}] must have the width that the autoencoder was trained on, {part.encoder.width}, got "
            f"{part.tokens.shape[-1]}; use the layer that it was trained on"
        )
    return output


def _output(part: _Part, function: Run) -> Tensor:
    """Return the output of a network, float32 [n, numbers], and keep its shape."""
    model = part.model
    casting = torch.autocast(model.device.type, model.autocast) if model.autocast else contextlib.nullcontext()
    with casting, using_threads(model.threads):
        output = function(part.images.clone())  # a clone, because some networks change their input in place
    if not isinstance(output, Tensor) or not output.is_floating_point() or output.ndim < 2 or len(output) != len(part.images):
        got = f"{output.dtype} {list(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise InvalidInputError(
            f"run must give a tensor of floats [{len(part.images)}, ...] for {part.name!r}, one row for each image, got {got}; "
            f"give run={{{part.name!r}: a function of images}}"
        )
    part.shape = tuple(output.shape)
    return output.detach().flatten(1).float()


def _check_repeats(part: _Part, function: Run, original: Tensor) -> None:
    again = _output(part, function)
    if again.shape != original.shape or (again - original).abs().max() > LARGEST_NOISE * original.abs().max():
        raise InvalidInputError(
            f"run must give the same output whenever it is given the same images, got another one for {part.name!r}; call "
            f".eval() on the network, and fix what it draws at random, such as a mask"
        )


def _measures(output: Tensor, original: Tensor, kind: Output, labels: Tensor | None, name: str) -> _Measures:
    if not bool(output.isfinite().all()):
        raise InvalidInputError(
            f"run must give finite numbers, got NaN or infinity from the network of {name!r}; compute it in float32"
        )
    output, original = output.double(), original.double()
    cosine = F.cosine_similarity(output, original, dim=1).where((output != original).any(1), 1)  # 1 also where both are 0
    nothing = torch.full_like(cosine, torch.nan)
    if kind == "embedding":
        return _Measures(1 - cosine, cosine, nothing, nothing)
    top = output.argmax(1)
    agreement = (top == original.argmax(1)).double()
    if labels is None:
        log, log_original = F.log_softmax(output, 1), F.log_softmax(original, 1)
        return _Measures(F.kl_div(log, log_original, reduction="none", log_target=True).sum(1), cosine, agreement, nothing)
    labels = labels.to(output.device)
    if int(labels.max()) >= output.shape[1]:
        raise InvalidInputError(
            f"labels must be classes of the network of {name!r}, from 0 to {output.shape[1] - 1}, got {int(labels.max())}"
        )
    return _Measures(F.cross_entropy(output, labels, reduction="none"), cosine, agreement, (top == labels).double())


def on_grid(tokens: Tensor, own: Grid | None, grid: Grid | None) -> Tensor:
    """Return tokens, [n, tokens, width], on another grid, by antialiased bilinear interpolation."""
    if own is None or grid is None or own == grid:
        return tokens
    places = tokens.float().transpose(1, 2).unflatten(2, own)
    places = F.interpolate(places, size=grid, mode="bilinear", antialias=True, align_corners=False)
    return places.flatten(2).transpose(1, 2)


def _collected(sums: Mapping[str, _Sums], measure: str, n: int, has_maps: bool) -> Replacements:
    place = _Measures._fields.index(measure)

    def means(replacement: str) -> np.ndarray:
        return np.array([each[replacement][place] / n for each in sums.values()])

    def matrix(kind: str) -> np.ndarray:
        return np.stack([means(f"{kind} of {source}") for source in sums])

    return Replacements(means("original"), matrix("code"), matrix("map") if has_maps else None, means("mean"), means("zero"))


def _rows(outcomes: Iterable[Outcome], reader: Reader, numbers: list[int]) -> Iterator[Inputs]:
    """Yield pictures as networks take them, and append their numbers to `numbers`."""
    for outcome in kept(iter(outcomes), reader):
        numbers.append(reader.number)
        yield outcome.inputs


# --- Arguments ----------------------------------------------------------------------------------------------------------


def _kinds(outputs: Any, models: Mapping[str, Model]) -> dict[str, Output]:
    choices = ("logits", "embedding")
    if not isinstance(outputs, Mapping):
        return dict.fromkeys(models, checks.choice(outputs, "outputs", choices))  # type: ignore[arg-type]
    for name in outputs:
        check_known(name, list(models), "outputs")
    return {
        name: checks.choice(outputs.get(name, "logits"), f"outputs[{name!r}]", choices)  # type: ignore[misc]
        for name in models
    }


def _functions(run: Any, models: Mapping[str, Model]) -> dict[str, Run]:
    if run is not None and not isinstance(run, Mapping):
        raise InvalidInputError(
            f"run must be a mapping from names to functions of images, got {type(run).__name__}; write "
            f"run={{{next(iter(models))!r}: function}}"
        )
    functions = {} if run is None else dict(run)
    for name, function in functions.items():
        check_known(name, list(models), "run")
        if not callable(function):
            raise InvalidInputError(f"run[{name!r}] must be a function of images, got {checks.shown(function)}")
    return {name: functions.get(name) or _running(model) for name, model in models.items()}


def _running(model: Model) -> Run:
    """Return the function that runs a network and finds its logits, its pooled output, or its first tensor."""

    def output(images: Tensor) -> Any:
        found: Any = model.module(images)
        for name in ("logits", "image_embeds", "pooler_output"):  # of transformers
            if isinstance(getattr(found, name, None), Tensor):
                return getattr(found, name)
        return found_tensor(found)

    return output


def _training_rows(train: Any, sae: UniversalSAE | Autoencoder, models: Mapping[str, Model]) -> dict[str, Activations] | None:
    if train is None:
        return None
    columns = sae._initialized().columns if isinstance(sae, UniversalSAE) else None
    given = as_aligned(train, "train", columns)
    missing = [name for name in models if name not in given]
    if missing:
        raise InvalidInputError(
            f"train must hold every model ({', '.join(models)}), got none for {', '.join(missing)}; give the activations of all"
        )
    return {name: given[name] for name in models}
