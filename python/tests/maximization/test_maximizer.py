"""`usae.Maximizer` and `usae.maximize`: images, gradients and steps against PyTorch in float64, and words for what is wrong."""

import json
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import RECIPE
from torch import nn

import usae
import usae.torch
from usae import InvalidInputError, _usae

torch.set_num_threads(1)

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
COLOURS = torch.tensor(
    [[0.56282854, 0.58447580, 0.58447580], [0.19482528, 0, -0.19482528], [0.04329450, -0.10823626, 0.06494176]],
    dtype=torch.float64,
)

# A float32 image is rounded by 6e-8, and a gradient by a few of that for each of the sums behind it; NAdam moves a number by
# its gradient over its size, so where that is a hundredth of the largest an error counts a hundred times. Measured, over five
# steps that build on each other: gradients 2.9e-6 apart, images 1.3e-6.
GRADIENT_TOLERANCE = 2e-5
IMAGE_TOLERANCE = 1e-5


class Eye:
    """What a maximizer needs to know of a model."""

    mean, std = MEAN, STD

    def __init__(self, *size):
        self.size = size


# --- The same in PyTorch ----------------------------------------------------------------------------------------------


class Reference:
    """The whole way from free numbers to views, in float64 and by autograd."""

    def __init__(self, kind, image, magnitude, steps, learning_rate):
        self.kind, self.magnitude = kind, magnitude
        image = torch.tensor(image, dtype=torch.float64)
        self.height, self.width = image.shape[1:]
        # First numbers from the first image: logits, planes, spectra, phases.
        planes = torch.einsum("jhw,ji->ihw", torch.logit(image), torch.linalg.inv(COLOURS))
        spectrum = torch.fft.rfft2(planes)
        if kind == "phase":
            self.free = [torch.angle(spectrum), 10 * planes.mean((1, 2))]  # a mean moves a tenth as fast
        elif kind == "fourier":
            self.free = [spectrum.real / magnitude, spectrum.imag / magnitude]
        else:
            self.free = [planes]
        for numbers in self.free:
            numbers.requires_grad_()
        self.optimizer = torch.optim.NAdam(self.free, lr=learning_rate, eps=1e-12)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, steps)

    def planes(self):
        if self.kind == "pixels":
            return self.free[0]
        if self.kind == "fourier":
            return torch.fft.irfft2(torch.complex(*self.free) * self.magnitude, s=(self.height, self.width))
        z = torch.polar(self.magnitude, self._tied(self.free[0]))
        z = torch.where(self._fixed(z), z.detach().real.to(z.dtype), z)
        mean = torch.zeros_like(z)
        mean[:, 0, 0] = 1
        z = z * (1 - mean) + mean * (0.1 * self.height * self.width * self.free[1])[:, None, None]
        return torch.fft.irfft2(z, s=(self.height, self.width))

    def _columns(self):
        return [0, self.width // 2] if self.width % 2 == 0 else [0]

    def _tied(self, phases):
        """Opposite frequencies have opposite phases."""
        tied = phases.clone()
        for column in self._columns():
            for y in range(1, (self.height + 1) // 2):
                tied[:, self.height - y, column] = -phases[:, y, column]
        return tied

    def _fixed(self, z):
        """Frequencies that are their own opposites."""
        mask = torch.zeros(z.shape, dtype=torch.bool)
        for column in self._columns():
            mask[:, 0, column] = True
            if self.height % 2 == 0:
                mask[:, self.height // 2, column] = True
        return mask

    def image(self):
        return torch.sigmoid(torch.einsum("ihw,ij->jhw", self.planes(), COLOURS))

    def step(self, slopes, boxes, sizes):
        """One step along the gradient that `slopes` gives for views; that gradient of the image, and of the planes."""
        self.optimizer.zero_grad()
        planes = self.planes()
        planes.retain_grad()
        image = torch.sigmoid(torch.einsum("ihw,ij->jhw", planes, COLOURS))
        total = torch.zeros_like(image)
        for size in sizes:
            seen = views(image, boxes, size)
            gradient = torch.autograd.grad(seen, image, slopes(seen.detach()), retain_graph=True)[0]
            total += gradient / gradient.norm()
        image.backward(-total)  # PyTorch goes downhill
        self.optimizer.step()
        self.schedule.step()
        return total.numpy(), -planes.grad.numpy()


def views(image, boxes, size):
    crops = [image[None, :, t : t + h, l : l + w] for t, l, h, w in boxes.tolist()]  # noqa: E741
    seen = [F.interpolate(crop, size=size, mode="bilinear", antialias=True, align_corners=False)[0] for crop in crops]
    mean, std = (torch.tensor(x, dtype=image.dtype)[:, None, None] for x in (MEAN, STD))
    return (torch.stack(seen) - mean) / std


def slopes(seen):
    """A gradient that depends on the views in no simple way: differences between images grow."""
    return torch.tanh(seen) * torch.cos(torch.arange(seen.numel(), dtype=torch.float64)).reshape(seen.shape) + 0.1 * seen


def steep_magnitude(height, width):
    """Of images between noise and nature, so that no frequency is below the rounding of a float32 image."""
    f = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    size = 1 / np.maximum(f, 1 / max(height, width))
    return np.broadcast_to(size * 0.1 * height * width / np.sqrt(2 * (size**2).sum()), (3, height, width // 2 + 1)).copy()


def gradients(maximizer):
    colours, planes = (np.empty((3, *maximizer.shape), np.float32) for _ in range(2))
    maximizer._core.gradients(colours, planes)
    return colours, planes


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


CASES = [
    (kind, shape, sizes)
    for kind in ("phase", "fourier", "pixels")
    for shape, sizes in (((64, 48), [(32, 32)]), ((45, 39), [(33, 20), (10, 16)]), ((48, 51), [(16, 24)]))
]


@pytest.mark.parametrize(("kind", "shape", "sizes"), CASES)
def test_steps_are_those_of_pytorch_in_float64(kind, shape, sizes):
    steps = 5
    magnitude = steep_magnitude(*shape)
    eyes = {str(i): Eye(*size) for i, size in enumerate(sizes)}
    rate = 0.1 if kind == "pixels" else 0.3
    maximizer = usae.Maximizer(
        eyes, canvas=shape, steps=steps, views=4, parametrization=kind, magnitude=None if kind == "pixels" else magnitude,
        noise=0, learning_rate=rate, seed=5, n_threads=1,
    )  # fmt: skip
    reference = Reference(kind, maximizer.image, torch.tensor(magnitude), steps, rate)
    first = maximizer.image
    for _ in range(steps):
        boxes = maximizer.boxes
        asked = maximizer.ask()
        expected_views = views(reference.image().detach(), boxes, sizes[0])
        np.testing.assert_allclose(asked["0"], expected_views, atol=IMAGE_TOLERANCE * 10)  # divided by std
        # The core's own gradient at this step, from a copy of its numbers, is seen before `tell` uses it up.
        for name in eyes:
            g = slopes(torch.tensor(asked[name], dtype=torch.float64)).numpy().astype(np.float32)
            maximizer._core.add_gradient(g, MEAN, STD, 1.0)
        colours, planes = gradients(maximizer)
        expected_colours, expected_planes = reference.step(slopes, boxes, sizes)
        assert relative(colours, expected_colours) < GRADIENT_TOLERANCE
        assert relative(planes, expected_planes) < GRADIENT_TOLERANCE
        maximizer._core.advance()
        difference = np.abs(maximizer.image - reference.image().detach().numpy()).max()
        assert difference < IMAGE_TOLERANCE
    assert np.abs(maximizer.image - first).max() > 0.02  # and they went somewhere


def test_parts_of_the_reference_are_where_they_should_be():
    """The templates that are not given: planes of the closed form have the contrast, and the fourier start is faint noise."""
    for contrast in (0.5, 1.0):
        maximizer = usae.Maximizer(Eye(16, 16), canvas=(60, 45), contrast=contrast, seed=1)
        planes = np.einsum("jhw,ji->ihw", np.log(maximizer.image / (1 - maximizer.image)), np.linalg.inv(COLOURS.numpy()))
        assert planes.std() == pytest.approx(contrast, rel=1e-5)
        spectrum = np.abs(np.fft.rfft2(planes))
        f = np.hypot(np.fft.fftfreq(60)[:, None], np.fft.rfftfreq(45)[None])
        expected = np.maximum(f, 1 / 512) ** -1.25 * np.exp(-((f / 0.22) ** 2))
        ratio = spectrum[:, 1:20, 1:15] / expected[1:20, 1:15] / np.array([1, 1.05, 0.83])[:, None, None]
        # Logits of a float32 image are off by 3e-7, and their sum over 2,700 pixels by 2e-5; the least of these is .1.
        np.testing.assert_allclose(ratio, ratio.mean(), rtol=2e-3)


# --- Asking and telling -------------------------------------------------------------------------------------------------


def steps_of(maximizer, n):
    for _ in range(n):
        maximizer.tell(np.tanh(maximizer.ask()))
    return maximizer


def test_a_seed_gives_the_same_bytes_for_any_number_of_threads():
    runs = [steps_of(usae.Maximizer(Eye(24, 20), canvas=70, views=3, seed=2, n_threads=n), 3) for n in (1, 2, 4)]
    for other in runs[1:]:
        assert other.image.tobytes() == runs[0].image.tobytes()
        assert other.attribution.tobytes() == runs[0].attribution.tobytes()
    assert steps_of(usae.Maximizer(Eye(24, 20), canvas=70, views=3, seed=3), 3).image.tobytes() != runs[0].image.tobytes()


def test_telling_needs_no_asking_because_views_depend_on_the_step_alone():
    gradient = np.random.default_rng(0).standard_normal((3, 3, 24, 20)).astype(np.float32)
    asked, silent = (usae.Maximizer(Eye(24, 20), canvas=70, views=3) for _ in range(2))
    for _ in range(3):
        asked.ask()
        asked.ask()
        assert asked.tell(gradient) == silent.tell(gradient) > 0
    assert asked.image.tobytes() == silent.image.tobytes()


def test_the_canvas_follows_the_largest_model():
    assert usae.Maximizer(Eye(224, 224), views=1).shape == (512, 512)
    assert usae.Maximizer({"a": Eye(16, 16), "b": Eye(20, 32)}).shape == (80, 80)
    assert usae.Maximizer(Eye(16, 16), canvas=(30, 20)).image.shape == (3, 30, 20)


def test_a_start_is_the_first_image():
    picture = np.random.default_rng(0).uniform(0.1, 0.9, (3, 30, 20))
    for kind in ("pixels", "fourier"):
        found = usae.Maximizer(Eye(16, 16), canvas=(30, 20), parametrization=kind, start=picture).image
        np.testing.assert_allclose(found, picture, atol=2e-6)
    planes = np.einsum("jhw,ji->ihw", np.log(picture / (1 - picture)), np.linalg.inv(COLOURS.numpy()))
    magnitude = np.abs(np.fft.rfft2(planes))
    found = usae.Maximizer(Eye(16, 16), canvas=(30, 20), start=picture, magnitude=magnitude).image
    np.testing.assert_allclose(found, picture, atol=5e-6)


def test_a_gradient_that_is_refused_changes_nothing():
    eyes = {"a": Eye(24, 20), "b": Eye(16, 16)}
    touched, clean = (usae.Maximizer(eyes, canvas=70, views=3, steps=2) for _ in range(2))
    good = {name: np.tanh(views) for name, views in clean.ask().items()}
    for bad in (good["b"][:, :2], good["b"] * np.nan, good["b"] * 1j, good["b"].astype(float) * 1e300, None, "no"):
        with pytest.raises(InvalidInputError, match=r"gradient\['b'\] must"):
            touched.tell({"a": good["a"], "b": bad})
    for bad in (good["a"], {"a": good["a"]}, good | {"c": good["a"]}):
        with pytest.raises(InvalidInputError, match=r"gradient must map the models \['a', 'b'\] to arrays, got"):
            touched.tell(bad)
    for _ in range(2):
        assert touched.tell(good) == clean.tell(good)
    assert touched.image.tobytes() == clean.image.tobytes()
    with pytest.raises(InvalidInputError, match="all 2 planned steps are done; make a maximizer of more"):
        touched.tell(good)
    assert touched.image.tobytes() == clean.image.tobytes() and touched.step_count == 2


def test_gradients_of_any_size_count_alike():
    gradient = np.random.default_rng(0).standard_normal((3, 3, 24, 20)).astype(np.float32)
    images, lengths = [], []
    for scale in (1, 2.0**120, 2.0**-130):
        maximizer = usae.Maximizer(Eye(24, 20), canvas=70, views=3)
        lengths.append(maximizer.tell(gradient * np.float32(scale)) / scale)
        images.append(maximizer.image)
    np.testing.assert_allclose(lengths, lengths[0], rtol=1e-4)  # 2^-130 leaves 19 bits
    assert all(np.isfinite(image).all() and np.abs(image - images[0]).max() < 0.05 for image in images)


def test_an_objective_without_a_slope_leaves_the_image():
    maximizer = usae.Maximizer(Eye(24, 20), canvas=70, views=3)
    first = maximizer.image
    assert maximizer.tell(np.zeros((3, 3, 24, 20))) == 0
    assert maximizer.image.tobytes() == first.tobytes() and maximizer.step_count == 1


class Blind(Eye):
    size = None

    def __init__(self):
        pass


class Broken(Eye):
    def __init__(self, **numbers):
        self.size = (16, 16)
        self.__dict__.update(numbers)


BAD = [
    ({"canvas": 0}, "canvas must be an integer from 1 to 8192, got 0"),
    ({"canvas": 8193}, "canvas must be an integer from 1 to 8192, got 8193"),
    ({"canvas": (3, 4, 5)}, r"canvas must be one number of pixels or height and width, got \(3, 4, 5\)"),
    ({"canvas": "large"}, "canvas must be an integer from 1 to 8192, got 'large'"),
    ({"crops": (0, 0.1)}, r"crops must be shares of the canvas from 0.001 to 1, got \(0, 0.1\)"),
    ({"crops": (0.5, 1.1)}, "crops must be shares of the canvas"),
    ({"crops": (float("nan"), 1)}, "crops must be shares of the canvas"),
    ({"crops": 0.5}, "crops must be two numbers, those of the first and of the last step, got 0.5"),
    ({"noise": -1}, "noise: expected a number from 0.0 to 10.0, got -1.0"),
    ({"noise": "much"}, "noise must be a finite number, got 'much'"),
    ({"learning_rate": -1}, "learning_rate: expected a number from 0.0"),
    ({"total_variation": float("inf")}, "total_variation must be a finite number, got inf"),
    ({"contrast": 0}, "contrast: expected a number from 0.001"),
    ({"parametrization": "phases"}, "parametrization must be one of phase, fourier, pixels, got 'phases'"),
    ({"parametrization": ["phase"]}, "parametrization must be one of"),
    ({"optimizer": "sgd"}, "optimizer must be one of nadam, adam, got 'sgd'"),
    ({"seed": -1}, "seed must be an integer from 0"),
    ({"steps": 0}, "steps must be an integer from 1"),
    ({"views": 1025}, "views must be an integer from 1 to 1024, got 1025"),
    ({"n_threads": -1}, "n_threads must be an integer from 1"),
    ({"start": np.zeros((3, 4, 4))}, r"start: expected shape \(3, 32, 32\), got \(3, 4, 4\)"),
    ({"start": np.full((3, 32, 32), 255)}, "start: expected colours from 0 to 1, got 255.0; divide 8-bit colours by 255"),
    ({"start": "cat.jpg"}, "start must be an array of real numbers, got <U7"),
    ({"start": np.ones((3, 32, 32), complex)}, "start must be an array of real numbers, got complex128"),
    ({"magnitude": np.ones((3, 32, 32))}, r"magnitude: expected shape \(3, 32, 17\), got \(3, 32, 32\)"),
    ({"magnitude": np.full((3, 32, 17), np.nan)}, "magnitude: expected finite numbers from 0 up, got nan"),
    ({"models": {}}, "models must hold at least one, got none"),
    ({"models": {"a": 3}}, r"models\['a'\] must have size, mean and std, got int without size"),
    ({"models": Blind()}, r"models does not tell the size of its images; give it: usae.torch.Model\(module, size=224\)"),
    ({"models": Broken(size=0)}, "size of models must be an integer from 1 to 8192, got 0"),
    ({"models": Broken(std=(1, 0, 1))}, r"std of models must be above 0, got \(1, 0, 1\)"),
    ({"models": Broken(mean=(1, 2))}, r"mean of models must be a number or three, got \(1, 2\)"),
    ({"models": Broken(mean=np.nan)}, "mean of models must be finite, got nan"),
]


@pytest.mark.parametrize(("arguments", "words"), BAD)
def test_bad_arguments_are_refused_by_name(arguments, words):
    with pytest.raises(InvalidInputError, match=words):
        usae.Maximizer(**{"models": Eye(16, 16), "canvas": 32} | arguments)


def test_a_tensor_with_a_graph_is_refused_in_words():
    maximizer = usae.Maximizer(Eye(8, 8), canvas=32, views=1)
    with pytest.raises(InvalidInputError, match="gradient must be an array of real numbers, got Tensor"):
        maximizer.tell(torch.zeros(1, 3, 8, 8, requires_grad=True))
    assert maximizer.tell(torch.ones(1, 3, 8, 8)) > 0


def test_crops_that_are_refused_are_so_in_the_extension_too():
    options = {
        "parametrization": 0, "optimizer": 0, "height": 32, "width": 32, "steps": 2, "views": 2, "learning_rate": 0.3,
        "first_crop": 0.5, "last_crop": 0.1, "noise": 0.0, "total_variation": 0.0, "l2": 0.0, "contrast": 1.0,
        "decorrelate": True, "seed": 0, "n_threads": 1, "magnitude": None, "start": None,
    }  # fmt: skip
    maximizer = _usae.Maximizer(**options)
    views = np.empty((2, 3, 8, 8), np.float32)
    for change in (
        {"first_crop": 0.0}, {"last_crop": 2.0}, {"parametrization": 9}, {"optimizer": -1}, {"height": 2**62}, {"views": -1},
        {"width": -(2**63)}, {"magnitude": np.ones((3, 32, 17))}, {"start": np.ones((3, 32, 31), np.float32)}, {"seed": -1},
    ):  # fmt: skip
        with pytest.raises(InvalidInputError):
            _usae.Maximizer(**options | change)
    for out, mean, std in (
        (views[:1], (0, 0, 0), (1, 1, 1)), (views[..., ::2], (0, 0, 0), (1, 1, 1)), (views.astype(float), (0, 0, 0), (1, 1, 1)),
        (views, (0, 0), (1, 1, 1)), (views, (0, 0, 0), (1, 0, 1)), (views[..., :0], (0, 0, 0), (1, 1, 1)),
    ):  # fmt: skip
        with pytest.raises(InvalidInputError):
            maximizer.views(out, mean, std)
    for mean in (None, 3, ("a", "b", "c")):
        with pytest.raises(TypeError):
            maximizer.views(views, mean, (1, 1, 1))
    with pytest.raises(InvalidInputError):
        maximizer.add_gradient(np.ones((2, 3, 8, 8), np.float32), (0, 0, 0), (1, 1, 1), float("nan"))
    maximizer.views(views, (0, 0, 0), (1, 1, 1))
    assert np.isfinite(views).all()


# --- maximize -----------------------------------------------------------------------------------------------------------

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
    with pytest.raises(InvalidInputError, match="layer must be given for Sequential"):
        usae.maximize(sae, concept, {"net": convolutional()}, **OPTIONS)
    net = usae.torch.Model(convolutional(), "3", mean=MEAN, std=STD)
    with pytest.raises(InvalidInputError, match=r"models\['net'\] does not tell the size of its images; give it"):
        usae.maximize(sae, concept, {"net": net}, **OPTIONS)


@pytest.mark.parametrize("kind", ["alignment", "preactivation", "logsumexp"])
def test_each_objective_rises(sae, models, concept, kind):
    # With crops of one size: an image that is enlarged more and more fires less and less.
    token = 3 if kind == "alignment" else None
    options = OPTIONS | {"steps": 40, "crops": (0.5, 0.5)}
    found = usae.maximize(sae, concept, {"left": models["left"]}, **options, kind=kind, token=token)
    assert found.history[0, -8:].mean() > found.history[0, :8].mean()


# --- What goes wrong ------------------------------------------------------------------------------------------------------


class Detached(nn.Module):
    """A network that computes under no_grad."""

    def __init__(self):
        super().__init__()
        self.net = convolutional()

    def forward(self, images):
        with torch.no_grad():
            return self.net(images)


def wrong(sae, concept, words, models, **options):
    with pytest.raises(InvalidInputError, match=words):
        usae.maximize(sae, concept, models, **OPTIONS | options)


def test_models_that_cannot_be_used_are_refused_and_leave_all_usable(sae, models, concept):
    before = usae.maximize(sae, concept, models, **OPTIONS)
    left, net = models["left"], convolutional()
    model = {"size": SIDE, "mean": MEAN, "std": STD}
    wrong(sae, 24, "concept must be an integer from 0 to 23, the autoencoder's concepts, got 24", models)
    wrong(sae, -1, "concept must be an integer from 0 to 23", models)
    wrong(sae, concept, r"unknown model 'lefd'; the models are 'left', 'right', 'net'; did you mean 'left'\?", {"lefd": left})
    wrong(sae, concept, "models must map names of models to networks, got FunctionModel", left)
    wrong(sae, concept, "models must map names of models to networks, got dict", {})
    words = r"models\['left'\] must be a usae.torch.Model, a PyTorch module or a usae.FunctionModel, got int"
    wrong(sae, concept, words, {"left": 3})
    detached = usae.torch.Model(Detached(), "net", **model)
    wrong(sae, concept, "must depend on the images by differentiable operations.*no_grad", {"net": detached})
    training = convolutional()
    training.train()
    training = usae.torch.Model(training, "3", **model)
    wrong(sae, concept, r"evaluation mode.*BatchNorm2d.*call \.eval\(\)", {"net": training})
    with pytest.raises(InvalidInputError, match=re.compile("layer.*'4'|'4'.*layer", re.DOTALL)):
        usae.torch.Model(net, "4", **model)
    other_layer = usae.torch.Model(net, "0", **model)
    wrong(sae, concept, "activations of 'net' must be 14 wide, got 10; use the layer", {"net": other_layer})
    wrong(sae, concept, "activations of 'right' must be 17 wide, got 12; use the layer", {"right": left})
    with pytest.raises(InvalidInputError, match=r"floats \[n, 3, 16, 16\], normalised, got float32 \[2, 3, 16, 20\]"):
        models["net"].vjp(np.zeros((2, 3, 16, 20), np.float32))
    after = usae.maximize(sae, concept, models, **OPTIONS)
    assert after.images.tobytes() == before.images.tobytes()


def test_ways_back_that_cannot_be_used_are_refused(sae, models, concept):
    left = models["left"]
    size = {"size": SIDE, "mean": MEAN, "std": STD}

    def broken(back):
        return {"left": usae.FunctionModel(lambda x: left.vjp(x)[0], back, **size)}

    words = r"gradient\['left'\] must be finite, got NaN or infinity"
    wrong(sae, concept, words, broken(lambda x, g: x * np.nan))
    words = r"gradient\['left'\] must have the views' shape \[3, 3, 16, 16\], got \[3, 3, 16\]"
    wrong(sae, concept, words, broken(lambda x, g: x[..., 0]))
    words = r"gradient\['left'\] must be an array of real numbers, got object"
    wrong(sae, concept, words, broken(lambda x, g: None))
    words = r"activations of 'left' must be finite, got nan in view 0, token 0; look at the model's numbers"
    wrong(sae, concept, words, {"left": usae.FunctionModel(lambda x: left.vjp(x)[0] * np.nan, lambda x, g: x, **size)})
    flat = usae.FunctionModel(lambda x: left.vjp(x)[0][:, 0], lambda x, g: x, **size)
    wrong(sae, concept, r"forward must give floats \[3, tokens, width\], got ndarray of shape \[3, 12\]", {"left": flat})
    fewer = usae.FunctionModel(lambda x: left.vjp(x)[0][:2], lambda x, g: x, **size)
    wrong(sae, concept, r"forward must give floats \[3, tokens, width\], got ndarray of shape \[2, 16, 12\]", {"left": fewer})
    with pytest.raises(ZeroDivisionError):  # a user's own error is the user's
        usae.maximize(sae, concept, {"left": usae.FunctionModel(lambda x: 1 / 0, lambda x, g: x, **size)}, **OPTIONS)


ARGUMENTS = [
    ({"canvas": 0}, "canvas must be an integer from 1 to 8192, got 0"),
    ({"crops": (0, 1)}, "crops must be shares of the canvas from 0.001 to 1"),
    ({"steps": 0}, "steps must be an integer from 1"),
    ({"kind": "codes"}, "kind must be one of alignment, preactivation, code, logsumexp, got 'codes'"),
    ({"power": -1}, "power must be a number from 0 to 100, got -1"),
    ({"token": 16}, "token must be an integer from 0 to 15, got 16"),
    ({"warmup": -1}, "warmup must be an integer from 0"),
    ({"n_seeds": 0}, "n_seeds must be an integer from 1 to 65536, got 0"),
    ({"seed": 2**64}, "seed must be an integer from 0"),
    ({"dataset": 3}, "dataset must be what UniversalSAE.evaluate returns, got int"),
]


@pytest.mark.parametrize(("arguments", "words"), ARGUMENTS)
def test_bad_arguments_of_maximize_are_refused_by_name(sae, models, concept, arguments, words):
    wrong(sae, concept, words, models, **arguments)


def test_an_autoencoder_is_needed(models, concept):
    wrong({}, concept, "sae must be a usae.UniversalSAE, got dict", models)
    with pytest.raises(usae.NotInitializedError):
        usae.maximize(usae.UniversalSAE(24, 3), 0, models)
    with pytest.raises(TypeError, match="colour"):
        usae.Maximizer(Eye(8, 8), colour=3)
