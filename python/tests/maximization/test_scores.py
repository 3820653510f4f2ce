"""What `usae.maximize` says of its images, and what it does where models differ."""

import types

import numpy as np
import pytest

import usae
from support.autoencoders import planted
from support.refusals import refuses
from usae.maximization.scores import peak_ratio

SIDE = 16
WIDTHS = {"small": 12, "large": 17}


def network(name, side):
    """Tokens that are fixed linear maps of the four quarters of the picture, each brought to 4 x 4 means."""
    weight = np.random.default_rng(len(name)).standard_normal((WIDTHS[name], 48)).astype(np.float32)
    cell = side // 8

    def pooled(x):
        means = x.reshape(len(x), 3, 8, cell, 8, cell).mean((3, 5))
        quarters = means.reshape(len(x), 3, 2, 4, 2, 4).transpose(0, 2, 4, 1, 3, 5)
        return quarters.reshape(len(x), 4, 48)

    def back(x, gradient):
        quarters = (gradient @ weight).reshape(len(x), 2, 2, 3, 4, 4).transpose(0, 3, 1, 4, 2, 5)
        means = quarters.reshape(len(x), 3, 8, 8) / cell**2
        return means.repeat(cell, 2).repeat(cell, 3)

    return usae.FunctionModel(lambda x: pooled(x) @ weight.T, back, size=side, mean=0.5, std=0.25)


@pytest.fixture(scope="module")
def models():
    return {"small": network("small", SIDE), "large": network("large", 2 * SIDE)}


@pytest.fixture(scope="module")
def sae():
    recipe = usae.recipes.default(prefixes=None, learning_rate=3e-3)  # so trained, not every start fires every concept
    return usae.UniversalSAE(16, 3, recipe=recipe, seed=0).fit(planted(600, 0, WIDTHS), steps=80, progress=False)


def test_models_of_different_sizes_get_canvases_of_one_size_and_the_same_start(sae, models):
    found = usae.maximize(sae, 2, models, steps=1, views=2, learning_rate=0.0)
    assert found.images.shape == (2, 3, 80, 80)  # 16 round(32 / 7)
    assert np.array_equal(found.images[0], found.images[1])  # nothing was learned: the start, which is one for all


def test_scores_before_are_those_of_the_start(sae, models):
    still = usae.maximize(sae, 2, models, steps=1, views=2, learning_rate=0.0)
    assert np.array_equal(np.diag(still.before.share), np.diag(still.whole.share))
    moved = usae.maximize(sae, 2, models, steps=12, views=2)
    assert np.array_equal(moved.before.peak, still.before.peak) and not np.array_equal(moved.whole.peak, still.whole.peak)


def test_the_dataset_is_beside_the_scores(sae, models):
    evaluation = sae.evaluate(planted(200, 1, WIDTHS))
    dead = usae.Evaluation(**vars(evaluation) | {"max_activation": np.zeros_like(evaluation.max_activation)})
    found = usae.maximize(sae, 2, models, steps=2, views=2, dataset=evaluation)
    assert found.dataset_peak.tolist() == evaluation.max_activation[:, 2].astype(float).tolist()
    assert found.dataset_r2.tolist() == np.diag(evaluation.r2).tolist()
    without = usae.maximize(sae, 2, models, steps=2, views=2, dataset=dead)
    assert np.isnan(without.strength).all() and "dead in the dataset" in without.report()


def test_an_image_that_does_not_fire_is_said_to_be_one(sae, models):
    evaluation = sae.evaluate(planted(200, 1, WIDTHS))
    reports = [usae.maximize(sae, concept, models, steps=1, views=1, dataset=evaluation) for concept in range(16)]
    silent = [found for found in reports if not found.fires.all()]
    assert silent  # a start fires some concepts, and not all
    for found in silent:
        assert found.report().count("does not fire") == np.count_nonzero(~found.fires)


def test_attribution_of_gradients_without_content_is_alike_everywhere():
    """Noise is nowhere more about the image, though views see the middle six times as often as the corners."""
    rng = np.random.default_rng(0)
    maximizer = usae.Maximizer(types.SimpleNamespace(size=32, mean=0.0, std=1.0), canvas=64, steps=60, views=8)
    for _ in range(60):
        maximizer.tell(rng.standard_normal((8, 3, 32, 32)).astype(np.float32))
    attribution = maximizer.attribution
    corners = np.mean([attribution[y, x] for y in (slice(8), slice(-8, None)) for x in (slice(8), slice(-8, None))])
    assert 0.6 < corners / attribution[24:40, 24:40].mean() < 1.4


def test_stability_is_the_smallest_peak_over_the_largest():
    assert peak_ratio([2.0, 4.0, 3.0]) == 0.5
    assert np.isnan(peak_ratio([2.0])) and np.isnan(peak_ratio([0.0, 0.0]))


def test_networks_are_scored_without_a_graph_and_in_batches_of_the_views(sae, models):
    seen = []

    class Counting:
        size, mean, std = SIDE, 0.5, 0.25

        def __call__(self, images):
            seen.append(len(images))
            return models["small"](images)

        def vjp(self, images):
            return models["small"].vjp(images)

    usae.maximize(sae, 2, {"small": Counting()}, steps=1, views=3)
    assert seen and max(seen) <= 3


@pytest.mark.parametrize(
    ("options", "argument", "got"),
    [
        ({"canvs": 3}, "options", ""),
        ({"joint": "no"}, "joint", "'no'"),
    ],
)
def test_options_that_are_none_are_refused_before_the_first_step(sae, models, options, argument, got):
    with refuses(argument, got):
        usae.maximize(sae, 2, models, steps=10**6, **options)


def test_a_network_that_does_not_take_the_size_says_so():
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Flatten(2), torch.nn.Linear(64, 6)).eval()
    model = usae.torch.Model(module, "1", n_prefix_tokens=0, size=10, mean=0, std=1)
    with refuses("images", "10 x 10 pixels"):
        model(np.zeros((1, 3, 10, 10), np.float32))
