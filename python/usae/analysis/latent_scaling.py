"""Latent scaling: a test of whether a concept that fires in one model only is really private to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from usae._base import checks, html
from usae._base.frames import pandas_for
from usae._base.json import plain
from usae._base.progress import progress_bar
from usae._core import rounding
from usae._core.dictionary_rows import unit_rows
from usae._data.activations import as_aligned, check_known, left_out
from usae._data.chunks import chunks, n_chunks, rows_of
from usae._estimator.universal_sae import checked_sae
from usae.analysis.consistency import checked_concepts
from usae.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas
    import scipy.sparse

    from usae._estimator.universal_sae import UniversalSAE

PRIVATE_ERROR, PRIVATE_RECONSTRUCTION = 0.2, 0.5
"""Limits of the two ratios. Below both, Minder et al. call a concept specific to one of two models."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LatentScaling:
    """Result of `usae.latent_scaling`, for M models and n concepts. All numbers are in standardised units.

    Attributes
    ----------
    model_names : tuple of str, [M]
        Names of the models.
    n_tokens : int
        Number of rows that were used. Rows that do not count by a mask are not among them, see `n_left_out`.
    concepts : ndarray of int64, [n]
        The concepts.
    owner : ndarray of int64, [n]
        Number of the model whose code of the concept is used.
    firing : ndarray of int64, [n]
        Number of tokens in which the concept is active in the owner. If it is 0, the numbers below are NaN.
    beta_error : ndarray of float64, [M, n]
        How much of the owner's concept is in the residual of model j, to which model j's own use of the concept is added back.
        1: all of it, as strong as in the owner; 0: nothing of it.
    beta_reconstruction : ndarray of float64, [M, n]
        How much of it is in the reconstruction of model j from its own code, by this concept or by others.
    beta_activation : ndarray of float64, [M, n]
        How much of it is in model j's activations.
    any_direction : ndarray of float64, [M, n]
        Length of the change of model j's activations for a code of 1, in the best direction instead of the dictionary row's:
        || sum_t f_t (x_t - mean x) || / sum_t f_t^2. The mean of its square for randomly permuted rows is subtracted from the
        square; the result is 0 if the difference is negative.
    n_left_out : int
        Number of rows that were not used, because they do not count by a mask. Default: 0.
    """

    model_names: tuple[str, ...]
    n_tokens: int
    concepts: np.ndarray
    owner: np.ndarray
    firing: np.ndarray
    beta_error: np.ndarray
    beta_reconstruction: np.ndarray
    beta_activation: np.ndarray
    any_direction: np.ndarray
    n_left_out: int = 0

    @property
    def ratio_error(self) -> np.ndarray:
        """`beta_error` divided by that of the owner, float64 [M, n]."""
        return self._relative(self.beta_error)

    @property
    def ratio_reconstruction(self) -> np.ndarray:
        """`beta_reconstruction` divided by that of the owner, float64 [M, n]."""
        return self._relative(self.beta_reconstruction)

    def private(self, error: float = PRIVATE_ERROR, reconstruction: float = PRIVATE_RECONSTRUCTION) -> np.ndarray:
        """Concepts that are private to their owner, bool [n]: both ratios are below their limits in every other model.

        It is False for a concept that never fires.

        Parameters
        ----------
        error, reconstruction : float
            Limits of `ratio_error` and `ratio_reconstruction`. Default: 0.2 and 0.5, those of Minder et al.
        """
        others = np.arange(len(self.model_names))[:, None] != self.owner
        low = (self.ratio_error < error) & (self.ratio_reconstruction < reconstruction)
        return (low | ~others).all(0) & (self.firing > 0)

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes and `private()` as plain Python values, ready for JSON. NaN becomes None."""
        values = {field.name: plain(getattr(self, field.name)) for field in dataclasses.fields(self)}
        return values | {"model_names": list(self.model_names), "private": self.private().tolist()}

    def summary(self) -> str:
        """Return a table as text: the median ratios of each owner's concepts, and how many of them are private."""
        first = max(5, *(len(name) for name in self.model_names))
        widths = [max(13, len(name)) for name in self.model_names]
        names = "  ".join(name.rjust(width) for name, width in zip(self.model_names, widths, strict=True))
        lines = [self._caption(), f"{'owner':<{first}}  concepts  private  {names}"]
        for name, concepts, private, *ratios in self._rows():
            cells = "  ".join(cell.rjust(width) for cell, width in zip(ratios, widths, strict=True))
            lines.append(f"{name:<{first}}  {concepts:>8}  {private:>7}  {cells}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return the table of `summary`, for notebooks."""
        return html.table(self._caption(), ["owner", "concepts", "private", *self.model_names], self._rows())

    def to_frame(self) -> pandas.DataFrame:
        """Return a pandas DataFrame with a row for each concept.

        Columns are ``owner``, the name of the model whose code is used, ``firing`` and ``private``, and for each model
        ``ratio_error[vit]``, ``ratio_reconstruction[vit]``, ``beta_activation[vit]`` and ``any_direction[vit]``.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        pandas = pandas_for("LatentScaling.to_frame")
        columns = {"owner": np.array(self.model_names, object)[self.owner], "firing": self.firing, "private": self.private()}
        for name in ("ratio_error", "ratio_reconstruction", "beta_activation", "any_direction"):
            columns |= {f"{name}[{model}]": row for model, row in zip(self.model_names, getattr(self, name), strict=True)}
        return pandas.DataFrame(columns, index=pandas.Index(self.concepts, name="concept"))

    def _caption(self) -> str:
        return f"{len(self.concepts):,} concepts, {self.n_tokens:,} tokens; median ratio of beta (error / reconstruction)"

    def _rows(self) -> list[list[str]]:
        """Return the cells of the table, for each owner that has concepts."""
        rows, private = [], self.private()
        for number, name in enumerate(self.model_names):
            mine = (self.owner == number) & (self.firing > 0)
            if not mine.any():
                continue
            medians = [np.median(ratio[:, mine], axis=1) for ratio in (self.ratio_error, self.ratio_reconstruction)]
            cells = [f"{error:.2f} / {reconstruction:.2f}" for error, reconstruction in zip(*medians, strict=True)]
            rows.append([name, f"{mine.sum():,}", f"{private[mine].sum():,}", *cells])
        return rows

    def __repr__(self) -> str:
        return f"LatentScaling({', '.join(self.model_names)}; {len(self.concepts)} concepts, {self.private().sum()} private)"

    def _relative(self, beta: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return beta / np.abs(np.take_along_axis(beta, self.owner[None], 0))


def latent_scaling(
    sae: UniversalSAE,
    acts: Mapping[str, Any],
    concepts: Any = None,
    *,
    owner: str | None = None,
    center: bool = True,
    progress: bool | None = None,
    mask: Any = None,
) -> LatentScaling:
    """Test whether a concept that seems private to one model is in the other models too.

    A concept that fires in one model only may also be in another model: that model's encoder may miss it, or other concepts may
    express it there. The test is that of Minder et al., *Overcoming Sparsity Artifacts in Crosscoders to Interpret Chat-Tuning*
    (NeurIPS 2025, arXiv 2504.02922). Let f [N] be the concept's code from its owner i, and d its dictionary row of model j. The
    least-squares factor

        beta = argmin sum_t || beta f_t d - y_t ||^2 = sum_t f_t <d, y_t> / (sum_t f_t^2 ||d||^2)

    measures how much of the concept is in y. Let x be the standardised activations of model j, z its own code, z_k the code of
    this concept, and z D the reconstruction from z. Then y is

    * for `beta_error`, x - z D + z_k d, the residual of model j without this concept. It is large if the concept fires in j
      too, or if j has it and its encoder misses it ("complete shrinkage");
    * for `beta_reconstruction`, z D. It is large if j expresses the same by this or other concepts ("latent decoupling");
    * for `beta_activation`, x itself.

    Ratios are relative to the owner's own beta. A concept is private, see `LatentScaling.private`, if the ratios of the first
    two are near 0 in all other models.

    Parameters
    ----------
    sae : UniversalSAE
        The autoencoder.
    acts : mapping of str to array
        Activations, as for `UniversalSAE.evaluate`.
    concepts : array of int, or of bool [m], optional
        Concepts to test. Default: None, which tests all.
    owner : str, optional
        Name of the model whose codes are used. Default: None, which takes for each concept the model in which it fires most;
        ties go to the earlier model.
    center : bool
        Whether the mean over the rows is subtracted from y. Codes are not negative, so without this anything with a mean would
        seem to contain some of each concept. False is as in the paper, where a bias centres the activations. Default: True.
    progress : bool, optional
        Whether to show a progress bar, as in `UniversalSAE.fit`. Default: None.
    mask : array of bool, or mapping of str to array of bool, optional
        Rows that count, as for `UniversalSAE.fit`. Default: None.

    Returns
    -------
    LatentScaling
        The betas, their ratios and the concepts that are private.

    Raises
    ------
    InvalidInputError
        For arguments that cannot be used, and for a concept that is given twice.

    Notes
    -----
    The paper has one code and one direction for both models, because its models have equal width. Here every model has its own
    code and dictionary row. Of the row only the direction counts: betas are of the row divided by its norm. With
    ``update="encoder"`` model j has not learned that direction from other models' codes. Then `any_direction`, which uses no
    row of j, is the safer measure: it is large if activations of j change with the concept in any direction.

    A beta above 0 means that model j's activations change with the concept, not that they contain the concept itself. Concepts
    that often fire together show up in each other's betas.

    It reads the rows twice and encodes every model each time. Memory is 32 bytes for each tested concept and each dimension of
    all models, whatever the number of rows.
    """
    sae = checked_sae(sae, "sae")
    names = sae.model_names_
    given = as_aligned(acts, "acts", sae._initialized().columns, mask)
    chosen = checked_concepts(concepts, sae._initialized().n_concepts)
    if len(np.unique(chosen)) < len(chosen):
        raise InvalidInputError(
            f"concepts must not repeat, got {len(chosen)} indices of {len(np.unique(chosen))} concepts; give each once"
        )
    center = checks.boolean(center, "center")
    rounding.check(sae._initialized(), given)
    if owner is None:
        owners = np.argmax(sae._evaluated(given, 0.0, progress).firing_counts, axis=0)[chosen]
    else:
        check_known(owner, names, "owner")
        sae._initialized().check_finite(given)
        owners = np.full(len(chosen), names.index(owner))

    sums = {name: _Sums.zero(sae, name, chosen) for name in names}
    square, total, firing = np.zeros(len(chosen)), np.zeros(len(chosen)), np.zeros(len(chosen), np.int64)
    n_tokens = next(iter(given.values())).n_tokens
    with progress_bar(n_chunks(n_tokens), progress, "latent scaling", "part") as bar:
        for rows in chunks(n_tokens):
            parts = {name: rows_of(x, rows) for name, x in given.items()}
            codes = {name: sae.encode(x, name) for name, x in parts.items()}
            sparse = [code.to_csr().tocsc()[:, chosen].astype(float) for code in codes.values()]
            codes_of_owners = _of_owners(sparse, owners)
            square += _column_sums(codes_of_owners.multiply(codes_of_owners))
            total += _column_sums(codes_of_owners)
            firing += np.diff(codes_of_owners.tocsc().indptr)
            for (name, x), own in zip(parts.items(), sparse, strict=True):
                sums[name].add(codes_of_owners, own, x, sae.decode(codes[name], name))
            bar.update()
    results = [sums[name].results(square, total, n_tokens, center) for name in names]
    error, reconstruction, activation, direction = (np.stack(values) for values in zip(*results, strict=True))
    return LatentScaling(
        names, n_tokens, chosen, owners, firing, error, reconstruction, activation, direction, left_out(given)
    )  # fmt: skip


@dataclasses.dataclass
class _Sums:
    """Sums over tokens for the regressions on one model. f is the owners' codes and z the model's own."""

    mean: np.ndarray
    scale: np.ndarray
    dictionary: np.ndarray  # rows of the concepts divided by their norms, [n, width]
    norms: np.ndarray  # of the rows as they are used, [n]
    code_by_activation: np.ndarray  # sum f x, [n, width]
    code_by_reconstruction: np.ndarray  # sum f (z D), [n, width]
    code_by_code: np.ndarray  # sum f z, [n]
    code: np.ndarray  # sum z, [n]
    activation: np.ndarray  # sum x, [width]
    reconstruction: np.ndarray  # sum z D, [width]
    square: np.ndarray  # sum x^2, [width]

    @classmethod
    def zero(cls, sae: UniversalSAE, model: str, concepts: np.ndarray) -> _Sums:
        autoencoder = sae._initialized()
        index = autoencoder.index(model)
        used = sae.dictionary(model)[concepts].astype(float)
        dictionary = unit_rows(used)
        n, width = dictionary.shape
        return cls(
            autoencoder.exact_mean(index), autoencoder.read(index, "scale").astype(float), dictionary,
            np.linalg.norm(used, axis=1),
            np.zeros((n, width)), np.zeros((n, width)), np.zeros(n), np.zeros(n), np.zeros(width), np.zeros(width),
            np.zeros(width),
        )  # fmt: skip

    def add(
        self, owners: scipy.sparse.csc_array, own: scipy.sparse.csc_array, x: np.ndarray, reconstruction: np.ndarray
    ) -> None:
        """Add a chunk: activations and reconstruction in the model's units, [tokens, width], and codes, [tokens, n]."""
        x = (x.astype(float) - self.mean) / self.scale
        reconstruction = (reconstruction.astype(float) - self.mean) / self.scale
        self.code_by_activation += owners.T @ x
        self.code_by_reconstruction += owners.T @ reconstruction
        self.code_by_code += _column_sums(owners.multiply(own))
        self.code += _column_sums(own)
        self.activation += x.sum(0)
        self.reconstruction += reconstruction.sum(0)
        self.square += (x * x).sum(0)

    def results(self, square: np.ndarray, total: np.ndarray, n_tokens: int, center: bool) -> tuple[np.ndarray, ...]:
        """Return beta_error, beta_reconstruction, beta_activation, any_direction. `square` is sum f^2, `total` sum f, [n]."""
        by_activation, by_reconstruction, by_code = self.code_by_activation, self.code_by_reconstruction, self.code_by_code
        if center:
            by_activation = by_activation - np.outer(total, self.activation / n_tokens)
            by_reconstruction = by_reconstruction - np.outer(total, self.reconstruction / n_tokens)
            by_code = by_code - total * self.code / n_tokens
        norms = (self.dictionary**2).sum(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            activation = (by_activation * self.dictionary).sum(1) / (square * norms)
            reconstruction = (by_reconstruction * self.dictionary).sum(1) / (square * norms)
            error = activation - reconstruction + by_code * self.norms / square
            centred = self.code_by_activation - np.outer(total, self.activation / n_tokens)
            spread = (self.square - self.activation**2 / n_tokens).sum()
            by_chance = (square - total**2 / n_tokens) * spread / max(n_tokens - 1, 1)  # mean of || sum f x ||^2, rows permuted
            change = ((centred**2).sum(1) - by_chance) / square**2
            any_direction = np.sqrt(np.where(change < 0, 0.0, change))
        return error, reconstruction, activation, any_direction


def _of_owners(codes: list[scipy.sparse.csc_array], owners: np.ndarray) -> scipy.sparse.csc_array:
    """Return the codes of each concept from its owner, [tokens, n]."""
    result: Any = None
    for number, matrix in enumerate(codes):
        matrix = matrix.copy()
        matrix.data *= np.repeat(owners == number, np.diff(matrix.indptr))
        result = result + matrix if number else matrix
    result = result.tocsc()
    result.eliminate_zeros()
    return result


def _column_sums(matrix: scipy.sparse.csc_array) -> np.ndarray:
    return np.asarray(matrix.sum(0)).ravel()
