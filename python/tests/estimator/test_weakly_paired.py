"""Training on rows of which only some are aligned between models: parts of the data that have different models."""

import warnings

import numpy as np
import pytest

import usae
from support.autoencoders import RECIPE, WIDTHS, everything, small, tensors_of
from support.gangs import RECIPES as SHARED
from support.gangs import Gang, ThreadPeers, state
from support.refusals import refuses
from support.runs import RECIPES, Crash, crash, new, saved, steps_kept
from usae._data.part_order import PartOrder, cards_of
from usae._data.weakly_paired import as_batch
from usae._training import shared_steps

NAMES = tuple(WIDTHS)


@pytest.fixture(autouse=True)
def quiet():
    """What training says of these short runs is not what is tested here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def weak(acts, n_paired=100, shares=None):
    """The first rows are aligned, the rest is of one model each; the last has fewer than the others, another two models."""
    paired = {name: x[:n_paired] for name, x in acts.items()}
    alone = [{"dinov2": acts["dinov2"][n_paired:]}, {"siglip": acts["siglip"][n_paired:]}]
    two = {name: acts[name][200:330] for name in ("siglip", "vit")}
    return usae.WeaklyPaired(paired, *alone, two, shares=shares)


# --- Parts ------------------------------------------------------------------------------------------------------------


def test_parts_say_what_they_have(acts):
    given = weak(acts, shares=[2, 1, 1, 4])
    assert given.names == NAMES and len(given.parts) == 4
    assert given.shares == (0.25, 0.125, 0.125, 0.5)
    assert "500" in repr(given) and "siglip, vit: 130" in repr(given)
    assert usae.WeaklyPaired(given.parts[3], given.parts[0]).names == ("siglip", "vit", "dinov2")
    assert given.parts[1]["dinov2"].base is acts["dinov2"]


@pytest.mark.parametrize("batches", [[1], [3, 1], [2, 7, 1, 40], [1, 100_000]])
def test_each_round_of_steps_takes_each_part_as_often_as_its_rows_make_batches(batches):
    order = PartOrder(5, cards_of(batches, None))
    total = sum(batches)
    for first in (0, total, 7 * total):
        parts = order.parts(first, total)
        assert np.bincount(parts, minlength=len(batches)).tolist() == batches
    assert order.done(7 * total) == [7 * n for n in batches]
    for steps in (0, 1, total // 2, total + total // 3):
        counts = np.bincount(order.parts(0, steps), minlength=len(batches)) if steps else np.zeros(len(batches), int)
        assert order.done(steps) == counts.tolist()
    other = PartOrder(5, cards_of(batches, None))
    assert [order.part(step) for step in range(60)] == [other.part(step) for step in range(59, -1, -1)][::-1]
    assert total < 10 or not np.array_equal(order.parts(0, total), order.parts(total, total))
    assert total < 10 or not np.array_equal(order.parts(0, total), PartOrder(6, batches).parts(0, total))


def test_shares_are_those_of_the_steps():
    order = PartOrder(0, cards_of([1, 1000, 3], (0.5, 0.3, 0.2)))
    assert np.bincount(order.parts(0, 3000)).tolist() == [1500, 900, 600]
    assert cards_of([1, 1], (1 - 1e-9, 1e-9)) == [1000, 1], "a part that is wanted is there"


def test_steps_take_the_parts_and_their_rows_once_in_an_epoch(acts):
    given, seen = weak(acts), []
    sae = small(batch_size=50).fit(given, epochs=2, callbacks=[lambda report: seen.append(report)])
    assert sae.recipe_.total_steps == 2 * (2 + 10 + 10 + 3)
    present = [tuple(name for name, loss in report.losses.items() if np.isfinite(loss)) for report in seen]
    for half in (present[:25], present[25:]):
        assert [half.count(part) for part in (NAMES, NAMES[:1], NAMES[1:2], NAMES[1:])] == [2, 10, 10, 3]
    for report, models in zip(seen, present, strict=True):
        assert report.encoder in models
    assert sum(sae._autoencoder.read(model, "counters")[2] for model in range(3)) == 50 * 50
    assert [list(entry["losses"]) for entry in sae.history_] == [list(NAMES)] * 50


def test_a_step_has_as_many_encodings_whatever_its_models(acts):
    """In a batch of one model there is one encoder, so that it has more tokens."""
    sae = small(batch_size=60, encoded_models="two").fit(weak(acts), epochs=1)
    tokens = [sae._autoencoder.read(model, "counters")[2] for model in range(3)]
    assert sae.recipe_.total_steps == 4 + 9 + 9 + 5  # of 30, 60, 60 and 30 tokens
    assert sum(tokens) == 4 * 60 + 9 * 60 + 9 * 60 + 5 * 60


def test_parts_smaller_than_a_batch_are_whole_batches(acts):
    given = usae.WeaklyPaired({name: x[:7] for name, x in acts.items()}, {"vit": acts["vit"][7:300]})
    sae = small(batch_size=100).fit(given, epochs=3)
    assert sae.recipe_.total_steps == 3 * (1 + 3)
    assert small(batch_size=10**6).fit(given, epochs=3).recipe_.batch_size == 293


def test_activations_of_one_part_are_ordinary_ones(acts, held_out):
    one, other = (small().fit(each, steps=30, validation=held_out) for each in (acts, usae.WeaklyPaired(acts)))
    assert everything(one) == everything(other) and tensors_of(one) == tensors_of(other)


# --- What a step changes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_step_leaves_the_models_that_its_batch_lacks(acts, recipe):
    sae = new(recipe, n_threads=1).fit(acts, steps=30)
    sae.set_total_steps(100)
    for number, present in enumerate([("vit",), ("dinov2", "vit"), ("siglip",)] * 2):
        before = tensors_of(sae)
        batch = {name: acts[name][:90] for name in reversed(present)}
        report = sae.partial_fit(usae.WeaklyPaired(batch), encoder=present[0])
        assert report.step == 31 + number and report.encoder == present[0] and set(report.encoders) <= set(present)
        assert {name for name, loss in report.losses.items() if np.isfinite(loss)} == set(present)
        changed = {name for (name, _), values in tensors_of(sae).items() if values != before[name, _]}
        assert changed == (set(present) if sae.recipe_.update == "all" else set(report.encoders))


def test_gradients_are_those_of_the_models_that_are_there(trained, acts):
    batch = usae.WeaklyPaired({name: acts[name][:50] for name in ("siglip", "vit")})
    report, gradients = trained.gradients(batch, encoder="vit")
    assert set(gradients) == {"siglip", "vit"} and set(gradients["siglip"]) == {"dictionary"}
    assert np.isnan(report.losses["dinov2"])
    with refuses("encoder", "'dinov2'"):
        trained.gradients(batch, encoder="dinov2")


def test_statistics_are_those_of_all_rows_of_a_model(acts):
    whole, parts = small().fit(acts, steps=5), small().fit(weak(acts), steps=5)
    reports = parts.standardization_
    assert [reports[name].rows for name in NAMES] == [600, 730, 230]
    assert np.array_equal(parts.parameters("dinov2")["mean"], whole.parameters("dinov2")["mean"])
    assert reports["dinov2"].to_dict() == whole.standardization_["dinov2"].to_dict()


# --- The same bits ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_threads_and_a_stop_change_no_bit(acts, held_out, recipe, tmp_path):
    given, steps = weak(acts), {} if recipe == "published" else {"steps": 30}
    expected = saved(new(recipe).fit(given, validation=held_out, **steps), tmp_path / "whole")
    assert saved(new(recipe, n_threads=1).fit(given, validation=held_out, **steps), tmp_path / "one") == expected
    for at in (7, 8, 23):
        with pytest.raises(Crash):
            new(recipe).fit(
                given, validation=held_out, checkpoint=tmp_path / "run", resume=True, callbacks=[crash(at)], **steps
            )
        assert steps_kept(tmp_path / "run")[-1] == at
    resumed = new(recipe).fit(given, validation=held_out, checkpoint=tmp_path / "run", resume=True, **steps)
    assert saved(resumed, tmp_path / "resumed") == expected
    loaded = usae.load(tmp_path / "whole")
    assert repr(loaded.history_) == repr(resumed.history_)
    assert np.isnan([entry["losses"]["dinov2"] for entry in loaded.history_]).any()
    assert len(loaded.history_frame()) == 30


def test_a_run_on_other_parts_or_shares_is_another_run(acts, tmp_path):
    for given in (weak(acts), weak(acts, shares=(1, 1, 1, 1))):
        folder = tmp_path / str(given.shares is None)
        with pytest.raises(Crash):
            new().fit(given, steps=30, checkpoint=folder, callbacks=[crash(9)])
        for other in (weak(acts, 120, given.shares), weak(acts, shares=(1, 2, 1, 1)), acts):
            with refuses("resume"):
                new().fit(other, steps=30, checkpoint=folder, resume=True)


def test_stores_and_masks_give_the_bits_of_arrays(acts, tmp_path):
    paired = {name: x[:100] for name, x in acts.items()}
    parts = (paired, {"vit": acts["vit"][100:]}, {"dinov2": acts["dinov2"][100:400]})
    stored = []
    for number, part in enumerate(parts):
        with usae.ActivationStore.create(tmp_path / str(number), dtype="float32") as store:
            store.append(part)
        stored.append(usae.ActivationStore(tmp_path / str(number)))
    expected = small().fit(usae.WeaklyPaired(*parts), steps=30)
    assert tensors_of(small().fit(usae.WeaklyPaired(*stored), steps=30)) == tensors_of(expected)
    mixed = usae.WeaklyPaired(parts[0], stored[1], parts[2])
    assert tensors_of(small().fit(mixed, steps=30)) == tensors_of(expected)
    assert everything(small().fit(mixed, steps=30)) == everything(expected)

    counts = np.arange(500) % 3 > 0
    rest = {"vit": np.where(counts[:, None], acts["vit"][100:], np.nan)}
    masked = usae.WeaklyPaired(paired, usae.MaskedActivations(rest, counts))
    cut = usae.WeaklyPaired(paired, {"vit": acts["vit"][100:][counts]})
    assert tensors_of(small().fit(masked, steps=30)) == tensors_of(small().fit(cut, steps=30))


def test_types_of_the_parts_may_differ(acts):
    half = {"vit": acts["vit"][100:].astype(np.float16)}
    sae = small().fit(usae.WeaklyPaired({name: x[:100] for name, x in acts.items()}, half), steps=5)
    assert sae.standardization_["vit"].dtype == "float16" and sae.standardization_["dinov2"].dtype == "float32"


# --- Steps that processes share ---------------------------------------------------------------------------------------


def share(saes, batches):
    def task(peers: ThreadPeers):
        autoencoder = saes[peers.rank]._autoencoder

        def take():
            return as_batch(batches[peers.rank], "batch", autoencoder.columns), None, -1

        return shared_steps.step(autoencoder, take, peers, shared_steps.ExchangeBuffers())[0]

    return Gang(len(saes)).run(task)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARED)
def test_processes_share_steps_of_some_models(acts, name):
    def begun():
        sae = usae.UniversalSAE(48, 4, recipe=SHARED[name], seed=5, n_threads=1)
        sae.partial_fit(acts)
        sae.partial_fit(acts)
        return sae

    *saes, single = (begun() for _ in range(3))
    before = tensors_of(single, ["siglip"])
    for rows in (slice(0, 200), slice(200, 500)):
        batch = {key: acts[key][rows] for key in ("dinov2", "vit")}
        cut = [usae.WeaklyPaired({key: x[part] for key, x in batch.items()}) for part in (slice(0, 70), slice(70, None))]
        expected = single.partial_fit(usae.WeaklyPaired(batch))
        for report in share(saes, cut):
            assert report.encoders == expected.encoders and report.step == expected.step
            assert report.loss == pytest.approx(expected.loss, rel=1e-4)
            assert np.isnan(report.losses["siglip"])
        assert state(saes[0]) == state(saes[1])
    absent = tensors_of(saes[0], ["siglip"])
    assert absent == tensors_of(single, ["siglip"])
    assert (absent == before) == (name != "merging"), "only where concepts are merged does a model change that is absent"


def test_processes_with_batches_of_different_models_are_refused(acts):
    saes = [small().fit(acts, steps=2) for _ in range(2)]
    before = [state(sae) for sae in saes]
    outcomes = share(saes, [acts, usae.WeaklyPaired({"vit": acts["vit"]})])
    for outcome in outcomes:
        with refuses("models of the batch"):
            raise outcome
    assert [state(sae) for sae in saes] == before


# --- Refused ----------------------------------------------------------------------------------------------------------


def test_parts_that_cannot_be_used_are_refused(acts):
    alone = {"vit": acts["vit"]}
    with refuses("parts", "none"):
        usae.WeaklyPaired()
    with refuses("parts[1]", "numpy.ndarray"):
        usae.WeaklyPaired(alone, acts["vit"])
    with refuses("parts[1]['vit']"):
        usae.WeaklyPaired(alone, {"vit": acts["vit"][:, 1:]})
    with refuses("parts[0]"):
        usae.WeaklyPaired(acts | {"vit": acts["vit"][1:]})
    with refuses("shares", "1"):
        usae.WeaklyPaired(acts, alone, shares=[1])
    for wrong in (0, -1, np.inf, np.nan, "a"):
        with refuses("shares[1]", "" if wrong == "a" else wrong):
            usae.WeaklyPaired(acts, alone, shares=[1, wrong])


def test_what_is_not_aligned_is_refused_where_that_is_needed(acts, held_out, trained):
    given = weak(acts)
    before = everything(trained)
    with refuses("acts", "WeaklyPaired"):
        trained.evaluate(given)
    with refuses("validation", "WeaklyPaired"):
        trained.fit(acts, validation=given)
    with refuses("acts", "WeaklyPaired"):
        trained.add_model("clip", given)
    with refuses("batches[0]", "WeaklyPaired"):
        small().fit_stream([given], steps=3)
    with refuses("mask", "ndarray"):
        trained.fit(given, mask=np.ones(600, bool))
    with refuses("acts", "no such rows"):
        trained.fit(usae.WeaklyPaired({"vit": acts["vit"]}, {name: acts[name] for name in ("dinov2", "siglip")}))
    with refuses("batch", "4 parts"):
        trained.partial_fit(given)
    with refuses("batch", "none for siglip"):  # a model that was forgotten
        trained.partial_fit({name: acts[name] for name in ("dinov2", "vit")})
    with refuses("batch", "", "vit"):
        trained.partial_fit(usae.WeaklyPaired({"vti": acts["vit"]}))
    with refuses("batch['vit']"):
        trained.partial_fit(usae.WeaklyPaired({"vit": acts["vit"][:, 1:]}))
    with refuses("batch", "WeaklyPaired"):
        small().partial_fit(usae.WeaklyPaired({"vit": acts["vit"]}))
    assert everything(trained) == before


def test_numbers_that_are_not_finite_are_found_before_the_first_step(acts):
    bad = acts["vit"].copy()
    bad[431, 5] = np.nan
    for recipe in (RECIPE, RECIPE.replace(statistics_tokens=20)):
        sae = usae.UniversalSAE(32, 4, recipe=recipe, seed=3)
        with refuses("activations of 'vit, part 1'", "NaN") as caught:
            sae.fit(usae.WeaklyPaired({name: x[:100] for name, x in acts.items()}, {"vit": bad}), steps=3)
        assert "431" in str(caught.value) and not sae.__sklearn_is_fitted__()
