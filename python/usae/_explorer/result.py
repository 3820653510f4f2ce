"""`usae.Explorer`: a page that was written, to show in a notebook, to serve, and to find concepts of new images in."""

from __future__ import annotations

import errno
import html
import os
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from usae._base import checks
from usae._data.activations import as_activations, check_columns, check_known
from usae.analysis.image_codes import Pool
from usae.errors import CheckpointFileError, InvalidInputError

if TYPE_CHECKING:
    from usae._estimator.universal_sae import UniversalSAE
    from usae._explorer.search import Search
    from usae._explorer.server import Server

LARGEST_INLINE = 32 * 2**20
"""Bytes of the largest page that a notebook gets as text."""


class Found(NamedTuple):
    """What `Explorer.find` finds of a new image."""

    concepts: dict[str, list[tuple[int, float]]]
    """For each model that was given, its strongest concepts with their largest codes."""
    images: list[tuple[int, float]]
    """The most similar images by number, with the cosine of their strongest codes."""
    address: str
    """The address of the list of these concepts in the page."""


class Explorer:
    """A page that shows every concept of an autoencoder. `usae.explorer` writes it.

    Attributes
    ----------
    path : pathlib.Path
        The page: the file ``index.html`` of its folder, or the one file. Any browser opens it.
    """

    def __init__(self, path: pathlib.Path, one_file: bool, sae: UniversalSAE, pool: Pool, crop: bool, search: Search):
        self.path = path
        self._one_file, self._sae, self._pool, self._crop = one_file, sae, pool, crop
        self._concepts, self._values = search.image_concepts, search.image_values

    @property
    def n_bytes(self) -> int:
        """Size of all files, in bytes."""
        if self._one_file:
            return self.path.stat().st_size
        return sum(file.stat().st_size for file in self.path.parent.rglob("*") if file.is_file())

    def show(self, height: int = 760, *, at: str = "") -> Frame:
        """Show the page in a notebook. Return this from a cell.

        Parameters
        ----------
        height : int
            Height of the frame, in pixels. Default: 760.
        at : str
            Where the page opens, such as ``"c=1530"`` for a concept. Default: "".

        Raises
        ------
        InvalidInputError
            If the page is neither below the notebook's folder, nor one file of at most 32 MB; `serve` shows it then.
        CheckpointFileError
            Also an OSError: the page is no longer there.
        """
        height = checks.integer(height, "height", 100, 100_000)
        if not isinstance(at, str):
            raise InvalidInputError(f"at must be text, the part of an address behind #, got {checks.shown(at)}")
        self._check_there()
        relative = os.path.relpath(self.path)
        if not relative.startswith(os.pardir) and not os.path.isabs(relative):
            address = "/".join(pathlib.PurePath(relative).parts)
            return Frame(f'src="{html.escape(_quoted(address) + "#" + at)}"', height)
        size = self.path.stat().st_size
        if not self._one_file or size > LARGEST_INLINE:
            raise InvalidInputError(
                f"path must be below the notebook's folder, or one file of at most {LARGEST_INLINE:,} bytes, got "
                f"{str(self.path)!r}; use .serve()"
            )
        page = self.path.read_text(encoding="utf-8").replace("<body>", f'<body data-at="{html.escape(at)}">', 1)
        return Frame(f'srcdoc="{html.escape(page)}"', height)

    def serve(self, port: int = 0, *, wait: bool = False) -> Server:
        """Serve the page on 127.0.0.1, and print its address and how to reach it by ssh.

        Parameters
        ----------
        port : int
            Port of this machine. Default: 0, which takes one that is free.
        wait : bool
            Whether to serve until Ctrl-C, and not in the background. Default: False.

        Returns
        -------
        Server
            It has the `address` of the page, and `close()`.

        Raises
        ------
        CheckpointFileError
            Also an OSError: the page is no longer there, or the port is taken.
        """
        from usae._explorer.server import Server

        port = checks.integer(port, "port", 0, 65535)
        self._check_there()
        wait = checks.boolean(wait, "wait")
        server = Server(self.path, port)
        try:
            print(server.told(), flush=True)
            if wait:
                server.wait()
        except KeyboardInterrupt:  # right after the address was printed
            server.close()
            if not wait:
                raise
        return server

    def _check_there(self) -> None:
        if not self.path.is_file():
            raise CheckpointFileError(
                errno.ENOENT, "cannot show the explorer: its page is no longer there; make it again", str(self.path)
            )

    def find(self, acts: Mapping[str, Any] | Any, models: Mapping[str, Any] | None = None, *, n: int = 16) -> Found:
        """Find the concepts of one new image, and the most similar images of the explorer.

        Parameters
        ----------
        acts : mapping of str to array [tokens, width], or a picture
            Activations of the image in some or all models. With `models`, the picture itself: a file, an array or a PIL image.
        models : mapping of str to usae.torch.Model, optional
            The networks that the picture is shown to: its centre if the explorer was made with `crop`, otherwise all of it.
            Default: None, which takes activations.
        n : int
            Number of concepts of each model, and of images. Default: 16.

        Returns
        -------
        Found
            Concepts, images, and the address of the concepts' list in the page.

        Raises
        ------
        InvalidInputError
            For arguments that cannot be used.
        """
        n = checks.integer(n, "n", 1, 10_000)
        given = self._extracted(acts, models) if models is not None else acts
        if not isinstance(given, Mapping) or not given:
            raise InvalidInputError(
                f"acts must be activations of one image by the name of the model, or a picture with models=..., got "
                f"{checks.shown(given)}"
            )
        peaks = {name: self._peaks(name, x) for name, x in given.items()}
        concepts = {}
        for name, values in peaks.items():
            order = np.argsort(-values, kind="stable")[:n]
            concepts[name] = [(int(i), float(values[i])) for i in order if values[i] > 0]
        chosen = list(dict.fromkeys(concept for found in concepts.values() for concept, _ in found))
        address = f"{self.path.as_uri()}#list&only={','.join(map(str, chosen))}"
        return Found(concepts, self._alike(peaks, n), address)

    def _peaks(self, name: str, x: Any) -> np.ndarray:
        """Largest code of each concept in one image, float32 [m]."""
        autoencoder = self._sae._initialized()
        check_known(name, autoencoder.names, "acts")
        label = f"acts[{name!r}]"
        given = as_activations(x, label)
        if given.array.ndim == 3 and given.array.shape[0] != 1:
            raise InvalidInputError(f"{label} must be of one image, [tokens, width], got shape {list(given.array.shape)}")
        check_columns(given, name, autoencoder.columns[name])
        codes = self._sae.encode(np.asarray(x).reshape(-1, given.width) if given.array.ndim == 3 else x, name)
        peaks = np.zeros(autoencoder.n_concepts, np.float32)
        used = codes.indices >= 0
        np.maximum.at(peaks, codes.indices[used], codes.values[used])
        return peaks

    def _alike(self, peaks: Mapping[str, np.ndarray], n: int) -> list[tuple[int, float]]:
        scores = np.zeros(len(self._concepts))
        for name, values in peaks.items():
            model = self._sae.model_names_.index(name)
            concepts, stored = self._concepts[:, model], self._values[:, model]
            dots = (np.where(concepts >= 0, values[np.maximum(concepts, 0)], 0) * stored).sum(1)
            norms = np.linalg.norm(stored, axis=1) * np.linalg.norm(values)
            scores += np.where(norms > 0, dots / np.where(norms > 0, norms, 1), 0) / len(peaks)
        order = np.argsort(-scores, kind="stable")[:n]
        return [(int(self._pool.images[i]), float(scores[i])) for i in order if scores[i] > 0]

    def _extracted(self, picture: Any, models: Mapping[str, Any]) -> dict[str, np.ndarray]:
        from usae.torch import extract  # PyTorch is an extra

        found = extract(models, [picture], grid=self._pool.grid, crop=self._crop)
        return {name: np.asarray(x)[0] for name, x in found.items()}

    def __repr__(self) -> str:
        return f"Explorer({str(self.path)!r}; {len(self._pool):,} images, {self.n_bytes / 2**20:.1f} MB)"


class Frame:
    """A frame in a notebook's output."""

    def __init__(self, source: str, height: int):
        self._source, self._height = source, height

    def _repr_html_(self) -> str:
        style = f"width:100%;height:{self._height}px;border:1px solid #8884;border-radius:8px"
        return f'<iframe title="Concept explorer" {self._source} style="{style}"></iframe>'


def _quoted(address: str) -> str:
    import urllib.parse

    return urllib.parse.quote(address)
