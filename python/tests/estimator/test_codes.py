import pickle

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.sparse

import usae
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


def test_one_row_is_codes_of_one_token_and_iteration_ends():
    codes = Codes([[1.0], [2.0], [3.0]], [[0], [1], [-1]], 4)
    assert codes[1] == codes[1:2]
    assert codes[-1] == codes[2:]
    assert list(codes) == [codes[0:1], codes[1:2], codes[2:3]]
    with pytest.raises(IndexError):
        codes[3]
    with pytest.raises(usae.InvalidInputError, match="by rows alone"):
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
    ("values", "indices", "n_concepts", "words"),
    [
        ([[1.0]], [[3]], 3, "from 0 to n_concepts - 1 = 2"),
        ([[1.0]], [[-2]], 3, "-1 for an unused slot, got -2"),
        ([[1.0]], [[0, 1]], 3, "both be .n_tokens, k., got shapes .1, 1. and .1, 2."),
        ([[1.0, 2.0], [3.0]], [[0, 1], [2]], 3, "values must be an array .n_tokens, k., with k slots for each token"),
        ([[1.0]], [[0, 1], [2]], 3, "indices must be an array .n_tokens, k."),
        ([1.0], [0], 3, "both be .n_tokens, k."),
        ([[1]], [[0]], 3, "values must be floats, got int64"),
        ([["a"]], [[0]], 3, "values must be floats"),
        ([[1.0]], [[0.0]], 3, "indices must be integers"),
        ([[1.0, np.nan]], [[0, 1]], 3, r"finite as float32, got nan at \[0, 1\]"),
        ([[1e300]], [[0]], 3, "finite as float32, got inf"),
        ([[1.0]], [[0]], 0, "n_concepts must be"),
        ([[1.0]], [[0]], 2.0, "n_concepts must be"),
        ([[1.0]], [[0]], True, "n_concepts must be"),
    ],
)
def test_codes_that_cannot_be_are_refused(values, indices, n_concepts, words):
    with pytest.raises(usae.InvalidInputError, match=words):
        Codes(values, indices, n_concepts)
