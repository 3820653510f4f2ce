"""`UniversalSAE.fit(..., frozen=...)`: some models stay bit for bit what they are, and others are trained into their code."""

import signal
import warnings

import numpy as np
import pytest

import usae
from support.autoencoders import RECIPE, WIDTHS, everything, tensors_of
from support.refusals import refuses
from support.runs import Crash, crash, saved

KEPT = ("siglip", "dinov2")


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def fitted(acts, steps=60, n_threads=1, **changes):
    return usae.UniversalSAE(32, 4, recipe=RECIPE.replace(**changes), seed=3, n_threads=n_threads).fit(acts, steps=steps)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"encoder": "batchnorm"},
        {"selection": "batchtopk"},
        {"encoded_models": "all", "agreement": 0.2},
        {"encoded_models": "two"},
        {"aux": "unchosen", "aux_detach": False, "encoder": "batchnorm", "loss": "l1"},
        {"update": "encoder", "clock": "model", "weight_decay": 0.1, "renormalize": False},
        {"merge_cosine": 0.1, "merge_every": 1, "warmup_steps": 0},
        {"dead_tokens": 1, "aux_every": 1},
        {"initialization": "random", "clip_norm": 1.0},
    ],
    ids=str,
)
def test_frozen_models_keep_their_bits_and_the_others_learn(acts, held_out, changes):
    sae = fitted(acts, **changes)
    before, codes = tensors_of(sae, KEPT), {name: sae.encode(held_out[name], name).values for name in KEPT}
    new = tensors_of(sae, ["vit"])
    r2 = sae.evaluate(held_out).r2
    assert sae.fit(acts, steps=60, frozen=KEPT, validation=held_out) is sae
    assert tensors_of(sae, KEPT) == before and tensors_of(sae, ["vit"]) != new
    assert all(np.array_equal(sae.encode(held_out[name], name).values, codes[name]) for name in KEPT)
    evaluation = sae.evaluate(held_out)
    assert np.array_equal(evaluation.r2[:2, :2], r2[:2, :2]) and evaluation.r2[2, 2] > 0.2
    assert sae.n_steps_ == 60 and len(sae.history_) == 60
    assert {entry["encoder"] for entry in sae.history_} == {"vit"}
    sae.set_total_steps(200)
    for _ in range(12):
        sae.partial_fit(acts)
    after = tensors_of(sae, KEPT)
    assert all(any(after[key] != before[key] for key in before if key[0] == name) for name in KEPT), "frozen for this run alone"


def test_several_models_may_be_new_and_some_that_were_there_leave(acts, held_out):
    one = usae.UniversalSAE(32, 4, recipe=RECIPE, seed=3).fit({name: acts[name] for name in ("siglip", "vit")}, steps=60)
    before = tensors_of(one, ["siglip"])
    one.fit({name: acts[name] for name in ("dinov2", "siglip")}, steps=90, frozen=["siglip"])
    assert one.model_names_ == ("dinov2", "siglip") and tensors_of(one, ["siglip"]) == before
    one.fit(acts, steps=90, frozen=iter(["siglip"]))
    assert one.model_names_ == tuple(WIDTHS) and tensors_of(one, ["siglip"]) == before
    r2 = one.evaluate(held_out).r2
    assert np.diag(r2).min() > 0.2 and r2[1].min() > 0.1


def test_without_a_recipe_the_steps_are_those_of_a_model_that_joins(acts):
    sae = usae.UniversalSAE(32, 4, seed=3).fit(acts, steps=20)
    sae.fit(acts, steps=20, frozen=["siglip"])
    assert sae.recipe_.encoded_models == "two" and sae.recipe_.agreement > 0
    assert all(len(entry["encoders"]) == 2 and entry["encoder"] != "siglip" for entry in sae.history_)
    own = fitted(acts, steps=20).fit(acts, steps=20, frozen=["siglip"])
    assert own.recipe_.encoded_models == "one"


def test_only_some_rows_may_be_aligned(acts):
    sae = fitted(acts)
    before = tensors_of(sae, KEPT)
    weak = usae.WeaklyPaired({name: x[:150] for name, x in acts.items()}, {"vit": acts["vit"][150:]})
    sae.fit(weak, steps=60, frozen=KEPT)
    assert tensors_of(sae, KEPT) == before
    assert sae.standardization_["vit"].rows == 600


