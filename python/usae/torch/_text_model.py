"""`usae.torch.TextModel`: one layer of a network of language, with the tokenizer that belongs to it."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from usae._base import checks
from usae.errors import InvalidInputError
from usae.torch._evaluation_mode import EvaluationMode
from usae.torch._inputs import where
from usae.torch._layer_output import children, find_layer
from usae.torch._model_arguments import autocast_type, checked_device, move, thread_number
from usae.torch._text_blocks import blocks_of
from usae.torch._tokenizers import Tokenizer
from usae.torch._wrappers import unwrapped, without_wrapper


class TextModel:
    """A network of language whose activations are taken at one layer, for `usae.torch.extract_texts`.

    The module is not copied and not changed, except that `device` moves it. Nothing is downloaded.

    Parameters
    ----------
    network : torch.nn.Module or path-like
        Network in evaluation mode, of transformers or any other whose forward takes numbers of tokens, [n, tokens]; or a folder
        with network and tokenizer, as ``save_pretrained`` of transformers writes it. If forward has an argument
        ``attention_mask``, it gets 1 for tokens and 0 for padding; otherwise texts of equal length are computed together.
    layer : int or str, optional
        Number of a block, from 1, or from the end, -1 being the last: what is taken of a network of transformers with blocks is
        its ``hidden_states[layer]``. Or the dotted name of a submodule that gives [n, tokens, width], such as "embeddings". The
        output of its first call is taken, and later layers are not computed. Default: None, which takes the last block.
    tokenizer : tokenizer or callable, optional
        A fast tokenizer of transformers, one of tokenizers, or a function from a text to the numbers of its tokens, [tokens],
        and their spans, [tokens, 2]: the first character of each, and the one after its last, equal for special tokens.
        Default: None, which takes that of the folder.
    max_tokens : int, optional
        Most tokens of a text, with special tokens. What is longer is cut off, and counted. Default: None, which takes what
        tokenizer and network say.
    device : torch.device or str, optional
        Device on which to compute. The module is moved there. Default: None, which takes the device of its parameters.
    autocast : torch.dtype, optional
        As for `Model`. Default: None.
    threads : int, optional
        As for `Model`. Default: None.

    Raises
    ------
    InvalidInputError
        For arguments that cannot be used. For an unknown layer the message has names that are spelled similarly.
    ImportError
        For a folder, if transformers is not installed.

    Notes
    -----
    The last of the ``hidden_states`` that transformers returns comes after a norm in networks that have one behind their
    blocks, such as GPT-2 and Llama. The last block here is before it; the name of the norm is what is after it.

    Examples
    --------
    >>> encoder = usae.torch.TextModel("folder/of/an/encoder")
    >>> models = {"early": encoder.at(1), "late": encoder.at(6)}
    >>> acts = usae.torch.extract_texts(models, texts)
    """

    def __init__(
        self,
        network: nn.Module | str | os.PathLike[str],
        layer: int | str | None = None,
        *,
        tokenizer: Any = None,
        max_tokens: int | None = None,
        device: torch.device | str | None = None,
        autocast: torch.dtype | None = None,
        threads: int | None = None,
    ):
        given: Any = network
        if isinstance(network, (str, os.PathLike)):
            given, tokenizer = _from_folder(Path(network), tokenizer)
        if not isinstance(given, nn.Module):
            raise InvalidInputError(f"network must be a torch.nn.Module or a folder, got {checks.shown(network)}")
        if tokenizer is None:
            raise InvalidInputError(
                f"tokenizer must be given with a network that is no folder, got None; give the one with which "
                f"{type(given).__name__} was trained"
            )
        target = None if device is None else checked_device(device)
        inside = unwrapped(given)
        self.module, self._runner = inside
        encoder = _encoder_of(self.module)
        if encoder is not self.module:
            self.module = self._runner = encoder
        self.tokenizer = Tokenizer(tokenizer, max_tokens, _positions(self.module))
        self.layer = self._chosen_layer(layer, given)
        self.autocast = autocast_type(autocast)
        self.threads = thread_number(threads)
        self._set_layer()
        if target is not None:
            move(given, target)

    def at(self, layer: int | str) -> TextModel:
        """Return a model of the same network and tokenizer at another layer. Both are computed in one pass.

        Parameters
        ----------
        layer : int or str
            Number of a block or name of a submodule, as for the class.

        Raises
        ------
        InvalidInputError
            If there is no such layer.
        """
        other = object.__new__(TextModel)
        other.__dict__.update(self.__dict__)
        other.layer = self._chosen_layer(layer, self.module)
        other._set_layer()
        return other

    def __repr__(self) -> str:
        parts = [f"layer={self.layer!r}", f"tokenizer={type(self.tokenizer.given).__name__}"]
        parts += [f"max_tokens={self.tokenizer.max_tokens or 'any number'}"]
        parts += [f"autocast={self.autocast}"] if self.autocast else []
        parts += [f"threads={self.threads}"] if self.threads else []
        return f"TextModel({type(self.module).__name__}, {', '.join(parts)})"

    @property
    def device(self) -> torch.device:
        """Device on which the network computes, that of its parameters."""
        return where(self.module)[0]

    @property
    def max_tokens(self) -> int | None:
        """Most tokens of a text, with special tokens. None: there is no limit."""
        return self.tokenizer.max_tokens

    @property
    def _label(self) -> str:
        return f"layer {self.layer!r} of {type(self.module).__name__}"

    def _set_layer(self) -> None:
        self._layer = find_layer(self.module, self.layer)
        self._evaluation = EvaluationMode(self.module, self._label)

    def _chosen_layer(self, layer: object, given: nn.Module) -> str:
        if isinstance(layer, str):
            return without_wrapper(layer, given, self.module)
        blocks = blocks_of(self.module)
        if blocks is None:
            got = "None" if layer is None else f"{checks.shown(layer)}, a number"
            raise InvalidInputError(
                f"layer must be the name of a submodule of {type(self.module).__name__}, whose blocks are not known here, got "
                f"{got}; it starts with one of {children(self.module)}; named_modules() lists all"
            )
        name, n = blocks
        if layer == 0 and not isinstance(layer, bool):
            raise InvalidInputError(
                f"layer must be a number from 1 to {n} or the name of a submodule, got 0; give the name of the embeddings, "
                f"which is or is in one of {children(self.module)}"
            )
        number = -1 if layer is None else checks.integer(layer, "layer", -n, n, ", or the name of a submodule")
        return f"{name}.{number + n if number < 0 else number - 1}"


def _from_folder(folder: Path, tokenizer: Any) -> tuple[nn.Module, Any]:
    if not folder.is_dir():
        raise InvalidInputError(
            f"network must be a folder with a network of transformers, got {str(folder)!r}, which is none; nothing is "
            f"downloaded: give what AutoModel.from_pretrained and AutoTokenizer.from_pretrained return"
        )
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise ImportError(
            f"usae.torch.TextModel needs transformers to read a folder ({error}): pip install 'usae[text]'"
        ) from error
    try:
        network = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
        tokenizer = tokenizer or transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except ImportError as error:  # it imports its parts when they are needed
        raise ImportError(
            f"usae.torch.TextModel needs transformers, with all that it imports for this network, to read a folder ({error}): "
            f"pip install 'usae[text]'"
        ) from error
    except Exception as error:  # transformers raises errors of many types
        raise InvalidInputError(
            f"network must be a folder that transformers can read, got {str(folder)!r}: {type(error).__name__}: {error}; save "
            f"network and tokenizer to it with save_pretrained"
        ) from error
    return network, tokenizer


def _encoder_of(network: Any) -> nn.Module:
    """Return the encoder of a network that has a decoder too, which would need texts of its own."""
    if getattr(getattr(network, "config", None), "is_encoder_decoder", False) and hasattr(network, "get_encoder"):
        return network.get_encoder()
    return network


def _positions(network: nn.Module) -> int | None:
    """Return how many tokens a network of transformers has positions for, if it says so."""
    positions = getattr(getattr(network, "config", None), "max_position_embeddings", None)
    if not isinstance(positions, int):
        return None
    tables = (part for name, part in network.named_modules() if name.rpartition(".")[2] == "position_embeddings")
    firsts = [getattr(table, "padding_idx", None) for table in tables]
    # RoBERTa and its kin count positions from the one behind that of padding.
    return positions - max((first + 1 for first in firsts if first is not None), default=0)


def takes(network: nn.Module) -> tuple[str, ...]:
    """Return the names of the arguments of a network's forward; none if they cannot be read."""
    try:
        return tuple(inspect.signature(network.forward).parameters)
    except (TypeError, ValueError):  # of what is not Python
        return ()
