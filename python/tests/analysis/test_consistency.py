import itertools
import json

import numpy as np
import pytest

import usae
from support.autoencoders import RECIPE, WIDTHS
from support.refusals import refuses

# Rows at 0, 90 and 180 degrees, and others at 20, 100 and 290: cosines cos(20), cos(100), cos(290) = cos(70) in the first
# row, cos(70), cos(10), -cos(20) in the second, -cos(20), cos(80), -cos(70) in the third.
ANGLES, OTHERS = np.radians([0, 90, 180]), np.radians([20, 100, 290])


def rows(angles, length=1.0):
    return length * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_a_case_that_can_be_worked_by_hand():
    result = usae.consistency({"a": rows(ANGLES, 2.0)}, {"a": rows(OTHERS, 0.1)})
    # Of the six ways to match, 0-0, 1-1, 2-2 has the sum .94 + .98 - .34 = 1.58, and 0-0, 1-2, 2-1 .94 - .94 + .17 = .17;
    # 0-2, 1-1, 2-0 .34 + .98 - .94; 0-2, 1-0, 2-1 .34 + .34 + .17; the others start with 0-1, -.17, and have less.
    assert result["a"].indices.tolist() == [0, 1, 2]
    assert result["a"].cosines == pytest.approx(np.cos(np.radians([20, 10, 110])))
    assert result["a"].mean == pytest.approx(np.cos(np.radians([20, 10, 110])).mean())
    assert result["a"].curve == pytest.approx(np.cos(np.radians([10, 20, 110])))
    assert result["a"].share_above == pytest.approx(2 / 3)
    assert usae.consistency({"a": rows(ANGLES)}, {"a": rows(OTHERS)}, threshold=0.95)["a"].share_above == pytest.approx(1 / 3)


def test_the_matching_is_the_best_of_all():
    rng = np.random.default_rng(0)
    mine, other = rng.standard_normal((6, 4)), rng.standard_normal((7, 4))
    cosines = (mine / np.linalg.norm(mine, axis=1)[:, None]) @ (other / np.linalg.norm(other, axis=1)[:, None]).T
    best = max(itertools.permutations(range(7), 6), key=lambda order: cosines[range(6), order].sum())
    assert usae.consistency({"a": mine}, {"a": other})["a"].indices.tolist() == list(best)


def test_a_dictionary_with_too_few_rows_leaves_concepts_without_a_partner():
    matching = usae.consistency({"a": rows(ANGLES)}, {"a": rows(OTHERS[:2])})["a"]
    assert matching.indices.tolist() == [0, 1, -1]
    assert np.isnan(matching.cosines[2]) and not np.isnan(matching.mean)
    assert matching.share_above == pytest.approx(2 / 3)
    assert len(matching.curve) == len(matching.random) == len(matching.random_in_place) == 2
    assert matching.to_dict()["cosines"][2] is None


def test_the_same_rows_in_another_order_are_found(trained):
    order = np.random.default_rng(0).permutation(32)
    result = usae.consistency(trained, {name: 3 * trained.dictionary(name)[order] for name in WIDTHS})
    for name in WIDTHS:
        assert np.array_equal(order[result[name].indices], np.arange(32))
        assert result[name].cosines == pytest.approx(1)
    assert usae.consistency(trained, trained)["vit"].indices.tolist() == list(range(32))


def test_random_dictionaries_agree_as_much_as_their_shape_makes_them():
    # The mean matched cosine grows with the number of rows and falls with the width: .130 for 6144 x 768 takes minutes and
    # gigabytes, so here is a smaller shape: scipy alone gave a mean of .2715 over 20 seeds, with a standard deviation of .0008.
    rng = np.random.default_rng(1)
    mine, other = rng.standard_normal((1024, 128)), rng.standard_normal((1024, 128))
    matching = usae.consistency({"a": mine}, {"a": other})["a"]
    assert matching.mean == pytest.approx(0.2715, abs=0.0035)
    assert matching.random.mean() == pytest.approx(0.2715, abs=0.0035)
    assert matching.random_in_place.mean() == pytest.approx(0.2715, abs=0.0035)  # these rows crowd nowhere


def test_rows_that_crowd_into_a_few_directions_raise_the_baseline_in_place_alone():
    rng = np.random.default_rng(2)
    shape = np.where(np.arange(32) < 3, 10.0, 1.0)
    matching = usae.consistency({"a": rng.standard_normal((64, 32)) * shape}, {"a": rng.standard_normal((64, 32)) * shape})["a"]
    assert matching.random.mean() < 0.5 < matching.random_in_place.mean()
    # Only means and covariances are kept, not how much of each row is in the crowded directions: so it is not equal.
    assert matching.mean == pytest.approx(matching.random_in_place.mean(), abs=0.1)


def test_numbers_repeat_for_a_seed_and_the_seed_is_of_the_baselines_alone(trained):
    other = {"vit": np.random.default_rng(0).standard_normal((32, WIDTHS["vit"]))}
    first, again, third = (usae.consistency(trained, other, seed=seed) for seed in (5, 5, 6))
    assert first.to_dict() == again.to_dict()
    assert np.array_equal(first["vit"].cosines, third["vit"].cosines)
    assert not np.array_equal(first["vit"].random, third["vit"].random)


