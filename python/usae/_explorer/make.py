"""`usae.explorer`: writes a page that shows every concept."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from usae._base import checks
from usae._base.progress import checked as checked_progress
from usae._base.warning import warn
from usae._core import rounding
from usae._data.activations import as_aligned
from usae._estimator.universal_sae import UniversalSAE, checked_sae
from usae._explorer import building, files
from usae._explorer.coordinates import as_method
from usae._explorer.effects import as_effects
from usae._explorer.labels import as_labels
from usae._explorer.measures import as_measures
from usae._explorer.pictures import as_pictures
from usae._explorer.proposals import as_embeddings
from usae._explorer.result import Explorer
from usae.analysis.controls import Controls
from usae.analysis.effects import ConceptEffects
from usae.analysis.evaluation import Evaluation
from usae.analysis.image_codes import Pool
from usae.analysis.images import images_of, square
from usae.errors import InvalidInputError
from usae.maximization.result import Maximization


def explorer(
    sae: UniversalSAE,
    acts: Mapping[str, Any],
    pictures: Any = None,
    path: str | os.PathLike[str] = "explorer",
    *,
    one_file: bool = False,
    title: str | None = None,
    grid: tuple[int, int] | None = None,
    n: int = 8,
    bands: int = 4,
    side: int = 112,
    images: int = 10_000,
    crop: bool = False,
    evaluation: Evaluation | None = None,
    controls: Controls | None = None,
    effects: ConceptEffects | None = None,
    measures: Mapping[str, Any] | None = None,
    labels: Any = None,
    embeddings: Any = None,
    vocabulary: Mapping[str, Any] | None = None,
    maximizations: Iterable[Maximization] = (),
    coordinates: Any = "pca",
    mask: Any = None,
    seed: int = 0,
    progress: bool | None = None,
) -> Explorer:
    """Write a page that shows every concept, for a browser. It needs neither a server nor a network.

    The page has a list of all concepts to sort and filter, a page for each concept with the same images as seen by all models,
    pages of images, a map, and an overview of the evaluation. docs/explorer.md shows how to use it.

    Parameters
    ----------
    sae : UniversalSAE
        The autoencoder.
    acts : mapping of str to array
        Activations of the images that are searched, preferably held-out ones: as for `UniversalSAE.evaluate`, [images, tokens,
        width], or [n_tokens, width] with `grid`. Without a grid, each row is taken as an image.
    pictures : array, path-like or sequence, optional
        The pictures that the activations are of, in the same order: an array [images, height, width, 3] of uint8 or uint16, or
        of floats from 0 to 1; a folder, in which a store finds its images by name; or a sequence of arrays, files or PIL
        images, such as a data set. It needs Pillow (``pip install 'usae[explore]'``). Default: None, which shows heat maps
        alone.
    path : path-like
        Folder to write, or with `one_file` the file, whose suffix ".html" may be left out. Another explorer there is replaced;
        anything else is an error. Default: "explorer".
    one_file : bool
        Whether to write one file, to mail or to upload, in place of a folder. Default: False.
    title : str, optional
        Title of the page. Default: None, which names the models.
    grid : (int, int), optional
        Rows and columns of the tokens of an image. Default: None, which takes that of the store, or a square.
    n : int
        Examples of each concept and model. Default: 8.
    bands : int
        Bands of activation; of each there is an image drawn at random. Default: 4.
    side : int
        Largest side of a picture, in pixels. Smaller ones are not enlarged. Default: 112.
    images : int
        Most images to search; of more, evenly spaced ones are taken. Default: 10000.
    crop : bool
        Whether the models saw the centre of each picture (``usae.torch.extract(..., crop=True)``), and not all of it,
        stretched. Default: False.
    evaluation : Evaluation, optional
        Evaluation to show. Default: None, which evaluates up to 1,048,576 tokens of `acts`.
    controls : Controls, optional
        Nulls and ceilings to show beside it, from `usae.controls`. Default: None.
    effects : ConceptEffects, optional
        What ablating concepts does to the networks, from `usae.torch.concept_effects` with the same autoencoder. Default: None.
    measures : mapping of str to array, optional
        Your own numbers of concepts, [m] or [M, m]. They are shown, sorted and filtered by like all others. Default: None.
    labels : mapping of int to str, or path-like, optional
        Labels of concepts, or a file of them that was exported from an explorer (`usae.read_labels`). They are shown beside
        those that the page's user writes. Default: None.
    embeddings : array [images, width], optional
        Embeddings of the images, for example CLIP's. With `vocabulary`, they propose names for concepts. Default: None.
    vocabulary : mapping of str to array [width], optional
        Words with their embeddings by the same network. Default: None.
    maximizations : iterable of Maximization
        Images from `usae.maximize`, which are shown on the page of their concepts. Default: ().
    coordinates : "pca", "tsne" or array [m, 2]
        Places on the map: principal components of the dictionary rows, their t-SNE (with scikit-learn), or your own. Default:
        "pca".
    mask : array of bool, or mapping of str to array of bool, optional
        Rows that count, as for `UniversalSAE.fit`. Default: None.
    seed : int
        Seed of the images that are drawn from bands. Default: 0.
    progress : bool, optional
        Whether to show a progress bar. Default: None, which shows it if stderr is a terminal, and in a notebook.

    Returns
    -------
    Explorer
        It shows the page in a notebook (`Explorer.show`), serves it (`Explorer.serve`), and finds concepts of new images
        (`Explorer.find`).

    Raises
    ------
    InvalidInputError
        For arguments that cannot be used.
    CheckpointFileError
        Also an OSError: `path` cannot be written, or holds something else.
    ImportError
        If Pillow is missing and there are pictures, or scikit-learn for "tsne".

    Examples
    --------
    >>> page = usae.explorer(sae, held_out, "photographs/", "explorer")
    >>> page.show()  # in a notebook; or open explorer/index.html
    """
    autoencoder = checked_sae(sae)._initialized()
    names, m = autoencoder.names, autoencoder.n_concepts
    one_file, crop = checks.boolean(one_file, "one_file"), checks.boolean(crop, "crop")
    given = as_aligned(acts, "acts", autoencoder.columns, mask)
    of = images_of(given, None if grid is None else checks.grid(grid, largest=256))
    if not of.known and any(x.array.ndim == 3 for x in given.values()):
        tokens = ", ".join(f"{x.array.shape[1]} for {name}" for name, x in given.items() if x.array.ndim == 3)
        raise InvalidInputError(f"acts must have one number of tokens of an image for all models, got {tokens}")
    if of.grid is None and of.tokens > 1:
        _tell_of_no_grid(of.tokens)
    pool = Pool(autoencoder, given, of, checks.integer(images, "images", 1, 2**24))
    plan = building.Plan(
        sae=sae,
        acts=given,
        pool=pool,
        pictures=as_pictures(pictures, acts, pool.n_all),
        title=_title(title, names),
        n=checks.integer(n, "n", 1, 64),
        bands=checks.integer(bands, "bands", 0, 16),
        side=checks.integer(side, "side", 8, 1024),
        crop=crop,
        evaluation=_of_this(evaluation, Evaluation, "evaluation", names, m),
        controls=_of_this(controls, Controls, "controls", names, m),
        effects=as_effects(effects, names, m),
        measures=as_measures(measures, len(names), m),
        labels=as_labels(labels, m),
        embedded=as_embeddings(embeddings, vocabulary, pool.n_all),
        made=_made(maximizations, names, m),
        coordinates=as_method(coordinates, m),
        seed=checks.integer(seed, "seed", 0, 2**62 - 1),
        progress=checked_progress(progress),
    )
    place = files.check_place(path, one_file)
    rounding.check(autoencoder, given)
    found, scripts = building.built(plan)
    (files.write_file if one_file else files.write_folder)(place, plan.title, scripts)
    return Explorer(place if one_file else place / "index.html", one_file, sae, pool, crop, found)


def _tell_of_no_grid(tokens: int) -> None:
    remedy = "drop class and register tokens, or give grid=(rows, columns)"
    if square(tokens - 1):
        remedy = "drop the class token, x[:, 1:]"
    warn(f"acts have {tokens} tokens of an image, which fill no square, so there are no heat maps: {remedy}")


def _title(title: object, names: Iterable[str]) -> str:
    if title is None:
        return f"Concepts of {', '.join(names)}"
    if not isinstance(title, str) or not checks.is_unicode(title) or len(title) > 1000:
        raise InvalidInputError(f"title must be text of at most 1000 characters, got {checks.shown(title)}")
    return title


def _of_this(value: Any, kind: type, argument: str, names: tuple[str, ...], m: int) -> Any:
    """Check that results are of the same models and concepts."""
    if value is None:
        return None
    if not isinstance(value, kind):
        raise InvalidInputError(f"{argument} must be a usae.{kind.__name__}, got {checks.shown(value)}")
    evaluation: Evaluation = value.evaluation if isinstance(value, Controls) else value  # type: ignore[assignment]
    if tuple(evaluation.model_names) != names or len(evaluation.cofire_counts) != m:
        raise InvalidInputError(
            f"{argument} must be of this autoencoder, with {m} concepts of {', '.join(names)}, got "
            f"{len(evaluation.cofire_counts)} of {', '.join(evaluation.model_names)}"
        )
    return value


def _made(maximizations: object, names: tuple[str, ...], m: int) -> list[Maximization]:
    """Check images of concepts, and keep the last of each concept."""
    given = checks.listed(maximizations, "maximizations", "a list of usae.Maximization, as usae.maximize returns them")
    found: dict[int, Maximization] = {}
    for one in given:
        if not isinstance(one, Maximization):
            raise InvalidInputError(f"maximizations must be a list of usae.Maximization, got {checks.shown(one)} in it")
        if not set(one.model_names) <= set(names) or not 0 <= one.concept < m:
            raise InvalidInputError(
                f"maximizations must be of this autoencoder, with {m} concepts of {', '.join(names)}, got "
                f"concept {one.concept} of {', '.join(one.model_names)}"
            )
        found[one.concept] = one
    return [found[concept] for concept in sorted(found)]
