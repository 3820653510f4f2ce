import json

import numpy as np
import pytest

import usae
from support.autoencoders import RECIPE, WIDTHS
from support.refusals import refuses
from usae._data import chunks

NAMES = tuple(WIDTHS)


def by_least_squares(sae, acts, concept, owner, center=True):
    """Betas of one concept in each model, by numpy's least squares on dense arrays."""
    f = sae.encode(acts[owner], owner).to_dense().astype(float)[:, concept]
    betas = []
    for name in sae.model_names_:
        p = {tensor: values.astype(float) for tensor, values in sae.parameters(name).items()}
        rows = sae.dictionary(name).astype(float)
        x = (acts[name].astype(float) - p["mean"]) / p["scale"]
        z = sae.encode(acts[name], name).to_dense().astype(float)
        targets = [x - z @ rows + np.outer(z[:, concept], rows[concept]), z @ rows, x]
        if center:
            targets = [y - y.mean(0) for y in targets]
        a = np.outer(f, rows[concept] / np.linalg.norm(rows[concept])).reshape(-1, 1)
        betas.append([np.linalg.lstsq(a, y.reshape(-1), rcond=None)[0][0] for y in targets])
    return np.array(betas).T


@pytest.mark.parametrize("center", [True, False])
def test_every_beta_is_the_least_squares_factor(sae, held_out, center, monkeypatch):
    monkeypatch.setattr(chunks.chunks, "__defaults__", (1, 77))
    result = usae.latent_scaling(sae, held_out, center=center)
    found = 0
    for position in np.flatnonzero(result.firing):
        owner = NAMES[result.owner[position]]
        expected = by_least_squares(sae, held_out, result.concepts[position], owner, center)
        betas = np.stack([result.beta_error, result.beta_reconstruction, result.beta_activation])[:, :, position]
        # `decode` rounds to float32 in the model's units: some 20 roundings of numbers near 10, beside betas near 1.
        assert betas == pytest.approx(expected, abs=20 * 10 * 2**-24, rel=1e-4)
        found += 1
    assert found > 15


def test_betas_are_of_directions_where_rows_are_short(acts, held_out):
    bounded = RECIPE.replace(dictionary_norm="bounded", weight_decay=3.0)
    sae = usae.UniversalSAE(32, 4, recipe=bounded, seed=3).fit(acts, steps=60)
    assert min(np.linalg.norm(sae.dictionary(name), axis=1).min() for name in NAMES) < 0.9
    result = usae.latent_scaling(sae, held_out)
    fired = np.flatnonzero(result.firing)
    for position in fired:
        expected = by_least_squares(sae, held_out, result.concepts[position], NAMES[result.owner[position]])
        betas = np.stack([result.beta_error, result.beta_reconstruction, result.beta_activation])[:, :, position]
        assert betas == pytest.approx(expected, abs=20 * 10 * 2**-24, rel=1e-4)
    assert len(fired) > 15


def test_the_owner_is_the_model_that_fires_a_concept_most_and_a_silent_concept_has_no_numbers(trained, held_out):
    result = usae.latent_scaling(trained, held_out)
    firing = trained.evaluate(held_out).firing_counts
    assert np.array_equal(result.owner, firing.argmax(0))
    assert np.array_equal(result.firing, firing.max(0))
    assert np.array_equal(np.isnan(result.beta_error[0]), result.firing == 0)
    assert not result.private()[result.firing == 0].any()
    by_vit = usae.latent_scaling(trained, held_out, owner="vit")
    assert set(by_vit.owner) == {2} and np.array_equal(by_vit.firing, firing[2])


def test_some_concepts_have_the_numbers_they_have_among_all(trained, held_out):
    everything = usae.latent_scaling(trained, held_out)
    some = usae.latent_scaling(trained, held_out, [9, 2])
    assert some.concepts.tolist() == [9, 2]
    for name in ("beta_error", "beta_reconstruction", "beta_activation", "any_direction"):
        assert np.allclose(getattr(some, name), getattr(everything, name)[:, [9, 2]], equal_nan=True)
    mask = np.arange(32) == 9
    assert usae.latent_scaling(trained, held_out, mask).concepts.tolist() == [9]


