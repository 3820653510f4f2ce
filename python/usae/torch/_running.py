"""Networks that run on with other tokens in a layer, and what is compared of their outputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from usae._base import checks
from usae._base.progress import progress_bar
from usae._data.activations import check_known
from usae._estimator.universal_sae import UniversalSAE
from usae.errors import InvalidInputError
from usae.torch._autocast import using_autocast
from usae.torch._autoencoder import Autoencoder
from usae.torch._evaluation_mode import check_evaluating
from usae.torch._extraction_plan import Inputs, Plan
from usae.torch._feeder import Feeder, Feeding, Outcome, kept
from usae.torch._images import named_pictures
from usae.torch._labels import Labels
from usae.torch._layer_output import Grid, found_tensor
from usae.torch._model import Model
from usae.torch._modules_of import modules_of, names_of
from usae.torch._preprocessing import Crop
from usae.torch._reader import Reader
from usae.torch._threads import using_threads
from usae.torch._token_hook import editing

Kind = Literal["logits", "embedding", "value"]
Run = Callable[[Tensor], Tensor]

LARGEST_NOISE = 1e-3
"""Largest difference of two outputs of the same images, relative to the largest number, that is called rounding."""


class Running:
    """A network, the layer whose tokens are replaced, and the modules of its model.

    Parameters
    ----------
    sae : UniversalSAE or Autoencoder
        The autoencoder.
    name : str
        Name of the model.
    model : Model
        The network and its layer.
    kind : "logits", "embedding" or "value"
        What the output is.
    function : callable
        Function from images to the output.
    """

    def __init__(self, sae: UniversalSAE | Autoencoder, name: str, model: Model, kind: Kind, function: Run):
        self.name, self.model, self.kind = name, model, kind
        self.encoder, self.decoder = modules_of(sae, name, model.device)
        self._function = function
        self._shape: tuple[int, ...] = ()
        self.images: Tensor
        self.tokens: Tensor
        self.grid: Grid | None

    def take(self, inputs: Inputs) -> None:
        """Keep the images of a batch as the network takes them."""
        self.images = self.model._as_input(self.model.normalized(inputs[self.model.input_kind]))

    def original(self) -> Tensor:
        """Return the output of the network as it is, float32 [n, numbers], and keep its tokens."""
        found: list[tuple[Tensor, Grid | None]] = []

        def keep(tokens: Tensor, grid: Grid | None) -> None:
            found.append((tokens.detach().clone(), grid))

        with editing([(self.model, keep)], must_run=False):
            output = self.output()
        if not found:
            raise InvalidInputError(
                f"run must run {self.model._label}, whose tokens are replaced, got nothing from it for {self.name!r}; call the "
                f"network, or its layer and what follows, in the function"
            )
        self.tokens, self.grid = found[-1]
        self._check(output)
        return output

    def output(self, images: Tensor | None = None, *, graph: bool = False) -> Tensor:
        """Return the output of some images, float32 [n, numbers], and with `graph` keep that of its gradients.

        Default: None and False, for the images of the batch, without a graph.
        """
        model = self.model
        images = self.images if images is None else images
        with using_autocast(model.device, model.autocast), using_threads(model.threads):
            output = self._function(images.clone())  # a clone, because some networks change their input in place
        least = 1 if self.kind == "value" else 2
        if (
            not isinstance(output, Tensor)
            or not output.is_floating_point()
            or output.ndim < least
            or len(output) != len(images)
        ):
            got = f"{output.dtype} {list(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise InvalidInputError(
                f"run must give a tensor of floats [{len(images)}, ...] for {self.name!r}, one row for each image, got {got}; "
                f"give run={{{self.name!r}: a function of images}}"
            )
        self._shape = tuple(output.shape)
        output = output if graph else output.detach()
        return output.reshape(len(output), -1).float()

    def check_repeats(self, original: Tensor) -> None:
        """Refuse a network whose output differs between two passes of the same images."""
        again = self.output()
        if again.shape != original.shape or (again - original).abs().max() > LARGEST_NOISE * original.abs().max():
            raise InvalidInputError(
                f"run must give the same output whenever it is given the same images, got another one for {self.name!r}; call "
                f".eval() on the network, and fix what it draws at random, such as a mask"
            )

    def check_finite(self, output: Tensor) -> None:
        """Refuse an output with NaN or infinity."""
        if not bool(output.isfinite().all()):
            raise InvalidInputError(
                f"run must give finite numbers, got NaN or infinity from the network of {self.name!r}; compute it in float32"
            )

    def check_labels(self, labels: Tensor, output: Tensor) -> None:
        """Refuse labels that are no classes of the network."""
        if int(labels.max()) >= output.shape[1]:
            raise InvalidInputError(
                f"labels must be classes of the network of {self.name!r}, from 0 to {output.shape[1] - 1}, got "
                f"{int(labels.max())}"
            )

    def _check(self, output: Tensor) -> None:
        if self.kind == "logits" and (output.shape[1] < 2 or output.shape[1] != self._shape[1]):
            raise InvalidInputError(
                f'outputs must be "embedding" for {self.name!r}, which gives no logits [{len(output)}, classes], of two '
                f'classes at least, got "logits" for an output {list(self._shape)}; or give run={{{self.name!r}: a function '
                f"of images}}"
            )
        self.model._check_finite(self.tokens)
        if self.tokens.shape[-1] != self.encoder.width:
            raise InvalidInputError(
                f"models[{self.name!r}] must have the width that the autoencoder was trained on, {self.encoder.width}, got "
                f"{self.tokens.shape[-1]}; use the layer that it was trained on"
            )


class Batches:
    """Pictures as networks take them, with their labels, a batch at a time. Arguments are those of `faithfulness`.

    `choices` are what `outputs` may be.

    Attributes
    ----------
    plan : Plan
        The checked models and sizes.
    kinds : dict of str to Kind
        What the output of each network is.
    labels : Labels
        Labels by network; `names` are the networks that have some.
    n_done : int
        Number of images of the batches so far.
    """

    def __init__(
        self,
        models: Any,
        sae: UniversalSAE | Autoencoder,
        images: Any,
        labels: Any,
        outputs: Any,
        choices: Sequence[Kind],
        reading: Reading,
    ):
        self._reader = Reader(reading.on_error, reading.skipped)
        self.plan = Plan.of(models, reading.batch_size, None, reading.crop, reading.reduce)
        for name, model in self.plan.models.items():
            check_known(name, names_of(sae), "models")
            check_evaluating(model.module)
        self.kinds = _kinds(outputs, self.plan.models, choices)
        self.labels = Labels(labels, [name for name, kind in self.kinds.items() if kind == "logits"])
        self._feeding = Feeding.of(reading.num_workers, reading.prefetch, self.plan.models, images)
        self._named, self._n = named_pictures(images, self.plan.channels)
        self.labels.check_number(self._n)
        self._progress = reading.progress
        self.n_done = 0

    def __call__(self, title: str) -> Generator[tuple[Inputs, dict[str, Tensor]], None, None]:
        """Yield inputs by `Model.input_kind` and labels by network. `title` is that of the progress bar."""
        numbers: list[int] = []
        plan = self.plan
        with (
            progress_bar(self._n, self._progress, title, "image") as bar,
            Feeder(self._feeding, plan, lambda picture, pixels: Outcome(picture, plan.inputs_of(pixels))) as feeder,
        ):
            rows = self._rows(feeder.outcomes(self._named), numbers)
            while batch := list(itertools.islice(rows, plan.batch_size)):
                yield {kind: torch.stack([row[kind] for row in batch]) for kind in batch[0]}, self.labels.of(numbers)
                numbers.clear()
                self.n_done += len(batch)
                bar.update(len(batch))

    def check_some(self) -> None:
        """Refuse to have read no picture, or other labels than pictures; warn of pictures that were left out."""
        self._reader.check_some(self.n_done, stacklevel=4)
        self.labels.check_used_up(self._reader.number + 1)

    def _rows(self, outcomes: Iterable[Outcome], numbers: list[int]) -> Iterator[Inputs]:
        for outcome in kept(iter(outcomes), self._reader):
            numbers.append(self._reader.number)
            yield outcome.inputs


class Reading(NamedTuple):
    """How pictures are read: arguments of `faithfulness`, as they were given."""

    batch_size: int
    crop: Crop
    progress: bool | None
    on_error: Any
    skipped: Any
    num_workers: int | None
    prefetch: int | None
    reduce: bool


# --- Arguments ----------------------------------------------------------------------------------------------------------


def _kinds(outputs: Any, models: Mapping[str, Model], choices: Sequence[Kind]) -> dict[str, Any]:
    """Return what the output of each network is, from the argument `outputs`."""
    if not isinstance(outputs, Mapping):
        return dict.fromkeys(models, checks.choice(outputs, "outputs", choices))
    for name in outputs:
        check_known(name, list(models), "outputs")
    return {name: checks.choice(outputs.get(name, "logits"), f"outputs[{name!r}]", choices) for name in models}


def functions_of(run: Any, models: Mapping[str, Model]) -> dict[str, Run]:
    """Return the function that runs each network, from the argument `run`."""
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
