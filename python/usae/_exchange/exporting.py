"""`UniversalSAE.export`: a model, or a pair of models, in the files of other libraries."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from usae._base import checks, html
from usae._core.autoencoder import Autoencoder
from usae._data.activations import as_one_model, check_columns, check_known, check_names
from usae._exchange import sidecar
from usae._exchange.foreign_files import json_of
from usae._exchange.foreign_sae import ForeignSAE, folded, has_unit_rows, with_unit_rows
from usae._exchange.formats import crosscoder, dictionary_learning, overcomplete, saelens, sparsify, visaebench
from usae._exchange.formats.content import Content, Names
from usae._files import disk, regular_files
from usae._saved.tensor_file import fingerprint, write_tensors
from usae.errors import CheckpointError, CheckpointFileError, InvalidInputError

WRITERS: dict[str, Callable[[ForeignSAE, Names], Content]] = {
    saelens.NAME: saelens.write,
    sparsify.NAME: sparsify.write,
    visaebench.NAME: visaebench.write,
    dictionary_learning.NAME: dictionary_learning.write,
    overcomplete.NAME: overcomplete.write,
    crosscoder.NAME: crosscoder.write,
}
FORMATS = tuple(WRITERS)

_FAR = 1024.0  # multiples of the scale: 2**-24 of it is .0001 of a pre-activation's typical size
_CHUNK_BYTES = 2**26


@dataclasses.dataclass(frozen=True)
class Export:
    """Result of `UniversalSAE.export`: what was written, and what it cannot hold.

    Attributes
    ----------
    path : str
        The folder.
    format, architecture : str
        The library, and what it calls such an autoencoder.
    model, target : str
        The model that is encoded, and the one that is decoded. For "crosscoder" all models are decoded.
    files : tuple of str
        Names of the files in the folder.
    lost : dict of str to str
        What the files do not hold, each with a sentence.
    same_codes : bool
        Whether the other library computes the codes of `UniversalSAE.encode`, but for rounding: false where the cap `k_max` of
        BatchTopK can bind, and with `unit_rows`.
    capped : float or None
        Share of the tokens of `acts` whose code the cap shortens here and not there. None without `acts` or without a cap.
    loading : str
        Code with which the other library loads the folder.
    """

    path: str
    format: str
    architecture: str
    model: str
    target: str
    files: tuple[str, ...]
    lost: dict[str, str]
    same_codes: bool
    capped: float | None
    loading: str

    def summary(self) -> str:
        """Return a few lines of text: what was written, how it is loaded, and what is lost."""
        what = self.model if self.target == self.model else f"{self.model} -> {self.target}"
        lines = [f"{what} for {self.format} ({self.architecture}): {self.path}", f"load it with {self.loading}"]
        lines += [f"lost: {key}: {words}" for key, words in self.lost.items()]
        if self.capped is not None:
            lines.append(f"the cap shortens the codes of {self.capped:.2%} of these tokens, which it does not there")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return what is lost as a table, for notebooks."""
        what = self.model if self.target == self.model else f"{self.model} -> {self.target}"
        caption = f"{what} for {self.format} ({self.architecture}): {self.path}"
        return html.table(caption, ["lost", ""], self.lost.items())


def export(
    autoencoder: Autoencoder,
    path: str | os.PathLike[str],
    format: str,
    model: str | None,
    target: str | None,
    unit_rows: bool,
    acts: Mapping[str, Any] | None,
) -> Export:
    """Write the files; see `UniversalSAE.export`."""
    format = checks.choice(format, "format", FORMATS)
    names = _names(autoencoder, format, model, target)
    unit_rows = checks.boolean(unit_rows, "unit_rows")
    _check_means(autoencoder, names)
    foreign = folded(autoencoder, names.model, names.decoded, standardized=format == overcomplete.NAME)
    if unit_rows:
        if len(names.decoded) > 1:
            raise InvalidInputError("unit_rows must be False for the format 'crosscoder', whose models share a code, got True")
        unit_rows = not has_unit_rows(foreign)
        foreign = with_unit_rows(foreign) if unit_rows else foreign
    content = WRITERS[format](foreign, names)
    if not content.weights.endswith(".safetensors"):
        _torch()  # an error before the folder is made
    capped = None if acts is None else _capped(autoencoder, names.model, acts)
    lost = _lost(autoencoder, foreign, names, unit_rows) | content.lost
    files = _write(_folder(path, format), format, content, autoencoder, names, lost, foreign.k_max)
    return Export(
        os.fspath(path), format, content.architecture, names.model, names.target, files, lost,
        not unit_rows and "k_max" not in lost, capped, content.loading.format(path=repr(os.fspath(path))),
    )  # fmt: skip


def _names(autoencoder: Autoencoder, format: str, model: str | None, target: str | None) -> Names:
    known = autoencoder.names
    if model is None:
        if len(known) > 1:
            raise InvalidInputError(f"model must be one of {', '.join(map(repr, known))}, got None")
        model = known[0]
    check_known(model, known, "model")
    if target is not None:
        check_known(target, known, "target")
    own = model if target is None else target
    return Names(model, own, known if format == crosscoder.NAME else (own,))


def _check_means(autoencoder: Autoencoder, names: Names) -> None:
    """Refuse means that float32 cannot hold."""
    for name in {names.model, *names.decoded}:
        if np.any(autoencoder.parameters(name).get("mean_rest", 0)):
            raise InvalidInputError(
                f"model must have a mean that float32 holds, as others compute in float32, got {name!r}, whose mean is "
                f"more than 16,384 times its scale; subtract the mean from its activations and train again"
            )


