"""Prints the table of docs/exchange.md: what each library computes from an export, by its formulas, beside `encode`.

    python tools/exchange_table.py

`benchmarks/exchange.py` does the same with the libraries themselves.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator

import numpy as np

import usae

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import exchange_formulas  # noqa: E402

WIDTHS = {"a": 24, "b": 32, "c": 24}
N_CONCEPTS, K, N_TOKENS = 96, 4, 1500


@dataclasses.dataclass(frozen=True)
class Case:
    """A column of the table: a recipe and what is exported of it."""

    title: str
    recipe: dict
    target: str | None = None
    unit_rows: bool = False
    one_width: bool = False
    """Whether all models have the width of the first, as a crosscoder needs."""


CASES = (
    Case("TopK", {}),
    Case("TopK, scale for each dimension", {"scale": "dimension"}),
    Case("TopK, BatchNorm", {"encoder": "batchnorm"}),
    Case("TopK, bounded rows", {"dictionary_norm": "bounded", "weight_decay": 3.0}),
    Case("TopK, `unit_rows`", {}, unit_rows=True),
    Case("TopK, scale for each dimension, `unit_rows`", {"scale": "dimension"}, unit_rows=True),
    Case("TopK, i to j of equal width", {}, target="c"),
    Case("TopK, i to j", {}, target="b"),
    Case("BatchTopK", {"selection": "batchtopk", "k_max": 5}, one_width=True),
    Case("BatchTopK, `k_max` of all", {"selection": "batchtopk", "k_max": N_CONCEPTS}, one_width=True),
    Case(
        "BatchTopK, `k_max` of all, bounded rows",
        {"selection": "batchtopk", "k_max": N_CONCEPTS, "dictionary_norm": "bounded", "weight_decay": 3.0},
        one_width=True,
    ),
    Case(
        "BatchTopK, `k_max` of all, scale for each dimension, `unit_rows`",
        {"selection": "batchtopk", "k_max": N_CONCEPTS, "scale": "dimension"},
        unit_rows=True,
        one_width=True,
    ),
    Case("BatchTopK, i to j", {"selection": "batchtopk", "k_max": 5}, target="b"),
)


def activations(one_width: bool, n_tokens: int = N_TOKENS) -> dict[str, np.ndarray]:
    """Activations of sparse common factors, far from 0."""
    random = np.random.default_rng(0)
    code = np.where(random.random((n_tokens, 80)) < 0.06, random.random((n_tokens, 80)), 0)
    return {
        name: (
            3 * code @ random.standard_normal((80, WIDTHS["a"] if one_width else width))
            + 5 * random.standard_normal(WIDTHS["a"] if one_width else width)
            + 0.1 * random.standard_normal((n_tokens, WIDTHS["a"] if one_width else width))
        ).astype(np.float32)
        for name, width in WIDTHS.items()
    }


_TRAINED: dict[str, usae.UniversalSAE] = {}


def trained(case: Case) -> usae.UniversalSAE:
    """Train, once for each recipe."""
    key = repr((case.recipe, case.one_width))
    if key not in _TRAINED:
        recipe = usae.recipes.default(batch_size=256, **{"dictionary_norm": "unit"} | case.recipe)
        sae = usae.UniversalSAE(N_CONCEPTS, K, recipe=recipe, seed=0)
        _TRAINED[key] = sae.fit(activations(case.one_width), steps=120, progress=False)
    return _TRAINED[key]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How another library's codes and reconstructions differ from usae's."""

    rows: float
    """Share of tokens with the same concepts."""
    but_capped: bool
    """Whether all other tokens have more concepts than the cap, and the ones with the cap are the largest."""
    codes: float
    """Largest difference of a code in tokens with the same concepts, as a share of the largest code."""
    values: float
    """The same of reconstructions."""

    @property
    def words(self) -> str:
        if max(self.codes, self.values) > 1e-5:
            return f"wrong by {max(self.codes, self.values):.1g}"
        if self.rows == 1:
            return "exact"
        return "exact but for `k_max`" if self.but_capped else f"same concepts in {self.rows:.1%} of tokens"


def compared(
    sae: usae.UniversalSAE,
    x: np.ndarray,
    model: str,
    target: str,
    codes: np.ndarray,
    values: np.ndarray,
    unit_rows: bool = False,
) -> Comparison:
    ours = sae.encode(x, model)
    dense, decoded = ours.to_dense(), sae.decode(ours, target)
    if unit_rows:  # codes there are multiplied by the norms of rows in own units
        dense = dense * np.linalg.norm(sae.dictionary(target, units="model"), axis=1)
    same = ((dense > 0) == (codes > 0)).all(1)
    slots = ours.k
    capped = ((codes > 0).sum(1) > slots) & ((dense > 0).sum(1) == slots)
    only_cut = ~((dense > 0) & (codes == 0)).any(1)
    return Comparison(
        float(same.mean()),
        bool((same | (capped & only_cut)).all()),
        float(np.abs(dense - codes)[same].max() / dense.max()),
        float(np.abs(decoded - values)[same].max() / np.abs(decoded).max()),
    )


Forward = Callable[[pathlib.Path, np.ndarray], tuple[np.ndarray, np.ndarray]]


def results(forwards: dict[str, Forward]) -> Iterator[tuple[str, Case, Comparison | None, tuple[str, ...]]]:
    """Yield for each library and case the comparison, or None where the export is refused, and what is lost."""
    for format, forward in forwards.items():
        for case in CASES:
            sae, x = trained(case), activations(case.one_width)["a"]
            with tempfile.TemporaryDirectory() as folder:
                path = pathlib.Path(folder, "export")
                try:
                    export = sae.export(path, format, model="a", target=case.target, unit_rows=case.unit_rows)
                except usae.InvalidInputError:
                    yield format, case, None, ()
                    continue
                codes, values = forward(path, x)
                scaled = case.unit_rows and "units" in export.lost
                found = compared(sae, x, "a", case.target or "a", codes, values, scaled)
            yield format, case, found, tuple(export.lost)


def table(forwards: dict[str, Forward] = exchange_formulas.FORWARDS) -> str:
    """Return the table, with a row for each case and a column for each library, and below it what is lost."""
    cells: dict[tuple[str, str], str] = {}
    lost: dict[str, dict[str, None]] = {name: {} for name in forwards}
    for format, case, found, keys in results(forwards):
        cells[format, case.title] = "refused" if found is None else found.words
        lost[format] |= dict.fromkeys(keys)
    lines = ["| | " + " | ".join(forwards) + " |", "|---|" + "---|" * len(forwards)]
    lines += ["| " + " | ".join([case.title, *(cells[name, case.title] for name in forwards)]) + " |" for case in CASES]
    lines.append("| lost | " + " | ".join(", ".join(sorted(lost[name])) for name in forwards) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
