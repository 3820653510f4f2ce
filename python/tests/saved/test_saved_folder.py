"""What a saved autoencoder keeps, and training that goes on from it."""

import os
import pathlib

import numpy as np
import pytest
import safetensors.numpy

import usae
from support.autoencoders import RECIPE, WIDTHS, everything
from support.folders import files
from support.refusals import refuses
from support.saves import FILES

# --- What is kept -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training_state", [False, True])
def test_what_is_loaded_equals_what_was_saved(sae, acts, tmp_path, training_state):
    sae.save(tmp_path / "run", training_state=training_state)
    loaded = usae.load(tmp_path / "run")
    assert set(files(tmp_path / "run")) == FILES
    assert everything(loaded) == everything(sae)
    assert loaded.get_params() == sae.get_params()
    assert loaded.evaluate(acts).to_dict() == sae.evaluate(acts).to_dict()
    for name, x in acts.items():
        assert loaded.encode(x, name) == sae.encode(x, name)
        assert np.array_equal(loaded.preactivations(x, name), sae.preactivations(x, name))
        assert np.array_equal(loaded.reconstruct(x, name, "vit"), sae.reconstruct(x, name, "vit"))
        assert np.array_equal(loaded.dictionary(name), sae.dictionary(name))


def test_a_loaded_autoencoder_saves_to_the_same_bytes(saved, tmp_path):
    usae.load(saved).save(tmp_path / "again", training_state=True)
    assert files(tmp_path / "again") == files(saved)


def test_names_of_any_alphabet_and_with_dots_are_kept(tmp_path):
    widths = {"vit.b16": 3, "vit": 4, "网络": 5, "a/b c": 2, "vit.dictionary": 2, "__metadata__": 3, '"': 1}
    sae = usae.UniversalSAE(6, 2, seed=2**64 - 1).initialize(widths)
    sae.save(tmp_path / "run", training_state=True)
    assert everything(usae.load(tmp_path / "run")) == everything(sae)
    assert usae.load(tmp_path / "run").n_features_in_ == widths


def test_recipe_seed_and_history_are_kept(trained, acts, saved):
    loaded = usae.load(saved)
    assert loaded.recipe == RECIPE and loaded.seed == 3 and len(loaded.history_) == 60
    assert everything(loaded.fit(acts, steps=3)) == everything(usae.UniversalSAE(**trained.get_params()).fit(acts, steps=3))


def test_validation_in_the_history_is_kept(acts, held_out, tmp_path):
    sae = usae.UniversalSAE(8, 2, recipe=RECIPE).fit(acts, steps=5, validation=held_out)
    sae.save(tmp_path / "run")
    assert repr(usae.load(tmp_path / "run").history_) == repr(sae.history_)


def test_a_validation_that_no_json_number_can_say_is_kept(acts, tmp_path):
    constant = {"inf": np.ones((1, 17), np.float32), "vit": np.ones((1, 17), np.float32)}  # has no variance: R2 is NaN
    acts = {name: acts["vit"] for name in constant}
    sae = usae.UniversalSAE(8, 2, recipe=RECIPE).fit(acts, steps=5, validation=constant)
    assert np.isnan(sae.history_[-1]["validation"]["r2"]).all()
    sae.save(tmp_path / "run")
    assert repr(usae.load(tmp_path / "run").history_) == repr(sae.history_)


def test_the_tensors_are_readable_by_others_under_plain_names(trained, saved):
    tensors = safetensors.numpy.load_file(saved / "model.safetensors")
    for name in WIDTHS:
        for key, values in trained.parameters(name).items():
            assert np.array_equal(tensors[f"{name}.{key}"], values)


def test_the_files_have_the_permissions_that_the_user_chose(trained, tmp_path):
    before = os.umask(0o027)
    try:
        trained.save(tmp_path / "run")
        trained.save(tmp_path / "run")
    finally:
        os.umask(before)
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o750
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "run").iterdir()} == {0o640}