def test_some_concepts_are_reported_as_they_are_matched_among_all(trained):
    other = {"vit": np.random.default_rng(0).standard_normal((32, WIDTHS["vit"]))}
    everything = usae.consistency(trained, other)
    chosen = np.array([7, 3, 31])
    some = usae.consistency(trained, other, concepts=chosen)
    assert np.array_equal(some["vit"].indices, everything["vit"].indices[chosen])
    assert np.array_equal(some["vit"].random, everything["vit"].random)
    mask = np.zeros(32, bool)
    mask[chosen] = True
    assert usae.consistency(trained, other, concepts=mask).concepts.tolist() == [3, 7, 31]
    assert usae.consistency(trained, other, concepts=[])["vit"].indices.tolist() == []
    assert np.isnan(usae.consistency(trained, other, concepts=[])["vit"].mean)


def test_independent_autoencoders_have_one_model_each_and_the_size_and_steps_of_the_universal_one(trained, acts):
    independent = usae.fit_independent(acts, like=trained, steps=20)
    assert list(independent) == list(WIDTHS)
    for name, sae in independent.items():
        assert sae.model_names_ == (name,) and sae.n_steps_ == 20
        assert (sae.n_concepts, sae.k, sae.seed, sae.recipe_.batch_size) == (32, 4, trained.seed + 1, RECIPE.batch_size)
        expected = usae.UniversalSAE(32, 4, recipe=RECIPE, seed=trained.seed + 1).fit({name: acts[name]}, steps=20)
        assert np.array_equal(sae.dictionary(name), expected.dictionary(name))
    result = usae.consistency(trained, independent)
    assert (
        result.to_dict()
        == usae.consistency(trained, {name: sae.dictionary(name) for name, sae in independent.items()}).to_dict()
    )
    assert usae.fit_independent(acts, like=trained, seed=9, steps=1)["vit"].seed == 9


def test_independent_autoencoders_keep_a_plan_that_fits(acts):
    recipe = usae.recipes.published(total_steps=20, warmup_steps=5).replace(batch_size=64)
    sae = usae.UniversalSAE(16, 2, recipe=recipe).fit(acts)
    assert usae.fit_independent(acts, like=sae)["vit"].recipe_.warmup_steps == 5
    assert usae.fit_independent(acts, like=sae, steps=10)["vit"].recipe_.total_steps == 10


def test_a_single_model_autoencoder_may_have_another_name_for_its_model(trained, acts):
    alone = usae.UniversalSAE(32, 4, recipe=RECIPE).fit({"backbone": acts["vit"]}, steps=2)
    by_name = usae.consistency(trained, {"vit": alone})
    assert by_name.to_dict() == usae.consistency(trained, {"vit": alone.dictionary("backbone")}).to_dict()


def test_the_plain_form_is_json_and_the_table_has_each_model(trained):
    result = usae.consistency(trained, {"vit": np.zeros((3, 17)), "siglip": trained.dictionary("siglip")})
    read = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert read["models"]["siglip"]["share_above"] == 1 and len(read["concepts"]) == 32
    lines = result.summary().splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["vit", "siglip"]
    assert "siglip: mean 1.000" in repr(result)


@pytest.mark.parametrize(
    ("change", "argument", "got"),
    [
        (
            {"independent": {"bert": np.ones((3, 4))}},
            "independent",
            "",
        ),
        (
            {"independent": {"vit": np.ones((3, 4))}},
            "independent['vit']",
            "shape [3, 4]",
        ),
        ({"independent": {"vit": np.ones(17)}}, "independent['vit']", "shape [17]"),
        ({"independent": {"vit": np.full((3, 17), np.nan)}}, "independent['vit']", "nan"),
        ({"independent": {"vit": np.ones((3, 17), int)}}, "independent['vit']", "int64"),
        ({"independent": np.ones((3, 17))}, "independent", "ndarray"),
        ({"independent": {}}, "independent", "an empty mapping"),
        (
            {"sae": {"vit": np.ones((3, 17)), "siglip": np.ones((4, 24))}},
            "sae",
            "[3, 4]",
        ),
        ({"concepts": [32]}, "concepts", "32 to 32"),
        ({"concepts": [0.5]}, "concepts", "float64 of shape [1]"),
        ({"concepts": [True]}, "concepts", "bool of shape [1]"),
        ({"concepts": [[1], [2, 3]]}, "concepts", "rows of several lengths"),
        ({"threshold": 1.5}, "threshold", "1.5"),
        ({"seed": -1}, "seed", "-1"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_argument_s_name(trained, change, argument, got):
    arguments = {"sae": trained, "independent": {name: np.ones((3, width)) for name, width in WIDTHS.items()}} | change
    if "sae" in change:
        arguments["independent"] = {"vit": np.ones((3, 17)), "siglip": np.ones((3, 24))}
    with refuses(argument, got):
        usae.consistency(arguments.pop("sae"), arguments.pop("independent"), **arguments)


def test_training_alone_needs_something_to_be_like(trained, acts):
    with refuses("like", "NoneType"):
        usae.fit_independent(acts, like=None)
    with refuses("steps", "None"):
        usae.fit_independent(acts, like=usae.UniversalSAE(4, 2).initialize(WIDTHS))
    with refuses("acts", "none for dinov2, siglip"):
        usae.fit_independent({"vit": acts["vit"]}, like=trained)
