"""Training whose steps encode several models: what it draws, what it reports, and what it keeps."""

import collections
import csv

import numpy as np
import pytest

import usae
from support.autoencoders import RECIPE, WIDTHS, everything, planted, small
from support.refusals import refuses
from usae._core import resolved_recipe

TWO = dict(encoded_models="two", agreement=0.1)
ENCODERS = {"one": 1, "two": 2, "all": 3}


@pytest.mark.parametrize("encoded_models", ENCODERS)
def test_a_step_has_as_many_encodings_whatever_the_models(acts, encoded_models):
    tokens = []
    sae = small(encoded_models=encoded_models, batch_size=100, dead_tokens=None, dead_share=0.5)
    sae.fit(acts, steps=4, callbacks=[lambda report: tokens.append(counters(sae)[:, 2].sum())], progress=False)
    n = ENCODERS[encoded_models]
    assert np.diff([0, *tokens]).tolist() == [100 // n * n] * 4
    assert counters(sae)[:, 0].sum() == 4 * n
    assert (counters(sae)[:, 1] == 4).all()
    assert sae.recipe_.batch_size == 100
    assert sae.recipe_.dead_tokens == round(0.5 * 4 * 100 / 3)  # of those that a model encodes, as ever


def counters(sae):
    return np.array([sae._autoencoder.read(model, "counters") for model in range(len(sae.model_names_))])


def test_an_epoch_is_a_pass_over_the_rows_for_any_number_of_encoders(acts):
    steps = {one: small(encoded_models=one, batch_size=100).fit(acts, epochs=2, progress=False).n_steps_ for one in ENCODERS}
    assert steps == {"one": 12, "two": 24, "all": 38}  # 600 rows


@pytest.mark.parametrize(("batch_size", "n_tokens"), [(1, 600), (2, 600), (10**6, 600), (10**6, 5)])
@pytest.mark.parametrize("encoded_models", ENCODERS)
def test_a_batch_has_a_token_at_least_and_all_at_most(encoded_models, batch_size, n_tokens):
    recipe = RECIPE.replace(batch_size=batch_size, encoded_models=encoded_models)
    n = ENCODERS[encoded_models]
    resolved = resolved_recipe.resolved_for_fit(recipe, 3, [(3, n_tokens)], None, 10)
    assert resolved_recipe.step_tokens(resolved, 3) == max(1, min(batch_size // n, n_tokens))


def test_every_pair_is_drawn_and_the_report_names_it():
    sae, pairs = small(**TWO), collections.Counter()
    for _ in range(120):
        report = sae.partial_fit(planted(40, seed=1))
        pairs[report.encoders] += 1
        assert report.encoder == report.encoders[0] and list(report.own_losses) == list(report.encoders)
        assert set(report.losses) == set(WIDTHS)
    assert len(pairs) == 6 and min(pairs.values()) > 8
    assert collections.Counter(tuple(entry["encoders"]) for entry in sae.history_) == pairs


def test_a_caller_may_name_the_first_encoder():
    sae, batch = small(encoded_models="all"), planted(40, seed=1)
    for name, others in (("siglip", ("dinov2", "vit")), ("dinov2", ("siglip", "vit")), ("vit", ("dinov2", "siglip"))):
        assert sae.partial_fit(batch, encoder=name).encoders == (name, *others)
    with refuses("encoder"):
        sae.partial_fit(batch, encoder="siglipp")


@pytest.mark.parametrize("encoded_models", ["two", "all"])
def test_an_autoencoder_of_one_model_trains_as_ever(encoded_models):
    batch = planted(200, seed=3, widths={"vit": 17})
    recipe = RECIPE.replace(dead_tokens=50)
    one, several = (
        usae.UniversalSAE(32, 4, recipe=recipe.replace(**changes), seed=3)
        for changes in ({}, {"encoded_models": encoded_models, "agreement": 0.3})
    )
    for sae in (one, several):
        sae.fit(batch, steps=20, progress=False)
    assert everything(one)["parameters"] == everything(several)["parameters"]
    assert repr(one.history_) == repr(several.history_)


def test_an_agreement_that_no_step_has_changes_nothing(acts):
    one, other = (small(agreement=weight).fit(acts, steps=10, progress=False) for weight in (0.0, 0.5))
    assert everything(one)["parameters"] == everything(other)["parameters"]
    assert "agreement" not in other.history_[0]


@pytest.mark.parametrize("changes", [TWO, dict(encoded_models="all", agreement=0.0)])
def test_the_history_survives_a_save_and_is_a_table(acts, tmp_path, changes):
    sae = small(**changes).fit(acts, steps=6, progress=False)
    entry = sae.history_[-1]
    assert list(entry["own_losses"]) == entry["encoders"] and entry["encoder"] == entry["encoders"][0]
    assert (entry["agreement"] > 0) == (changes["agreement"] > 0)
    sae.save(tmp_path / "run", training_state=True)
    assert everything(usae.load(tmp_path / "run")) == everything(sae)
    sae.save_history(tmp_path / "history.csv")
    with open(tmp_path / "history.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row, entry in zip(rows, sae.history_, strict=True):
        own = {name: row[f"own_losses.{name}"] for name in WIDTHS if row[f"own_losses.{name}"]}
        assert {name: float(loss) for name, loss in own.items()} == entry["own_losses"]


@pytest.mark.parametrize("names", [("inf", "-inf"), ("nan", "null")])
def test_models_with_the_names_of_numbers_keep_them(tmp_path, names):
    sae = usae.UniversalSAE(16, 3, recipe=RECIPE.replace(**TWO), seed=1)
    sae.fit(planted(100, seed=0, widths=dict(zip(names, (6, 7), strict=True))), steps=3, progress=False)
    sae.save(tmp_path / "run")
    assert repr(usae.load(tmp_path / "run").history_) == repr(sae.history_)


def test_a_term_in_the_loss_brings_codes_together():
    """On held-out rows, whatever the models are; with rows that are paired at random nothing agrees, and nothing vanishes."""
    train, held_out = planted(3000, seed=1), planted(500, seed=2)

    def differences(acts, **changes):
        recipe = RECIPE.replace(batch_size=256, agreement_scale=None, **changes)
        sae = usae.UniversalSAE(32, 4, recipe=recipe, seed=3).fit(acts, steps=300, progress=False)
        codes = [sae.encode(x, name).to_dense() for name, x in held_out.items()]
        energy = np.mean([(z**2).sum(1).mean() for z in codes])
        pairs = [((a - b) ** 2).sum(1).mean() for i, a in enumerate(codes) for b in codes[:i]]
        return np.mean(pairs) / energy, energy

    without, energy = differences(train, encoded_models="two", agreement=0.0)
    for on in ("preactivations", "codes"):
        term = dict(agreement=0.6, agreement_on=on, agreement_start=0.0, agreement_full=0.0)
        with_term, with_energy = differences(train, encoded_models="two", **term)
        assert with_term < 0.85 * without and with_energy > 0.8 * energy
    shuffled = {name: np.random.default_rng(i).permutation(x) for i, (name, x) in enumerate(train.items())}
    (_, before), (_, left) = (differences(shuffled, encoded_models="two", agreement=weight) for weight in (0.0, 0.05))
    assert left > 0.8 * before


@pytest.mark.slow
def test_merging_and_dead_concepts_go_on_with_several_encoders(acts):
    sae = small(**TWO, merge_cosine=0.5, merge_every=3, warmup_steps=0, dead_tokens=60, batch_size=200)
    sae.fit(acts, steps=40, progress=False)
    assert np.isfinite([entry["loss"] for entry in sae.history_]).all()
    assert any(entry["dead"] for entry in sae.history_)


def test_every_encoded_model_is_watched(acts):
    sae = small(encoded_models="all", warmup_steps=0, learning_rate=1.0)
    with pytest.warns(UserWarning, match="learning_rate"):
        sae.fit(acts, steps=120, progress=False)
    assert all(one.is_known for one in sae._autoencoder.watch._losses.values())
