"""`usae.import_sae`: autoencoders that other libraries have saved, as autoencoders of usae."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from usae._base import checks
from usae._core.dictionary_rows import unit_rows
from usae._data.activations import check_names
from usae._estimator.universal_sae import UniversalSAE
from usae._exchange import hub, sidecar
from usae._exchange.exporting import FORMATS
from usae._exchange.foreign_files import Tensors, json_of
from usae._exchange.foreign_sae import ROUNDING, ForeignSAE, spread
from usae._exchange.formats import crosscoder, dictionary_learning, overcomplete, saelens, sparsify, visaebench
from usae._exchange.sidecar import Sidecar
from usae._files import disk
from usae._saved.header import HEADER
from usae.errors import CheckpointError, CheckpointFileError, InvalidInputError
from usae.recipes import Recipe

__all__ = ["import_sae"]

TOLERANCE = 1e-5

_USUAL_K = 32

_ALL_POSITIVE = float(np.finfo(np.float32).tiny)
"""A threshold for a ReLU: with 0, which an encoder has before its first step, codes are the k largest."""


def import_sae(
    path: str | os.PathLike[str] | Mapping[str, Any],
    format: str | None = None,
    *,
    names: str | tuple[str, ...] | list[str] | None = None,
    k: float | None = None,
    k_max: int | None = None,
    tolerance: float = TOLERANCE,
    n_threads: int | None = None,
) -> UniversalSAE:
    """Make an autoencoder from one that another library has saved: SAELens, sparsify, VISAEBench, and others.

    Neither that library nor torch is needed, and no code in the files is executed. TopK, ReLU, JumpReLU and BatchTopK can be
    represented, if the result computes the same code; anything else is an error that says why. docs/exchange.md has the list.

    Parameters
    ----------
    path : path-like or mapping of str to array
        Folder that the library wrote, or ``"hf://user/repo/folder"`` of the Hugging Face Hub. For dictionary_learning and
        overcomplete also a file with a ``state_dict``, or the ``state_dict`` itself.
    format : str, optional
        "saelens", "sparsify", "visaebench", "dictionary_learning", "overcomplete" or "crosscoder". Default: None, which finds
        it by the names of files and tensors.
    names : str or sequence of str, optional
        Names for the models: one; two for a transcoder, of the encoded model and the decoded one; for a crosscoder one for each
        dictionary. Default: None, which takes those of an export by usae, or "model", "target", "model_0" and so on.
    k : int or float, optional
        Number of active concepts where the files do not say: needed for TopK; with thresholds it is the mean number that
        further training aims at, which may be fractional. Default: None, which takes what the files say.
    k_max : int, optional
        The most concepts of a token, with thresholds. Codes have so many slots. Default: None, which takes that of an export by
        usae, and otherwise all concepts, so that nothing is cut off.
    tolerance : float
        With TopK, norms of dictionary rows that differ by at most this share are made equal. Where they differ by more, rows
        keep their norms (``dictionary_norm="bounded"``), and codes are the other library's all the same. Default: 1e-5.
    n_threads : int, optional
        Number of threads, as for `UniversalSAE`. Default: None.

    Returns
    -------
    UniversalSAE
        The autoencoder, with the optimiser in its initial state. Thresholds that differ between concepts are in the parameter
        "threshold_rest", which training leaves as it is. Of an export by usae it has the original's codes, but for
        rounding of weights to float32. Otherwise its mean is the other's decoder bias, and codes are those of the other
        library, or, with thresholds and norms of dictionary rows that differ, those times the norms. Of a transcoder only
        encoding from the first model and decoding to the second means something: the first has a dictionary of zeros, and the
        second such an encoder.

    Raises
    ------
    CheckpointError
        If a file is damaged, or holds what usae cannot represent: another architecture, normalised activations, or several
        models whose norms are not in one proportion where selection is by norms.
    CheckpointFileError
        Also an OSError: a file cannot be read, or not be downloaded.
    InvalidInputError
        For arguments that cannot be used.
    """
    if format is not None:
        format = checks.choice(format, "format", FORMATS)
    k = None if k is None else checks.mean_count(k, "k", 1, 2**24)
    k_max = None if k_max is None else checks.integer(k_max, "k_max", 1, 2**24)
    tolerance = checks.real(tolerance, "tolerance", "a share of at least 0")
    label, foreign, known = _read(path, format, k)
    given = _names(names, foreign, known)
    made = _represented(foreign, known, tolerance, label)
    if known is not None:
        k, k_max = known.k if k is None else k, known.k_max if k_max is None else k_max
        if foreign.thresholds is not None and foreign.k is not None:
            foreign = dataclasses.replace(foreign, k=known.k)  # in full; the other library's may be rounded
    return _made(made, foreign, given, k, k_max, n_threads, label)


# --- Reading ----------------------------------------------------------------------------------------------------------


def _read(path: Any, format: str | None, k: float | None) -> tuple[str, ForeignSAE, Sidecar | None]:
    """Return a label for messages, what was read, and what an export of usae says beside it."""
    if isinstance(path, Mapping):
        return "path", _of_state(Tensors("path", path), format, k), None
    place = hub.downloaded_folder(path) if hub.is_address(path) else disk.path_of(path, "a folder or a file")
    with disk.io_errors(place, "read", "the autoencoder"):
        if place.is_file():
            return str(place), _of_state(Tensors.of(place), format, k), None
        if not place.is_dir():
            raise CheckpointFileError(2, "cannot read the autoencoder: there is no such folder or file", str(place))
        format = _found_format(place) if format is None else format
        reader, weights = READERS[format]
        foreign = reader(place, k)
        described = [foreign.weight.shape[1]] if foreign.source is None else []
        described += [rows.shape[1] for rows in foreign.rows]
        known = sidecar.read(place, place / weights, described)
    if known is not None and format == overcomplete.NAME:
        foreign = _in_own_units(foreign, known)
    return str(place), foreign, known


def _found_format(folder: pathlib.Path) -> str:
    present = set(os.listdir(folder))
    if saelens.WEIGHTS in present:
        return saelens.NAME
    if sparsify.WEIGHTS in present:
        return sparsify.NAME
    if dictionary_learning.WEIGHTS in present:
        return dictionary_learning.NAME
    if HEADER in present:
        raise CheckpointError(f"{folder} is an autoencoder that usae saved; use usae.load")
    if visaebench.CONFIG in present and present & {visaebench.WEIGHTS, "sae.pt", "model.pt"}:
        if visaebench.WEIGHTS in present:
            tensors = Tensors.of(folder / visaebench.WEIGHTS)
            if crosscoder.is_one(tensors):
                return crosscoder.NAME
            if overcomplete.is_one(tensors) and _sidecar_says(folder, overcomplete.NAME):
                return overcomplete.NAME
        return visaebench.NAME
    shown = ", ".join(sorted(present)[:6]) + (", ..." if len(present) > 6 else "")
    raise CheckpointError(
        f"{folder} must hold the files of {', '.join(FORMATS)}, got {shown or 'nothing'}; give the folder with the weights"
    )


def _sidecar_says(folder: pathlib.Path, library: str) -> bool:
    """Whether usae wrote this folder for that library."""
    file = folder / sidecar.FILE
    return file.exists() and sidecar.is_one(value := json_of(file)) and value.get("library") == library


def _of_state(tensors: Tensors, format: str | None, k: float | None) -> ForeignSAE:
    """Return the autoencoder of a state_dict, whose library its names tell."""
    if format is None:
        format = overcomplete.NAME if overcomplete.is_one(tensors) else dictionary_learning.NAME
    if format == overcomplete.NAME:
        return overcomplete.of_state(tensors, k)
    if format == dictionary_learning.NAME:
        return dictionary_learning.of_state(tensors, k=k)
    raise InvalidInputError(
        f"path must be a folder for the format {format!r}, which has more than a file of tensors, got {tensors.label}"
    )


def _without_k(read: Callable[[pathlib.Path], ForeignSAE]) -> Callable[[pathlib.Path, float | None], ForeignSAE]:
    return lambda folder, k: read(folder)


READERS: dict[str, tuple[Callable[[pathlib.Path, float | None], ForeignSAE], str]] = {
    saelens.NAME: (_without_k(saelens.read), saelens.WEIGHTS),
    sparsify.NAME: (_without_k(sparsify.read), sparsify.WEIGHTS),
    visaebench.NAME: (_without_k(visaebench.read), visaebench.WEIGHTS),
    dictionary_learning.NAME: (_without_k(dictionary_learning.read), dictionary_learning.WEIGHTS),
    overcomplete.NAME: (overcomplete.read, overcomplete.WEIGHTS),
    crosscoder.NAME: (_without_k(crosscoder.read), crosscoder.WEIGHTS),
}
"""How a folder of each format is read, given `k`, and the file of its weights."""


def _in_own_units(foreign: ForeignSAE, known: Sidecar) -> ForeignSAE:
    """Return what encodes and decodes activations, of what does so with standardised ones."""
    mean, scale = known.means[known.names[0]], known.scales[known.names[0]]
    weight = foreign.weight / scale
    return dataclasses.replace(
        foreign, weight=weight, bias=foreign.bias - weight @ mean, rows=(foreign.rows[0] * scale,), means=(mean,)
    )


# --- Representation ---------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Parameters:
    """Parameters of usae: W, b, threshold, and of each decoder the mean, scale and dictionary of its model."""

    mean: np.ndarray
    scale: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    threshold: float | None
    threshold_rest: np.ndarray | None
    decoders: tuple[dict[str, np.ndarray], ...]
    norm: Literal["unit", "bounded"] = "unit"


def _represented(foreign: ForeignSAE, known: Sidecar | None, tolerance: float, label: str) -> _Parameters:
    """Find parameters of usae that compute the same code.

    Where all rows of the other's dictionary have one norm, that becomes the scale, and rows have norm 1 in standardised units.
    Where norms differ and selection is by thresholds or by norms, they go into the encoder: usae then selects among
    pre-activations times norms. Otherwise rows keep their norms, and the largest becomes the scale (`dictionary_norm`).
    """
    decoded = tuple(range(len(foreign.rows)))
    if known is not None:
        first = 1 if foreign.source is None else 0
        means = [known.means[known.names[j + first]] for j in decoded]
        scales = [known.scales[known.names[j + first]] for j in decoded]
    else:
        means = list(foreign.means)
        scales = [np.ones(rows.shape[1]) for rows in foreign.rows]
    norms = [np.linalg.norm(rows / scale, axis=1) for rows, scale in zip(foreign.rows, scales, strict=True)]
    factors = [_factors(own, label) for own in norms]
    common = factors[0]
    if known is None:  # the norm that all rows have is the model's scale
        first_size = 1.0 if spread(common) > tolerance else float(np.median(common))
        sizes = [first_size * float(np.median(own / common)) for own in factors]
        scales = [scale * size for scale, size in zip(scales, sizes, strict=True)]
        factors = [own / size for own, size in zip(factors, sizes, strict=True)]
        common = factors[0]
    threshold, rest = None, None
    by_topk = foreign.thresholds is None and not foreign.by_norms
    apart = any(spread(own / common) > tolerance for own in factors[1:])
    if apart and foreign.by_norms:
        raise CheckpointError(
            f"{label}: norms of dictionary rows of all models must be in one proportion where selection is by norms, got "
            f"others; usae has one code for all models"
        )
    as_exported = known is not None and not known.has_other_codes and not foreign.by_norms
    bounded = apart or (spread(common) > tolerance and (by_topk or as_exported))
    size = 1.0
    if bounded:
        norms = [np.linalg.norm(rows / scale, axis=1) for rows, scale in zip(foreign.rows, scales, strict=True)]
        if known is None:
            scales = [scale * own.max() for scale, own in zip(scales, norms, strict=True)]
        else:  # scales are given, so codes grow where rows are too long
            size = max(1.0, *(float(own.max()) for own in norms))
        common = np.full_like(common, size)
    elif by_topk:
        common = np.full_like(common, np.median(common))
    if foreign.thresholds is not None:
        threshold, rest = _thresholds(foreign.thresholds, common)
    if spread(common) <= 1e-7:
        common = np.full_like(common, np.median(common))
    if foreign.source is not None:
        mean, scale = means[foreign.source], scales[foreign.source]
    elif known is not None:
        mean, scale = known.means[known.names[0]], known.scales[known.names[0]]
    else:
        mean, scale = np.zeros(foreign.weight.shape[1]), np.ones(foreign.weight.shape[1])
    decoders = []
    for m, s, rows in zip(means, scales, foreign.rows, strict=True):
        standardized = rows / s
        dictionary = standardized / size if bounded else unit_rows(standardized)
        decoders.append({"mean": m, "scale": s, "dictionary": dictionary})
    weight = foreign.weight * scale * common[:, None]
    bias = foreign.bias_after(mean) * common
    return _Parameters(mean, scale, weight, bias, threshold, rest, tuple(decoders), "bounded" if bounded else "unit")


def _factors(norms: np.ndarray, label: str) -> np.ndarray:
    """Return norms, with the median of the others in place of 0: a row of zeros adds nothing, whatever its code."""
    if not (norms > 0).any():
        raise CheckpointError(f"{label}: the dictionary must have rows, got zeros alone; use a trained one")
    return np.where(norms > 0, norms, np.median(norms[norms > 0]))


def _thresholds(thresholds: np.ndarray, factors: np.ndarray) -> tuple[float, np.ndarray | None]:
    """Return the threshold of pre-activations times factors, and what each concept's own has above it, if they differ."""
    scaled = np.maximum(np.maximum(thresholds, 0) * factors, _ALL_POSITIVE)
    if spread(scaled) <= ROUNDING:
        return float(np.median(scaled)), None
    wanted = scaled.astype(np.float32)
    # A power of two, so that the difference is exact, and the sum, which is rounded to float32, is the threshold.
    lowest = np.float32(2.0 ** (np.frexp(wanted.min())[1] - 1))
    rest = (wanted.astype(np.float64) - lowest).astype(np.float32)
    rest = np.where(lowest + rest > wanted, np.nextafter(rest, np.float32(0)), rest)
    return float(lowest), rest


