import numpy as np
import pytest

import usae
from support.autoencoders import RECIPE, WIDTHS, planted
from support.refusals import refuses

pytestmark = pytest.mark.slow

N_CONCEPTS, K = 64, 4
BATCH = RECIPE.replace(selection="batchtopk", k_max=10)
MODEL = "siglip"


def offered(pre, k_max):
    """Each token's k_max largest positive pre-activations, largest first, 0 where there are fewer."""
    return np.maximum(np.sort(pre, axis=1)[:, : -k_max - 1 : -1], 0)


def threshold(sae, model=MODEL):
    return sae.parameters(model)["threshold"].item()


@pytest.fixture(scope="module")
def tokens():
    return planted(700, seed=5)


@pytest.fixture(scope="module")
def fitted(tokens):
    return usae.UniversalSAE(N_CONCEPTS, K, recipe=BATCH, seed=3).fit(tokens, steps=200)


def test_a_step_keeps_the_largest_of_the_batch_and_follows_the_smallest_of_them(tokens):
    sae = usae.UniversalSAE(N_CONCEPTS, K, recipe=BATCH, seed=3)
    sae.fit(tokens, steps=1)
    sae.initialize(WIDTHS)
    assert threshold(sae) == 0
    followed = np.float32(0)
    for first in range(0, 500, 50):
        # Sizes that jump: where a step looks for entries first depends on what the last batch kept.
        size = np.float32([1, 1, 0.01, 5][first // 50 % 4])
        batch = {name: size * x[first : first + 200] for name, x in tokens.items()}
        # A linear encoder's pre-activations are the same bits in training.
        entries = offered(sae.preactivations(batch[MODEL], MODEL), 10)
        kept = np.sort(entries.ravel())[-200 * K :]
        smallest = kept[kept > 0].min()
        followed = np.float32(0.9) * followed + np.float32(0.1) * smallest if first else smallest
        report = sae.partial_fit(batch, encoder=MODEL)
        assert report.l0 == (kept > 0).sum() / 200
        assert threshold(sae) == followed
    assert threshold(sae, "vit") == 0  # each encoder has its own, and this one was never used


def test_a_step_for_the_gradients_leaves_the_threshold_alone(fitted, tokens):
    before = threshold(fitted)
    fitted.gradients(tokens, encoder=MODEL)
    assert threshold(fitted) == before


def test_a_code_is_what_exceeds_the_threshold(fitted, tokens):
    for name, x in tokens.items():
        codes = fitted.encode(x, name)
        assert codes.values.shape == (700, 10)
        expected = offered(fitted.preactivations(x, name), 10)
        expected[expected <= threshold(fitted, name)] = 0
        np.testing.assert_array_equal(codes.values, expected)
        np.testing.assert_array_equal(codes.indices >= 0, expected > 0)
        assert len(set((codes.indices >= 0).sum(1))) > 1  # tokens have as many as they need


def test_no_token_has_more_than_k_max(fitted, tokens, tmp_path):
    fitted.save(tmp_path / "run")
    low = usae.load(tmp_path / "run")
    low.set_parameters(MODEL, {"threshold": [1e-30]})
    codes = low.encode(tokens[MODEL], MODEL)
    assert (codes.indices >= 0).all()
    np.testing.assert_array_equal(codes.values, offered(low.preactivations(tokens[MODEL], MODEL), 10))


def test_a_code_does_not_depend_on_the_other_tokens(fitted, tokens):
    whole = fitted.encode(tokens[MODEL], MODEL)
    for rows in (slice(0, 1), slice(3, 300), slice(None, None, -7)):
        assert fitted.encode(tokens[MODEL][rows], MODEL) == whole[rows]


def test_before_any_step_the_k_largest_are_the_code(tokens):
    sae = usae.UniversalSAE(N_CONCEPTS, K, recipe=BATCH, seed=3).initialize(WIDTHS)
    plain = usae.UniversalSAE(N_CONCEPTS, K, recipe=RECIPE, seed=3).initialize(WIDTHS)
    codes, expected = sae.encode(tokens["vit"], "vit"), plain.encode(tokens["vit"], "vit")
    np.testing.assert_array_equal(codes.values[:, :K], expected.values)
    np.testing.assert_array_equal(codes.indices[:, :K], expected.indices)
    assert not codes.values[:, K:].any() and (codes.indices[:, K:] == -1).all()


@pytest.mark.parametrize("encoder", ["linear", "batchnorm"])
def test_codes_have_k_concepts_on_average_in_and_after_training(tokens, encoder):
    sae = usae.UniversalSAE(N_CONCEPTS, K, recipe=BATCH.replace(encoder=encoder), seed=3).fit(tokens, steps=300)
    assert all(entry["l0"] <= K for entry in sae.history_)
    # The threshold is that of batches of 128 tokens up to some ten steps ago.
    np.testing.assert_allclose(sae.evaluate(planted(2000, seed=6)).l0, K, rtol=0.1)


def test_an_evaluation_uses_the_codes_that_encode_gives(fitted, tokens):
    evaluation = fitted.evaluate(tokens)
    for i, name in enumerate(WIDTHS):
        used = fitted.encode(tokens[name], name).indices
        assert evaluation.l0[i] == (used >= 0).sum() / 700
        assert (evaluation.firing_counts[i] == np.bincount(used[used >= 0], minlength=N_CONCEPTS)).all()


def test_with_a_limit_of_k_training_is_that_of_topk(tokens):
    plain = usae.UniversalSAE(N_CONCEPTS, K, recipe=RECIPE.replace(dead_tokens=100), seed=3).fit(tokens, steps=20)
    recipe = RECIPE.replace(dead_tokens=100, selection="batchtopk", k_max=K)
    limited = usae.UniversalSAE(N_CONCEPTS, K, recipe=recipe, seed=3).fit(tokens, steps=20)
    assert repr(limited.history_) == repr(plain.history_)
    for name in WIDTHS:
        for key, values in plain.parameters(name).items():
            np.testing.assert_array_equal(limited.parameters(name)[key], values)


def test_the_threshold_is_saved_and_can_be_set(fitted, tokens, tmp_path):
    fitted.save(tmp_path / "run")
    loaded = usae.load(tmp_path / "run")
    assert threshold(loaded) == threshold(fitted) > 0
    assert loaded.encode(tokens[MODEL], MODEL) == fitted.encode(tokens[MODEL], MODEL)
    loaded.set_parameters(MODEL, {"threshold": [1e9]})
    assert not loaded.encode(tokens[MODEL], MODEL).values.any()
    for wrong, argument in (
        ([-1.0], f"threshold of '{MODEL}'"),
        ([np.nan], "parameters['threshold']"),
        ([1.0, 1.0], "parameters['threshold']"),
        (1.0, "parameters['threshold']"),
    ):
        with refuses(argument):
            loaded.set_parameters(MODEL, {"threshold": wrong})
    assert "threshold" not in usae.UniversalSAE(8, 2).initialize({"a": 3}).parameters("a")


def test_k_max_is_four_times_k_or_all():
    for n_concepts, k_max, slots in ((64, None, 16), (64, 5, 5), (10, None, 10), (10, 99, 10)):
        recipe = BATCH.replace(k_max=k_max)
        sae = usae.UniversalSAE(n_concepts, K, recipe=recipe).initialize({"a": 3})
        assert sae.encode(np.zeros((2, 3), np.float32), "a").values.shape == (2, slots)