def three_cases(n_tokens=4000):
    """Model a has concepts 0, 1, 2, 3. Model b has 0, which its encoder finds; 1, which its encoder misses; 2, which it finds
    under the index 4; and not 3."""
    rng = np.random.default_rng(0)
    code = (rng.random((n_tokens, 4)) < 0.2) * (1 + rng.random((n_tokens, 4)))
    acts = {"a": np.zeros((n_tokens, 6)), "b": np.zeros((n_tokens, 6))}
    acts["a"][:, :4] = code
    acts["b"][:, :3] = code[:, :3]
    sae = usae.UniversalSAE(5, 5, n_threads=1).initialize({"a": 6, "b": 6})
    rows = {"a": np.eye(6)[:5], "b": np.eye(6)[[0, 1, 2, 5, 2]]}
    biases = {"a": [0, 0, 0, 0, -100], "b": [0, -100, -100, -100, 0]}
    for name in acts:
        sae.set_parameters(
            name, {"encoder_weight": rows[name], "dictionary": rows[name], "encoder_bias": np.array(biases[name], float)}
        )
    return sae, acts


def test_what_is_shared_missed_and_split_is_told_from_what_is_private():
    sae, acts = three_cases()
    result = usae.latent_scaling(sae, acts, [0, 1, 2, 3], owner="a")
    assert sae.evaluate(acts).firing_counts[1].tolist()[1:4] == [0, 0, 0]  # 1, 2 and 3 all look private to a
    # With f and z equal, and y less its mean: 1 - (sum f)^2 / (N sum f^2) = 1 - .3^2 / (.2 * 7/3) = .81 in expectation. The
    # standard deviation of such a ratio over 4,000 tokens is below .01.
    whole = 1 - 0.3**2 / (0.2 * 7 / 3)
    assert result.beta_error[1] == pytest.approx([whole, whole, 0, 0], abs=0.03)
    assert result.beta_reconstruction[1] == pytest.approx([whole, 0, whole, 0], abs=0.03)
    assert result.beta_activation[1] == pytest.approx([whole, whole, whole, 0], abs=0.03)
    assert result.any_direction[1] == pytest.approx([whole, whole, whole, 0], abs=0.05)
    assert result.ratio_error[1] == pytest.approx([1, 1, 0, 0], abs=0.03)
    assert result.ratio_reconstruction[1] == pytest.approx([1, 0, 1, 0], abs=0.03)
    assert result.private().tolist() == [False, False, False, True]
    raw = usae.latent_scaling(sae, acts, [0, 1, 2, 3], owner="a", center=False)
    assert raw.beta_activation[0] == pytest.approx(np.ones(4), abs=1e-6)


def test_any_direction_sees_what_the_dictionary_row_does_not():
    sae, acts = three_cases()
    sae.set_parameters("b", {"dictionary": np.eye(6)[[0, 5, 2, 5, 2]]})  # row 1 points elsewhere, as if never trained
    result = usae.latent_scaling(sae, acts, [1, 3], owner="a")
    assert result.beta_activation[1] == pytest.approx([0, 0], abs=0.03)
    assert result.any_direction[1] == pytest.approx([0.81, 0], abs=0.05)


def test_rows_that_do_not_belong_together_have_nothing_in_any_direction():
    rng = np.random.default_rng(3)
    sae, acts = three_cases()
    acts["b"] = acts["b"][rng.permutation(len(acts["b"]))]
    result = usae.latent_scaling(sae, acts, [0, 1, 2, 3], owner="a")
    # By chance a length of sqrt(.8 * .96 / 1900) = .02; with as much taken off, less than twice that is left.
    assert result.any_direction[1].max() < 0.06 and result.private().all()


def test_the_plain_form_is_json_and_the_table_counts_private_concepts():
    sae, acts = three_cases()
    result = usae.latent_scaling(sae, acts)
    read = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert read["private"] == result.private().tolist() and read["model_names"] == ["a", "b"]
    lines = result.summary().splitlines()
    assert lines[2].split()[:3] == ["a", "4", "1"] and lines[3].split()[:2] == ["b", "1"]
    assert "5 concepts" in repr(result)


@pytest.mark.parametrize(
    ("arguments", "argument", "got"),
    [
        ({"concepts": [32]}, "concepts", "32 to 32"),
        ({"concepts": [1, 1]}, "concepts", "2 indices of 1 concepts"),
        ({"owner": "bert"}, "owner", ""),
        ({"center": "yes"}, "center", "'yes'"),
        ({"acts": {"vit": np.ones((3, 17))}}, "acts", "none for dinov2, siglip"),
        ({"sae": None}, "sae", "NoneType"),
        ({"progress": 2}, "progress", "2"),
    ],
)
def test_what_cannot_be_used_is_refused(trained, held_out, arguments, argument, got):
    arguments = {"sae": trained, "acts": held_out} | arguments
    with refuses(argument, got):
        usae.latent_scaling(arguments.pop("sae"), arguments.pop("acts"), **arguments)
