"""The autoencoder as PyTorch modules, which compute on any device, have gradients, and do not call the core."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from usae._base import checks
from usae._core.dictionary_rows import BOUND
from usae._core.tensors import BATCHNORM_EPSILON
from usae._data.activations import check_known, check_names
from usae._estimator.codes import Codes
from usae._estimator.universal_sae import UniversalSAE, checked_sae
from usae.errors import InvalidInputError
from usae.torch._tensor_codes import UNUSED, TensorCodes

NUMBERS_AT_ONCE = 2**24
"""Pre-activations that an encoder computes at once at most, 64 MB in float32; none of them is kept."""

TAKEN = frozenset(dir(nn.ModuleDict()))
"""Names that a `torch.nn.ModuleDict` has itself, such as "keys" and "training"."""

Device = torch.device | str | None


class _OfModel(nn.Module):
    """What encoder and decoder of a model have in common: its standardisation."""

    mean: Tensor
    mean_rest: Tensor
    scale: Tensor

    def __init__(self, width: int, n_concepts: int, device: Device, dtype: torch.dtype | None):
        super().__init__()
        self.width = checks.integer(width, "width", 1, 2**20)
        self.n_concepts = checks.integer(n_concepts, "n_concepts", 1, 2**24)
        for name, value in (("mean", 0.0), ("mean_rest", 0.0), ("scale", 1.0)):
            self.register_buffer(name, torch.full((self.width,), value, device=device, dtype=dtype))

    def _copy(self, values: Mapping[str, Any]) -> None:
        """Set parameters and buffers from arrays; `mean_rest` need not be there."""
        with torch.no_grad():
            for name, tensor in self.state_dict().items():
                if name in values:
                    tensor.copy_(torch.as_tensor(values[name]).reshape(tensor.shape))

    def extra_repr(self) -> str:
        return f"width={self.width}, n_concepts={self.n_concepts}"


class Encoder(_OfModel):
    """Encoder of one model as a PyTorch module: activations in the model's own units to codes.

    It computes what `UniversalSAE.encode` computes, on the device and in the type of its parameters, and never calls the core.
    Codes are equal up to rounding: PyTorch adds in another order. Where the k-th and the next pre-activation are closer than
    that, another concept may be selected; `usae.torch.code_agreement` tells for how many tokens. Under `torch.autocast` the
    product is computed in the type of autocast. NaN in a token gives NaN in its code.

    Parameters
    ----------
    width : int
        Width of the model.
    n_concepts : int
        Number of concepts.
    k : int
        The most concepts of a token, which is the number of slots of sparse codes.
    device : torch.device or str, optional
        Device of the parameters. Default: None, which takes PyTorch's.
    dtype : torch.dtype, optional
        Type of the parameters. Default: None, which takes PyTorch's.

    Attributes
    ----------
    weight : Parameter, [n_concepts, width]
        Encoder rows. Those of `from_sae` have a "batchnorm" encoder's factors in them, as `bias` has its constants.
    bias : Parameter, [n_concepts]
        What is added to the product with the encoder rows.
    threshold : Tensor, [] or [n_concepts]
        Pre-activations up to it are not selected: 0, or the learned threshold of "batchtopk". It has one for each concept where
        these have thresholds of their own, as after `usae.import_sae`.
    mean, mean_rest, scale : Tensor, [width]
        Standardisation of activations: ``(x - mean - mean_rest) / scale``.

    Examples
    --------
    >>> encoder = usae.torch.Encoder.from_sae(sae, "vit", device="cuda")
    >>> encoder(x)  # [..., n_concepts]
    >>> encoder(x, sparse=True).indices  # [..., k]
    """

    threshold: Tensor

    def __init__(self, width: int, n_concepts: int, k: int, *, device: Device = None, dtype: torch.dtype | None = None):
        super().__init__(width, n_concepts, device, dtype)
        self.k = checks.integer(k, "k", 1, self.n_concepts)
        self.weight = nn.Parameter(torch.empty(self.n_concepts, self.width, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(self.n_concepts, device=device, dtype=dtype))
        self.register_buffer("threshold", torch.zeros((), device=device, dtype=dtype))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)  # as of torch.nn.Linear

    @classmethod
    def from_sae(cls, sae: UniversalSAE, model: str, *, device: Device = None, dtype: torch.dtype | None = None) -> Encoder:
        """Return the encoder of a model, with copies of its parameters.

        Parameters
        ----------
        sae : UniversalSAE
            The autoencoder.
        model : str
            Name of the model.
        device : torch.device or str, optional
            Device of the parameters. Default: None, which takes PyTorch's.
        dtype : torch.dtype, optional
            Type of the parameters. Default: None, which takes float32.
        """
        parameters = _parameters(sae, model)
        n_concepts, width = parameters["encoder_weight"].shape
        threshold = parameters.get("threshold")
        batchwise = threshold is not None and threshold[0] > 0  # before a step BatchTopK selects as TopK does
        k = sae._initialized().core.slots if batchwise else sae._initialized().whole_k
        encoder = cls(width, n_concepts, k, device=device, dtype=dtype or torch.float32)
        weight, bias = _without_batchnorm(parameters)
        rest = parameters.get("threshold_rest")
        if batchwise and rest is not None and rest.any():
            threshold = threshold + rest
            encoder._have_thresholds(True)
        encoder._copy(parameters | {"weight": weight, "bias": bias, "threshold": threshold if batchwise else 0.0})
        return encoder

    def _have_thresholds(self, of_concepts: bool) -> None:
        """Give the threshold the shape of one number, or of one for each concept."""
        self.threshold = self.threshold.new_zeros((self.n_concepts,) if of_concepts else ())

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *others: Any) -> None:
        given = state_dict.get(f"{prefix}threshold")
        if isinstance(given, Tensor) and given.shape != self.threshold.shape and given.shape in ((), (self.n_concepts,)):
            self._have_thresholds(given.ndim == 1)
        super()._load_from_state_dict(state_dict, prefix, *others)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, k={self.k}"

    def standardized(self, x: Tensor) -> Tensor:
        """Return activations, [..., width], in standardised units."""
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim == 0 or x.shape[-1] != self.width:
            got = f"{x.dtype} {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise InvalidInputError(f"x must be a tensor of floats [..., {self.width}], got {got}")
        # Twice, because the difference to a mean that is far from 0 is exact, and the rest is what float32 lacks of that mean.
        return (((x - self.mean) - self.mean_rest) * (1 / self.scale)).to(self.weight.dtype)

    def preactivations(self, x: Tensor) -> Tensor:
        """Return the input of ReLU and of the selection, [..., n_concepts], of activations [..., width]."""
        return F.linear(self.standardized(x), self.weight, self.bias)

    def forward(self, x: Tensor, *, sparse: bool = False) -> Tensor | TensorCodes:
        """Encode activations, [..., width].

        Parameters
        ----------
        x : Tensor, [..., width]
            Activations in the model's own units, of any type of floats.
        sparse : bool
            Whether to return `TensorCodes`, [..., k], in place of a dense tensor. Their memory does not grow with
            tokens x concepts. Default: False.

        Returns
        -------
        Tensor, [..., n_concepts], or TensorCodes
            The code. Gradients are those of the selected pre-activations.
        """
        values, indices, kept = self._selected(x)
        if sparse:
            return TensorCodes(values, indices.where(kept, UNUSED), self.n_concepts)
        return values.new_zeros(*values.shape[:-1], self.n_concepts).scatter(-1, indices, values)

    def sparse(self, x: Tensor) -> TensorCodes:
        """Return ``encoder(x, sparse=True)``."""
        codes: TensorCodes = self(x, sparse=True)
        return codes

    def _selected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return values and concepts, [..., k], and which of them are selected. The other values are 0."""
        tokens = self.standardized(x)
        if torch.compiler.is_compiling() or tokens.numel() // self.width * self.n_concepts <= NUMBERS_AT_ONCE:
            return self._largest(tokens)
        rows = tokens.reshape(-1, self.width)
        parts = [self._largest(part) for part in rows.split(max(1, NUMBERS_AT_ONCE // self.n_concepts))]
        shape = *tokens.shape[:-1], self.k
        values, indices, kept = (torch.cat(each).reshape(shape) for each in zip(*parts, strict=True))
        return values, indices, kept

    def _largest(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        preactivations, least = F.linear(tokens, self.weight, self.bias), self.threshold
        if least.ndim:  # of each concept: a large one may be below its own, and then leaves its place to another
            preactivations, least = preactivations.where(~(preactivations <= least), 0), torch.zeros_like(least[0])
        values, indices = preactivations.topk(self.k, dim=-1)
        kept = ~(values <= least)  # so that NaN is kept
        return values.where(kept, 0), indices, kept


class Decoder(_OfModel):
    """Decoder of one model as a PyTorch module: codes to activations in the model's own units.

    It computes what `UniversalSAE.decode` computes, up to rounding, on the device and in the type of its parameters, and never
    calls the core.

    Parameters
    ----------
    width : int
        Width of the model.
    n_concepts : int
        Number of concepts.
    norm : "unit" or "bounded"
        Whether dictionary rows are divided by their norms, or only those whose norm is above 1. Default: "unit".
    epsilon : float
        What is added to the norms of dictionary rows before rows are divided by them, with "unit". Default: 1e-8.
    device : torch.device or str, optional
        Device of the parameters. Default: None, which takes PyTorch's.
    dtype : torch.dtype, optional
        Type of the parameters. Default: None, which takes PyTorch's.

    Attributes
    ----------
    dictionary : Parameter, [n_concepts, width]
        Dictionary rows of any norm. `rows` has them as they are used.
    mean, mean_rest, scale : Tensor, [width]
        Standardisation: activations are ``tokens * scale + mean_rest + mean``.
    bounded : Tensor of bool
        Whether `norm` is "bounded", so that a state_dict says so.

    Examples
    --------
    >>> decoder = usae.torch.Decoder.from_sae(sae, "vit")
    >>> decoder(encoder(x))  # of another model's encoder: the ViT's activations that follow from x
    """

    def __init__(
        self,
        width: int,
        n_concepts: int,
        *,
        norm: Literal["unit", "bounded"] = "unit",
        epsilon: float = 1e-8,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(width, n_concepts, device, dtype)
        bounded = checks.choice(norm, "norm", ("unit", "bounded")) == "bounded"
        self.register_buffer("bounded", torch.tensor(bounded, device=device))
        self.epsilon = checks.real(epsilon, "epsilon", "a finite number of at least 0")
        self.dictionary = nn.Parameter(torch.empty(self.n_concepts, self.width, device=device, dtype=dtype))
        nn.init.normal_(self.dictionary, std=self.width**-0.5)

    @classmethod
    def from_sae(cls, sae: UniversalSAE, model: str, *, device: Device = None, dtype: torch.dtype | None = None) -> Decoder:
        """Return the decoder of a model, with copies of its parameters.

        Parameters
        ----------
        sae : UniversalSAE
            The autoencoder.
        model : str
            Name of the model.
        device : torch.device or str, optional
            Device of the parameters. Default: None, which takes PyTorch's.
        dtype : torch.dtype, optional
            Type of the parameters. Default: None, which takes float32.
        """
        parameters = _parameters(sae, model)
        n_concepts, width = parameters["dictionary"].shape
        recipe = sae._initialized().recipe
        norm, epsilon = recipe.dictionary_norm, recipe.dictionary_epsilon
        decoder = cls(width, n_concepts, norm=norm, epsilon=epsilon, device=device, dtype=dtype or torch.float32)
        decoder._copy(parameters)
        return decoder

    def forward(self, codes: Tensor | TensorCodes | Codes) -> Tensor:
        """Decode codes of any model.

        Parameters
        ----------
        codes : Tensor, [..., n_concepts], TensorCodes or Codes
            Codes: a dense tensor, a sparse tensor of PyTorch, [n_tokens, n_concepts], or values and concepts.

        Returns
        -------
        Tensor, [..., width]
            Activations in the model's own units.
        """
        # The mean comes last: it may be so large that the rest would be lost in rounding.
        return (self.standardized(codes) * self.scale + self.mean_rest) + self.mean

    def standardized(self, codes: Tensor | TensorCodes | Codes) -> Tensor:
        """Return what codes add to the mean, [..., width], in standardised units."""
        if isinstance(codes, Codes):
            codes = codes.to_torch(self.dictionary.device)
        if isinstance(codes, TensorCodes):
            self._check(codes.n_concepts, f"codes of {codes.n_concepts} concepts")
            return self._sum_of_rows(codes)
        got = f"{codes.dtype} {list(codes.shape)}" if isinstance(codes, Tensor) else type(codes).__name__
        self._check(codes.shape[-1] if isinstance(codes, Tensor) and codes.ndim else None, got)
        codes = codes.to(self.dictionary.dtype)
        return codes @ self.rows() if codes.layout == torch.strided else torch.sparse.mm(codes, self.rows())

    def rows(self, concepts: Tensor | None = None) -> Tensor:
        """Return the dictionary rows of some concepts as codes are decoded by them, [n, width], in standardised units.

        Parameters
        ----------
        concepts : Tensor of int64, optional
            The concepts. Default: None, which takes all.
        """
        rows = self.dictionary if concepts is None else self.dictionary[concepts]
        return rows * self._scales(rows)[:, None]

    def _scales(self, rows: Tensor) -> Tensor:
        norms = torch.linalg.vector_norm(rows, dim=1)
        bounded = torch.where(norms > BOUND, norms, torch.ones_like(norms))
        return 1 / torch.where(self.bounded, bounded, norms + self.epsilon)  # type: ignore[arg-type]

    def _sum_of_rows(self, codes: TensorCodes) -> Tensor:
        """Add up the rows of the active concepts alone."""
        values, indices, _ = codes.flattened()
        used = indices != UNUSED
        concepts = indices.where(used, 0)
        coefficients = values.where(used, 0).to(self.dictionary.dtype) * self._scales(self.dictionary)[concepts]
        rows = F.embedding_bag(concepts, self.dictionary, mode="sum", per_sample_weights=coefficients)
        return rows.reshape(*codes.values.shape[:-1], self.width)

    def _check(self, n_concepts: int | None, got: str) -> None:
        if n_concepts != self.n_concepts:
            raise InvalidInputError(
                f"codes must be usae.Codes, usae.torch.TensorCodes or a tensor [..., {self.n_concepts}], of as many concepts "
                f"as this decoder has, got {got}"
            )


class Autoencoder(nn.Module):
    """Encoders and decoders of all models as one PyTorch module, which does not need the core.

    Parameters
    ----------
    widths : mapping of str to int
        Width of each model.
    n_concepts : int
        Number of concepts.
    k : int
        The most concepts of a token.
    device : torch.device or str, optional
        Device of the parameters. Default: None, which takes PyTorch's.
    dtype : torch.dtype, optional
        Type of the parameters. Default: None, which takes PyTorch's.

    Attributes
    ----------
    model_names : tuple of str
        Names of the models.
    n_concepts : int
        Number of concepts.

    Examples
    --------
    >>> autoencoder = usae.torch.Autoencoder.from_sae(sae, device="cuda")
    >>> autoencoder(x, "dinov2", "vit")  # predicts the activations of the ViT from those of DINOv2
    >>> torch.save(autoencoder.state_dict(), "autoencoder.pt")
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        n_concepts: int,
        k: int,
        *,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        if not isinstance(widths, Mapping):
            raise InvalidInputError(f"widths must be a mapping from model names to integers, got {type(widths).__name__}")
        check_names(widths, "widths")
        self.n_concepts = checks.integer(n_concepts, "n_concepts", 1, 2**24)
        self.model_names = tuple(widths)
        to: dict[str, Any] = {"device": device, "dtype": dtype}
        self.encoders = nn.ModuleDict({_key(name): Encoder(width, n_concepts, k, **to) for name, width in widths.items()})
        self.decoders = nn.ModuleDict({_key(name): Decoder(width, n_concepts, **to) for name, width in widths.items()})

    @classmethod
    def from_sae(cls, sae: UniversalSAE, *, device: Device = None, dtype: torch.dtype | None = None) -> Autoencoder:
        """Return modules of all models, with copies of their parameters.

        Parameters
        ----------
        sae : UniversalSAE
            The autoencoder.
        device : torch.device or str, optional
            Device of the parameters. Default: None, which takes PyTorch's.
        dtype : torch.dtype, optional
            Type of the parameters. Default: None, which takes float32.
        """
        names = checked_sae(sae).model_names_
        result = cls.__new__(cls)
        nn.Module.__init__(result)
        result.n_concepts, result.model_names = sae._initialized().n_concepts, names
        to: dict[str, Any] = {"device": device, "dtype": dtype}
        result.encoders = nn.ModuleDict({_key(name): Encoder.from_sae(sae, name, **to) for name in names})
        result.decoders = nn.ModuleDict({_key(name): Decoder.from_sae(sae, name, **to) for name in names})
        return result

    def encoder(self, model: str) -> Encoder:
        """Return the encoder of a model."""
        check_known(model, self.model_names, "model")
        found: Any = self.encoders[_key(model)]
        return found

    def decoder(self, model: str) -> Decoder:
        """Return the decoder of a model."""
        check_known(model, self.model_names, "model")
        found: Any = self.decoders[_key(model)]
        return found

    def encode(self, x: Tensor, model: str, *, sparse: bool = False) -> Tensor | TensorCodes:
        """Encode activations of a model, as `Encoder` does.

        Parameters
        ----------
        x : Tensor, [..., width]
            Activations in the model's own units.
        model : str
            Name of the model.
        sparse : bool
            Whether to return `TensorCodes`. Default: False.
        """
        result: Tensor | TensorCodes = self.encoder(model)(x, sparse=sparse)
        return result

    def decode(self, codes: Tensor | TensorCodes | Codes, model: str) -> Tensor:
        """Decode codes to activations of a model, as `Decoder` does.

        Parameters
        ----------
        codes : Tensor, [..., n_concepts], TensorCodes or Codes
            Codes of any model.
        model : str
            Name of the model whose dictionary decodes.
        """
        result: Tensor = self.decoder(model)(codes)
        return result

    def forward(self, x: Tensor, source: str, target: str) -> Tensor:
        """Return the activations of `target`, [..., width], that follow from the activations `x` of `source`."""
        return self.decode(self.encoder(source).sparse(x), target)


def _parameters(sae: object, model: str) -> dict[str, Any]:
    return checked_sae(sae).parameters(model)


def _without_batchnorm(parameters: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Return encoder rows and biases with BatchNorm in them, in float32 and in the order of operations of the core."""
    values = {name: torch.from_numpy(value) for name, value in parameters.items()}
    weight, bias = values["encoder_weight"], values["encoder_bias"]
    if "bn_weight" not in values:
        return weight, bias
    factor = values["bn_weight"] * (1 / (values["bn_running_var"] + BATCHNORM_EPSILON).sqrt())
    return weight * factor[:, None], values["bn_bias"] + factor * (bias - values["bn_running_mean"])


def _key(name: str) -> str:
    """Return a model's name as PyTorch takes it for a submodule: without dots, and no attribute that modules have."""
    text = name.replace("%", "%25").replace(".", "%2E")
    return f"%{text}" if text in TAKEN else text
