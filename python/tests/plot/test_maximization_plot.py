"""The picture of optimised images, and the command that makes it."""

import json

import numpy as np
import pytest

import usae
from usae import cli
from usae.maximization.result import Firing, Maximization
from usae.plot._maximization import faded

matplotlib = pytest.importorskip("matplotlib")
pytest.importorskip("torch")


def found(concept=3, names=("a", "b"), started=(True, True), side=24):
    rng = np.random.default_rng(concept)
    m = len(names)
    images = rng.random((m, 3, side, side), np.float32)
    images[~np.array(started)] = np.nan
    firing = Firing(*(np.full((m, m), value) for value in (0.5, 2.0, 1.5, 0.1)))
    return Maximization(
        concept=concept,
        model_names=tuple(names),
        joint=False,
        images=images,
        attribution=rng.random((m, side, side), np.float32),
        history=np.zeros((m, 4)),
        started=np.array(started),
        whole=firing,
        parts=firing,
        before=firing,
        dataset_peak=np.array([4.0] * m),
        dataset_r2=np.full(m, 0.9),
        r2=np.array([0.7] * m),
        stability=np.full(m, np.nan),
    )


def top_examples(names=("a", "b"), n_concepts=5, n=4, grid=(2, 3), n_images=6):
    tokens = np.arange(len(names) * n_concepts * n).reshape(len(names), n_concepts, n) % (n_images * grid[0] * grid[1])
    tokens[0, 3, 2:] = -1
    return usae.TopExamples(tuple(names), n_images * grid[0] * grid[1], grid, tokens, np.ones(tokens.shape, np.float32))


def test_a_row_shows_each_models_image_and_its_examples():
    images = np.zeros((6, 16, 24, 3), np.uint8)
    figure = usae.plot.maximization([found(3), found(4)], top_examples(), images, n=4)
    # two optimised images a row; examples: two of model a for concept 3, whose others are missing, and four each of the rest
    assert len(figure.axes) == 4 + 2 + 4 + 4 + 4
    words = [ax.get_xlabel() for ax in figure.axes if ax.get_xlabel()]
    assert words == ["50% of tokens, 0.50 of max"] * 4
    token = figure.axes[1].patches[0]
    assert (token.get_width(), token.get_height()) == (24 / 3, 16 / 2)  # a cell of the grid, in pixels


def test_without_examples_images_stand_alone():
    figure = found().plot()
    assert len(figure.axes) == 2


def test_a_concept_that_never_started_is_said_so_instead_of_shown():
    figure = usae.plot.maximization(found(started=(False, True)))
    assert [text.get_text() for text in figure.axes[0].texts] == ["never\nstarted"]
    assert not figure.axes[0].images and figure.axes[1].images


def test_pixels_that_did_not_matter_are_transparent():
    attribution = np.zeros((32, 32))
    attribution[:, :16] = 1
    shown = faded(np.full((3, 32, 32), 0.25, np.float32), attribution)
    assert shown.shape == (32, 32, 4) and np.all(shown[..., :3] == 0.25)
    assert np.all(shown[:, :12, 3] > 0.99) and np.all(shown[:, 24:, 3] < 0.01)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([],), "results must be what usae.maximize returns"),
        (([found(), found(names=("a", "c"))],), "same models"),
        (([found()], top_examples()), "top and images belong together"),
        (([found()], top_examples(), np.zeros((5, 16, 24, 3), np.uint8)), r"images must be uint8 \[6, height, width, 3\]"),
        (([found()], top_examples(names=("a", "x")), np.zeros((6, 16, 24, 3), np.uint8)), "models of top"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_words(arguments, words):
    with pytest.raises(usae.InvalidInputError, match=words):
        usae.plot.maximization(*arguments)


# --- usae maximize ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """An autoencoder of the demonstration's networks, hardly trained."""
    from usae.demo import networks, photographs

    crops = photographs.crops(photographs.load(), "train", 20, seed=0).images
    acts = networks.activations(networks.load_networks(), crops)
    folder = tmp_path_factory.mktemp("saved") / "model"
    usae.UniversalSAE(64, 8, seed=0).fit(acts, steps=20, progress=False).save(folder)
    return folder


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
    capsys.readouterr()
    assert cli.main([*arguments, "--acts", store, "--images", store, "--output", str(tmp_path / "out")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert cli.main([*arguments, "--images", crops, "--output", str(tmp_path / "out")]) == 2
    assert "--images needs --acts to be a store" in capsys.readouterr().err


def test_examples_of_few_concepts_need_few_pictures():
    from usae.cli.exemplars import _among

    top = top_examples(n_images=100)
    needed = np.unique(top.images[:, [3]][top.images[:, [3]] >= 0])
    few = _among(top, [3], needed)
    assert few.n_tokens == len(needed) * 6 and np.all(few.tokens[:, [0, 1, 2, 4]] == -1)
    assert np.array_equal(few.rows[:, 3], top.rows[:, 3]) and np.array_equal(few.columns[:, 3], top.columns[:, 3])
    found, expected = few.images[:, 3], top.images[:, 3]
    assert np.array_equal(found < 0, expected < 0) and np.array_equal(needed[found[found >= 0]], expected[expected >= 0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--network", "classifier"], "--network must be NAME=VALUE"),
        (["--network", "classifier=timm"], "expected timm:..., torchvision:... or package.module:function"),
        (["--network", "classifier=usae.nowhere:net"], "usae.nowhere:net cannot be had"),
        (["--network", "demo", "--layer", "masked=head"], "give it alone"),
        (["--network", "a=usae.x:y", "--layer", "b=head"], "no network of that name; there are a"),
        (["--network", "demo", "--concept", "64"], "--concept must be from 0 to 63"),
    ],
)
def test_what_the_command_cannot_do_it_says(saved, options, words, tmp_path, capsys):
    arguments = ["maximize", str(saved), "--concept", "3", "--steps", "1", "--views", "1", "--output", str(tmp_path / "out")]
    assert cli.main([*arguments, *options]) == 2
    assert words in capsys.readouterr().err


def test_the_command_takes_a_function_that_makes_a_network(saved, tmp_path, monkeypatch):
    (tmp_path / "my_networks.py").write_text(
        "from usae.demo.networks import load_models\n\ndef masked():\n    return load_models()['masked']\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    arguments = ["maximize", str(saved), "--concept", "3", "--network", "masked=my_networks:masked", "--steps", "1"]
    assert cli.main([*arguments, "--views", "1", "--output", str(tmp_path / "out")]) == 0
