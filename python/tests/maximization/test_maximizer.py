"""`usae.Maximizer`: images, gradients and steps against PyTorch in float64."""

import numpy as np
import pytest
import torch

import usae
import usae.torch
from reference.image import COLOURS, MEAN, STD, Eye, Reference, slopes, views
from support.refusals import refuses
from usae import InvalidInputError, _usae

torch.set_num_threads(1)

# A float32 image is rounded by 6e-8, and a gradient by a few of that for each of the sums behind it; NAdam moves a number by
# its gradient over its size, so where that is a hundredth of the largest an error counts a hundred times. Measured, over five
# steps that build on each other: gradients 2.9e-6 apart, images 1.3e-6.
GRADIENT_TOLERANCE = 2e-5
IMAGE_TOLERANCE = 1e-5


# --- The same in PyTorch ----------------------------------------------------------------------------------------------


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


# --- Asking and telling -----------------------------------------------------------------------------------------------


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
        with refuses("gradient['b']"):
            touched.tell({"a": good["a"], "b": bad})
    for bad in (good["a"], {"a": good["a"]}, good | {"c": good["a"]}):
        with refuses("gradient"):
            touched.tell(bad)
    for _ in range(2):
        assert touched.tell(good) == clean.tell(good)
    assert touched.image.tobytes() == clean.image.tobytes()
    with refuses("gradient", "one more"):
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
    ({"canvas": 0}, "canvas", "0"),
    ({"canvas": 8193}, "canvas", "8193"),
    ({"canvas": (3, 4, 5)}, "canvas", "(3, 4, 5)"),
    ({"canvas": "large"}, "canvas", "'large'"),
    ({"crops": (0, 0.1)}, "crops", "(0, 0.1)"),
    ({"crops": (0.5, 1.1)}, "crops", "(0.5, 1.1)"),
    ({"crops": (float("nan"), 1)}, "crops", "(nan, 1)"),
    ({"crops": 0.5}, "crops", "0.5"),
    ({"noise": -1}, "noise", "-1.0"),
    ({"noise": "much"}, "noise", "'much'"),
    ({"learning_rate": -1}, "learning_rate", "-1.0"),
    ({"total_variation": float("inf")}, "total_variation", "inf"),
    ({"contrast": 0}, "contrast", "0.0"),
    ({"parametrization": "phases"}, "parametrization", "'phases'"),
    ({"parametrization": ["phase"]}, "parametrization", "['phase']"),
    ({"optimizer": "sgd"}, "optimizer", "'sgd'"),
    ({"seed": -1}, "seed", "-1"),
    ({"steps": 0}, "steps", "0"),
    ({"views": 1025}, "views", "1025"),
    ({"n_threads": -1}, "n_threads", "-1"),
    ({"start": np.zeros((3, 4, 4))}, "start", "(3, 4, 4)"),
    ({"start": np.full((3, 32, 32), 255)}, "start", "255.0"),
    ({"start": "cat.jpg"}, "start", "<U7"),
    ({"start": np.ones((3, 32, 32), complex)}, "start", "complex128"),
    ({"magnitude": np.ones((3, 32, 32))}, "magnitude", "(3, 32, 32)"),
    ({"magnitude": np.full((3, 32, 17), np.nan)}, "magnitude", "nan"),
    ({"models": {}}, "models", "none"),
    ({"models": {"a": 3}}, "models['a']", "int without size"),
    ({"models": Blind()}, "size of models", "None"),
    ({"models": Broken(size=0)}, "size of models", "0"),
    ({"models": Broken(std=(1, 0, 1))}, "std of models", "(1, 0, 1)"),
    ({"models": Broken(mean=(1, 2))}, "mean of models", "(1, 2)"),
    ({"models": Broken(mean=np.nan)}, "mean of models", "nan"),
]


@pytest.mark.parametrize(("arguments", "argument", "got"), BAD)
def test_bad_arguments_are_refused_by_name(arguments, argument, got):
    with refuses(argument, got):
        usae.Maximizer(**{"models": Eye(16, 16), "canvas": 32} | arguments)


def test_a_tensor_with_a_graph_is_refused_in_words():
    maximizer = usae.Maximizer(Eye(8, 8), canvas=32, views=1)
    with refuses("gradient", "Tensor"):
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
