"""One pass of a network of language for all of its layers that are wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from usae.errors import InvalidInputError
from usae.torch._autocast import using_autocast
from usae.torch._evaluation_mode import EvaluationMode
from usae.torch._inputs import all_finite, as_array, in_float32, where
from usae.torch._layer_output import run_to, tensor_of, without_graph
from usae.torch._network_errors import pass_on
from usae.torch._text_model import TextModel, takes
from usae.torch._threads import using_threads
from usae.torch._tokenizers import Tokens


class TextPass:
    """Layers of one network and tokenizer, whose activations one forward pass gives.

    Attributes
    ----------
    models : dict of str to TextModel
        The layers by the names of their models.
    """

    def __init__(self, models: dict[str, TextModel]):
        self.models = models
        self.first = next(iter(models.values()))
        self._labels = [model._label for model in models.values()]
        self._evaluation = EvaluationMode(self.first.module, " and ".join(self._labels))
        arguments = takes(self.first.module)
        self._name_of_ids = "input_ids" if "input_ids" in arguments else (*arguments, "")[0]
        self._takes_mask = "attention_mask" in arguments
        self._filling = _known_token(self.first.module, self.first.tokenizer.pad_id)
        self._without_cache = {"use_cache": False} if "use_cache" in arguments else {}

    def activations(self, tokens: Sequence[Tokens]) -> dict[str, list[np.ndarray]]:
        """Return each model's activations of some texts, [tokens, width] for each text."""
        found: dict[str, list[np.ndarray]] = {name: [np.empty((0, 0), np.float32)] * len(tokens) for name in self.models}
        lengths = np.array([len(each.ids) for each in tokens])
        groups = [np.flatnonzero(lengths)] if self._takes_mask else [np.flatnonzero(lengths == n) for n in set(lengths) if n]
        for group in groups:
            if len(group):
                for name, states in zip(self.models, self._computed([tokens[i].ids for i in group.tolist()]), strict=True):
                    for i, state in zip(group, states, strict=True):
                        found[name][i] = state[: lengths[i]]
        return found

    def _computed(self, ids: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return each model's activations, [texts, tokens, width], of texts that are padded to one length."""
        longest = max(map(len, ids))
        both = np.zeros((len(ids), 2, longest), np.int64)  # as one tensor, numbers of tokens and the mask
        both[:, 0] = self._filling
        for row, each in zip(both, ids, strict=True):
            row[0, : len(each)], row[1, : len(each)] = each, 1
        with without_graph(), using_threads(self.first.threads):
            inputs = torch.from_numpy(both).to(self.first.device)
            states = self._evaluation.checked(self._forward, inputs)
        for label, state in zip(self._labels, states, strict=True):
            self._check(state, both[:, 1] == 1, label)
        return [as_array(state) for state in states]

    def _forward(self, both: Tensor) -> list[Tensor]:
        numbers, mask = both[:, 0], both[:, 1]
        given: Any = numbers
        if self._takes_mask:
            given = {self._name_of_ids: numbers, "attention_mask": mask} | self._without_cache
        label, shape = " and ".join(self._labels), list(numbers.shape)
        try:
            with using_autocast(both.device, self.first.autocast):
                outputs = run_to(self.first._runner, [model._layer for model in self.models.values()], self._labels, given)
        except Exception as error:
            pass_on(error, f"{shape[0]} texts of {shape[1]} tokens, as computed up to {label},")
            raise InvalidInputError(
                f"network must compute {label} from numbers of tokens {shape}, got {type(error).__name__}: {error}; is this "
                f"the tokenizer of this network, and max_tokens at most what it takes?"
            ) from error
        return [self._state(output, shape, each) for output, each in zip(outputs, self._labels, strict=True)]

    @staticmethod
    def _state(output: object, shape: list[int], label: str) -> Tensor:
        state = tensor_of(output, label)
        if state.ndim != 3 or list(state.shape[:2]) != shape or not state.is_floating_point() or not state.shape[2]:
            raise InvalidInputError(
                f"{label} must give floats [n, tokens, width], {shape} in its first dimensions, got {state.dtype} "
                f"{list(state.shape)}; choose a layer before tokens are pooled"
            )
        return state

    def _check(self, state: Tensor, counts: np.ndarray, label: str) -> None:
        if all_finite(in_float32(state)):
            return
        of_tokens = in_float32(state).cpu().numpy()[counts]
        if not np.isfinite(of_tokens).all():
            half = torch.float16 in (self.first.autocast, where(self.first.module)[1])
            remedy = "float16 ends at 65504: compute in bfloat16 or float32" if half else "look for NaN in its parameters"
            raise InvalidInputError(f"activations of {label} must be finite, got NaN or infinity; {remedy}")


def _known_token(network: Any, pad_id: int) -> int:
    """Return the token that stands behind shorter texts: 0 if the network has no embedding of the tokenizer's own."""
    table = network.get_input_embeddings() if hasattr(network, "get_input_embeddings") else None
    n = getattr(table, "num_embeddings", None)
    return pad_id if pad_id >= 0 and (not isinstance(n, int) or pad_id < n) else 0


def tokenizer_key(model: TextModel) -> tuple[int, int | None]:
    """Return what the tokens of a text depend on."""
    return id(model.tokenizer.given), model.max_tokens


def text_passes(models: Mapping[str, TextModel]) -> list[TextPass]:
    """Group models such that each group needs one pass, in the order of their first names."""
    groups: dict[Any, dict[str, TextModel]] = {}
    for name, model in models.items():
        key = id(model.module), id(model._runner), tokenizer_key(model), model.autocast, model.threads
        groups.setdefault(key, {})[name] = model
    return [TextPass(group) for group in groups.values()]