def _lost(autoencoder: Autoencoder, foreign: ForeignSAE, names: Names, unit_rows: bool) -> dict[str, str]:
    lost = {}
    if foreign.k_max is not None and foreign.k_max < foreign.n_concepts:
        lost["k_max"] = f"a token has at most {foreign.k_max} concepts here, and there any number above the threshold"
    if unit_rows:
        lost["units"] = "codes are multiplied by the norms of dictionary rows in own units, so models are on different scales"
    others = [name for name in autoencoder.names if name not in {names.model, *names.decoded}]
    if others:
        lost["models"] = f"the encoders and dictionaries of {', '.join(others)}"
    lost["standardization"] = f"it is folded into the weights; mean and scale are in {sidecar.FILE}"
    if autoencoder.recipe.encoder == "batchnorm":
        lost["batchnorm"] = "it is folded into the weights"
    lost["training"] = "recipe, history, and the state of the optimiser"
    if set(autoencoder.column_labels) & {names.model, *names.decoded}:
        lost["labels"] = "labels of columns"
    parameters = autoencoder.parameters(names.model)
    far = float((np.abs(parameters["mean"]) / parameters["scale"]).max())
    if far > _FAR:
        lost["precision"] = f"the mean is {far:,.0f} times the scale, so float32 rounds pre-activations more than it does here"
    return lost


def _capped(autoencoder: Autoencoder, model: str, acts: object) -> float | None:
    """Return the share of tokens with more pre-activations above the threshold than the cap lets through."""
    if not isinstance(acts, Mapping):
        raise InvalidInputError(f"acts must be a mapping from names of models to arrays, got {checks.shown(acts)}")
    check_names(acts, "acts")
    check_known(model, list(acts), "acts")
    x = as_one_model(acts[model], f"acts[{model!r}]", None)
    check_columns(x, model, autoencoder.columns[model])
    threshold = float(autoencoder.parameters(model).get("threshold", [0.0])[0])
    if threshold == 0:
        return None
    size = max(1, _CHUNK_BYTES // (4 * autoencoder.n_concepts))
    n = 0
    for start in range(0, x.n_tokens, size):
        pre = np.empty((min(size, x.n_tokens - start), autoencoder.n_concepts), np.float32)
        autoencoder.core.preactivations(autoencoder.index(model), x.part(slice(start, start + len(pre))).native, pre)
        n += int(((pre > threshold).sum(1) > autoencoder.core.slots).sum())
    return n / x.n_tokens


# --- Files ------------------------------------------------------------------------------------------------------------


def _folder(path: str | os.PathLike[str], format: str) -> pathlib.Path:
    """Return the folder, which has to be new, empty, or an earlier export for the same library."""
    folder = disk.folder_of(path)
    with disk.io_errors(folder, "write", "the export"):
        if not os.path.lexists(folder):
            disk.make_parents(folder)
            folder.mkdir()
            return folder
        present = os.listdir(folder)
    if present:
        beside = folder / sidecar.FILE
        try:
            value = json_of(beside) if beside.exists() else None
        except CheckpointError:
            value = None
        if value is None or not sidecar.is_one(value) or value.get("library") != format:
            raise CheckpointFileError(
                17, f"cannot export there: the folder holds something other than an export for {format}; choose another path",
                str(folder),
            )  # fmt: skip
    return folder


def _write(
    folder: pathlib.Path,
    format: str,
    content: Content,
    autoencoder: Autoencoder,
    names: Names,
    lost: dict[str, str],
    k_max: int | None,
) -> tuple[str, ...]:
    """Write each file under another name, and rename it. The file that describes the others comes last."""
    with disk.io_errors(folder, "write", "the export"):
        weights = _replaced(folder / content.weights, lambda file: _write_weights(file, content))
        for name, value in content.json.items():
            text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
            _replaced(folder / name, lambda file, text=text: disk.write_text(file, text))  # type: ignore[misc]
        in_order = names.decoded if len(names.decoded) > 1 else tuple(dict.fromkeys((names.model, names.target)))
        standardization = {name: _standardization(autoencoder, name) for name in in_order}
        text = sidecar.text(sidecar.content(format, in_order, standardization, autoencoder.k, k_max, weights, lost))
        _replaced(folder / sidecar.FILE, lambda file: disk.write_text(file, text))
        disk.sync(folder)
    return (content.weights, *content.json, sidecar.FILE)


def _standardization(autoencoder: Autoencoder, name: str) -> tuple[np.ndarray, np.ndarray]:
    parameters = autoencoder.parameters(name)
    return parameters["mean"], parameters["scale"]


def _replaced(file: pathlib.Path, write: Callable[[pathlib.Path], object]) -> dict[str, Any]:
    """Write a file beside it, and put that in its place. Returns size and SHA-256."""
    with disk.replacing(file) as new:
        write(new)
        return fingerprint(new)


def _write_weights(file: pathlib.Path, content: Content) -> None:
    if content.weights.endswith(".safetensors"):
        write_tensors(file, content.tensors)
        return
    torch = _torch()
    buffer = io.BytesIO()
    torch.save({name: torch.from_numpy(np.array(value)) for name, value in content.tensors.items()}, buffer)
    with regular_files.created(file) as stream:
        stream.write(buffer.getvalue())
        stream.flush()
        os.fsync(stream.fileno())


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            "the format 'dictionary_learning' is written by PyTorch, which is not installed: pip install 'usae[torch]'"
        ) from error
    return torch
