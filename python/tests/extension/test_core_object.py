"""The object and the module that the extension brings, and its errors."""

import contextlib
import copy
import gc
import pickle
import signal
import sys

import numpy as np
import pytest

from support.core import N_CONCEPTS, RECIPE, WIDTHS, K, activations, encode, new_core
from support.refusals import refuses
from usae import _usae, errors
from usae.errors import InvalidInputError, NotInitializedError

# --- Errors of the core -----------------------------------------------------------------------------------------------


def test_each_status_arrives_as_its_exception(core):
    x = activations(3, 8)
    with pytest.raises(InvalidInputError):  # USAE_INVALID_ARGUMENT
        new_core(k=N_CONCEPTS + 1)
    with pytest.raises(InvalidInputError):  # USAE_SHAPE_MISMATCH
        encode(core, activations(3, 7))
    with pytest.raises(InvalidInputError):  # USAE_UNKNOWN_MODEL
        core.tensor_shape(2, _usae.MEAN)
    x[1, 2] = np.nan
    with refuses("activations of 'vit'", "NaN or infinity"):  # USAE_NOT_FINITE
        encode(core, x)
    for use in (
        lambda core: encode(core, activations(3, 8)),
        lambda core: core.decode(0, np.zeros((3, K), np.float32), np.zeros((3, K), np.int32), np.empty((3, 8), np.float32)),
        lambda core: core.tensor_shape(0, _usae.MEAN),
        lambda core: core.step([activations(3, 8)], None, 0),
        lambda core: core.evaluate([activations(3, 8)], 0.0, {}),
        lambda core: core.top_examples(0, activations(3, 8), 1, np.empty((32, 2), np.float32), np.empty((32, 2), np.int64)),
    ):
        with pytest.raises(NotInitializedError):
            use(new_core())


def test_the_exceptions_are_also_those_a_caller_would_expect():
    assert issubclass(errors.InvalidInputError, ValueError)
    assert issubclass(errors.NotInitializedError, ValueError)
    assert issubclass(errors.UsaeMemoryError, MemoryError)


# --- The object -------------------------------------------------------------------------------------------------------


def test_a_core_is_neither_copied_nor_pickled_nor_subclassed(core):
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            attempt(core)
    with pytest.raises(TypeError):
        type("Subclass", (_usae.Core,), {})
    with pytest.raises(TypeError):
        _usae.Core.__new__(_usae.Core)
    with pytest.raises(AttributeError):
        core.n_models = 3
    with pytest.raises(AttributeError):
        del core.step_count


def test_a_core_says_what_it_is(core):
    assert (core.n_concepts, core.k, core.slots, core.seed) == (N_CONCEPTS, K, K, 2**64 - 1)
    assert (core.names, core.widths) == (tuple(WIDTHS), tuple(WIDTHS.values()))
    assert (new_core().names, new_core().widths) == ((), ())
    core.initialize(["Überraschung " * 50, "\U0001f600"], [3, 4])
    assert core.names == ("Überraschung " * 50, "\U0001f600") and core.widths == (3, 4)


def test_what_a_core_says_of_itself_does_not_wait_for_a_change(core):
    """The handler runs in the middle of one: whoever waited there for its end would wait for ever."""
    said = []

    def handler(number, frame):
        said.append((core.names, core.widths, core.recipe["dead_tokens"], core.step_count))
        raise LookupError

    before = signal.signal(signal.SIGALRM, handler)
    tokens = [np.broadcast_to(activations(width), (50_000_000, width)) for width in WIDTHS.values()]
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(LookupError):
            core.initialize_from_parts(list(WIDTHS), tokens)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert said == [(tuple(WIDTHS), tuple(WIDTHS.values()), 1000, 0)]


def test_every_field_of_the_report_comes_back(core):
    report = core.step([activations(16, 8), activations(16, 6)], np.arange(16), 1)
    assert report["encoders"] == core.encoders(1, np.ones(2, np.int32)) == [1, 0]
    assert report["step"] == core.step_count == 1
    assert [len(losses) for losses in report["losses"]] == [2, 2]
    assert report["agreement"] >= 0
    # The loss has the term with the weight of this step, which is 0 at the start of a run of known length.
    assert report["loss"] > 0.999 * np.mean([sum(losses) for losses in report["losses"]])
    assert report["learning_rate"] == pytest.approx(1e-3)
    assert 0 < report["l0"] <= K
    assert report["dead"] == 0
    assert report["prefix"] == N_CONCEPTS
    assert {"auxiliary_loss", "gradient_norm"} < report.keys()


def test_a_batch_may_lack_models(core):
    report = core.step([None, activations(16, 6)], None, -1)
    assert report["encoders"] == core.encoders(-1, np.array([0, 1], np.int32)) == [1]
    assert np.isnan(report["losses"][0][0]) and report["losses"][0][1] > 0
    core.check_finite([None, activations(16, 6)])
    for present in (np.ones(1, np.int32), np.array([0, 2], np.int32), np.zeros(2, np.int32), np.ones(2)):
        with pytest.raises((InvalidInputError, TypeError)):
            core.encoders(-1, present)
    with pytest.raises(InvalidInputError):
        core.step([None, None], None, -1)
    with pytest.raises(InvalidInputError):
        core.step([None, activations(16, 6)], None, 0)
    with pytest.raises(InvalidInputError):
        core.initialize_from_parts(["a", "b"], [None, activations(16, 6)])


