import pickle

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.sparse

from support.refusals import refuses
from usae import Codes


@st.composite
def codes(draw):
    """Any codes, also with unused slots in the middle, concepts twice in a token, no slots and no tokens."""
    shape, n_concepts = draw(st.tuples(st.integers(0, 6), st.integers(0, 5))), draw(st.integers(1, 9))
    values = draw(hnp.arrays(np.float32, shape, elements=st.floats(-8, 8, width=16)))  # few bits: sums are exact
    indices = draw(hnp.arrays(np.int32, shape, elements=st.integers(-1, n_concepts - 1)))
    return Codes(values, indices, n_concepts)


def dense_by_hand(codes):
    dense = np.zeros(codes.shape, np.float32)
    for t in range(len(codes)):
        for value, concept in zip(codes.values[t], codes.indices[t], strict=True):
            if concept >= 0:
                dense[t, concept] += value
    return dense


@hypothesis.given(codes())
def test_dense_and_sparse_forms_say_the_same(codes):
    assert np.array_equal(codes.to_dense(), dense_by_hand(codes))
    matrix = codes.to_csr()
    assert isinstance(matrix, scipy.sparse.csr_array)
    assert matrix.shape == codes.shape == (len(codes), codes.n_concepts)
    assert matrix.has_canonical_format and matrix.dtype == np.float32
    assert np.array_equal(matrix.toarray(), dense_by_hand(codes))


@hypothesis.given(codes(), st.data())
def test_rows_are_taken_as_numpy_takes_them(codes, data):
    n = len(codes)
    rows = data.draw(
        st.slices(n) | hnp.arrays(np.bool_, n) | (st.lists(st.integers(-n, n - 1), min_size=1) if n else st.just(slice(None)))
    )
    taken = codes[rows]
    assert np.array_equal(taken.values, codes.values[rows])
    assert np.array_equal(taken.indices, codes.indices[rows])
    assert taken.n_concepts == codes.n_concepts
    assert taken.values.flags.c_contiguous and taken.indices.flags.c_contiguous


@hypothesis.given(codes())
def test_numpy_sees_the_dense_form(codes):
    assert np.array_equal(np.asarray(codes), codes.to_dense())
    assert np.asarray(codes, np.float64).dtype == np.float64
    assert np.array_equal(np.concatenate([codes, codes]), np.concatenate([codes.to_dense()] * 2))
    with pytest.raises(ValueError):
        codes.__array__(copy=False)


def test_one_row_is_codes_of_one_token_and_iteration_ends():
    codes = Codes([[1.0], [2.0], [3.0]], [[0], [1], [-1]], 4)
    assert codes[1] == codes[1:2]
    assert codes[-1] == codes[2:]
    assert list(codes) == [codes[0:1], codes[1:2], codes[2:3]]
    with pytest.raises(IndexError):
        codes[3]
    with refuses("rows", "(0, 0)"):
        codes[0, 0]


def test_unused_slots_are_not_in_the_sparse_form():
    assert Codes([[2.0, 1.0, 0.0]], [[5, 0, -1]], 8).to_csr().indices.tolist() == [0, 5]


def test_codes_are_immutable_and_leave_the_callers_arrays_writeable():
    values, indices = np.ones((2, 1), np.float32), np.zeros((2, 1), np.int32)
    codes = Codes(values, indices, 3)
    with pytest.raises(ValueError, match="read-only"):
        codes.values[0, 0] = 2
    with pytest.raises(ValueError, match="read-only"):
        codes[0:1].indices[0, 0] = 2
    with pytest.raises(AttributeError):
        codes.values = values
    values[0, 0] = 3


def test_every_attribute_says_what_it_holds():
    for name in ("values", "indices", "n_concepts", "k", "shape"):
        assert getattr(Codes, name).__doc__


def test_equality_and_pickle():
    codes = Codes([[1.0]], [[2]], 3)
    assert pickle.loads(pickle.dumps(codes)) == codes
    assert codes != Codes([[1.0]], [[2]], 4)
    assert codes != Codes([[1.0]], [[1]], 3)
    assert codes != Codes([[2.0]], [[2]], 3)
    assert codes != "codes"


@pytest.mark.parametrize(
    ("values", "indices", "n_concepts", "argument", "got"),
    [
        ([[1.0]], [[3]], 3, "indices", "3 to 3"),
        ([[1.0]], [[-2]], 3, "indices", "-2 to -2"),
        ([[1.0]], [[0, 1]], 3, "values and indices", "shapes [1, 1] and [1, 2]"),
        ([[1.0, 2.0], [3.0]], [[0, 1], [2]], 3, "values", "rows of several lengths"),
        ([[1.0]], [[0, 1], [2]], 3, "indices", "rows of several lengths"),
        ([1.0], [0], 3, "values and indices", "shapes [1] and [1]"),
        ([[1]], [[0]], 3, "values", "int64"),
        ([["a"]], [[0]], 3, "values", "<U1"),
        ([[1.0]], [[0.0]], 3, "indices", "float64"),
        ([[1.0, np.nan]], [[0, 1]], 3, "values", "nan at [0, 1]"),
        ([[1e300]], [[0]], 3, "values", "inf at [0, 0]"),
        ([[1.0]], [[0]], 0, "n_concepts", "0"),
        ([[1.0]], [[0]], 2.0, "n_concepts", "2.0"),
        ([[1.0]], [[0]], True, "n_concepts", "True"),
    ],
)
def test_codes_that_cannot_be_are_refused(values, indices, n_concepts, argument, got):
    with refuses(argument, got):
        Codes(values, indices, n_concepts)


def test_what_the_caller_does_to_the_arrays_afterwards_changes_nothing():
    """The arrays were checked once; SciPy, which trusts its indices, would write to memory that is not its own."""
    for order, dtype in (("C", np.int32), ("F", np.int64), ("C", np.uint8)):
        values, indices = np.ones((2, 3), np.float32, order), np.zeros((2, 3), dtype, order)
        codes = Codes(values, indices, 4)
        expected = codes.to_dense()
        values[:], indices[:] = np.nan, 100
        assert np.array_equal(codes.to_dense(), expected) and np.array_equal(codes.to_csr().toarray(), expected)
        for array in (codes.values, codes.indices, codes[:1].indices, codes[[0]].values):
            with pytest.raises(ValueError, match="WRITEABLE"):
                array.flags.writeable = True


def test_codes_of_a_file_do_not_change_with_it(tmp_path):
    np.save(tmp_path / "indices.npy", np.zeros((2, 1), np.int32))
    codes = Codes(np.ones((2, 1), np.float32), np.load(tmp_path / "indices.npy", mmap_mode="r"), 4)
    np.save(tmp_path / "indices.npy", np.full((2, 1), 2**30, np.int32))
    assert codes.to_csr().indices.tolist() == [0, 0]


def test_even_memory_that_was_forced_open_is_checked_before_it_is_used(trained):
    codes = Codes(np.ones((2, 1), np.float32), np.zeros((2, 1), np.int32), trained.n_concepts)
    codes.indices.base.flags.writeable = True
    codes.indices.base[:] = 2**30
    for use in (codes.to_csr, codes.to_dense):
        with refuses("codes", f"{2**30} to {2**30}"):
            use()
    with refuses("codes", f"index {2**30}"):
        trained.decode(codes, "vit")
