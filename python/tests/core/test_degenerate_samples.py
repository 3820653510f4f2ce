"""Activations that say too little to standardise by are refused or warned of, and an R2 of what does not vary is NaN."""

import json
import warnings

import numpy as np
import pytest
import torch

import usae
from support.commands import printed
from support.refusals import refuses
from support.worlds import fit_two, two_models

pytestmark = pytest.mark.slow

RECIPE = usae.recipes.default(batch_size=64)


def fresh():
    return usae.UniversalSAE(16, 2, recipe=RECIPE, seed=0)


def constant(n, value=0.1):
    acts = two_models(n)
    acts["b"] = np.full_like(acts["b"], value)
    return acts


@pytest.mark.parametrize("value", [0.0, 0.1, -3e20, 1e-30])
@pytest.mark.parametrize("call", ["fit", "fit_stream", "partial_fit"])
def test_a_model_whose_rows_are_all_equal_is_refused_by_name(value, call):
    acts = constant(100, value)
    calls = {
        "fit": lambda sae: sae.fit(acts, steps=2),
        "fit_stream": lambda sae: sae.fit_stream([acts], steps=2, buffer_tokens=64),
        "partial_fit": lambda sae: sae.partial_fit(acts),
    }
    sae = fresh()
    with refuses("activations of 'b'"):
        calls[call](sae)
    assert not sae.__sklearn_is_fitted__()


def test_a_first_batch_of_one_row_is_refused_and_the_next_one_decides():
    sae, acts = fresh(), two_models(100)
    with refuses("activations of 'a'", "1 row"):
        sae.partial_fit({name: x[:1] for name, x in acts.items()})
    sae.partial_fit(acts)
    expected = fresh()
    expected.partial_fit(acts)
    assert np.array_equal(sae.parameters("a")["scale"], expected.parameters("a")["scale"])


def test_later_batches_may_have_one_row():
    sae, acts = fresh(), two_models(100)
    sae.partial_fit(acts)
    assert sae.partial_fit({name: x[:1] for name, x in acts.items()}).step == 2


def test_a_first_batch_of_few_rows_is_warned_of():
    with pytest.warns(UserWarning, match="'a'") as warned:
        fresh().partial_fit({name: x[:8] for name, x in two_models(100).items()})
    assert len(warned) == 2  # one for each model, and none of anything else


def test_healthy_activations_are_not_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sae = fresh().fit(two_models(200), steps=2)
    report = sae.standardization_["a"]
    assert (report.rows, report.outlying_rows, report.left_out_rows, report.identical_rows) == (200, 0, 0, 1)
    assert report.dominating_share == 0 and report.rounding_share < 1e-9 and not len(report.constant_dimensions)
    json.dumps(report.to_dict(), allow_nan=False)


def test_equal_rows_are_counted_and_warned_of():
    acts = {name: np.concatenate([x, np.zeros((300, x.shape[1]), x.dtype)]) for name, x in two_models(100).items()}
    with pytest.warns(UserWarning, match="'a'.*75"):
        sae = fresh().fit(acts, steps=2)
    assert sae.standardization_["a"].identical_rows == 300
    assert sae.standardization_["a"].outlying_rows == 0


@pytest.mark.slow
def test_padding_does_not_spoil_the_other_rows():
    acts = {name: np.concatenate([x, np.zeros((27_000, x.shape[1]), x.dtype)]) for name, x in two_models().items()}
    with pytest.warns(UserWarning, match="'a'"):
        sae = fit_two(acts, steps=2000)
    assert sae.evaluate(two_models(500, seed=5)).r2.min() > 0.7


def test_dominating_dimensions_are_warned_of():
    acts = two_models(200)
    acts["a"][:, 2] *= 100
    with pytest.warns(UserWarning, match="'a'.*1 of 24"):
        sae = fresh().fit(acts, steps=2)
    assert sae.standardization_["a"].dominating_dimensions.tolist() == [2]
    assert sae.standardization_["a"].dominating_share > 0.99


def as_bfloat16(acts):
    return {name: torch.tensor(x).to(torch.bfloat16) for name, x in acts.items()}


@pytest.mark.parametrize("scale", ["scalar", "dimension"])
def test_one_large_dimension_does_not_hide_that_rounding_loses_all_others(scale):
    acts = {name: x.astype(float) + 300 for name, x in two_models(300).items()}
    for x in acts.values():
        x[:, 0] += 3000 * np.random.default_rng(0).standard_normal(len(x))
    sae = usae.UniversalSAE(16, 2, recipe=RECIPE.replace(scale=scale), seed=0)
    with pytest.warns(UserWarning, match="'a'.* 23 of 24 dimensions.*rounding to bfloat16"):
        sae.fit(as_bfloat16(acts), steps=2)
    assert sae.standardization_["a"].rounding_by_dimension.shape == (24,)


def test_a_constant_dimension_does_not_count_as_rounding():
    acts = two_models(300)
    acts["a"][:, 0] = 1000
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fresh().fit(as_bfloat16(acts), steps=2)


def test_the_mean_that_a_warning_of_rounding_names_is_that_of_its_dimensions():
    acts = {name: x.astype(float) for name, x in two_models(300).items()}
    acts["a"][:, 1] += 300  # is lost
    acts["a"][:, 2] = np.where(np.arange(300) == 0, 1001.0, 1000.0)  # all but constant: one number after rounding
    with pytest.warns(UserWarning, match="'a'.*rounding to bfloat16") as warned:
        sae = fresh().fit(as_bfloat16(acts), steps=2)
    report = sae.standardization_["a"]
    culprits = np.flatnonzero(report.rounding_by_dimension > 0.1)
    largest = report.mean_to_deviation[culprits].max()
    assert any(f"up to {largest:.0f} standard deviations" in str(warning.message) for warning in warned)


def test_numbers_too_small_for_their_type_are_warned_of_as_such():
    acts = {name: (x * np.float32(2e-7)).astype(np.float16) for name, x in two_models(300).items()}
    with pytest.warns(UserWarning, match="'a'.*rounding to float16.*so small"):
        fresh().fit(acts, steps=2)


def in_store(acts, folder):
    with usae.ActivationStore.create(folder, dtype="float32") as store:
        store.append(acts)
    return usae.ActivationStore(folder)


@pytest.mark.parametrize("n", [1, 100, 20_000])
@pytest.mark.parametrize("stored", [False, True])
def test_the_r2_of_activations_that_do_not_vary_is_nan(n, stored, tmp_path):
    sae = fresh().fit(two_models(200), steps=2)
    acts = {name: np.repeat(x[:1], n, axis=0) for name, x in two_models(3).items()}
    found = sae.evaluate(in_store(acts, tmp_path / "acts") if stored else acts)
    for r2 in (found.r2, found.r2_standardized):
        assert np.isnan(r2).all()
    assert np.isfinite(found.mse).all()


def test_json_holds_no_infinity(tmp_path, capsys):
    fresh().fit(two_models(200), steps=2).save(tmp_path / "sae")
    in_store({name: np.repeat(x[:1], 50, axis=0) for name, x in two_models(3).items()}, tmp_path / "acts")
    told = printed(capsys, "evaluate", "--model", tmp_path / "sae", "--acts", tmp_path / "acts", "--output", tmp_path / "out")
    assert told["r2"] == [[None, None], [None, None]]
    assert "inf" not in (tmp_path / "out" / "evaluation.json").read_text().lower()
