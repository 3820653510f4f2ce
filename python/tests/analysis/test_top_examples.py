import numpy as np
import pytest

import usae
from support.autoencoders import WIDTHS
from support.refusals import refuses

NAMES = tuple(WIDTHS)


def expected(dense, n, tokens_per_image=1):
    """For each concept of [n_tokens, m] codes the first n tokens by value, largest first, then by number."""
    tokens = np.full((dense.shape[1], n), -1)
    values = np.zeros((dense.shape[1], n), np.float32)
    for concept, column in enumerate(dense.T):
        images = set()
        chosen = []
        for token in np.argsort(-column, kind="stable"):
            if column[token] > 0 and token // tokens_per_image not in images:
                chosen.append(token)
                images |= {token // tokens_per_image} if tokens_per_image > 1 else set()
        chosen = chosen[:n]
        tokens[concept, : len(chosen)], values[concept, : len(chosen)] = chosen, column[chosen]
    return tokens, values


@pytest.mark.parametrize("n", [1, 5, 300])
def test_examples_are_the_largest_codes_of_each_concept(trained, held_out, n):
    top = usae.top_examples(trained, held_out, n)
    assert (top.model_names, top.n_tokens, top.grid) == (NAMES, 200, None)
    for i, name in enumerate(NAMES):
        tokens, values = expected(trained.encode(held_out[name], name).to_dense(), n)
        assert np.array_equal(top.tokens[i], tokens) and np.array_equal(top.values[i], values)
    assert top.tokens.dtype == np.int64 and top.values.dtype == np.float32


def test_three_tokens_by_hand():
    sae = usae.UniversalSAE(2, 1).initialize({"a": 2})
    sae.set_parameters("a", {"encoder_weight": np.eye(2), "encoder_bias": np.zeros(2)})
    x = np.array([[1, 0.5], [0, 3], [2, 1]], np.float32)  # concept 0 fires in tokens 0 and 2, concept 1 in token 1
    top = usae.top_examples(sae, {"a": x}, 2)
    assert top.tokens.tolist() == [[[2, 0], [1, -1]]]
    assert top.values.tolist() == [[[2, 1], [3, 0]]]


def test_equal_codes_stand_in_the_order_of_tokens():
    sae = usae.UniversalSAE(1, 1).initialize({"a": 1})
    sae.set_parameters("a", {"encoder_weight": [[1.0]], "encoder_bias": [0.0]})
    top = usae.top_examples(sae, {"a": np.ones((9, 1), np.float32)}, 4)
    assert top.tokens.tolist() == [[[0, 1, 2, 3]]]


def test_one_per_image_and_the_places_in_the_grid(trained, held_out):
    top = usae.top_examples(trained, held_out, 6, grid=(4, 5), one_per_image=True)
    for i, name in enumerate(NAMES):
        tokens, values = expected(trained.encode(held_out[name], name).to_dense(), 6, tokens_per_image=20)
        assert np.array_equal(top.tokens[i], tokens) and np.array_equal(top.values[i], values)
    there = top.tokens >= 0
    assert there.any() and not there.all()
    images, rows, columns = np.unravel_index(top.tokens[there], (10, 4, 5))
    assert np.array_equal(top.images[there], images)
    assert np.array_equal(top.rows[there], rows) and np.array_equal(top.columns[there], columns)
    for places in (top.images, top.rows, top.columns):
        assert (places[~there] == -1).all()
    stacked = {name: x.reshape(10, 20, -1) for name, x in held_out.items()}
    assert np.array_equal(usae.top_examples(trained, stacked, 6, one_per_image=True).tokens, top.tokens)


def test_some_models_need_only_their_own_activations(trained, held_out):
    top = usae.top_examples(trained, {"vit": held_out["vit"]}, 3, models=["vit"])
    every = usae.top_examples(trained, held_out, 3)
    assert top.model_names == ("vit",) and "vit" in repr(top)
    assert np.array_equal(top.tokens[0], every.tokens[NAMES.index("vit")])
    order = usae.top_examples(trained, held_out, 3, models=("vit", "dinov2"))
    assert np.array_equal(order.tokens, every.tokens[[NAMES.index("vit"), NAMES.index("dinov2")]])


def test_threads_change_nothing(trained, held_out, tmp_path):
    trained.save(tmp_path / "sae")
    many = usae.load(tmp_path / "sae", n_threads=5)
    assert np.array_equal(usae.top_examples(many, held_out, 4).tokens, usae.top_examples(trained, held_out, 4).tokens)
    assert many.evaluate(held_out).to_dict() == trained.evaluate(held_out).to_dict()


@pytest.mark.parametrize(
    ("arguments", "argument", "got"),
    [
        ({"n": 0}, "n", "0"),
        ({"models": ["wit"]}, "models", ""),
        ({"models": "vit"}, "models", "'vit'"),
        ({"models": []}, "models", "[]"),
        ({"models": ["vit", "vit"]}, "models", "['vit', 'vit']"),
        ({"grid": 14}, "grid", "14"),
        ({"grid": (0, 5)}, "grid[0]", "0"),
        ({"grid": (7, 5)}, "grid", "7 x 5 = 35"),
        ({"one_per_image": True}, "grid", "None"),
    ],
)
def test_mistakes_are_refused_with_a_remedy(trained, held_out, arguments, argument, got):
    with refuses(argument, got):
        usae.top_examples(trained, held_out, **arguments)


def test_a_grid_that_contradicts_the_arrays_is_refused(trained, held_out):
    stacked = {name: x.reshape(10, 20, -1) for name, x in held_out.items()}
    with refuses("grid", "5 x 5 = 25"):
        usae.top_examples(trained, stacked, grid=(5, 5))
    with refuses("grid", "None"):
        usae.top_examples(trained, held_out).rows  # noqa: B018
    with refuses("sae", "dict"):
        usae.top_examples(held_out, held_out)


def test_more_examples_than_memory_holds_are_refused(trained, held_out):
    with refuses("n", 2**32, "fewer", error=usae.UsaeMemoryError):  # 4 TB
        usae.top_examples(trained, held_out, n=2**32)
