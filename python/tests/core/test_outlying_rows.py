"""A few rows far from all others do not spoil the default, are reported, and can be left out."""

import numpy as np
import pytest

import usae
from support.refusals import refuses
from support.worlds import fit_two, two_models

HELD_OUT = two_models(500, seed=5)


def with_outliers(share, times, fixed=False, models=("a", "b"), seed=3):
    """The world with a share of rows that are longer, in their own direction or all in the same; and those rows."""
    random = np.random.default_rng(seed)
    acts = two_models()
    n = len(acts["a"])
    outlying = np.zeros(n, bool)
    outlying[random.choice(n, int(share * n), replace=False)] = True
    for name in models:
        x = acts[name]
        length = np.linalg.norm(x, axis=1).mean()
        direction = random.standard_normal(x.shape[1])
        fixed_row = direction / np.linalg.norm(direction) * length
        x[outlying] = times * (fixed_row if fixed else x[outlying])
    return acts, outlying


@pytest.mark.slow
@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize(("share", "times"), [(0.005, 100), (0.02, 20), (0.04, 1000), (0.01, 1e6)])
def test_the_default_is_not_spoiled(share, times, fixed):
    acts, _ = with_outliers(share, times, fixed)
    with pytest.warns(UserWarning, match="'a'"):
        sae = fit_two(acts)
    healthy = np.array([[0.90, 0.85], [0.92, 0.94]])
    assert (sae.evaluate(HELD_OUT).r2 > healthy - 0.06).all()
    assert np.allclose(sae.parameters("a")["scale"], fit_two(two_models(), steps=1).parameters("a")["scale"], rtol=0.05)


def test_outliers_of_one_model_are_reported_for_it_alone():
    acts, outlying = with_outliers(0.005, 100, models=("b",))
    with pytest.warns(UserWarning, match="'b'.*0.50%") as warned:
        sae = fit_two(acts, steps=2)
    assert not any("'a'" in str(warning.message) for warning in warned)
    assert [sae.standardization_[name].left_out_rows for name in ("a", "b")] == [0, outlying.sum()]
    assert sae.standardization_["b"].outlying_rows == outlying.sum()
    assert sae.standardization_["b"].largest_distance > 50 * sae.standardization_["b"].median_distance


HEAVY = {
    "Student's t": lambda random, shape: random.standard_t(3, shape),
    "log-normal lengths": lambda random, shape: (
        random.standard_normal(shape) * np.exp(0.5 * random.standard_normal((shape[0], 1)))
    ),
    "width of 1": lambda random, shape: random.standard_normal((shape[0], 1)),
}


@pytest.mark.parametrize("kind", HEAVY)
@pytest.mark.parametrize("multiple", [5.0, None])
def test_heavy_tails_are_not_warned_of(kind, multiple, recwarn):
    random = np.random.default_rng(0)
    acts = {name: HEAVY[kind](random, (4000, width)) for name, width in {"a": 24, "b": 32}.items()}
    sae = fit_two(acts, steps=2, outlier_multiple=multiple)
    report = sae.standardization_["a"]
    assert report.outlying_rows > 0 and 0 < report.outlying_share < 0.1
    assert not recwarn.list


@pytest.mark.parametrize("share", [0.0004, 0.005])
@pytest.mark.parametrize("multiple", [5.0, None])
def test_few_rows_that_are_very_far_are_warned_of(share, multiple):
    acts, outlying = with_outliers(share, 100)
    with pytest.warns(UserWarning, match="'a'.*squared distances"):
        sae = fit_two(acts, steps=2, outlier_multiple=multiple)
    report, x = sae.standardization_["a"], acts["a"].astype(float)
    squares = ((x - report.mean) ** 2).sum(1)
    assert report.outlying_share == pytest.approx(squares[outlying].sum() / squares.sum(), rel=1e-6)


def test_the_share_of_outlying_rows_is_that_of_the_rows_that_count():
    acts, outlying = with_outliers(0.005, 100)
    kept = np.ones(len(outlying), bool)
    kept[np.flatnonzero(outlying)[1:]] = False
    masked = fit_two(usae.MaskedActivations(acts, kept), steps=2).standardization_["a"]
    alone = fit_two({name: x[kept] for name, x in acts.items()}, steps=2).standardization_["a"]
    assert masked.outlying_share == pytest.approx(alone.outlying_share) and masked.outlying_rows == alone.outlying_rows == 1


@pytest.mark.parametrize("offset", [0, 50])
@pytest.mark.parametrize("factor", [1e-30, 1, 1e30])
def test_outlying_rows_finds_them_in_any_units_and_place(offset, factor):
    acts, outlying = with_outliers(0.01, 100)
    acts = {name: ((x.astype(float) + offset) * factor).astype(np.float32) for name, x in acts.items()}
    found = usae.outlying_rows(acts)
    assert all(np.array_equal(found[name], outlying) for name in ("a", "b"))


