"""`usae.maximize`: images of concepts, their scores, and words for what is wrong."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import usae
import usae.torch
from reference.image import MEAN, STD, Eye
from support.autoencoders import RECIPE
from support.refusals import refuses

pytestmark = pytest.mark.slow

# --- maximize ---------------------------------------------------------------------------------------------------------


SIDE, PATCH = 16, 4


def linear_model(seed, width, **options):
    """Tokens are linear in patches; the way back is the transpose."""
    matrix = np.random.default_rng(seed).standard_normal((3 * PATCH * PATCH, width)).astype(np.float32) / 7
    side = SIDE // PATCH

    def forward(images):
        patches = images.reshape(len(images), 3, side, PATCH, side, PATCH).transpose(0, 2, 4, 1, 3, 5)
        return patches.reshape(len(images), side * side, -1) @ matrix

    def vjp(images, gradient):
        patches = (gradient @ matrix.T).reshape(len(images), side, side, 3, PATCH, PATCH)
        return patches.transpose(0, 3, 1, 4, 2, 5).reshape(images.shape)

    return usae.FunctionModel(forward, vjp, **{"size": SIDE, "mean": MEAN, "std": STD} | options)


def convolutional():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 10, 4, 4), nn.BatchNorm2d(10), nn.GELU(), nn.Conv2d(10, 14, 1)).eval()


def smooth_images(n):
    coarse = torch.tensor(np.random.default_rng(0).random((n, 3, 6, 6)), dtype=torch.float32)
    images = F.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic").clamp(0, 1).numpy()
    return ((images - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))).astype(np.float32)


@pytest.fixture(scope="module")
def models():
    net = usae.torch.Model(convolutional(), "3", size=SIDE, mean=MEAN, std=STD)
    return {"left": linear_model(1, 12), "right": linear_model(2, 17), "net": net}


@pytest.fixture(scope="module")
def activations(models):
    return {name: model.vjp(smooth_images(120))[0] for name, model in models.items()}


@pytest.fixture(scope="module")
def sae(activations):
    return usae.UniversalSAE(24, 3, recipe=RECIPE, seed=0).fit(activations, steps=150)


@pytest.fixture(scope="module")
def dataset(sae, activations):
    return sae.evaluate(activations)


@pytest.fixture(scope="module")
def concept(dataset):
    """One that fires in all models."""
    return int(dataset.max_activation.min(0).argmax())


OPTIONS = {"steps": 12, "canvas": 32, "views": 3, "progress": False}


def test_images_fire_the_concept_in_their_models(sae, models, concept, dataset):
    found = usae.maximize(sae, concept, models, **OPTIONS, crops=(0.5, 0.5), dataset=dataset, seed=1)
    assert found.model_names == ("left", "right", "net") and not found.joint
    assert found.images.shape == (3, 3, 32, 32) and found.images.dtype == np.float32
    assert ((found.images >= 0) & (found.images <= 1)).all()
    assert found.attribution.shape == (3, 32, 32) and (found.attribution > 0).mean() > 0.9
    assert found.history.shape == (3, 12) and (found.history[:, -1] > found.history[:, 0]).all()
    assert found.started.all() and np.diag(found.whole.fires).all() and np.diag(found.parts.fires).all()
    np.testing.assert_array_equal(np.diag(found.transfer), 1)
    np.testing.assert_array_equal(found.dataset_peak, dataset.max_activation[:, concept])
    np.testing.assert_allclose(found.strength, found.whole.peak / found.dataset_peak)
    assert np.isnan(found.stability).all() and (found.r2 <= 1).all()
    for firing in (found.whole, found.parts):
        assert ((firing.share >= 0) & (firing.share <= 1)).all() and ((firing.of_code >= 0) & (firing.of_code <= 1)).all()
        assert ((firing.rank >= 1) & (firing.rank <= 3) | np.isnan(firing.rank)).all()


def test_numbers_of_an_image_are_those_of_its_tokens(sae, models, concept):
    found = usae.maximize(sae, concept, models, **OPTIONS)
    for i, name in enumerate(models):
        for j, other in enumerate(models):
            image = torch.tensor(found.images[i])[None]
            seen = F.interpolate(image, size=(SIDE, SIDE), mode="bilinear", antialias=True).numpy()
            seen = (seen - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
            tokens = models[other].vjp(seen.astype(np.float32))[0][0]
            code = sae.encode(tokens, other).to_dense()
            assert found.whole.peak[i, j] == pytest.approx(code[:, concept].max(), rel=1e-4, abs=1e-4)
            assert found.whole.share[i, j] == (code[:, concept] > 0).mean()
            assert found.whole.of_code[i, j] == pytest.approx(code[:, concept].sum() / code.sum(), rel=1e-4, abs=1e-4)
            if i == j:
                mean = sae.parameters(name)["mean"]
                r2 = 1 - np.square(tokens - sae.decode(sae.encode(tokens, name), name)).sum() / np.square(tokens - mean).sum()
                assert found.r2[i] == pytest.approx(r2, abs=1e-4)


def test_a_joint_image_is_one_for_all(sae, models, concept):
    found = usae.maximize(sae, concept, models, **OPTIONS, joint=True)
    assert found.joint and found.images.shape == (3, 3, 32, 32) and found.history.shape == (3, 12)
    for each in found.images[1:]:
        np.testing.assert_array_equal(each, found.images[0])
    assert found.started.all() and found.whole.fires.all()
    np.testing.assert_array_equal(found.whole.peak, np.broadcast_to(found.whole.peak[0], (3, 3)))
    assert "one image for all models" in found.report() and "transfer" not in found.report()


def test_other_seeds_say_how_stable_images_are_and_change_nothing_else(sae, models, concept):
    two = {name: models[name] for name in ("left", "net")}  # some of the models are enough
    one, three = (usae.maximize(sae, concept, two, **OPTIONS, seed=4, n_seeds=n) for n in (1, 3))
    assert three.images.tobytes() == one.images.tobytes() and (three.whole.peak == one.whole.peak).all()
    assert ((three.stability > 0) & (three.stability <= 1)).all()
    other = usae.maximize(sae, concept, two, **OPTIONS, seed=5)
    assert other.images.tobytes() != one.images.tobytes()


def test_a_seed_gives_the_same_bytes(sae, models, concept):
    runs = [usae.maximize(sae, concept, models, **OPTIONS, n_threads=n) for n in (1, 2, 2)]
    for other in runs[1:]:
        assert other.images.tobytes() == runs[0].images.tobytes()
        assert json.dumps(other.to_dict()) == json.dumps(runs[0].to_dict())


def test_numbers_are_json_and_the_report_has_a_line_for_each_model(sae, models, concept, dataset):
    found = usae.maximize(sae, concept, models, **OPTIONS, dataset=dataset, n_seeds=2)
    numbers = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert numbers["concept"] == concept and numbers["started"] == [True] * 3 and len(numbers["history"][0]) == 12
    assert numbers["whole"]["peak"] == found.whole.peak.tolist()
    lines = found.report().splitlines()
    assert lines[0] == f"concept {concept}"
    for name in models:
        assert sum(line.startswith(name) for line in lines) == 2  # its image, and its row of the transfer matrix
    assert repr(found) == f"Maximization(concept {concept}, left, right, net; fires in 3 of 3)"


def test_a_concept_that_never_starts_is_said_to(sae, models, activations):
    silenced = usae.UniversalSAE(24, 3, recipe=RECIPE, seed=0).fit(activations, steps=5)
    for name in models:
        bias = silenced.parameters(name)["encoder_bias"]
        bias[7] = -1e6
        silenced.set_parameters(name, {"encoder_bias": bias})
    found = usae.maximize(silenced, 7, models, **OPTIONS, kind="code")
    assert not found.started.any() and np.isnan(found.images).all()
    assert not found.whole.fires.any() and not found.history.any() and not found.attribution.any()
    assert np.isnan(found.transfer).all()
    assert found.report().count("never started: the objective had no gradient in any step") == 3
    json.dumps(found.to_dict(), allow_nan=False)
    # Where it is only the code that has no slope, steps with pre-activations are a start.
    warm = usae.maximize(silenced, 7, models, **OPTIONS, kind="code", warmup=2)
    assert warm.started.all() and np.isfinite(warm.images).all() and not warm.whole.fires.any()
    assert (warm.history[:, :2] != 0).all() and not warm.history[:, 2:].any()


def test_a_torch_module_is_taken_as_it_is(sae, models, concept):
    with refuses("layer", "None"):
        usae.maximize(sae, concept, {"net": convolutional()}, **OPTIONS)
    net = usae.torch.Model(convolutional(), "3", mean=MEAN, std=STD)
    with refuses("size of models['net']", "None"):
        usae.maximize(sae, concept, {"net": net}, **OPTIONS)


@pytest.mark.parametrize("kind", ["alignment", "preactivation", "logsumexp"])
def test_each_objective_rises(sae, models, concept, kind):
    # With crops of one size: an image that is enlarged more and more fires less and less.
    token = 3 if kind == "alignment" else None
    options = OPTIONS | {"steps": 40, "crops": (0.5, 0.5)}
    found = usae.maximize(sae, concept, {"left": models["left"]}, **options, kind=kind, token=token)
    assert found.history[0, -8:].mean() > found.history[0, :8].mean()


# --- What goes wrong --------------------------------------------------------------------------------------------------


class Detached(nn.Module):
    """A network that computes under no_grad."""

    def __init__(self):
        super().__init__()
        self.net = convolutional()

    def forward(self, images):
        with torch.no_grad():
            return self.net(images)


def test_models_that_cannot_be_used_are_refused_and_leave_all_usable(sae, models, concept):
    before = usae.maximize(sae, concept, models, **OPTIONS)
    left, net = models["left"], convolutional()
    model = {"size": SIDE, "mean": MEAN, "std": STD}
    training = convolutional()
    training.train()
    for given, argument, got in [
        ({"lefd": left}, "models", ""),
        (left, "models", "FunctionModel"),
        ({}, "models", "dict"),
        ({"left": 3}, "models['left']", "int"),
        ({"net": usae.torch.Model(Detached(), "net", **model)}, "layer 'net' of Detached", "no gradient"),
        ({"net": usae.torch.Model(training, "3", **model)}, "module", "Sequential whose '1' (BatchNorm2d)"),
        ({"net": usae.torch.Model(net, "0", **model)}, "activations of 'net'", "10"),
        ({"right": left}, "activations of 'right'", "12"),
    ]:
        with refuses(argument, got):
            usae.maximize(sae, concept, given, **OPTIONS)
    with refuses("layer", "'4'"):
        usae.torch.Model(net, "4", **model)
    with refuses("images", "float32 [2, 3, 16, 20]"):
        models["net"].vjp(np.zeros((2, 3, 16, 20), np.float32))
    after = usae.maximize(sae, concept, models, **OPTIONS)
    assert after.images.tobytes() == before.images.tobytes()


def test_ways_there_and_back_that_cannot_be_used_are_refused(sae, models, concept):
    def there(images):
        return models["left"].vjp(images)[0]

    def back(images, gradient):
        return images

    for forward, backward, argument, got in [
        (there, lambda x, g: x * np.nan, "gradient['left']", "NaN or infinity"),
        (there, lambda x, g: x[..., 0], "gradient['left']", "[3, 3, 16]"),
        (there, lambda x, g: None, "gradient['left']", "object"),
        (there, lambda x, g: [[1.0], [2.0, 3.0]], "vjp", "list"),
        (lambda x: [[1.0], [2.0, 3.0]], back, "forward", "list"),
        (lambda x: there(x) * np.nan, back, "activations of 'left'", "nan in view 0, token 0"),
        (lambda x: there(x)[:, 0], back, "forward", "ndarray of shape [3, 12]"),
        (lambda x: there(x)[:2], back, "forward", "ndarray of shape [2, 16, 12]"),
    ]:
        broken = usae.FunctionModel(forward, backward, size=SIDE, mean=MEAN, std=STD)
        with refuses(argument, got):
            usae.maximize(sae, concept, {"left": broken}, **OPTIONS)
    failing = usae.FunctionModel(lambda x: 1 / 0, back, size=SIDE, mean=MEAN, std=STD)
    with pytest.raises(ZeroDivisionError):  # a user's own error is the user's
        usae.maximize(sae, concept, {"left": failing}, **OPTIONS)


@pytest.mark.parametrize(
    ("argument", "value", "got"),
    [
        ("concept", 24, "24"),
        ("concept", -1, "-1"),
        ("canvas", 0, "0"),
        ("crops", (0, 1), "(0, 1)"),
        ("steps", 0, "0"),
        ("kind", "codes", "'codes'"),
        ("power", -1, "-1"),
        ("token", 16, "16"),
        ("warmup", -1, "-1"),
        ("n_seeds", 0, "0"),
        ("seed", 2**64, "18446744073709551616"),
        ("dataset", 3, "int"),
        ("sae", {}, "dict"),
    ],
)
def test_bad_arguments_of_maximize_are_refused_by_name(sae, models, concept, argument, value, got):
    with refuses(argument, got):
        usae.maximize(**{"sae": sae, "concept": concept, "models": models} | OPTIONS | {argument: value})


def test_an_autoencoder_is_needed(models, concept):
    with pytest.raises(usae.NotInitializedError):
        usae.maximize(usae.UniversalSAE(24, 3), 0, models)
    with pytest.raises(TypeError, match="colour"):
        usae.Maximizer(Eye(8, 8), colour=3)
