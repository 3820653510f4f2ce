"""Arrays that the extension reads and writes where they lie."""

import numpy as np
import pytest

from support.core import K, activations, encode, new_core
from support.refusals import refuses
from usae import _usae
from usae.errors import InvalidInputError

# --- Activations where they lie ---------------------------------------------------------------------------------------


LAYOUTS = {
    "dense": lambda a: a[:, 0, :8].copy(),
    "rows apart": lambda a: a[::2, 0, :8],
    "rows backwards": lambda a: a[::-1, 0, :8],
    "columns apart": lambda a: a[:, 0, ::2],
    "columns backwards": lambda a: a[:, 0, 15:7:-1],
    "columns first": lambda a: np.asfortranarray(a[:, 0, :8]),
    "one row everywhere": lambda a: np.broadcast_to(a[0, 0, :8], (7, 8)),
    "one row": lambda a: a[3:4, 0, :8],
    "no rows": lambda a: a[:0, 0, :8],
    "images and tokens": lambda a: a[:, :, :8],
    "without the class token": lambda a: a[:, 1:, 8:],
    "images and tokens backwards": lambda a: a[::-2, ::-1, ::-2],
    "tokens first": lambda a: a[:, :, :8].transpose(1, 0, 2),
    "no images": lambda a: a[:0, :, :8],
    "no tokens": lambda a: a[:, :0, :8],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_any_strides_give_the_codes_of_a_dense_copy(core, layout, dtype):
    x = LAYOUTS[layout](activations(6, 5, 16, dtype=dtype))
    dense = np.ascontiguousarray(x).reshape(-1, 8).astype(np.float32)
    for given in (x, memoryview(x)):
        for got, expected in zip(encode(core, given), encode(core, dense), strict=True):
            np.testing.assert_array_equal(got, expected)


def test_bfloat16_comes_as_a_pair(core):
    bits = activations(9, 8).view(np.uint32) >> 16
    x = (bits << 16).view(np.float32)
    for got, expected in zip(encode(core, (bits.astype(np.uint16), "bfloat16"), 9), encode(core, x), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_selected_rows_come_as_a_pair_and_the_others_are_never_read(core):
    x = activations(6, 5, 8)
    rows = np.array([0, 3, 4, 17, 29])
    dense = x.reshape(-1, 8)[rows]
    x.reshape(-1, 8)[np.setdiff1d(np.arange(30), rows)] = np.nan
    for got, expected in zip(encode(core, (x, rows), 5), encode(core, dense), strict=True):
        np.testing.assert_array_equal(got, expected)
    x[0, 3] = np.inf  # row 3 of the array, the second that is selected
    with refuses("activations of 'vit'") as caught:
        encode(core, (x, rows), 5)
    assert "row 3," in str(caught.value)


@pytest.mark.parametrize("rows", [[1, 1], [2, 1], [-1, 0], [0, 9]])
def test_selected_rows_have_to_be_in_order_and_in_the_array(core, rows):
    with refuses("rows"):
        encode(core, (activations(9, 8), np.array(rows)), 2)


def test_row_numbers_are_an_array_of_int64(core):
    for rows in (np.array([0.0, 1.0]), np.array([[0, 1]]), [0, 1], None):
        with refuses("rows of x"):
            encode(core, (activations(9, 8), rows), 2)


BROKEN = {
    "integers": (lambda: activations(3, 8).astype(np.int64), "int64"),
    "booleans": (lambda: activations(3, 8) > 0, "bool"),
    "complex": (lambda: activations(3, 8, dtype=complex), "complex128"),
    "long double": (lambda: activations(3, 8, dtype=np.longdouble), np.dtype(np.longdouble).name),
    "strings": (lambda: np.full((3, 8), "a"), "<U1"),
    "objects": (lambda: activations(3, 8).astype(object), "object"),
    "dates": (lambda: np.zeros((3, 8), "datetime64[s]"), "none: cannot include dtype"),
    "the other byte order": (
        lambda: activations(3, 8).astype(np.dtype("f4").newbyteorder()),
        np.dtype("f4").newbyteorder().str,
    ),
    "a list": (lambda: [[1.0] * 8], "none"),
    "None": (lambda: None, "none"),
    "bytes": (lambda: b"abcdefgh", "bytes"),
    "no dimension": (lambda: activations(), "0"),
    "one dimension": (lambda: activations(8), "1"),
    "four dimensions": (lambda: activations(1, 3, 1, 8), "4"),
    "misaligned": (lambda: np.zeros(97, np.uint8)[1:].view(np.float32).reshape(3, 8), "others"),
    "another tuple": (lambda: (activations(3, 8),), "another tuple"),
    "an unknown format": (lambda: (activations(3, 8), "float8"), "another tuple"),
    "float32 said to be bfloat16": (lambda: (activations(3, 8), "bfloat16"), "float32"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_anything_but_floating_point_activations_is_refused_by_name(core, broken):
    make, got = BROKEN[broken]
    with refuses("x", got):
        encode(core, make(), 3)


def test_the_refused_argument_is_called_by_the_name_of_its_model(core):
    x, integers = activations(3, 8), np.ones((3, 6), int)
    with refuses("acts['dino']", "int64"):
        core.step([x, integers], None, 0)
    with refuses("acts['dino']", "int64"):
        core.evaluate([x, integers], 0.0, {})
    with refuses("acts['é']", "int64"):
        core.initialize_from_parts(["é"], [integers])
    with refuses("inputs[1]", "int64"):
        new_core().step([x, integers], None, 0)


# --- Arrays to write into ---------------------------------------------------------------------------------------------


def test_outputs_of_the_wrong_kind_are_refused_and_not_written(core):
    x = activations(3, 8)
    good = {"values": np.full((3, K), 7, np.float32), "indices": np.full((3, K), 7, np.int32)}
    read_only = good["values"].copy()
    read_only.flags.writeable = False
    for name, array in [
        ("values", np.full((2, K), 7, np.float32)),
        ("values", np.full((3, K + 1), 7, np.float32)),
        ("values", np.full(3 * K, 7, np.float32)),
        ("values", np.full((3, K), 7.0)),
        ("values", read_only),
        ("values", np.full((K, 3), 7, np.float32).T),
        ("indices", np.full((3, 2 * K), 7, np.int32)[:, ::2]),
        ("indices", np.full((3, K), 7, np.int64)),
        ("indices", np.full((3, K), 7, np.uint32)),
        ("indices", None),
    ]:
        with refuses(name):
            core.encode(0, x, **{**good, name: array})
        assert all(np.all(given == 7) for given in (*good.values(), array) if given is not None)


def test_room_for_other_numbers_of_elements_is_refused(core):
    values, indices = encode(core, activations(3, 8))
    for out in (np.empty((2, 8), np.float32), np.empty((3, 6), np.float32), np.empty(24, np.float32)):
        with refuses("out"):
            core.decode(0, values, indices, out)
    with refuses("out", "(3, 8)"):
        core.preactivations(0, activations(3, 8), np.empty((3, 8), np.float32))
    inputs = [activations(3, 8), activations(3, 6)]
    for name, wrong in [
        ("r2", np.empty((2, 3))),
        ("l0", np.empty(1)),
        ("firing_counts", np.empty((1, 32), np.int64)),
        ("cofire_counts", np.empty((2, 32), np.int64)),
        ("union_counts", np.empty(31, np.int64)),
        ("pair_cofire_counts", np.empty((2, 32), np.int64)),
        ("code_products", np.empty((2, 2, 31))),
        ("max_activation", np.empty((2, 31), np.float32)),
        ("mean_activation", np.empty((2, 32), np.float32)),
    ]:
        with refuses(f"outputs['{name}']"):
            core.evaluate(inputs, 0.0, {name: wrong})
    with pytest.raises(TypeError, match="r3"):
        core.evaluate(inputs, 0.0, {"r3": np.empty((2, 2))})
    for shape, other, name in [((32, 2), (32, 3), "tokens"), ((31, 2), (31, 2), "values"), (32, (32, 1), "values")]:
        with refuses(name):
            core.top_examples(0, activations(3, 8), 1, np.empty(shape, np.float32), np.empty(other, np.int64))
    with pytest.raises(InvalidInputError):
        core.tensors_read([(0, _usae.DICTIONARY, np.empty((32, 7), np.float32))])
    with refuses("tensors[0]", "float32"):
        core.tensors_read([(0, _usae.COUNTERS, np.empty(3, np.float32))])


def test_row_numbers_are_int64_or_none(core):
    inputs = [activations(3, 8), activations(3, 6)]
    for rows in ([0, 1], np.zeros(2, np.int32), np.zeros(2), np.zeros(4, np.int64)[::2]):
        with refuses("rows"):
            core.step(inputs, rows, 0)
    with pytest.raises(InvalidInputError):  # and not every row
        core.step(inputs, np.empty(0, np.int64), 0)
    assert core.step_count == 0


def test_lists_of_tensors_are_read_and_written_whole_or_not_at_all(core):
    mean, scale = np.full(8, 77, np.float32), np.full(6, 77, np.float32)
    for bad in (
        3,
        (0, 1),
        (0, _usae.MEAN, np.empty(9, np.float32)),
        (9, _usae.MEAN, mean),
        (0, 999, mean),
        [0, _usae.MEAN, mean],
    ):
        for call in (core.tensors_read, core.tensors_write):
            with pytest.raises((InvalidInputError, TypeError)):
                call([(0, _usae.MEAN, mean), (1, _usae.SCALE, scale), bad])
    assert (mean == 77).all() and (scale == 77).all()
    assert core.tensors_read([(0, _usae.MEAN, mean), (1, _usae.SCALE, scale)]) == core.step_count
    assert not (mean == 77).any() and not (scale == 77).any()
    assert core.tensors_read([]) == core.step_count
    with pytest.raises(TypeError):
        core.tensors_read(3)
