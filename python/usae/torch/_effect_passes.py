"""One network's passes over a batch: what ablating concepts changes, exactly and to first order."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from usae.errors import InvalidInputError
from usae.torch._autoencoder import NUMBERS_AT_ONCE
from usae.torch._layer_output import Grid
from usae.torch._tensor_codes import TensorCodes
from usae.torch._token_hook import EditFunction, editing

if TYPE_CHECKING:
    from usae.torch._running import Running


class Scores(NamedTuple):
    """What one number says of each image's output, and how large a change of the output is.

    Attributes
    ----------
    of : callable
        Function from outputs, [n, numbers], and numbers of images in the batch, int64 [n], to scores, [n]. It has gradients.
    size : callable
        Function from changes of outputs, [n, numbers], and numbers of images to sizes, [n].
    """

    of: Callable[[Tensor, Tensor], Tensor]
    size: Callable[[Tensor, Tensor], Tensor]


class Change(NamedTuple):
    """What ablating concepts changed, one row for each image and concept that is active in it.

    Attributes
    ----------
    images, places : Tensor of int64, [n]
        Number of the image in the batch, and place of the concept among those that were asked for.
    score, size : Tensor, [n]
        Change of the score, and size of the change of the output.
    logits : Tensor, [n, classes], or None
        Change of the logits, relative to their mean.
    """

    images: Tensor
    places: Tensor
    score: Tensor
    size: Tensor
    logits: Tensor | None


class Passes:
    """The passes of one network over one batch.

    Parameters
    ----------
    running : Running
        The network, which has taken the batch.
    labels : Tensor of int64, [n], or None
        Classes of the images.

    Attributes
    ----------
    output : Tensor of float32, [n, numbers]
        Output of the network as it is.
    codes : TensorCodes, [n, tokens, k]
        Codes of its tokens.
    """

    def __init__(self, running: Running, labels: Tensor | None):
        self.running = running
        self.output = running.original()
        running.check_finite(self.output)
        self._rows = running.decoder.rows() * running.decoder.scale  # what a code of 1 adds to a token, in own units
        with torch.autocast(running.tokens.device.type, enabled=False):
            codes = running.encoder.sparse(running.tokens)
        self.codes = codes._replace(values=codes.values.detach())
        self._scores = self._with_labels(labels)

    def sums(self, per_code: Tensor) -> Tensor:
        """Return the sums over tokens and slots of numbers of codes, [n, tokens, k], by concept, float32 [n, n_concepts]."""
        return TensorCodes(per_code.flatten(1), self.codes.indices.flatten(1), self.codes.n_concepts).to_dense()

    def first_order(self) -> Tensor:
        """Return the change of each image's score by each concept's ablation to first order, float32 [n, n_concepts]."""
        running = self.running
        leaf: list[Tensor] = []

        def as_leaf(tokens: Tensor, _grid: Grid | None) -> Tensor:
            leaf[:] = [tokens.detach().requires_grad_()]
            return leaf[0]

        with torch.enable_grad():
            with editing([(running.model, as_leaf)]):
                output = running.output(graph=True)
            total = self._scores.of(output, self._everything).sum()
            gradient = torch.autograd.grad(total, leaf, allow_unused=True)[0] if total.requires_grad else None
        if gradient is None:
            raise InvalidInputError(
                f"run must give an output with gradients that depends on the tokens of {running.model._label}, got one that "
                f"does not for {running.name!r}; choose a layer before the output, or give first_order=False"
            )
        slopes = self._slopes(gradient.float())
        return -self.sums(self.codes.values * slopes)

    def ablated(self, concepts: Tensor, batch_size: int) -> list[Change]:
        """Ablate concepts, one at a time, in the images in which they are active."""
        active = self.sums(self.codes.values)[:, concepts] > 0
        images, places = active.nonzero(as_tuple=True)
        parts = zip(images.split(batch_size), places.split(batch_size), strict=True)
        return [self._changed(image, place, concepts[place]) for image, place in parts if len(image)]

    def _changed(self, images: Tensor, places: Tensor, concepts: Tensor) -> Change:
        own = self.codes.values[images] * (self.codes.indices[images] == concepts[:, None, None])
        lost = own.sum(-1)[..., None] * self._rows[concepts][:, None]
        output = self._edited(lambda tokens: tokens - lost, images)
        before = self.output[images]
        difference = output - before
        score = self._scores.of(output, images) - self._scores.of(before, images)
        logits = difference - difference.mean(1, keepdim=True) if self.running.kind == "logits" else None
        return Change(images, places, score, self._scores.size(difference, images), logits)

    def _edited(self, edit: Callable[[Tensor], Tensor], images: Tensor | None = None) -> Tensor:
        """Return the output with edited tokens."""

        def in_own_type(tokens: Tensor, _grid: Grid | None) -> Tensor:
            return edit(tokens.to(torch.promote_types(tokens.dtype, torch.float32))).to(tokens.dtype)

        function: EditFunction = in_own_type
        with editing([(self.running.model, function)]):
            output = self.running.output(None if images is None else self.running.images[images])
        self.running.check_finite(output)
        return output

    @property
    def _everything(self) -> Tensor:
        return torch.arange(len(self.output), device=self.output.device)

    def _slopes(self, gradient: Tensor) -> Tensor:
        """Return how fast the score changes with each code, [n, tokens, k], from its gradient, [n, tokens, width]."""
        rows, indices = gradient.flatten(0, 1), self.codes.indices.flatten(0, 1).clamp(min=0)
        step = max(1, NUMBERS_AT_ONCE // self.codes.n_concepts)
        parts = [F.linear(g, self._rows).gather(1, i) for g, i in zip(rows.split(step), indices.split(step), strict=True)]
        return torch.cat(parts).reshape(self.codes.values.shape)

    def _with_labels(self, labels: Tensor | None) -> Scores:
        kind, output = self.running.kind, self.output
        if kind == "value":
            return Scores(lambda x, _: x.sum(1), lambda x, _: x.sum(1).abs())
        if kind == "logits":
            if labels is not None:
                self.running.check_labels(labels, output)
            classes = (output.argmax(1) if labels is None else labels).to(output.device)
            return Scores(
                lambda x, images: x.gather(1, classes[images][:, None])[:, 0] - x.mean(1),
                lambda x, _: (x - x.mean(1, keepdim=True)).norm(dim=1) / math.sqrt(x.shape[1]),
            )
        lost = self.running.decoder.standardized(self.codes).detach() * self.running.decoder.scale
        difference = output - self._edited(lambda tokens: tokens - lost)
        square = (difference**2).sum(1, keepdim=True)
        direction = torch.where(square > 0, difference / square, 0)
        norm = output.norm(dim=1)
        norm = norm.where(norm > 0, 1)
        return Scores(
            lambda x, images: ((x - output[images]) * direction[images]).sum(1),
            lambda x, images: x.norm(dim=1) / norm[images],
        )
