"""The figure of effects: points of pairs, sorted, before the band of their controls."""

import numpy as np
import pytest

import usae
from support.effects import made_up_effects
from support.refusals import refuses

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
NAMES = ("a", "_b", "c$1")


@pytest.fixture(autouse=True)
def _close():
    yield
    matplotlib.pyplot.close("all")


def test_the_points_are_agreements_of_chosen_concepts_sorted_by_their_mean():
    import matplotlib.pyplot as plt

    effects = made_up_effects(NAMES, 30, n_controls=3)
    axes = usae.plot.effects(effects)
    assert axes.get_xlabel() and axes.get_ylabel() and axes.get_title()
    values = effects.agreement.value[[0, 0, 1], [1, 2, 2], :12]
    order = np.argsort(-values.mean(0), kind="stable")
    for line, expected in zip(axes.lines, values, strict=False):
        np.testing.assert_allclose(line.get_ydata(), expected[order])
    assert [text.get_text() for text in axes.get_xticklabels()] == [str(effects.concepts[c]) for c in order]
    bars = axes.patches
    controls = np.concatenate([effects.agreement.controls[i, j, order[0]] for i, j in ((0, 1), (0, 2), (1, 2))])
    low, high = np.quantile(controls[~np.isnan(controls)], (0.05, 0.95))
    assert bars[0].get_y() == pytest.approx(low) and bars[0].get_y() + bars[0].get_height() == pytest.approx(high)
    given = plt.figure().subplots()
    assert usae.plot.effects(effects, ax=given) is given
    given.figure.canvas.draw()


def test_without_ablated_concepts_all_are_drawn_by_their_changes_to_first_order():
    effects = made_up_effects(NAMES, 30, concepts=np.empty(0, np.int64))
    axes = usae.plot.effects(effects)
    assert len(axes.lines[0].get_ydata()) == 29 and "first order" in axes.get_xlabel()  # one never fires
    axes.figure.canvas.draw()


def test_what_is_no_effect_of_two_networks_is_refused():
    with refuses("effects", "int"):
        usae.plot.effects(3)
    with refuses("effects", "ConceptEffects"):
        usae.plot.effects(made_up_effects(("a",), 30))
