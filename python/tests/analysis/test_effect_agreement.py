"""Agreement of effects: rank correlations against SciPy's, and a null that says how often chance is as good."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from support.refusals import refuses
from usae.analysis import effect_agreement
from usae.analysis.effect_agreement import CONTROLS, compared, of_active_images, of_classes, of_images
from usae.analysis.effects import most_energetic, with_controls


def matched(n, rng, n_models=2):
    """Mean codes and firing rates of n concepts, and that all are known."""
    return rng.random((n_models, n)) + 0.1, rng.random((n_models, n)) + 0.1, np.ones((n_models, n), bool)


def test_rank_correlations_are_those_of_scipy_with_ties_and_without():
    rng = np.random.default_rng(0)
    sizes = [np.maximum(rng.standard_normal((50, 300)), 0) for _ in range(2)]  # half are 0, and there are several blocks
    sizes[0][:, 7] = 0
    places, others = np.arange(300), rng.permutation(300)
    found = of_images(sizes)(0, 1, places, others)
    expected = [spearmanr(sizes[0][:, a], sizes[1][:, b]).statistic for a, b in zip(places, others, strict=True) if a != 7]
    np.testing.assert_allclose(np.delete(found, 7), expected, atol=1e-6)
    assert np.isnan(found[7])
    codes = [(size > 0).astype(float) for size in sizes]
    codes[1][9:, others[3]] = 0
    found = of_active_images(sizes, codes)(0, 1, places[:6], others[:6])
    for place in (0, 1, 2, 4, 5):
        both = (codes[0][:, place] > 0) & (codes[1][:, others[place]] > 0)
        expected = spearmanr(sizes[0][both, place], sizes[1][both, others[place]]).statistic
        assert both.sum() < 10 or found[place] == pytest.approx(expected, abs=1e-6)
    assert np.isnan(found[3])  # nine images at most


def test_classes_are_compared_by_cosine_where_there_are_equally_many():
    rng = np.random.default_rng(1)
    a, b, c = rng.standard_normal((4, 5)), rng.standard_normal((4, 5)), rng.standard_normal((4, 6))
    a[2] = 0
    found = of_classes([a, b, c, None])
    places = np.arange(4)
    expected = (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-300)
    np.testing.assert_allclose(found(0, 1, places, places)[[0, 1, 3]], expected[[0, 1, 3]])
    assert np.isnan(found(0, 1, places, places)[2])
    assert np.isnan(found(0, 2, places, places)).all() and np.isnan(found(3, 0, places, places)).all()


def test_controls_are_the_nearest_other_concepts_in_both_models():
    rng = np.random.default_rng(2)
    n = 200
    code, rate, known = matched(n, rng)
    known[0, 5] = False
    asked = []

    def similarity(i, j, of_i, of_j):
        asked.append((of_i, of_j))
        return np.zeros(len(of_i))

    found = compared(similarity, code, rate, known)
    features = np.log(np.concatenate([code, rate]))
    own, there = (np.concatenate([pair[side] for pair in asked[1::2]]) for side in (0, 1))
    back = [np.concatenate([pair[side] for pair in asked[2::2]]) for side in (1, 0)]
    np.testing.assert_array_equal(own, back[0])
    np.testing.assert_array_equal(there, back[1])
    assert 5 not in own and 5 not in there and np.isnan(found.controls[0, 1, 5]).all()
    for concept in (0, 3, 150, 199):
        distances = np.abs(features - features[:, [concept]]).max(0)
        distances[[concept, 5]] = np.inf
        assert set(there[own == concept]) == set(np.argsort(distances)[:CONTROLS])
        assert found.mismatch[0, 1, concept] == pytest.approx(np.exp(np.median(np.sort(distances)[:CONTROLS])))
    assert found.controls.shape == (2, 2, n, 2 * CONTROLS)


def test_p_values_are_those_of_chance_where_nothing_agrees():
    rng = np.random.default_rng(3)
    sizes = [rng.random((40, 400)) for _ in range(2)]
    found = compared(of_images(sizes), *matched(400, rng))
    p = found.p_value[0, 1]
    assert 0.01 < (p <= 0.05).mean() < 0.1 and 0.4 < (p <= 0.5).mean() < 0.6
    together = found.mean()
    assert together.low[0, 1] < together.value[0, 1] < together.high[0, 1] and together.p_value[0, 1] > 0.02
    assert np.isnan(together.value[0, 0]) and together.value[0, 1] == together.value[1, 0] and together.n_concepts[0, 1] == 400


def test_what_agrees_is_above_its_null():
    rng = np.random.default_rng(4)
    sizes = [rng.random((40, 100))] * 3
    found = compared(of_images(sizes), *matched(100, rng, 3))
    np.testing.assert_allclose(found.value[0, 1:], 1, atol=1e-6)
    assert (found.p_value[1, 2] == 1 / (1 + 2 * CONTROLS)).all()
    together = found.mean(np.arange(10), draws=99)
    assert together.p_value[0, 2] == 0.01 and together.n_concepts[0, 2] == 10
    again = found.mean(np.arange(100) < 10, draws=99)
    assert (
        together.high[0, 1] == again.high[0, 1] and found.mean(draws=99, seed=1).null[0, 1] != found.mean(draws=99).null[0, 1]
    )


def test_few_concepts_have_few_controls_and_one_has_none():
    rng = np.random.default_rng(5)
    sizes = [rng.random((40, 3))] * 2
    found = compared(of_images(sizes), *matched(3, rng))
    assert (~np.isnan(found.controls[0, 1])).sum(1).tolist() == [4, 4, 4] and (found.p_value[0, 1] == 1 / 5).all()
    alone = compared(of_images([sizes[0][:, :1]] * 2), *matched(1, rng))
    assert alone.value[0, 1, 0] == pytest.approx(1) and np.isnan(alone.p_value).all() and np.isnan(alone.null).all()
    assert np.isnan(alone.mean().value).all()
    none = compared(of_images([sizes[0][:, :0]] * 2), *matched(0, rng))
    assert none.value.shape == (2, 2, 0) and np.isnan(none.mean().value).all()
    single = compared(of_images(sizes[:1]), *matched(3, rng, 1))
    assert np.isnan(single.value).all()


@pytest.mark.parametrize("concepts", [[3], [-1], [True], "first", [[0]], [0.5]])
def test_places_that_are_none_are_refused(concepts):
    found = compared(of_images([np.random.default_rng(6).random((40, 3))] * 2), *matched(3, np.random.default_rng(6)))
    with refuses("concepts"):
        found.mean(concepts)
    with refuses("draws"):
        found.mean(draws=0)


def test_the_most_energetic_are_so_in_every_model_and_controls_are_not_repeated():
    energy = np.array([[9.0, 5, 1, 7], [1, 4, 9, 6]])
    assert most_energetic(energy, np.array([True, True, True, False]), 2).tolist() == [1, 0]
    code = np.array([[1.0, 1.1, 1.2, 5, 5.1, 0]] * 2)
    assert with_controls([0, 3], code, np.ones((2, 6)), 1).tolist() == [1, 4]
    assert with_controls([0, 1], code, np.ones((2, 6)), 1).tolist() == [2]  # the nearest of both
    assert with_controls([5], code, np.where(code > 0, 1.0, 0), 2).tolist() == []  # it never fires
    assert effect_agreement.LEAST_IMAGES == 10