def test_labels_reports_and_types_of_frozen_models_stay(acts):
    pandas = pytest.importorskip("pandas")
    frames = {name: pandas.DataFrame(x, columns=[f"{name}{c}" for c in range(x.shape[1])]) for name, x in acts.items()}
    sae = fitted(frames)
    labels, report = sae.feature_names_in_, sae.standardization_["siglip"]
    half = {name: x[:300] for name, x in frames.items()}
    sae.fit(half, steps=20, frozen=["siglip"])
    assert sae.feature_names_in_ == labels
    assert sae.standardization_["siglip"].rows == report.rows == 600 and sae.standardization_["vit"].rows == 300
    with refuses("acts['siglip']"):
        sae.fit(half | {"siglip": half["siglip"].iloc[:, ::-1]}, steps=20, frozen=["siglip"])


@pytest.mark.slow
def test_threads_and_a_stop_change_no_bit(acts, tmp_path):
    fitted(acts).save(tmp_path / "first", training_state=True)
    expected = saved(usae.load(tmp_path / "first").fit(acts, steps=30, frozen=KEPT), tmp_path / "whole")
    options = {"steps": 30, "frozen": KEPT, "checkpoint": tmp_path / "run", "resume": True}
    for at in (7, 23):
        with pytest.raises(Crash):
            usae.load(tmp_path / "first", n_threads=3).fit(acts, callbacks=[crash(at)], **options)
    resumed = usae.load(tmp_path / "first").fit(acts, **options)
    assert saved(resumed, tmp_path / "resumed") == expected

    other = fitted(acts, steps=50)
    for changed in (other.fit, usae.UniversalSAE(32, 4, recipe=RECIPE, seed=3).fit(acts, steps=61).fit):
        with refuses("resume"):
            changed(acts, **options)
    with refuses("resume"):
        fitted(acts).fit(acts, **options | {"frozen": ["siglip"]})


def test_after_a_run_that_was_stopped_all_models_train(acts):
    def ctrl_c(report):
        signal.raise_signal(signal.SIGINT)

    sae = fitted(acts)
    before = tensors_of(sae, KEPT)
    with pytest.raises(KeyboardInterrupt):
        sae.fit(acts, steps=30, frozen=KEPT, callbacks=[ctrl_c])
    assert sae.n_steps_ == 1 and tensors_of(sae, KEPT) == before
    sae.set_total_steps(200)
    reports = [sae.partial_fit(acts, encoder=name) for name in KEPT]
    assert [report.encoder for report in reports] == list(KEPT) and tensors_of(sae, KEPT) != before


def test_what_cannot_be_frozen_is_refused(acts):
    sae = fitted(acts, steps=10)
    before = everything(sae)
    for wrong, got in (("siglip", "the text"), (3, "int"), ({"siglip": 1}, ""), ([3], "")):
        with refuses("frozen", got if got != "int" else ""):
            sae.fit(acts, steps=5, frozen=wrong)
    with refuses("frozen"):
        sae.fit(acts, steps=5, frozen=["sigilp"])
    with refuses("frozen", "all of them"):
        sae.fit(acts, steps=5, frozen=list(WIDTHS))
    with refuses("acts", "none for siglip"):
        sae.fit({name: acts[name] for name in ("dinov2", "vit")}, steps=5, frozen=["siglip"])
    with refuses("acts['siglip']"):
        sae.fit(acts | {"siglip": acts["siglip"][:, 1:]}, steps=5, frozen=["siglip"])
    with refuses("acts.parts[1]", "frozen ones alone"):
        sae.fit(usae.WeaklyPaired(acts, {"siglip": acts["siglip"]}), steps=5, frozen=["siglip"])
    with pytest.raises(usae.NotInitializedError):
        usae.UniversalSAE(32, 4).fit(acts, steps=5, frozen=["siglip"])
    for field, value in (("n_concepts", 40), ("k", 5)):
        sae.set_params(**{field: value})
        with refuses(field, value):
            sae.fit(acts, steps=5, frozen=["siglip"])
        sae.set_params(n_concepts=32, k=4)
    for field, value in (("encoder", "batchnorm"), ("dictionary_norm", "unit")):
        sae.set_params(recipe=RECIPE.replace(**{field: value}))
        with refuses("recipe", f"'{value}'"):
            sae.fit(acts, steps=5, frozen=["siglip"])
    sae.set_params(recipe=RECIPE)
    assert everything(sae) == before
