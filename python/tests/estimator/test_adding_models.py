"""`UniversalSAE.add_model`: a model joins, and the others stay bit for bit what they were."""

import numpy as np
import pytest

import usae
from support.autoencoders import RECIPE, WIDTHS, everything, tensors_of
from support.refusals import refuses

OLD = ("dinov2", "siglip")
NEW = "vit"


def fitted(acts, steps=60, n_threads=1, **changes):
    old = {name: acts[name] for name in OLD}
    return usae.UniversalSAE(32, 4, recipe=RECIPE.replace(**changes), seed=3, n_threads=n_threads).fit(
        old, steps=steps, progress=False
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"encoder": "batchnorm"},
        {"selection": "batchtopk"},
        {"encoded_models": "all"},
        {"encoded_models": "two", "agreement": 0.2},
        {"prefix_loss": "mean"},
        {"prefixes": None},
        {"clip_norm": 1.0},
        {"aux": "unchosen"},
        {"aux": "unchosen", "aux_detach": False, "encoder": "batchnorm", "loss": "l1"},
        {"update": "encoder", "clock": "model", "weight_decay": 0.1, "renormalize": False},
        {"merge_cosine": 0.1, "merge_every": 1, "warmup_steps": 0},
        {"dead_tokens": 1, "aux_every": 1},
        {"initialization": "random"},
    ],
    ids=str,
)
def test_the_other_models_keep_their_bits_and_the_new_one_learns(acts, held_out, changes):
    sae = fitted(acts, **changes)
    before, history = tensors_of(sae, OLD), sae.history_
    codes = {name: sae.encode(held_out[name], name) for name in OLD}
    r2 = sae.evaluate({name: held_out[name] for name in OLD}).r2
    assert sae.add_model(NEW, acts, steps=60, progress=False) is sae
    assert sae.model_names_ == (*OLD, NEW) and sae.n_features_in_ == WIDTHS
    assert tensors_of(sae, OLD) == before
    assert sae.n_steps_ == 60 and [entry["step"] for entry in sae.history_] == [entry["step"] for entry in history]
    for name in OLD:
        assert np.array_equal(sae.encode(held_out[name], name).values, codes[name].values)
    evaluation = sae.evaluate(held_out)
    assert np.array_equal(evaluation.r2[:2, :2], r2)
    assert evaluation.r2[2, 2] > 0.2
    assert sae.standardization_ is None or NEW in sae.standardization_


def test_rows_of_one_of_the_others_are_enough(acts, held_out):
    whole, part = fitted(acts), fitted(acts)
    before = tensors_of(part, OLD)
    whole.add_model(NEW, acts, steps=120, progress=False)
    part.add_model(NEW, {NEW: acts[NEW], "siglip": acts["siglip"]}, steps=120, progress=False)
    assert part.model_names_ == (*OLD, NEW) and tensors_of(part, OLD) == before
    r2 = part.evaluate(held_out).r2
    assert r2[0, 2] > 0.2 and r2[2, 0] > 0.2  # "dinov2", whose rows were not there
    assert np.abs(r2 - whole.evaluate(held_out).r2).max() < 0.25


def test_results_do_not_depend_on_threads_and_saves_hold_them(acts, tmp_path):
    one, three = (fitted(acts, n_threads=n).add_model(NEW, acts, steps=30, progress=False) for n in (1, 3))
    assert tensors_of(one, WIDTHS) == tensors_of(three, WIDTHS)
    one.save(tmp_path / "sae", training_state=True)
    loaded = usae.load(tmp_path / "sae")
    assert everything(loaded) == everything(one) and tensors_of(loaded, WIDTHS) == tensors_of(one, WIDTHS)
    assert np.isnan([entry["losses"][NEW] for entry in loaded.history_]).all()
    for sae in (one, loaded):
        sae.set_total_steps(200)
    assert repr(loaded.partial_fit(acts).to_dict()) == repr(one.partial_fit(acts).to_dict())
    assert tensors_of(loaded, OLD) != tensors_of(three, OLD)  # frozen for the joining alone
    assert one.history_[-1]["step"] == 61


def test_several_models_join_one_after_the_other(acts, held_out):
    sae = usae.UniversalSAE(32, 4, recipe=RECIPE, seed=3, n_threads=1).fit(
        {"siglip": acts["siglip"]}, steps=90, validation={"siglip": held_out["siglip"]}, progress=False
    )
    for name in ("vit", "dinov2"):
        sae.add_model(name, {each: acts[each] for each in (*sae.model_names_, name)}, steps=60, progress=False)
    assert sae.model_names_ == ("siglip", "vit", "dinov2")
    assert np.diag(sae.evaluate(held_out).r2).min() > 0.2
    assert np.shape(sae.history_[-1]["validation"]["r2"]) == (3, 3)


def test_a_save_without_training_state_takes_a_model(acts, tmp_path):
    fitted(acts).save(tmp_path / "sae")
    sae = usae.load(tmp_path / "sae").add_model(NEW, acts, steps=20, progress=False).set_total_steps(200)
    with pytest.warns(UserWarning, match="training state"):
        sae.partial_fit(acts)


def test_the_default_length_is_a_third_of_the_training_before(acts):
    steps = []
    fitted(acts, steps=40).add_model(NEW, acts, callbacks=[lambda report: steps.append(report.encoders)], progress=False)
    assert len(steps) == 14
    assert {each[0] for each in steps} == {NEW} and {each[1] for each in steps} == set(OLD)