def test_outlying_rows_has_the_shape_of_images_and_reads_stores(tmp_path):
    acts, outlying = with_outliers(0.01, 100)
    images = {name: x.reshape(30, 100, -1) for name, x in acts.items()}
    assert np.array_equal(usae.outlying_rows(images)["a"], outlying.reshape(30, 100))
    with usae.ActivationStore.create(tmp_path / "acts", dtype="float32") as store:
        store.append(images)
    assert np.array_equal(usae.outlying_rows(usae.ActivationStore(tmp_path / "acts"))["b"], outlying.reshape(30, 100))


def test_rows_that_do_not_count_are_not_outlying_and_the_result_is_a_mask_of_the_whole():
    acts, _ = with_outliers(0.005, 100)
    found = usae.outlying_rows(acts)["b"]
    keep = np.arange(len(found)) % 3 > 0
    behind = {name: np.where(keep[:, None], x, np.nan) for name, x in acts.items()}
    for masked in (usae.MaskedActivations(behind, keep), usae.MaskedActivations(acts, keep)):
        np.testing.assert_array_equal(usae.outlying_rows(masked)["b"], found & keep)


def test_leaving_the_rows_out_gives_the_bits_of_a_world_without_them():
    acts, outlying = with_outliers(0.01, 100)
    kept = ~np.logical_or.reduce(list(usae.outlying_rows(acts).values()))
    with_default = fit_two({name: x[kept] for name, x in acts.items()}, steps=5)
    without_rule = fit_two({name: x[~outlying] for name, x in two_models().items()}, steps=5, outlier_multiple=None)
    for tensor, values in with_default.parameters("a").items():
        assert np.array_equal(values, without_rule.parameters("a")[tensor]), tensor


def test_a_recipe_without_the_rule_keeps_all_rows_and_says_so():
    acts, outlying = with_outliers(0.01, 100)
    with pytest.warns(UserWarning, match="'a'"):
        sae = fit_two(acts, steps=2, outlier_multiple=None)
    assert (sae.standardization_["a"].outlying_rows, sae.standardization_["a"].left_out_rows) == (outlying.sum(), 0)
    assert sae.parameters("a")["scale"][0] == pytest.approx(float(np.sqrt(acts["a"].var(0, dtype=float).mean())), rel=1e-3)


def test_many_far_rows_are_data_like_any_other():
    acts, outlying = with_outliers(0.2, 100)
    with pytest.warns(UserWarning, match="'a'"):
        sae = fit_two(acts, steps=2)
    assert sae.standardization_["a"].left_out_rows == 0 < sae.standardization_["a"].outlying_rows


def test_padding_makes_no_other_row_outlying():
    acts = {name: np.concatenate([x, np.zeros((9 * len(x), x.shape[1]), x.dtype)]) for name, x in two_models(300).items()}
    assert not any(found.any() for found in usae.outlying_rows(acts).values())


def test_outlying_rows_refuses_what_is_not_finite():
    acts = two_models(300)
    acts["b"][77, 3] = np.nan
    with refuses("acts['b']", "NaN or infinity in row 77"):
        usae.outlying_rows(acts)


@pytest.mark.parametrize("multiple", [0, -1, float("nan"), "many", None])
def test_a_multiple_that_cannot_be_used_is_refused(multiple):
    with refuses("multiple"):
        usae.outlying_rows(two_models(20), multiple)


def test_tokens_of_any_length_train_without_standardisation():
    acts = {name: x * np.float32(1e3) for name, x in two_models(100).items()}
    pair = [
        usae.UniversalSAE(16, 2, recipe=usae.recipes.default(outlier_multiple=multiple), seed=0).initialize({"a": 24, "b": 32})
        for multiple in (5.0, None)
    ]
    assert pair[0].partial_fit(acts, encoder="a").losses == pair[1].partial_fit(acts, encoder="a").losses


@pytest.mark.slow
@pytest.mark.parametrize("length", [40, 12])
def test_massive_first_tokens_of_texts_are_harmless_where_texts_are_long_and_can_always_be_left_out(length):
    acts = two_models()
    n = len(acts["a"]) // length * length
    rows = usae.TextRows(["x"] * (n // length), np.repeat(np.arange(n // length), length), np.zeros((n, 2), int))
    first = rows.numbers_in_text == 0
    for name, x in acts.items():
        direction = np.random.default_rng(1).standard_normal(x.shape[1])
        acts[name] = x[:n]
        acts[name][first] += 50 * np.linalg.norm(x, axis=1).mean() * direction / np.linalg.norm(direction)
    texts = usae.TextActivations(acts, rows)
    assert all(np.array_equal(found, first) for found in usae.outlying_rows(texts).values())
    with pytest.warns(UserWarning, match="mask=|usae.outlying_rows"):
        spoilt = fit_two(texts).evaluate(HELD_OUT).r2.mean()
    clean = fit_two(usae.MaskedActivations(texts, rows.numbers_in_text > 0)).evaluate(HELD_OUT).r2.mean()
    assert clean > 0.85 and (spoilt > clean - 0.06 if length == 40 else spoilt < 0.5)
