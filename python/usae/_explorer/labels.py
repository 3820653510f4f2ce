"""Labels and stars of concepts, as the page writes them, and names that embeddings propose."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from usae._base import checks, html
from usae._base.frames import pandas_for
from usae._files import disk, regular_files
from usae.errors import CheckpointError, InvalidInputError

if TYPE_CHECKING:
    import pandas

FORMAT = "usae-explorer-labels"
VERSION = 1
LONGEST = 20_000
"""Characters of a label."""

_MOST_BYTES = 2**28
_REMEDY = "export it again from the explorer's page"


class Label(NamedTuple):
    """What somebody wrote about a concept in an explorer."""

    text: str
    """The label; "" if there is only a star."""
    starred: bool = False
    """Whether the concept has a star."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Labels(Mapping[int, Label]):
    """Labels of concepts: a mapping from numbers of concepts to `Label`, in the order of the numbers.

    Attributes
    ----------
    entries : dict of int to Label
        The labels.
    tensors : str
        SHA-256 of the autoencoder's tensors, as in the explorer in which the labels were written. "" if it is not known, as for
        CSV.
    """

    entries: dict[int, Label]
    tensors: str = ""

    def __getitem__(self, concept: int) -> Label:
        return self.entries[concept]

    def __iter__(self) -> Iterator[int]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def starred(self) -> list[int]:
        """Numbers of the concepts with a star."""
        return [concept for concept, label in self.entries.items() if label.starred]

    def to_frame(self) -> pandas.DataFrame:
        """Return a pandas DataFrame with a row for each concept, and the columns ``label`` and ``starred``.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        pandas = pandas_for("Labels.to_frame")
        texts, stars = [label.text for label in self.values()], [label.starred for label in self.values()]
        return pandas.DataFrame({"label": texts, "starred": stars}, index=pandas.Index(list(self), name="concept"))

    def _repr_html_(self) -> str:
        """Return the first 100 labels as a table, for notebooks."""
        chosen = list(self.items())[:100]
        rows = [[f"{concept}", label.text[:200], "★" if label.starred else ""] for concept, label in chosen]
        caption = repr(self) if len(chosen) == len(self) else f"{self!r}, the first {len(chosen)}"
        return html.table(caption, ["concept", "label", "star"], rows)

    def __repr__(self) -> str:
        return f"Labels({len(self)} concepts, {len(self.starred)} of them starred)"


def read_labels(path: str | os.PathLike[str]) -> Labels:
    """Read labels and stars that were exported from an explorer's page, as JSON or CSV.

    Parameters
    ----------
    path : path-like
        The exported file, ``labels.json`` or ``labels.csv``.

    Returns
    -------
    Labels
        A mapping from numbers of concepts to `Label`, with `text` and `starred`. It can be given to `usae.explorer` as labels.

    Raises
    ------
    InvalidInputError
        For a path that cannot be one.
    CheckpointError
        If the file has something else, was changed into what cannot be read, or names a concept twice.
    CheckpointFileError
        Also an OSError: the file cannot be read.

    Examples
    --------
    >>> labels = usae.read_labels("labels.json")
    >>> labels[1530].text, labels.starred
    """
    file = disk.path_of(path, "a file")
    with disk.io_errors(file.parent, "read", "the labels"):
        content = regular_files.read(file, _MOST_BYTES)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{file.name} must be text in UTF-8, got other bytes: {error}; {_REMEDY}") from error
    return _of_json(text, file) if text.lstrip().startswith("{") else _of_csv(text, file)


def _of_json(text: str, file: pathlib.Path) -> Labels:
    try:
        content = checks.parsed_json(text)
    except ValueError as error:
        raise CheckpointError(f"{file.name} must be JSON, got text that is none: {error}; {_REMEDY}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{file.name} must be labels of an explorer, got something else; {_REMEDY}")
    if content.get("version") != VERSION:
        raise CheckpointError(
            f"{file.name} must be of version {VERSION}, got {checks.shown(content.get('version'))}; use the version of usae "
            f"that made the explorer"
        )
    labels, tensors = content.get("labels"), content.get("tensors", "")
    if not isinstance(labels, dict) or not isinstance(tensors, str):
        raise CheckpointError(f"{file.name} must have labels by concept, got {checks.shown(labels)}; {_REMEDY}")
    entries: dict[int, Label] = {}
    for key, value in labels.items():
        label = value.get("text", "") if isinstance(value, dict) else None
        starred = value.get("starred", False) if isinstance(value, dict) else None
        entries[_concept(key, entries, file)] = _label(label, starred, file)
    return Labels(dict(sorted(entries.items())), tensors)


def _of_csv(text: str, file: pathlib.Path) -> Labels:
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST * 4))
    try:
        rows = list(csv.reader(io.StringIO(text, newline="")))
    except csv.Error as error:
        raise CheckpointError(f"{file.name} must be CSV, got text that is none: {error}; {_REMEDY}") from error
    if not rows or rows[0][:3] != ["concept", "label", "starred"]:
        raise CheckpointError(f"{file.name} must begin with concept,label,starred, got {checks.shown(rows[:1])}; {_REMEDY}")
    entries: dict[int, Label] = {}
    for row in rows[1:]:
        if not row:
            continue
        if len(row) < 3 or row[2] not in ("0", "1"):
            raise CheckpointError(f"{file.name} must have a number, a label and 0 or 1, got {checks.shown(row)}; {_REMEDY}")
        entries[_concept(row[0], entries, file)] = _label(row[1], row[2] == "1", file)
    return Labels(dict(sorted(entries.items())))


def _concept(key: str, known: Mapping[int, Label], file: pathlib.Path) -> int:
    """Return the number of a concept that is not known yet, however it is written: "07" is 7."""
    if not (key.isascii() and key.isdecimal() and len(key) < 9):
        raise CheckpointError(f"{file.name} must have numbers of concepts, got {checks.shown(key)}; {_REMEDY}")
    if int(key) in known:
        raise CheckpointError(f"{file.name} must name each concept once, got {int(key)} twice; leave one of its labels out")
    return int(key)


def _label(text: object, starred: object, file: pathlib.Path) -> Label:
    if not isinstance(text, str) or len(text) > LONGEST or not checks.is_unicode(text) or not isinstance(starred, bool):
        raise CheckpointError(
            f"{file.name} must have a text of at most {LONGEST} characters and a star for each concept, got "
            f"{checks.shown((text, starred))}; {_REMEDY}"
        )
    return Label(text, starred)


def as_labels(labels: Any, n_concepts: int) -> dict[int, Label]:
    """Check the argument `labels`: a mapping from concepts to text or `Label`, or a file of them."""
    if labels is None:
        return {}
    if isinstance(labels, (str, os.PathLike)):
        labels = read_labels(labels)
    if not isinstance(labels, Mapping):
        raise InvalidInputError(
            f"labels must be a mapping from concepts to text, or a file of labels, got {checks.shown(labels)}"
        )
    found = {}
    for concept, label in labels.items():
        number = checks.integer(concept, "labels", 0, n_concepts - 1)
        text, starred = (label, False) if isinstance(label, str) else label if isinstance(label, Label) else (None, False)
        if text is None or len(text) > LONGEST or not checks.is_unicode(text):
            raise InvalidInputError(
                f"labels must be text of at most {LONGEST} characters, got {checks.shown(label)} for concept {number}"
            )
        found[number] = Label(str(text), bool(starred))
    return dict(sorted(found.items()))


def labels_to_json(labels: Mapping[int, Label], tensors: str) -> str:
    """Return what the page exports."""
    entries = {str(concept): {"text": label.text, "starred": label.starred} for concept, label in labels.items()}
    content = {"format": FORMAT, "version": VERSION, "tensors": tensors, "labels": entries}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
