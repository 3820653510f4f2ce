"""`faithfulness`: how much of a network's output is kept when its tokens are replaced by their reconstruction."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from usae._data.activations import Activations, as_aligned
from usae._estimator.universal_sae import UniversalSAE
from usae.analysis.baselines import LinearMap, linear_maps
from usae.errors import InvalidInputError
from usae.torch._autoencoder import Autoencoder
from usae.torch._extraction_plan import Inputs
from usae.torch._faithfulness_scores import Faithfulness, Replacements
from usae.torch._layer_output import Grid, without_graph
from usae.torch._model import Model
from usae.torch._preprocessing import Crop
from usae.torch._reader import SkippedPicture
from usae.torch._running import Batches, Reading, Run, Running, functions_of
from usae.torch._token_hook import editing

Output = Literal["logits", "embedding"]

LOSSES = {"labels": "cross-entropy", "logits": "KL divergence", "embedding": "1 - cosine"}


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
    reading = Reading(batch_size, crop, progress, on_error, skipped, num_workers, prefetch, reduce)
    batches = Batches(models, sae, images, labels, outputs, ("logits", "embedding"), reading)
    functions = functions_of(run, batches.plan.models)
    trained = _training_rows(train, sae, batches.plan.models)
    maps = {} if trained is None else linear_maps(trained, progress)
    parts = {
        name: _Part(Running(sae, name, model, batches.kinds[name], functions[name]), maps, trained)
        for name, model in batches.plan.models.items()
    }
    sums: dict[str, _Sums] = {name: _Sums() for name in parts}
    with contextlib.closing(batches("faithfulness")) as found, without_graph():
        for inputs, of_classes in found:
            _add_batch(parts, inputs, of_classes, sums, check_repeats=not batches.n_done)
    batches.check_some()
    done, labelled = batches.n_done, batches.labels.names
    losses = tuple(LOSSES["labels" if name in labelled else kind] for name, kind in batches.kinds.items())
    loss, cosine, agreement, accuracy = (_collected(sums, measure, done, bool(maps)) for measure in _Measures._fields)
    return Faithfulness(tuple(parts), done, losses, loss, cosine, agreement, accuracy if labelled else None)


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
    """One model: its network, and what its tokens are replaced by."""

    def __init__(
        self,
        running: Running,
        maps: Mapping[tuple[str, str], LinearMap],
        train: Mapping[str, Activations] | None,
    ):
        self.running, self.name, self.model = running, running.name, running.model
        self.encoder, self.decoder = running.encoder, running.decoder
        self._maps = {
            source: tuple(
                torch.from_numpy(x).to(self.model.device, torch.float32)
                for x in (each.weights, each.source_mean, each.target_mean)
            )
            for (source, target), each in maps.items()
            if target == self.name
        }
        self._mean = self._mean_token(maps, train is not None)

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
        own = self.running.tokens
        n_tokens = own.shape[1]
        for source, part in others.items():
            tokens = on_grid(part.running.tokens, part.running.grid, self.running.grid).to(part.encoder.weight.device)
            if tokens.shape[1] != n_tokens:
                raise InvalidInputError(
                    f"models must have tokens at the same places, got {tokens.shape[1]} of {source!r} and {n_tokens} of "
                    f"{self.name!r}, which have no grid; give Model(..., grid=(rows, columns))"
                )
            codes = part.encoder.sparse(tokens)
            codes = codes._replace(values=codes.values.to(own.device), indices=codes.indices.to(own.device))
            yield f"code of {source}", self.decoder(codes)
            if source in self._maps:
                weights, source_mean, target_mean = self._maps[source]
                yield f"map of {source}", (tokens.to(weights.device).float() - source_mean) @ weights + target_mean
        yield "mean", self._mean.expand_as(own)
        yield "zero", torch.zeros_like(own)


def _add_batch(
    parts: Mapping[str, _Part],
    inputs: Inputs,
    labels: Mapping[str, Tensor],
    sums: Mapping[str, _Sums],
    *,
    check_repeats: bool,
) -> None:
    """Run all networks on a batch of images with all replacements, and add what comes of it to `sums`."""
    originals = {}
    for name, part in parts.items():
        part.running.take(inputs)
        originals[name] = part.running.original()
        if check_repeats:
            part.running.check_repeats(originals[name])
    for name, part in parts.items():
        original, of_classes = originals[name], labels.get(name)
        sums[name].add("original", _measures(original, original, part.running, of_classes))
        for replacement, tokens in part.replacements(parts):
            with editing([(part.model, lambda own, _grid, new=tokens: new.to(own.dtype))]):  # type: ignore[misc]
                output = part.running.output()
            sums[name].add(replacement, _measures(output, original, part.running, of_classes))


def _measures(output: Tensor, original: Tensor, running: Running, labels: Tensor | None) -> _Measures:
    running.check_finite(output)
    output, original = output.double(), original.double()
    cosine = F.cosine_similarity(output, original, dim=1).where((output != original).any(1), 1)  # 1 also where both are 0
    nothing = torch.full_like(cosine, torch.nan)
    if running.kind == "embedding":
        return _Measures(1 - cosine, cosine, nothing, nothing)
    top = output.argmax(1)
    agreement = (top == original.argmax(1)).double()
    if labels is None:
        log, log_original = F.log_softmax(output, 1), F.log_softmax(original, 1)
        return _Measures(F.kl_div(log, log_original, reduction="none", log_target=True).sum(1), cosine, agreement, nothing)
    labels = labels.to(output.device)
    running.check_labels(labels, output)
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


# --- Arguments ----------------------------------------------------------------------------------------------------------


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
