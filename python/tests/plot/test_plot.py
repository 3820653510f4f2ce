import subprocess
import sys

import numpy as np
import pytest

import usae
from support.refusals import refuses

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
FUNCTIONS = ("cross_reconstruction", "firing_entropy", "cofire_proportion", "energy_cofires")


@pytest.fixture(scope="module")
def evaluation(trained, held_out):
    return trained.evaluate(held_out)


@pytest.fixture(autouse=True)
def _close():
    yield
    matplotlib.pyplot.close("all")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_picture_has_labels_and_draws_where_it_is_told(evaluation, name):
    import matplotlib.pyplot as plt

    draw = getattr(usae.plot, name)
    axes = draw(evaluation)
    assert axes.get_xlabel() and axes.get_ylabel() and axes.get_title()
    given = plt.figure().subplots()
    assert draw(evaluation, ax=given, null=evaluation) is given
    given.figure.canvas.draw()


def test_the_matrix_shows_each_number_and_its_null(evaluation):
    null = np.arange(9).reshape(3, 3) / 10
    texts = [text.get_text() for text in usae.plot.cross_reconstruction(evaluation, null=null).texts]
    assert texts == [f"{r2:.2f}\n[{of_null:.2f}]" for r2, of_null in zip(evaluation.r2.flat, null.flat, strict=True)]


def test_the_histogram_counts_every_concept_that_fires(evaluation):
    heights = [patch.get_height() for patch in usae.plot.firing_entropy(evaluation, bins=7).patches]
    assert len(heights) == 7 and sum(heights) == (~evaluation.dead_everywhere).sum()


def test_the_curves_are_co_fire_proportions_by_energy(evaluation):
    lines = usae.plot.cofire_proportion(evaluation, window=1).lines
    for line, proportion, energy in zip(lines, evaluation.cofire_proportion, evaluation.energy, strict=True):
        ordered = proportion[np.argsort(-energy, kind="stable")]
        assert np.allclose(line.get_ydata(), ordered[~np.isnan(ordered)])


def test_the_line_through_the_points_is_the_fit(evaluation):
    fit = evaluation.energy_fit()
    for i, line in enumerate(usae.plot.energy_cofires(evaluation).lines):
        x, y = np.log10(line.get_xdata()), np.log10(line.get_ydata())
        assert np.allclose(y, fit.intercept[i] + fit.slope[i] * x)
        assert f"r = {fit.correlation[i]:.2f}" in line.get_label()


@pytest.mark.parametrize(
    ("name", "null", "argument", "got"),
    [
        ("cross_reconstruction", np.zeros((2, 2)), "null", "[2, 2]"),
        ("firing_entropy", "none", "null", "str"),
        ("energy_cofires", 0.5, "null", "float"),
    ],
)
def test_nulls_that_do_not_fit_are_refused(evaluation, name, null, argument, got):
    with refuses(argument, got):
        getattr(usae.plot, name)(evaluation, null=null)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_no_evaluation_is_refused(name):
    with refuses("evaluation", "dict"):
        getattr(usae.plot, name)({})


def test_entropy_of_one_model_is_refused(acts):
    sae = usae.UniversalSAE(8, 2).fit({"vit": acts["vit"]}, steps=2)
    with refuses("evaluation", "one"):
        usae.plot.firing_entropy(sae.evaluate({"vit": acts["vit"]}))


def test_without_matplotlib_the_module_loads_and_a_picture_names_the_extra():
    script = """
import sys
sys.modules["matplotlib"] = sys.modules["matplotlib.pyplot"] = None
import numpy as np, usae
x = {"a": np.random.default_rng(0).standard_normal((20, 3))}
evaluation = usae.UniversalSAE(4, 2).fit(x, steps=1).evaluate(x)
try:
    usae.plot.cross_reconstruction(evaluation)
except ImportError as error:
    print(error)
"""
    words = subprocess.check_output([sys.executable, "-c", script], text=True)
    assert words == "usae.plot needs matplotlib: pip install 'usae[plot]'\n"


def test_consistency_draws_each_models_curve_beside_chance(trained, acts):
    found = usae.consistency(trained, {name: trained.dictionary(name)[::-1] for name in trained.model_names_})
    axes = usae.plot.consistency(found)
    assert axes.get_xlabel() and axes.get_ylabel() and axes.get_title()
    curves = [line.get_ydata() for line in axes.lines[::3]][: len(found.models)]
    for curve, matching in zip(curves, found.models.values(), strict=True):
        assert np.array_equal(curve, matching.curve) and np.allclose(curve, 1, atol=1e-5)
    with refuses("consistency", "dict"):
        usae.plot.consistency({})


def test_a_permutation_null_brings_its_band(trained, evaluation, held_out):
    null = usae.controls(trained, held_out, include=("tokens",)).tokens
    axes = usae.plot.cofire_proportion(evaluation, null=null, window=1)
    models = len(evaluation.model_names)
    assert len(axes.collections) == models
    order = np.argsort(-evaluation.energy[0], kind="stable")
    expected = (null.mean / evaluation.firing_counts[0])[order]
    assert np.allclose(axes.lines[models].get_ydata(), expected[~np.isnan(expected)])


@pytest.mark.slow
def test_agreement_is_drawn_over_its_ceiling_beside_a_null(trained, evaluation, acts, held_out, monkeypatch):
    monkeypatch.setattr("usae.analysis.predicted_codes.STEPS", 2)
    found = usae.controls(trained, held_out, train=acts, include=("agreement",), progress=False).agreement
    axes = usae.plot.agreement(found, null=evaluation)
    assert axes.get_xlabel() and axes.get_ylabel() and axes.get_title()
    assert len(axes.collections) == 6
    points = axes.collections[0].get_offsets()  # the first model's code, predicted from the second's activations
    known = found.known[0]
    assert np.allclose(points, np.stack([found.ceiling[0, 1, known], found.agreement[0, 1, known]], 1))
    mean = evaluation.mean_agreement()[~np.eye(3, dtype=bool)].mean()
    assert any(f"{mean:.2f}" in text.get_text() for text in axes.get_legend().get_texts())
    axes.figure.canvas.draw()
    with refuses("agreement", "dict", remedy="train"):
        usae.plot.agreement({})
    with refuses("null", "[2, 2]"):
        usae.plot.agreement(found, null=np.zeros((2, 2)))
    with refuses("null", "str"):
        usae.plot.agreement(found, null="none")
