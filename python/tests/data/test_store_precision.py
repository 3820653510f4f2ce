"""A store keeps the spread of activations, not their range alone."""

import numpy as np
import pytest

import usae
from support.refusals import refuses
from support.worlds import two_models

pytestmark = pytest.mark.slow


def moved(n, offset):
    return {name: x + np.float32(offset) for name, x in two_models(n).items()}


@pytest.mark.parametrize(("dtype", "offset"), [("float16", 3000), ("bfloat16", 300), ("float32", 1e8)])
@pytest.mark.parametrize("rows", [1, 7, 300])
def test_activations_that_rounding_would_lose_are_refused(dtype, offset, rows, tmp_path):
    acts = {name: x.astype(float) + offset for name, x in two_models(300).items()}
    with (
        refuses("acts['a']"),
        usae.ActivationStore.create(tmp_path / "acts", dtype=dtype) as store,
    ):
        for first in range(0, 300, rows):
            store.append({name: x[first : first + rows] for name, x in acts.items()})
    assert store.n_tokens < 64


@pytest.mark.parametrize("rows", [1, 300])
@pytest.mark.parametrize("far", ["first", "last", "padding"])
def test_a_few_outlying_rows_do_not_hide_the_loss_of_all_others(rows, far, tmp_path):
    acts = moved(600, 300)
    for x in acts.values():
        if far == "padding":
            x[::2] = 0
        else:
            x[slice(3) if far == "first" else slice(20, 23)] = 3000
    with (
        refuses("acts['a']"),
        usae.ActivationStore.create(tmp_path / "acts", dtype="bfloat16") as store,
    ):
        for first in range(0, 600, rows):
            store.append({name: x[first : first + rows] for name, x in acts.items()})
    assert store.n_tokens < 128


def test_outlying_rows_in_activations_of_little_loss_are_stored_without_a_word(tmp_path, recwarn):
    acts = moved(600, 0)
    for x in acts.values():
        x[::200] = 3000
    with usae.ActivationStore.create(tmp_path / "acts", dtype="bfloat16") as store:
        store.append(acts)
    assert not recwarn.list


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("rows", [1, 31])
def test_a_store_opened_for_a_few_rows_at_a_time_is_checked(rows, masked, tmp_path):
    acts = moved(300, 300)
    counts = np.ones(300, bool)
    if masked:
        counts[::3] = False
        for x in acts.values():
            x[~counts] = 0
    usae.ActivationStore.create(tmp_path / "acts", dtype="bfloat16").close()
    with refuses("acts['a']"):
        for first in range(0, 300, rows):
            some = slice(first, first + rows)
            with usae.ActivationStore(tmp_path / "acts") as store:
                store.append({name: x[some] for name, x in acts.items()}, mask=counts[some] if masked else None)
    assert usae.ActivationStore(tmp_path / "acts").n_tokens < 64


def test_a_store_opened_for_a_few_rows_at_a_time_takes_ordinary_rows_without_a_word(tmp_path, recwarn):
    acts = moved(300, 0)
    usae.ActivationStore.create(tmp_path / "acts").close()
    for first in range(0, 300, 20):
        with usae.ActivationStore(tmp_path / "acts") as store:
            store.append({name: x[first : first + 20] for name, x in acts.items()})
    assert not recwarn.list


def test_the_remedy_is_not_the_type_that_the_store_has(tmp_path):
    acts = {name: x.astype(float) + 2e6 for name, x in two_models(300).items()}
    with (
        pytest.warns(UserWarning, match="'a'.*float32") as warned,
        usae.ActivationStore.create(tmp_path / "acts", dtype="float32") as store,
    ):
        store.append(acts)
    text = str(warned[0].message)
    assert "subtract the mean" in text and "dtype=" not in text and "dimensions" not in text


@pytest.mark.parametrize(("dtype", "offset"), [("float16", 100), ("bfloat16", 10)])
def test_rounding_that_costs_a_little_is_warned_of(dtype, offset, tmp_path):
    with (
        pytest.warns(UserWarning, match=f"'a'.*{dtype}"),
        usae.ActivationStore.create(tmp_path / "acts", dtype=dtype) as store,
    ):
        store.append(moved(300, offset))
    assert store.n_tokens == 300


def test_units_that_a_type_rounds_to_nothing_are_refused(tmp_path):
    with (
        refuses("acts['a']"),
        usae.ActivationStore.create(tmp_path / "acts", dtype="float16") as store,
    ):
        store.append({name: x * np.float32(1e-8) for name, x in two_models(300).items()})


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("offset", [0, 1])
def test_ordinary_activations_are_stored_without_a_word(dtype, offset, tmp_path, recwarn):
    with usae.ActivationStore.create(tmp_path / "acts", dtype=dtype) as store:
        store.append(moved(300, offset))
        store.append({name: np.zeros_like(x) for name, x in moved(40, 0).items()})  # and rows that do not vary
    assert not recwarn.list


def test_a_constant_dimension_does_not_count(tmp_path, recwarn):
    acts = moved(300, 0)
    acts["a"][:, 0] = 1000.0
    with usae.ActivationStore.create(tmp_path / "acts") as store:
        store.append(acts)
    assert not recwarn.list