def test_masked_rows_are_left_out(acts):
    mask = np.arange(600) % 3 > 0
    masked, cut = fitted(acts), fitted(acts)
    masked.add_model(NEW, acts, mask=mask, steps=10, progress=False)
    cut.add_model(NEW, {name: x[mask] for name, x in acts.items()}, steps=10, progress=False)
    assert tensors_of(masked, WIDTHS) == tensors_of(cut, WIDTHS)


def test_whatever_goes_wrong_leaves_the_object_as_it_was(acts):
    sae = fitted(acts)
    before, tensors = everything(sae), tensors_of(sae, OLD)

    def fail(report):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        sae.add_model(NEW, acts, steps=5, callbacks=[fail], progress=False)
    nan = acts[NEW].copy()
    nan[-1, 0] = np.nan
    with pytest.raises(usae.InvalidInputError):
        sae.add_model(NEW, acts | {NEW: nan}, steps=5, progress=False)
    assert everything(sae) == before and tensors_of(sae, OLD) == tensors


def test_steps_that_processes_share_refuse_frozen_models(acts):
    autoencoder = fitted(acts, steps=2)._initialized()
    autoencoder.freeze(["siglip"])
    with refuses("model 'siglip'", "a frozen one"):
        autoencoder.core.shared_begin([acts[name] for name in OLD], None, -1)


def test_what_cannot_join_is_refused(acts):
    sae = fitted(acts, steps=10)
    before = everything(sae)
    with refuses("name", "'siglip'"):
        sae.add_model("siglip", acts)
    with refuses("name"):
        sae.add_model("", acts)
    with refuses("name", "int"):
        sae.add_model(3, acts)
    with refuses("acts", "none"):
        sae.add_model("clip", {name: acts[name] for name in OLD})
    with refuses("acts", "none"):
        sae.add_model(NEW, {NEW: acts[NEW]})
    with refuses("acts"):
        sae.add_model(NEW, acts | {"sigilp": acts["siglip"]})
    with refuses("acts"):
        sae.add_model(NEW, acts | {NEW: acts[NEW][:-1]})
    with refuses("acts['siglip']"):
        sae.add_model(NEW, acts | {"siglip": acts["siglip"][:, 1:]})
    with refuses("acts"):
        sae.add_model(NEW, acts[NEW])
    with refuses("steps", "0"):
        sae.add_model(NEW, acts, steps=0)
    for field, value in (("encoder", "batchnorm"), ("dictionary_norm", "unit")):
        with refuses("recipe", f"'{value}'"):
            sae.add_model(NEW, acts, recipe=RECIPE.replace(**{field: value, "encoded_models": "two"}))
    with refuses("recipe", "'one'"):
        sae.add_model(NEW, acts, recipe=RECIPE)
    with refuses("recipe", "dict"):
        sae.add_model(NEW, acts, recipe={})
    with refuses("callbacks"):
        sae.add_model(NEW, acts, callbacks=[3])
    with pytest.raises(usae.NotInitializedError):
        usae.UniversalSAE(32, 4).add_model(NEW, acts)
    assert everything(sae) == before


@pytest.mark.slow
def test_a_joined_model_is_nearly_as_good_as_one_of_the_start():
    """In a third of the steps. What the others' codes predict of it is worse, since they were not trained for it."""
    train, held_out = usae.demo.activations()
    names = ("contrastive", "masked", "classifier")
    train, held_out = ({name: each[name] for name in names} for each in (train, held_out))
    whole, joined = (usae.UniversalSAE(512, 16, seed=0) for _ in range(2))
    whole.fit(train, steps=1500, progress=False)
    joined.fit({name: train[name] for name in names[:2]}, steps=1500, progress=False)
    joined.add_model(names[2], train, progress=False)  # 500 steps
    whole, joined = whole.evaluate(held_out), joined.evaluate(held_out)
    difference = joined.r2 - whole.r2
    assert difference[2, 2] > -0.02 and difference[2, :2].mean() > -0.02 and difference[:2, 2].min() > -0.1
    assert (joined.mean_agreement() - whole.mean_agreement())[2, :2].min() > -0.05


def test_derived_learning_rates_are_twice_those_of_a_training_from_the_start_and_given_ones_stay(acts):
    def rates(**changes):
        recipe = RECIPE.replace(warmup_steps=0, schedule="constant", **changes)
        sae = usae.UniversalSAE(32, 4, recipe=recipe, seed=3, n_threads=1)
        found = {}
        old = {name: acts[name] for name in OLD}
        sae.fit(old, steps=3, callbacks=[lambda report: found.setdefault("fit", report.learning_rate)], progress=False)
        options = {"steps": 3, "progress": False}
        sae.add_model(NEW, acts, callbacks=[lambda report: found.setdefault("joins", report.learning_rate)], **options)
        sae.fit(acts, frozen=OLD, callbacks=[lambda report: found.setdefault("frozen", report.learning_rate)], **options)
        return found

    derived, given = rates(learning_rate=None), rates(learning_rate=1e-3)
    # `fit` takes the constructor's recipe as it is.
    assert derived["joins"] == pytest.approx(2 * derived["fit"]) and derived["frozen"] == pytest.approx(derived["fit"])
    assert given["joins"] == given["fit"] == given["frozen"] == pytest.approx(1e-3)