# --- Making -----------------------------------------------------------------------------------------------------------


def _names(names: Any, foreign: ForeignSAE, known: Sidecar | None) -> tuple[str, ...]:
    """Return the names of the models: of a transcoder the encoded and the decoded one."""
    n = len(foreign.rows) + (foreign.source is None)
    if names is None:
        if known is not None:
            return known.names
        return (
            ("model", "target") if foreign.source is None else ("model",) if n == 1 else tuple(f"model_{i}" for i in range(n))
        )
    given = (names,) if isinstance(names, str) else tuple(checks.listed(names, "names", "a name, or a list of names"))
    if len(given) != n:
        raise InvalidInputError(f"names must have one name for each of {n} models, got {checks.shown(names)}")
    if not all(isinstance(name, str) for name in given) or len(set(given)) < n:
        raise InvalidInputError(f"names must be different texts, got {checks.shown(names)}")
    check_names(dict.fromkeys(given, 0), "names")
    return given


def _made(
    made: _Parameters,
    foreign: ForeignSAE,
    names: tuple[str, ...],
    k: float | None,
    k_max: int | None,
    n_threads: int | None,
    label: str,
) -> UniversalSAE:
    n = foreign.n_concepts
    by_threshold = foreign.thresholds is not None
    slots = min(n, k_max) if by_threshold and k_max is not None else n
    active = foreign.k if foreign.k is not None else k
    if active is None:
        active = min(_USUAL_K, slots)
    if not by_threshold and not isinstance(active, int):
        raise InvalidInputError(
            f"k must be an integer for {label}, whose tokens have the k largest pre-activations, got {active}; only a mean, "
            f"beside thresholds, may be fractional"
        )
    if not by_threshold and active > n:
        raise CheckpointError(f"{label}: k must be at most the number of concepts, {n}, got {active}; copy it again")
    active = min(active, slots)
    recipe = Recipe(name="imported", dictionary_norm=made.norm)
    if by_threshold:
        recipe = recipe.replace(selection="batchtopk", k_max=slots)
    sae = UniversalSAE(n, active, recipe=recipe, n_threads=n_threads)
    encoded = {"mean": made.mean, "scale": made.scale, "encoder_weight": made.weight, "encoder_bias": made.bias}
    if made.threshold is not None:
        encoded["threshold"] = np.array([made.threshold])
    if made.threshold_rest is not None:
        encoded["threshold_rest"] = made.threshold_rest
    parameters: dict[str, dict[str, np.ndarray]] = {}
    if foreign.source is None:
        parameters[names[0]] = encoded | {"dictionary": np.zeros_like(made.weight)}
    for j, (name, decoder) in enumerate(zip(names[-len(made.decoders) :], made.decoders, strict=True)):
        dictionary = decoder["dictionary"]
        silent = {"encoder_weight": np.zeros_like(dictionary), "encoder_bias": np.zeros(n)}
        parameters[name] = (encoded if j == foreign.source else silent) | decoder
    sae.initialize({name: own["dictionary"].shape[1] for name, own in parameters.items()})
    for name, own in parameters.items():
        try:
            sae.set_parameters(name, own)
        except InvalidInputError as error:
            raise CheckpointError(f"{label}: {error}; it cannot be represented in float32") from None
    sae._initialized().lacks_training_state = True
    return sae
