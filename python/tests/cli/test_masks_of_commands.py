"""Masks on the command line: files of truth values."""

import numpy as np
import pytest

import usae
from support.commands import SMALL, printed, refusal, run
from support.maximizations import found
from support.refusals import names

pytest.importorskip("torch")

TOKENS = 64
"""Of a picture, in the stores that the fixture `made` has."""


@pytest.fixture
def masks(tmp_path):
    """Masks of the training and the held-out activations, and their files."""
    rng = np.random.default_rng(0)
    made = {name: rng.random((n, TOKENS)) < 0.7 for name, n in (("train", 12), ("held-out", 6))}
    for name, mask in made.items():
        np.save(tmp_path / f"{name}.npy", mask)
    return made


def dictionaries(sae):
    return {name: sae.dictionary(name).tobytes() for name in sae.model_names_}


def test_train_and_evaluate_leave_rows_out(made, masks, tmp_path, capsys):
    told = printed(
        capsys, "train", "--acts", made / "acts", "--mask", tmp_path / "train.npy", "--validation", made / "held-out",
        "--validation-mask", tmp_path / "held-out.npy", "--output", tmp_path / "model", *SMALL,
    )  # fmt: skip
    acts, held_out = (usae.ActivationStore(made / name) for name in ("acts", "held-out"))
    validation = usae.MaskedActivations(held_out, masks["held-out"])
    sae = usae.UniversalSAE(64, 4).fit(acts, steps=8, mask=masks["train"], validation=validation)
    assert dictionaries(usae.load(tmp_path / "model")) == dictionaries(sae)
    assert (told["n_tokens"], told["n_left_out"]) == (masks["train"].sum(), (~masks["train"]).sum())
    assert told["validation"] == sae.history_[-1]["validation"]
    by_model = [f"{name}={tmp_path / 'held-out.npy'}" for name in ("masked", "classifier")]
    told = printed(capsys, "evaluate", "--model", tmp_path / "model", "--acts", made / "held-out", "--mask", *by_model)
    assert told["r2"] == sae.evaluate(validation).r2.tolist()
    assert (told["n_tokens"], told["n_left_out"]) == (masks["held-out"].sum(), (~masks["held-out"]).sum())


def test_people_are_told_how_many_rows_are_left_out(made, masks, tmp_path, capsys):
    model, mask = tmp_path / "model", ("--mask", tmp_path / "train.npy")
    left_out = f"{(~masks['train']).sum():,}"
    run("train", "--acts", made / "acts", *mask, "--output", model, *SMALL)
    run("evaluate", "--model", model, "--acts", made / "acts", *mask)
    run("extract", "--images", made / "photographs", "--network", "demo", *mask, "--output", tmp_path / "acts")
    assert capsys.readouterr().out.count(f"{left_out} ") == 3


def test_extract_keeps_the_mask_in_the_store(made, masks, tmp_path, capsys):
    options = ["extract", "--images", made / "photographs", "--network", "demo", "--output", tmp_path / "acts"]
    told = printed(capsys, *options, "--mask", tmp_path / "train.npy")
    assert (told["n_tokens"], told["n_left_out"]) == (masks["train"].size, (~masks["train"]).sum())
    np.testing.assert_array_equal(usae.ActivationStore(tmp_path / "acts").mask, masks["train"])
    told = printed(capsys, "train", "--acts", tmp_path / "acts", "--output", tmp_path / "model", *SMALL)
    assert told["n_tokens"] == masks["train"].sum()


def test_maximize_compares_with_the_rows_that_count(made, masks, tmp_path, monkeypatch):
    def maximize(sae, concept, models, *, dataset, **options):
        seen.append(dataset)
        return found(concept, names=sae.model_names_, started=(True,) * 3)

    def maximization(results, top, images):
        seen.append(top)
        return plain([found()])

    seen, plain = [], usae.plot.maximization
    monkeypatch.setattr(usae, "maximize", maximize)
    monkeypatch.setattr(usae.plot, "maximization", maximization)
    run(
        "maximize", made / "model", "--concept", "3", "--network", "demo", "--acts", made / "acts", "--mask",
        tmp_path / "train.npy", "--images", made / "photographs", "--output", tmp_path / "out",
    )  # fmt: skip
    dataset, top = seen
    assert dataset.n_left_out == (~masks["train"]).sum()
    expected = usae.top_examples(
        usae.load(made / "model"), usae.ActivationStore(made / "acts"), 4, grid=(8, 8), one_per_image=True, mask=masks["train"]
    )
    np.testing.assert_array_equal(top.values[:, 3], expected.values[:, 3])


@pytest.mark.parametrize("command", ["train --acts {made}/acts", "extract --images {made}/photographs --network demo"])
def test_a_mask_of_numbers_is_refused_with_what_to_save(made, tmp_path, capsys, command):
    np.save(tmp_path / "numbers.npy", np.ones((12, TOKENS), int))
    line = f"{command.format(made=made)} --mask {tmp_path}/numbers.npy --output {tmp_path}/new"
    told = refusal(capsys, *line.split())
    assert names("--mask", told, anywhere=True) and "np.save" in told
