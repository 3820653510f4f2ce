"""Pictures, devices and networks of unusual kinds: what plain ones give, or an error that says what to change."""

import contextlib
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import usae
from support.networks import convolutional, transformer
from support.refusals import refuses
from usae.torch import Model, extract

pytestmark = pytest.mark.slow

OPTIONS = {"size": (16, 24), "mean": 0.5, "std": 0.5}
BYTES = np.random.default_rng(0).integers(0, 256, (2, 20, 30, 3), np.uint8)
FLOATS = torch.from_numpy(BYTES).permute(0, 3, 1, 2).float() / 255


@pytest.fixture(scope="module")
def model():
    return Model(convolutional(), "3", **OPTIONS)


def sparse(tensor, layout):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, that these are new
        return tensor.to_sparse(layout=layout)


SAME = {
    "sparse": lambda x: sparse(x, torch.sparse_coo),
    "of MKL-DNN": lambda x: x.to_mkldnn() if torch.backends.mkldnn.is_available() else x,
    "big-endian": lambda x: x.numpy().astype(">f4"),
    "big-endian doubles": lambda x: x.numpy().astype(">f8"),
    "long doubles": lambda x: x.numpy().astype(np.longdouble),
    "masked nowhere": lambda x: np.ma.masked_array(x.numpy()),
    "masked by False": lambda x: np.ma.masked_array(x.numpy(), np.zeros(x.shape, bool)),
    "record array": lambda x: x.numpy().view(np.recarray),
    "parameter": lambda x: nn.Parameter(x.clone()),
    "channels last": lambda x: x.to(memory_format=torch.channels_last),
    "not writable": lambda x: np.broadcast_to(x.numpy(), x.shape),
    "Fortran": lambda x: np.asfortranarray(x.numpy()),
    "lazily negated": lambda x: torch.complex(x, -x).conj().imag,
    "a subclass": lambda x: x.as_subclass(type("Kind", (torch.Tensor,), {})),
}


@pytest.mark.parametrize("kind", SAME)
def test_other_kinds_of_arrays_are_the_same_pictures_and_images(model, kind):
    expected = model.preprocess(FLOATS)
    np.testing.assert_array_equal(model.preprocess(SAME[kind](FLOATS)), expected)
    np.testing.assert_array_equal(model.preprocess([SAME[kind](FLOATS[:1]), FLOATS[1]]), expected)
    images = torch.from_numpy(expected)
    activations, pull = model.vjp(SAME[kind](images))
    np.testing.assert_array_equal(activations, model(images))
    np.testing.assert_array_equal(model(SAME[kind](images)), activations)
    gradient = torch.ones(activations.shape)
    assert pull(gradient).shape == images.shape


def test_integers_of_sixteen_bits_are_the_same_in_either_byte_order(model):
    wide = BYTES.astype(np.uint16) * 257
    for dtype in (">u2", "<u2"):
        np.testing.assert_array_equal(model.preprocess(wide.astype(dtype)), model.preprocess(BYTES))


def test_quantized_and_eight_bit_floats_are_the_numbers_that_they_stand_for(model):
    quantized = torch.quantize_per_tensor(FLOATS, 1 / 255, 0, torch.quint8)
    np.testing.assert_array_equal(model.preprocess(quantized), model.preprocess(quantized.dequantize()))
    for dtype in (torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16, torch.float16):
        narrow = FLOATS.to(dtype)
        np.testing.assert_array_equal(model.preprocess(narrow), model.preprocess(narrow.float()))
        np.testing.assert_array_equal(Model(convolutional(), "3")(narrow), Model(convolutional(), "3")(narrow.float()))
    net = transformer().eval()
    narrow = Model(net, "block", tokens=lambda x: x.to(torch.float8_e5m2), **OPTIONS)
    assert np.isfinite(narrow(model.preprocess(BYTES))).all()


def no_numbers():
    yield torch.empty(2, 3, 16, 24, device="meta"), "a tensor"
    yield torch.nested.nested_tensor([FLOATS[0], FLOATS[1][:, :10]]), ""
    yield FLOATS.to(torch.complex64), "complex64"
    yield FLOATS.numpy().astype(np.complex64), "complex64"
    yield np.ma.masked_array(FLOATS.numpy(), FLOATS.numpy() > 0.9), "a masked array"
    yield np.zeros((2, 16, 24), [("red", "f4"), ("green", "f4")]), ""
    yield np.zeros((2, 3, 16, 24), "M8[s]"), "datetime64"
    yield np.zeros((2, 3, 16, 24), object), ""
    for shape in ((0, 3, 16, 24), (2, 0, 16, 24), (2, 3, 0, 24), (2, 3, 16, 0)):
        yield np.zeros(shape, np.float32), f"float32 {list(shape)}"
        yield torch.zeros(shape), f"float32 {list(shape)}"
    for value in (np.nan, np.inf, -np.inf):
        yield torch.full((2, 3, 16, 24), value), ""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        yield torch.zeros(2, 3, 16, 24), ""


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_arrays_without_numbers_are_refused_everywhere(model):
    for array, got in no_numbers():
        for take in (model.preprocess, model, model.vjp, lambda x: extract({"a": model}, x)):
            with refuses("images", got):
                take(array)
        with refuses("images"):
            model.preprocess([BYTES[0], array])