def test_paths_may_be_strings_relative_or_links(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained.save("run")
    os.symlink("run", "link")
    before = files("run")
    trained.save("link", training_state=True)
    assert os.path.islink("link") and files("run") != before
    assert everything(usae.load("link")) == everything(usae.load("run")) == everything(trained)


class BytesPath:
    def __fspath__(self):
        return b"run"

    def __repr__(self):
        return "BytesPath()"


@pytest.mark.parametrize("path", [3, None, b"run", BytesPath(), "", "a\0b", pathlib.Path("a\0b"), "a\ud800"])
def test_what_is_no_path_is_refused(trained, path):
    for call in (trained.save, usae.load):
        with refuses("path", repr(path)):
            call(path)


def test_a_name_that_is_no_text_on_disk_is_a_name_all_the_same(trained, tmp_path):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/run\xff")
    for _ in range(2):
        trained.save(folder)
        assert everything(usae.load(folder)) == everything(trained)


# --- Going on ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "recipe",
    [
        RECIPE,
        RECIPE.replace(encoder="batchnorm", update="encoder", clip_norm=0.1, weight_decay=0.1),
        RECIPE.replace(dead_tokens=50, total_steps=16, warmup_steps=4, schedule="cosine", decay_share=1.0, clock="model"),
        usae.recipes.published(total_steps=16, warmup_steps=4).replace(batch_size=100),
        RECIPE.replace(dead_tokens=50, prefixes=(0.125, 0.5, 1)),
        RECIPE.replace(warmup_steps=0, merge_cosine=0.5, merge_every=1),
        RECIPE.replace(dead_tokens=50, selection="batchtopk", encoder="batchnorm"),
    ],
    ids=["default", "clipped", "model clock", "published", "prefixes", "merging", "batchtopk"],
)
def test_saving_loading_and_going_on_is_the_same_as_never_having_stopped(recipe, acts, tmp_path):
    batches = [{name: x[i : i + 100] for name, x in acts.items()} for i in range(0, 600, 50)]
    never_stopped = usae.UniversalSAE(24, 3, recipe=recipe, seed=1)
    stopped = usae.UniversalSAE(24, 3, recipe=recipe, seed=1)
    for i, batch in enumerate(batches):
        never_stopped.partial_fit(batch)
        stopped.partial_fit(batch)
        if i in (2, 7):
            stopped.save(tmp_path / str(i), training_state=True)
            stopped = usae.load(tmp_path / str(i))
    never_stopped.save(tmp_path / "never", training_state=True)
    stopped.save(tmp_path / "stopped", training_state=True)
    assert files(tmp_path / "never") == files(tmp_path / "stopped")


def test_gradients_beyond_float32_leave_a_save_that_loads_and_goes_on(acts, tmp_path):
    sae = usae.UniversalSAE(32, 4, recipe=RECIPE.replace(loss="mse", aux="none", outlier_multiple=None))
    sae.partial_fit(acts)
    huge = {name: x * np.float32(1e17) for name, x in acts.items()}
    sae.partial_fit(huge)
    sae.save(tmp_path / "run", training_state=True)
    tensors = safetensors.numpy.load_file(tmp_path / "run" / "model.safetensors")
    assert any(np.isposinf(x).any() for name, x in tensors.items() if name.endswith("_second_moment"))
    assert all(np.isfinite(x).all() for name, x in tensors.items() if not name.endswith("_second_moment"))
    loaded = usae.load(tmp_path / "run")
    for one in (sae, loaded):
        one.partial_fit(acts)
    assert everything(loaded) == everything(sae)


def test_going_on_without_training_state_warns_once(trained, acts, tmp_path):
    trained.save(tmp_path / "run")
    loaded = usae.load(tmp_path / "run").set_total_steps(None)
    with pytest.warns(UserWarning, match=r"save\(path, training_state=True\)") as warnings:
        loaded.partial_fit(acts)
        loaded.partial_fit(acts)
    assert len(warnings) == 1
    assert loaded.n_steps_ == 62
