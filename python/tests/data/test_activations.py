import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import ml_dtypes
import numpy as np
import pytest
import scipy.sparse
import torch

import usae
from support.autoencoders import RECIPE, WIDTHS, everything
from support.refusals import refuses

D = WIDTHS["vit"]


def same_codes(sae, x, plain):
    """Whether `x` has the codes of `plain`, a dense float32 array with the same values, bit by bit."""
    got, expected = sae.encode(x, "vit"), sae.encode(plain, "vit")
    return got.values.tobytes() == expected.values.tobytes() and got.indices.tobytes() == expected.indices.tobytes()


@st.composite
def views(draw):
    """A 2-D or 3-D view of width D with any strides (negative, zero, interleaved) into an array of any float type."""
    dtype = draw(st.sampled_from([np.float16, np.float32, np.float64]))
    rows = draw(st.lists(st.integers(1, 6), min_size=1, max_size=2))
    steps = [draw(st.sampled_from([1, 2, 3, -1, -2])) for _ in (*rows, D)]
    room = [abs(step) * n for step, n in zip(steps, (*rows, D), strict=True)]
    order = draw(st.permutations(range(len(room))))
    values = np.random.default_rng(draw(st.integers(0, 99))).standard_normal([room[i] for i in order]).astype(dtype)
    view = values.transpose(np.argsort(order))[tuple(slice(None, None, step) for step in steps)]
    assert view.shape == (*rows, D)
    if draw(st.booleans()):
        view = np.broadcast_to(view[:1], view.shape)  # stride 0
    return view


@hypothesis.given(views())
def test_views_with_any_strides_have_the_codes_of_a_dense_copy_and_are_left_alone(trained, view):
    before = view.copy()
    assert same_codes(trained, view, before.astype(np.float32).reshape(-1, D))
    assert np.array_equal(view, before)


def test_images_with_the_class_token_sliced_off_are_flattened_in_order(trained):
    images = np.random.default_rng(0).standard_normal((5, 8, D), np.float32)
    assert same_codes(trained, images[:, 1:], images[:, 1:].reshape(-1, D))


def test_a_read_only_memory_map_is_taken(trained, tmp_path):
    x = np.random.default_rng(0).standard_normal((9, D), np.float32)
    np.save(tmp_path / "x.npy", x)
    assert same_codes(trained, np.load(tmp_path / "x.npy", mmap_mode="r"), x)