def test_numbers_that_are_no_pixels_are_refused(model):
    for integers in (
        BYTES.astype(np.int64),
        BYTES.astype(np.int16) - 10,
        BYTES.astype(np.int64) * 10,
        torch.from_numpy(BYTES).int(),
    ):
        with refuses("images", remedy="astype('uint8')"):
            model.preprocess(integers)
    with refuses("images", remedy="astype('uint8')"):
        model.preprocess(BYTES.astype(object))
    for floats in (FLOATS * 255, FLOATS - 0.5, FLOATS.numpy() + 1e-3):
        with refuses("images", remedy="255"):
            model.preprocess(floats)
    with refuses("images", remedy="preprocess"):
        model(np.full((1, 3, 16, 24), 1e39))  # infinite as float32


def test_what_the_code_of_an_iterable_raises_says_where(model):
    def failing():
        yield BYTES[0]
        raise ZeroDivisionError

    with refuses("images[1]", "ZeroDivisionError") as caught:
        model.preprocess(failing())
    assert isinstance(caught.value.__cause__, ZeroDivisionError)

    def stopped():
        yield BYTES[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.preprocess(stopped())


# --- Devices ----------------------------------------------------------------------------------------------------------


def test_a_device_that_is_not_here_is_refused_and_the_others_are_listed():
    wrong = [
        "cudaa",
        "meta",
        torch.device("meta"),
        3.5,
        True,
        b"cpu",
        ["cpu"],
        "",
        "CPU",
        "cuda:-1",
        -1,
        torch.float32,
        torch.zeros(1),
    ]
    wrong += ["cuda:99", 99, "hpu", "xla", "ipu", "privateuseone"]
    wrong += [] if torch.cuda.is_available() else ["cuda", 3]
    for device in wrong:
        net = convolutional()
        with refuses("device"):
            Model(net, "3", device=device, **OPTIONS)
        assert {p.device.type for p in net.parameters()} == {"cpu"} and next(net.parameters()).dtype == torch.float32
    for device in ("cpu", "cpu:0", torch.device("cpu"), None):
        Model(convolutional(), "3", device=device, **OPTIONS)(np.zeros((1, 3, 16, 24), np.float32))


def test_a_network_without_numbers_or_that_cannot_be_moved_is_refused():
    images = np.zeros((1, 3, 16, 24), np.float32)
    with refuses("module"):
        Model(nn.Conv2d(3, 4, 3, device="meta"), "", **OPTIONS)(images)
    with refuses("device", '"cpu"'):
        Model(nn.Conv2d(3, 4, 3, device="meta"), "", device="cpu", **OPTIONS)


# --- Values that are no arguments -------------------------------------------------------------------------------------


class Hostile:
    """Raises whatever is asked of it."""

    __hash__ = None

    def _raise(self, *others):
        raise ArithmeticError

    __repr__ = __len__ = __iter__ = __eq__ = __bool__ = __getattr__ = __array__ = __fspath__ = __index__ = __float__ = _raise


class Unsure:
    """Neither equal nor unequal, as arrays are."""

    def __eq__(self, other):
        return np.array([True, False])

    __hash__ = None


def no_arguments():
    yield from (
        Hostile(),
        Unsure(),
        np.array([1, 2]),
        np.array([]),
        np.array(3),
        torch.tensor([0.1, 0.2]),
        torch.empty(3, device="meta"),
    )
    yield from (
        None,
        "x" * 5000,
        "\ud800",
        b"x",
        -1,
        2**70,
        float("nan"),
        True,
        [],
        {},
        {1},
        object(),
        np.ma.masked,
        1j,
        type,
        ...,
    )


def only_own_errors(call, *args, **options):
    with contextlib.suppress(usae.UsaeError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call(*args, **options)


MODEL_ARGUMENTS = ["module", "layer", "n_prefix_tokens", "tokens", "grid", "mean", "std", "size", "device", "autocast"]
MODEL_ARGUMENTS += ["channels_last", "preprocessing", "channels"]


@pytest.mark.parametrize("name", MODEL_ARGUMENTS)
def test_no_value_of_an_argument_of_a_model_leaks_an_error(name):
    images = np.zeros((1, 3, 16, 24), np.float32)

    def used(value):
        options = {"module": convolutional(), "layer": "3", **OPTIONS, name: value}
        model = Model(options.pop("module"), **options)
        repr(model), model.preprocess(BYTES), model(images)

    for value in no_arguments():
        only_own_errors(used, value)


EXTRACT_ARGUMENTS = [
    "models",
    "images",
    "batch_size",
    "grid",
    "crop",
    "dtype",
    "mask",
    "on_error",
    "skipped",
    "shard_images",
    "store",
]


@pytest.mark.parametrize("name", EXTRACT_ARGUMENTS)
@pytest.mark.parametrize("into", ["memory", "a store"])
def test_no_value_of_an_argument_of_extract_leaks_an_error(model, name, into, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, value in enumerate(no_arguments()):
        options = {"models": {"a": model}, "images": BYTES, "progress": False}
        options |= {"store": tmp_path / str(number)} if into == "a store" else {}
        only_own_errors(extract, **options | {name: value})
        only_own_errors(model, value)
        for item in ([value], [(value, 3)], [{"image": value}], [{"bytes": value}], [{"path": value}]):
            only_own_errors(model.preprocess, item)
