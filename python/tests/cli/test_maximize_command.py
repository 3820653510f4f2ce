"""`usae maximize`: images of concepts of a saved autoencoder."""

import json
import shutil
import sys

import numpy as np
import pytest

import usae
from support.commands import printed, refusal
from support.maximizations import top_examples
from support.refusals import names, refuses
from usae import cli

pytestmark = pytest.mark.slow  # together: each is short

pytest.importorskip("torch")


@pytest.fixture
def saved(made):
    """An autoencoder of the demonstration's networks, hardly trained."""
    return made / "model"


@pytest.mark.slow
def test_the_command_writes_images_a_report_and_a_picture(saved, tmp_path, capsys):
    arguments = [
        "maximize",
        str(saved),
        "--concept",
        "3",
        "--concept",
        "5",
        "--network",
        "demo",
        "--steps",
        "2",
        "--views",
        "2",
    ]
    assert cli.main([*arguments, "--output", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [entry["concept"] for entry in report] == [3, 5]
    with np.load(tmp_path / "out" / "images.npz") as images:
        assert images["image_3"].shape == (3, 3, 144, 144)
    assert (tmp_path / "out" / "maximization.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    shown = capsys.readouterr().out
    assert "concept 5" in shown and "transfer" in shown


@pytest.mark.slow
def test_the_command_draws_the_natural_images_of_a_store(saved, tmp_path, capsys):
    from PIL import Image

    from usae.demo import photographs

    (tmp_path / "crops").mkdir()
    for i, crop in enumerate(photographs.crops(photographs.load(), "held_out", 6, seed=1).images):
        Image.fromarray(crop).save(tmp_path / "crops" / f"{i}.png")
    crops, store = str(tmp_path / "crops"), str(tmp_path / "store")
    assert cli.main(["extract", "--images", crops, "--network", "demo", "--output", store]) == 0
    arguments = [
        "maximize",
        str(saved),
        "--concept",
        "3",
        "--concept",
        "3",
        "--network",
        "demo",
        "--steps",
        "1",
        "--views",
        "1",
    ]
    assert cli.main([*arguments, "--acts", store, "--images", crops, "--output", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert len(report) == 1 and None not in report[0]["dataset_r2"]
    line = refusal(capsys, *arguments, "--acts", store, "--images", store, "--output", tmp_path / "out")
    assert names("--images", line, anywhere=True), line
    line = refusal(capsys, *arguments, "--images", crops, "--output", tmp_path / "out")
    assert names("--acts", line, anywhere=True), line


def test_examples_of_few_concepts_need_few_pictures():
    from usae.cli.natural_images import _among

    top = top_examples(n_images=100)
    needed = np.unique(top.images[:, [3]][top.images[:, [3]] >= 0])
    few = _among(top, [3], needed)
    assert few.n_tokens == len(needed) * 6 and np.all(few.tokens[:, [0, 1, 2, 4]] == -1)
    assert np.array_equal(few.rows[:, 3], top.rows[:, 3]) and np.array_equal(few.columns[:, 3], top.columns[:, 3])
    found, expected = few.images[:, 3], top.images[:, 3]
    assert np.array_equal(found < 0, expected < 0) and np.array_equal(needed[found[found >= 0]], expected[expected >= 0])


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (["--network", "classifier"], "--network"),
        (["--network", "classifier=timm"], "--network classifier"),
        (["--network", "classifier=usae.nowhere:net"], "--network classifier"),
        (["--network", "demo", "--layer", "masked=head"], "--network"),
        (["--network", "a=usae.x:y", "--layer", "b=head"], "--layer"),
        (["--network", "demo", "--concept", "64"], "--concept"),
    ],
)
def test_what_the_command_cannot_do_it_says(saved, options, name, tmp_path, capsys):
    arguments = ["maximize", saved, "--concept", "3", "--steps", "1", "--views", "1", "--output", tmp_path / "out"]
    line = refusal(capsys, *arguments, *options)
    assert names(name, line, anywhere=True), line


def test_the_command_takes_a_function_that_makes_a_network(saved, tmp_path, monkeypatch):
    (tmp_path / "my_networks.py").write_text(
        "from usae.demo.networks import load_models\n\ndef masked():\n    return load_models()['masked']\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    arguments = ["maximize", str(saved), "--concept", "3", "--network", "masked=my_networks:masked", "--steps", "1"]
    assert cli.main([*arguments, "--views", "1", "--output", str(tmp_path / "out")]) == 0


def test_the_autoencoder_is_given_like_in_the_other_commands_or_without_a_flag(saved, tmp_path, capsys):
    options = ["--concept", "3", "--network", "demo", "--steps", "1", "--views", "1", "--output", tmp_path / "out"]
    for model in ([saved], ["--model", saved]):
        assert printed(capsys, "maximize", *model, *options)[0]["concept"] == 3
    for model in ([], [saved, "--model", saved]):
        assert names("--model", refusal(capsys, "maximize", *model, *options), anywhere=True)


@pytest.mark.parametrize(
    ("spec", "body"),
    [
        ("bad_networks:raises", "def raises(): raise KeyError('x')"),
        ("bad_networks:leaves", "def leaves(): raise SystemExit(3)"),
        ("bad_networks:number", "def number(): return 3"),
        ("bad_networks:kind", "from torch.nn import Linear as kind"),
        ("bad_networks:made", "raise RuntimeError('at import')"),
        ("bad_networks:made", "def made(:"),
        ("..:made", ""),
        ("timm:no_such_network", ""),
        ("torchvision:no_such_network", ""),
    ],
)
def test_a_network_that_cannot_be_made_is_one_line_whatever_it_raises(saved, spec, body, tmp_path, monkeypatch, capsys):
    (tmp_path / "bad_networks.py").write_text(body + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "bad_networks", raising=False)
    line = refusal(capsys, "maximize", saved, "--concept", "3", "--network", f"masked={spec}", "--output", tmp_path / "out")
    assert names("--network masked", line, anywhere=True), line


def test_a_picture_that_cannot_be_read_is_grey_and_told(made, tmp_path, capsys):
    from usae.cli.natural_images import top_examples_in

    store, sae = usae.ActivationStore(made / "acts"), usae.load(made / "model")
    shutil.copytree(made / "photographs", tmp_path / "pictures")
    for name in store.images[1::2]:
        (tmp_path / "pictures" / name).write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(30))
    (tmp_path / "pictures" / store.images[0]).unlink()
    concepts = range(sae.n_concepts)
    top, pictures = top_examples_in(sae, store, None, tmp_path / "pictures", concepts)
    grey = [bool((picture == 128).all()) for picture in pictures]
    line = capsys.readouterr().err
    assert 0 < sum(grey) < len(grey) and line.count("\n") == 1 and store.images[1] in line
    for picture in (tmp_path / "pictures").iterdir():
        picture.write_bytes(b"")
    with refuses("--images"):
        top_examples_in(sae, store, None, tmp_path / "pictures", concepts)


def test_maximize_takes_a_file_of_options_like_the_others(tmp_path):
    (tmp_path / "usae.toml").write_text('[maximize]\nconcept = [3, 7]\nnetwork = { a = "demo" }\njoint = true\nsteps = 5\n')
    parser = cli._parser()
    options = parser.parse_args(["maximize", "--config", str(tmp_path / "usae.toml"), "--model", "m", "--steps", "9"])
    assert (options.concept, options.network, options.joint, options.steps) == ([3, 7], ["a=demo"], True, 9)
