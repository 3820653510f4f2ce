"""`usae train`: from a store, or files, to a saved autoencoder."""

import json

import pytest

import usae
from support.autoencoders import WIDTHS, planted
from support.commands import SMALL, printed, run
from support.refusals import names
from usae import cli

pytest.importorskip("torch")


def test_train_does_what_fit_does(made, tmp_path, capsys):
    told = printed(
        capsys, "train", "--acts", made / "acts", "--validation", made / "held-out", "--output", tmp_path / "new" / "model",
        *SMALL, "--seed", "5", "--threads", "1", "--recipe", "matryoshka", "--learning-rate", "1e-3", "--batch-size", "100",
    )  # fmt: skip
    usae.set_num_threads(None)
    recipe = usae.recipes.matryoshka(learning_rate=1e-3, batch_size=100)
    sae = usae.UniversalSAE(64, 4, recipe=recipe, seed=5)
    held_out = usae.ActivationStore(made / "held-out")
    sae.fit(usae.ActivationStore(made / "acts"), steps=8, validation=held_out)
    saved = usae.load(tmp_path / "new" / "model")
    assert saved.recipe_ == sae.recipe_ and repr(saved.history_) == repr(sae.history_)  # NaN is not equal to itself
    for name in sae.model_names_:
        assert saved.dictionary(name).tobytes() == sae.dictionary(name).tobytes()
    assert told["recipe"] == json.loads(sae.recipe_.to_json()) and told["validation"] == sae.history_[-1]["validation"]
    whole = [entry["loss"] for entry in sae.history_ if entry["prefix"] == sae.n_concepts]
    assert (told["n_steps"], told["loss"], told["models"]) == (8, whole[-1], sae.n_features_in_)


def test_train_and_evaluate_take_files(pairs, tmp_path, capsys):
    told = printed(
        capsys, "train", "--acts", *pairs, "--output", tmp_path / "model", "--n-concepts", "16", "--k", "3", "--epochs", "2"
    )
    assert told["models"] == WIDTHS and told["n_steps"] == 2 and told["validation"] is None
    evaluated = printed(capsys, "evaluate", "--model", tmp_path / "model", "--acts", *pairs[::-1])
    assert evaluated["r2"] == usae.load(tmp_path / "model").evaluate(planted(100, seed=0)).r2.tolist()


def test_words_for_people_are_the_default(made, tmp_path, capsys):
    run("train", "--acts", made / "acts", "--validation", made / "held-out", "--output", tmp_path / "model", *SMALL)
    said = capsys.readouterr().out
    assert "8 steps" in said and "384 held-out tokens" in said and "between models" in said
    run("evaluate", "--model", tmp_path / "model", "--acts", made / "held-out")
    assert capsys.readouterr().out.startswith("R2 of 384 tokens")


def test_the_published_recipe_is_as_long_as_the_run(made, tmp_path, capsys):
    options = ["--acts", made / "acts", "--output", tmp_path / "model", "--n-concepts", "32", "--recipe", "published"]
    by_steps = printed(capsys, "train", *options, "--steps", "60")["recipe"]
    assert (by_steps["total_steps"], by_steps["warmup_steps"], by_steps["schedule"]) == (60, 2, "cosine")
    by_epochs = printed(capsys, "train", *options, "--epochs", "3", "--batch-size", "384", "--warmup-steps", "1")["recipe"]
    assert (by_epochs["total_steps"], by_epochs["warmup_steps"]) == (6, 1)


def test_an_interrupted_training_saves_what_it_learned(made, tmp_path, monkeypatch, capsys):
    def interrupted(self, acts, **options):
        fit(self, acts, steps=3)
        raise KeyboardInterrupt

    fit = usae.UniversalSAE.fit
    monkeypatch.setattr(usae.UniversalSAE, "fit", interrupted)
    arguments = ["train", "--acts", str(made / "acts"), "--output", str(tmp_path / "model"), *SMALL]
    assert cli.main(arguments) == 130
    err = capsys.readouterr().err
    assert names("3", err, anywhere=True) and str(tmp_path / "model") in err and usae.load(tmp_path / "model").n_steps_ == 3
