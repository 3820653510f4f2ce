"""Pictures of maximized images."""

import dataclasses

import numpy as np
import pytest

import usae
from support.maximizations import found, top_examples
from support.refusals import refuses
from usae.plot._maximization import faded

matplotlib = pytest.importorskip("matplotlib")


def test_a_row_shows_each_models_image_and_its_examples():
    images = np.zeros((6, 16, 24, 3), np.uint8)
    figure = usae.plot.maximization([found(3), found(4)], top_examples(), images, n=4)
    # two optimised images a row; examples: two of model a for concept 3, whose others are missing, and four each of the rest
    assert len(figure.axes) == 4 + 2 + 4 + 4 + 4
    words = [ax.get_xlabel() for ax in figure.axes if ax.get_xlabel()]
    assert words == ["50% of tokens, 0.50 of max"] * 4
    token = figure.axes[1].patches[0]
    assert (token.get_width(), token.get_height()) == (24 / 3, 16 / 2)  # a cell of the grid, in pixels


def test_pictures_are_counted_with_those_whose_tokens_a_mask_leaves_out():
    top, images = top_examples(), np.zeros((6, 16, 24, 3), np.uint8)
    masked = dataclasses.replace(top, n_tokens=top.n_tokens - 8, n_left_out=8)
    assert len(usae.plot.maximization([found(3)], masked, images, n=4).axes) == 2 + 2 + 4
    with refuses("images"):
        usae.plot.maximization([found(3)], masked, images[:4], n=4)


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
    ("arguments", "argument", "got"),
    [
        (([],), "results", "[]"),
        (([found(), found(names=("a", "c"))],), "results", "[('a', 'b'), ('a', 'c')]"),
        (([found()], top_examples()), "images", "top alone"),
        (([found()], top_examples(), np.zeros((5, 16, 24, 3), np.uint8)), "images", "uint8 [5, 16, 24, 3]"),
        (([found()], top_examples(names=("a", "x")), np.zeros((6, 16, 24, 3), np.uint8)), "models of top", ""),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_words(arguments, argument, got):
    with refuses(argument, got):
        usae.plot.maximization(*arguments)
