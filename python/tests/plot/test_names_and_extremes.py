"""Figures of models with unusual names, and of evaluations in which little or nothing fires."""

import dataclasses
import io

import numpy as np
import pytest

import usae
from support.autoencoders import planted, small
from usae.plot._axes import LONGEST, short, words

pytestmark = pytest.mark.slow  # together: each is short

matplotlib = pytest.importorskip("matplotlib")
pytest.importorskip("matplotlib.figure")
matplotlib.use("Agg")
FUNCTIONS = ("cross_reconstruction", "firing_entropy", "cofire_proportion", "energy_cofires")
NAMES = ["$a", "a$\\x$", "\\$", "_a", "_", "{^}", "a\nb", "\x1b[0m", "%", "x" * 5000, "$_$"]


def evaluated(names):
    acts = planted(200, 0, dict.fromkeys(names, 6))
    return small(batch_size=64).fit(acts, steps=2, progress=False).evaluate(acts)


@pytest.fixture(scope="module")
def named():
    return evaluated(NAMES)


@pytest.fixture(scope="module")
def evaluation():
    return evaluated(["a", "b"])


def drawn(name, evaluation, **options):
    """The axes of a figure that was drawn to its end."""
    axes = getattr(usae.plot, name)(evaluation, ax=matplotlib.figure.Figure(figsize=(40, 40)).subplots(), **options)
    axes.figure.savefig(io.BytesIO(), format="png", dpi=20)
    return axes


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_any_name_can_be_drawn_and_stands_in_the_legend(named, name):
    axes = drawn(name, named, null=None if name == "firing_entropy" else named)
    if name in ("cofire_proportion", "energy_cofires"):
        told = "\n".join(text.get_text() for text in axes.get_legend().get_texts())
        assert all(words(short(each)) in told for each in NAMES)


def test_a_name_in_a_figure_is_short_visible_and_no_formula():
    assert short("vit_base") == "vit_base" and short("_vit") == "'_vit'" and short("a\nb") == "a\\nb"
    assert len(short("x" * 1000)) == LONGEST and words("$5") == "\\$5"
    with matplotlib.rc_context({"text.usetex": True}):
        assert words("a_b 5%") == "a\\_b 5\\%"


@pytest.mark.filterwarnings("ignore:Glyph")
def test_the_consistency_of_models_with_such_names_can_be_drawn():
    one, other = (usae.UniversalSAE(32, 4, seed=seed).initialize(dict.fromkeys(NAMES, 6)) for seed in (0, 1))
    axes = usae.plot.consistency(usae.consistency(one, other), ax=matplotlib.figure.Figure(figsize=(40, 40)).subplots())
    axes.figure.savefig(io.BytesIO(), format="png", dpi=20)
    told = "\n".join(text.get_text() for text in axes.get_legend().get_texts())
    assert all(words(short(each)) in told for each in NAMES)


EXTREMES = {
    "no concept co-fires": lambda x: {"cofire_counts": 0 * x.cofire_counts},
    "no concept fires": lambda x: {
        name: 0 * getattr(x, name) for name in ("firing_counts", "cofire_counts", "union_counts", "mean_activation")
    },
    "one concept co-fires": lambda x: {"cofire_counts": np.eye(1, 32, dtype=int)[0]},
    "energies too small": lambda x: {"mean_activation": x.mean_activation * 1e-200},
    "energies too large": lambda x: {"mean_activation": x.mean_activation * 1e200},
    "no energies": lambda x: {"mean_activation": 0 * x.mean_activation},
    "no R2": lambda x: {"r2": x.r2 * np.nan},
    "the worst R2": lambda x: {"r2": x.r2 - np.inf},
    "very many tokens": lambda x: {"n_tokens": 2**62},
}


@pytest.mark.parametrize("change", EXTREMES.values(), ids=EXTREMES)
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.filterwarnings("error")
def test_extreme_evaluations_can_be_drawn(evaluation, name, change):
    extreme = dataclasses.replace(evaluation, **change(evaluation))
    drawn(name, extreme)
    drawn(name, evaluation, null=extreme)