def test_nested_lists_and_fortran_order_are_taken(trained):
    x = np.random.default_rng(0).standard_normal((9, D), np.float32)
    assert same_codes(trained, x.tolist(), x)
    assert same_codes(trained, np.asfortranarray(x), x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_torch_tensors_are_taken(trained, dtype):
    x = torch.randn(4, 6, D, generator=torch.Generator().manual_seed(0)).to(dtype)
    plain = x.float().numpy()
    assert same_codes(trained, x, plain.reshape(-1, D))
    assert same_codes(trained, x[:, 1:], plain[:, 1:].reshape(-1, D))
    assert same_codes(trained, x.transpose(0, 1), plain.swapaxes(0, 1).reshape(-1, D))
    assert same_codes(trained, x.clone().requires_grad_(), plain.reshape(-1, D))
    assert same_codes(trained, torch.nn.Parameter(x), plain.reshape(-1, D))


def test_bfloat16_of_ml_dtypes_is_taken(trained):
    x = np.random.default_rng(0).standard_normal((9, D)).astype(ml_dtypes.bfloat16)
    assert same_codes(trained, x, x.astype(np.float32))
    assert same_codes(trained, x[::-2], x[::-2].astype(np.float32))


def test_an_object_with_dlpack_alone_is_taken(trained):
    x = np.random.default_rng(0).standard_normal((9, D), np.float32)

    class Foreign:
        def __dlpack__(self, **options):
            return x.__dlpack__(**options)

        def __dlpack_device__(self):
            return x.__dlpack_device__()

    assert same_codes(trained, Foreign(), x)


@hypothesis.given(hnp.array_shapes(min_dims=2, max_dims=3, max_side=5), st.integers(0, 2**32 - 1))
def test_bfloat16_has_the_value_of_its_bits(trained, shape, seed):
    bits = np.random.default_rng(seed).integers(0, 2**16, (*shape[:-1], D), dtype=np.uint16)
    bits[(bits & 0x7F80) > 0x4700] &= 0x07FF  # neither NaN nor infinity, nor so large that a sum would overflow
    plain = (bits.astype(np.uint32) << 16).view(np.float32).reshape(-1, D)
    assert same_codes(trained, bits.view(ml_dtypes.bfloat16), plain)


def test_rows_may_be_2d_for_one_model_and_3d_for_another(trained, acts):
    mixed = {name: x.reshape(20, 30, -1) if name == "vit" else x for name, x in acts.items()}
    assert np.array_equal(trained.evaluate(mixed).r2, trained.evaluate(acts).r2)


def test_models_are_found_by_name_whatever_their_order(trained, acts):
    shuffled = {name: acts[name] for name in ("vit", "dinov2", "siglip")}
    assert np.array_equal(trained.evaluate(shuffled).r2, trained.evaluate(acts).r2)


X = np.zeros((10, D), np.float32)

BAD_ARRAYS = {
    "integers": (X.astype(int), "int64", "x.astype('float32')"),
    "token numbers of torch": (torch.zeros(10, D, dtype=torch.int64), "torch.int64", "x.float()"),
    "uint16, which might be bfloat16": (X.astype(np.uint16), "uint16", "x.astype('float32')"),
    "booleans": (X > 0, "bool", "x.astype('float32')"),
    "strings of numbers": (X.astype(str), "strings", "x.astype('float32')"),
    "a list of strings": ([["1.0"] * D], "list of strings", "x.astype('float32')"),
    "bytes": (X.astype("S4"), "bytes", "x.astype('float32')"),
    "objects": (X.astype(object), "Python objects", "x.astype('float32')"),
    "complex numbers": (X.astype(complex), "complex128", ".real"),
    "records": (np.zeros((10, D), [("x", "f4")]), "records", "x.astype('float32')"),
    "a ragged list": ([[1.0, 2.0], [1.0]], "list", ""),
    "None": (None, "NoneType of Python objects", ""),
    "a sparse matrix": (scipy.sparse.csr_array(X), "scipy.sparse", "x.toarray()"),
    "the other byte order": (X.astype(X.dtype.newbyteorder()), X.dtype.newbyteorder().str, "x.astype('float32')"),
    "extended precision": (X.astype(np.longdouble), np.dtype(np.longdouble).name, "x.astype('float32')"),
    "8-bit floats": (X.astype(ml_dtypes.float8_e4m3fn), "records (float8_e4m3fn)", "x.astype('float32')"),
    "8-bit floats of torch": (torch.zeros(10, D).to(torch.float8_e4m3fn), "torch.float8", "x.float()"),
    "a sparse tensor": (torch.zeros(10, D).to_sparse(), "torch.sparse_coo", "x.to_dense()"),
    "a tensor without numbers": (torch.zeros(10, D, device="meta"), 'a tensor on the device "meta"', "CPU or a GPU"),
    "a masked array": (np.ma.masked_equal(X, 1), "a masked array", ".filled()"),
    "a number": (3.0, "0-D with shape []", ""),
    "one token without a row": (X[0], f"1-D with shape [{D}]", "x[None, :]"),
    "a convolutional map": (X.reshape(1, D, 2, 5), "4-D with shape [1, 17, 2, 5]", "np.moveaxis"),
    "five dimensions": (X.reshape(1, 1, 1, 10, D), "5-D with shape [1, 1, 1, 10, 17]", ""),
    "no rows": (X[:0], "shape [0, 17]", ""),
    "no images": (X.reshape(1, 10, D)[:0], "shape [0, 10, 17]", ""),
    "no columns": (X[:, :0], "shape [10, 0]", ""),
    "the wrong width": (X[:, 1:], f"shape [10, {D - 1}]", ""),
    "unaligned memory": (np.zeros(4 * X.size + 1, np.uint8)[1:].view(np.float32).reshape(X.shape), "", "x.copy()"),
}


@pytest.mark.parametrize("what", BAD_ARRAYS)
def test_an_array_that_cannot_be_used_is_refused_by_name_and_nothing_changes(trained, acts, what):
    x, got, remedy = BAD_ARRAYS[what]
    before = everything(trained)
    if what != "the wrong width":  # fit is free to take a new one
        with refuses("acts['vit']", got, remedy):
            trained.fit({**acts, "vit": x}, steps=1)
    with refuses("batch['vit']", got, remedy):
        trained.partial_fit({**acts, "vit": x})
    with refuses("acts['vit']", got, remedy):
        trained.evaluate({**acts, "vit": x})
    if what not in ("no rows", "no images"):  # whose codes are empty
        with refuses("x", got, remedy):
            trained.encode(x, "vit")
        with refuses("x", got, remedy):
            trained.preactivations(x, "vit")
    assert everything(trained) == before


UNUSABLE_MAPPINGS = {
    "a list": [X],
    "an array": X,
    "an empty mapping": {},
    "a number for a name": {1: X},
    "an empty name": {"": X},
    "a name with NUL": {"a\0": X},
    "a name that is no Unicode": {"\ud800": X},
}


@pytest.mark.parametrize("what", UNUSABLE_MAPPINGS)
def test_what_is_no_mapping_from_names_to_arrays_is_refused_and_nothing_changes(trained, what):
    acts = UNUSABLE_MAPPINGS[what]
    before = everything(trained)
    for call in (trained.fit, trained.evaluate):
        with refuses("acts"):
            call(acts)
    with refuses("batch"):
        trained.partial_fit(acts)
    assert everything(trained) == before


def test_unequal_numbers_of_rows_are_refused_with_all_of_them(trained, acts):
    before = everything(trained)
    unequal = {**acts, "vit": acts["vit"][:-1]}
    for call, argument in ((trained.fit, "acts"), (trained.partial_fit, "batch"), (trained.evaluate, "acts")):
        with refuses(argument, "dinov2: 600 [600, 12], siglip: 600 [600, 24], vit: 599 [599, 17]"):
            call(unequal)
    assert everything(trained) == before


def test_a_missing_model_is_refused(trained, acts):
    before = everything(trained)
    two = {name: acts[name] for name in ("dinov2", "vit")}
    with refuses("batch", "none for siglip"):
        trained.partial_fit(two)
    with refuses("acts", "none for siglip"):
        trained.evaluate(two)
    with refuses("validation", "none for siglip"):
        trained.fit(acts, validation=two, steps=1)
    assert everything(trained) == before


def test_an_unknown_model_is_refused_and_a_close_one_suggested(trained, acts):
    codes = trained.encode(acts["vit"], "vit")
    for argument, call in (
        ("model", lambda: trained.encode(acts["siglip"], "siglib")),
        ("model", lambda: trained.decode(codes, "siglib")),
        ("source", lambda: trained.reconstruct(acts["siglip"], "siglib", "vit")),
        ("target", lambda: trained.reconstruct(acts["vit"], "vit", "siglib")),
        ("model", lambda: trained.preactivations(acts["siglip"], "siglib")),
        ("model", lambda: trained.dictionary("siglib")),
        ("model", lambda: trained.parameters("siglib")),
        ("model", lambda: trained.set_parameters("siglib", {})),
        ("encoder", lambda: trained.partial_fit(acts, encoder="siglib")),
        ("encoder", lambda: trained.gradients(acts, encoder="siglib")),
        ("acts", lambda: trained.evaluate({**acts, "siglib": acts["siglip"]})),
    ):
        with refuses(argument, remedy="'siglip'") as caught:
            call()
        assert "'siglib'" in str(caught.value)
    with refuses("model", remedy="'siglip'"):
        trained.encode(acts["vit"], None)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_value_that_is_not_finite_is_refused_with_its_place_and_nothing_changes(trained, acts, value, dtype):
    before = everything(trained)
    bad = {name: x.astype(dtype) for name, x in acts.items()}
    bad["siglip"][591, 23] = value
    for call in (
        trained.partial_fit,
        trained.evaluate,
        lambda bad: trained.fit(bad, epochs=1),
        lambda bad: trained.fit(acts, validation=bad, steps=1),
        lambda bad: trained.encode(bad["siglip"], "siglip"),
        lambda bad: trained.preactivations(bad["siglip"], "siglip"),
        lambda bad: trained.gradients(bad, encoder="vit"),
    ):
        with refuses("activations of 'siglip'", "NaN or infinity (as float32) in row 591, column 23"):
            call(bad)
        assert everything(trained) == before


def test_a_nan_that_only_a_later_batch_would_meet_is_found_before_training(acts):
    sae = usae.UniversalSAE(8, 2, recipe=RECIPE.replace(initialization="tied", statistics_tokens=2, batch_size=10))
    before = everything(sae.fit(acts, steps=5))
    bad = {name: x.copy() for name, x in acts.items()}
    bad["vit"][599, 3] = np.nan
    steps = []
    with refuses("activations of 'vit'", "NaN or infinity (as float32) in row 599, column 3"):
        sae.fit(bad, steps=1, callbacks=[lambda report: steps.append(report.step)])
    assert steps == []
    assert everything(sae) == before


def test_a_fit_that_fails_midway_keeps_what_it_learned(acts):
    """As when the loss overflows; here the data changes under the fit."""
    changing = {name: x.copy() for name, x in acts.items()}

    def spoil(report):
        if report.step == 3:
            changing["vit"][:] = np.inf

    sae = usae.UniversalSAE(8, 2, recipe=RECIPE)
    with refuses("activations of 'vit'", "NaN or infinity"):
        sae.fit(changing, steps=10, callbacks=[spoil])
    assert sae.n_steps_ == 3
    assert np.isfinite(sae.parameters("vit")["dictionary"]).all()


def test_a_nan_in_validation_is_said_to_be_there(acts, held_out):
    bad = {**held_out, "vit": np.full_like(held_out["vit"], np.nan)}
    with refuses("activations of 'vit'", "NaN or infinity") as caught:
        usae.UniversalSAE(8, 2, recipe=RECIPE).fit(acts, steps=1, validation=bad)
    assert "'validation'" in caught.value.__notes__[0]


def test_a_float64_beyond_float32_is_refused(trained):
    x = np.zeros((3, D))
    x[2, 1] = 1e300
    with refuses("activations of 'vit'", "NaN or infinity (as float32) in row 2, column 1"):
        trained.encode(x, "vit")