def test_the_parts_of_a_beginning_may_lack_models(core):
    parts = [activations(16, 8), activations(16, 6), None, activations(40, 6)]
    core.initialize_from_parts(["a", "b"], parts)
    assert core.widths == (8, 6)
    assert [core.describe_sample(model, np.empty(w), np.empty(w))[0] for model, w in enumerate((8, 6))] == [16, 56]
    for wrong in (parts[:3], [], [None, activations(16, 6)], [activations(16, 8), activations(15, 6)]):
        with pytest.raises(InvalidInputError):
            core.initialize_from_parts(["a", "b"], wrong)
    assert core.widths == (8, 6)


def test_tensors_go_out_and_in(core):
    assert core.tensor_shape(1, _usae.DICTIONARY) == (32, 6)
    assert core.tensor_shape(1, _usae.MEAN) == (6,)
    assert core.tensor_shape(1, _usae.COUNTERS) == (3,)
    bias, back = activations(32), np.empty(32, np.float32)
    core.tensors_write([(1, _usae.ENCODER_BIAS, bias)])
    core.tensors_read([(1, _usae.ENCODER_BIAS, back)])
    np.testing.assert_array_equal(back, bias)
    silent, back = np.arange(32), np.empty(32, np.int64)
    core.tensors_write([(0, _usae.SILENT_TOKENS, silent)])
    core.tensors_read([(0, _usae.SILENT_TOKENS, back)])
    np.testing.assert_array_equal(back, silent)


@pytest.mark.slow
def test_calls_keep_no_reference_to_what_they_are_given(core):
    """Also where they fail: blocks would pile up with the number of calls."""
    x, values, indices = activations(3, 8), np.empty((3, K), np.float32), np.empty((3, K), np.int32)
    inputs, rows = [x, activations(3, 6)], np.arange(3)
    outputs = {"r2": np.empty((2, 2)), "firing_counts": np.empty((2, 32), np.int64)}
    calls = [
        lambda: new_core(),
        lambda: new_core(recipe={**RECIPE, "momentum": 1}),
        lambda: new_core(k=99),
        lambda: core.initialize(["a", 3], [8, 6]),
        lambda: core.initialize(["vit", "dino"], [8, 6]),
        lambda: core.initialize_from_parts(["vit", "dino"], inputs),
        lambda: core.initialize_from_parts(["vit", "dino"], [x, x.astype(int)]),
        lambda: core.step(inputs, rows, -1),
        lambda: core.step([x, x], rows, -1),
        lambda: core.encode(0, x, values, indices),
        lambda: core.encode(0, x, values, indices[:, :2]),
        lambda: core.encode(7, x, values, indices),
        lambda: core.encode(0, [[1.0]], values, indices),
        lambda: core.decode(0, values, indices, np.empty((3, 8), np.float32)),
        lambda: core.decode(0, values, indices, values),
        lambda: core.evaluate(inputs, 0.0, outputs),
        lambda: core.evaluate(inputs, 0.0, {**outputs, "l0": x}),
        lambda: copy.copy(core),
    ]

    def blocks_after(call, times):
        for _ in range(times):
            with contextlib.suppress(TypeError, ValueError):
                call()
        gc.collect()
        return sys.getallocatedblocks()

    def growth(call):
        before = blocks_after(call, 50)
        return blocks_after(call, 200) - before

    def held():
        return [sys.getrefcount(given) for given in (x, values, indices, rows, inputs, outputs)]

    before = held()
    gc.freeze()  # what other tests have made need not be looked through each time
    try:
        for call in calls:
            # One block a call would be 200 each time; the smallest of three is free of what else goes on in the process.
            assert min(growth(call) for _ in range(3)) < 100, call.__code__.co_firstlineno
    finally:
        gc.unfreeze()
    assert held() == before


# --- The process ------------------------------------------------------------------------------------------------------


def test_the_module_says_what_it_runs_on():
    assert _usae.kernels() in ("amx", "avx512vnni", "avxvnni", "avx512", "avx2", "dotprod", "portable")
    assert "OpenBLAS" in _usae.blas()
    assert _usae.version() == "0.1.0"
    assert _usae.threads() >= 1


def test_shuffled_rows_visits_every_row_once_in_a_pass():
    rows = np.empty(30, np.int64)
    _usae.shuffled_rows(3, 10, 0, rows)
    assert all(sorted(rows[start : start + 10]) == list(range(10)) for start in (0, 10, 20))
    part = np.empty(7, np.int64)
    _usae.shuffled_rows(3, 10, 8, part)
    np.testing.assert_array_equal(part, rows[8:15])
