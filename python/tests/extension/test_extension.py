"""The C extension: what only the way from Python to usae.h can get wrong."""

import contextlib
import copy
import gc
import os
import pickle
import signal
import sys
import threading
import time
from itertools import pairwise

import numpy as np
import pytest
from conftest import INSTRUCTION_SETS

from usae import _usae, errors
from usae.errors import InvalidInputError, NotInitializedError

# Numbers of numpy, and both ways to say "none", beside plain values.
RECIPE = _usae.recipe_preset(_usae.PRESET_DEFAULT) | {
    "initialization": "tied",
    "statistics_tokens": 0,
    "k_max": None,
    "aux_k": 0,
    "dead_tokens": 1000,
    "learning_rate": 1e-3,
    "warmup_steps": 0,
    "total_steps": np.int64(0),
    "weight_decay": np.float32(0),
    "clip_norm": 0,
    "prefixes": (0.25, np.float32(1)),
    "merge_cosine": 0.0,
    "prefix_loss": "mean",
}
N_CONCEPTS, K, WIDTHS = 32, 4, {"vit": 8, "dino": 6}


def new_core(**changes):
    arguments = {"n_concepts": N_CONCEPTS, "k": K, "seed": 2**64 - 1, "n_threads": 2, "recipe": RECIPE}
    return _usae.Core(**{**arguments, **changes})


@pytest.fixture
def core():
    core = new_core()
    core.initialize(list(WIDTHS), list(WIDTHS.values()))
    return core


def activations(*shape, dtype=np.float32):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


def encode(core, x, n=None):
    n = int(np.prod(x.shape[:-1])) if n is None else n
    values, indices = np.empty((n, K), np.float32), np.empty((n, K), np.int32)
    core.encode(0, x, values, indices)
    return values, indices


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


BROKEN = {
    "integers": (lambda: activations(3, 8).astype(np.int64), r"int64.*astype\('float32'\)"),
    "booleans": (lambda: activations(3, 8) > 0, "bool"),
    "complex": (lambda: activations(3, 8, dtype=complex), "complex128"),
    "long double": (lambda: activations(3, 8, dtype=np.longdouble), "float"),
    "strings": (lambda: np.full((3, 8), "a"), "U1"),
    "objects": (lambda: activations(3, 8).astype(object), "object"),
    "dates": (lambda: np.zeros((3, 8), "datetime64[s]"), "buffer"),
    "the other byte order": (lambda: activations(3, 8).astype(np.dtype("f4").newbyteorder()), "f4"),
    "a list": (lambda: [[1.0] * 8], "list"),
    "None": (lambda: None, "NoneType"),
    "bytes": (lambda: b"abcdefgh", "bytes"),
    "no dimension": (lambda: activations(), "got 0"),
    "one dimension": (lambda: activations(8), r"got 1.*\[n_tokens, width\]"),
    "four dimensions": (lambda: activations(1, 3, 1, 8), "got 4"),
    "misaligned": (lambda: np.zeros(97, np.uint8)[1:].view(np.float32).reshape(3, 8), "alignment"),
    "another tuple": (lambda: (activations(3, 8),), "bfloat16"),
    "an unknown format": (lambda: (activations(3, 8), "float8"), "bfloat16"),
    "float32 said to be bfloat16": (lambda: (activations(3, 8), "bfloat16"), "uint16"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_anything_but_floating_point_activations_is_refused_by_name(core, broken):
    make, words = BROKEN[broken]
    with pytest.raises(InvalidInputError, match=f"(?s)^x: .*{words}"):
        encode(core, make(), 3)


def test_the_refused_argument_is_called_by_the_name_of_its_model(core):
    x, integers = activations(3, 8), np.ones((3, 6), int)
    with pytest.raises(InvalidInputError, match=r"^acts\['dino'\]: "):
        core.step([x, integers], None, 0, False)
    with pytest.raises(InvalidInputError, match=r"^acts\['dino'\]: "):
        core.evaluate([x, integers], 0.0, {})
    with pytest.raises(InvalidInputError, match=r"^acts\['é'\]: "):
        core.initialize_from(["é"], [integers])
    with pytest.raises(InvalidInputError, match=r"^inputs\[1\]: "):
        new_core().step([x, integers], None, 0, False)


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
        with pytest.raises(InvalidInputError, match=f"^{name}: expected"):
            core.encode(0, x, **{**good, name: array})
        assert all(np.all(given == 7) for given in (*good.values(), array) if given is not None)


def test_room_for_other_numbers_of_elements_is_refused(core):
    values, indices = encode(core, activations(3, 8))
    for out in (np.empty((2, 8), np.float32), np.empty((3, 6), np.float32), np.empty(24, np.float32)):
        with pytest.raises(InvalidInputError, match=r"^out: expected (2 dimensions and 3 rows|8 columns)"):
            core.decode(0, values, indices, out)
    with pytest.raises(InvalidInputError, match=r"^out: expected shape \(3, 32\)"):
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
        with pytest.raises(InvalidInputError, match=rf"^outputs\['{name}'\]: expected"):
            core.evaluate(inputs, 0.0, {name: wrong})
    with pytest.raises(TypeError, match="r3"):
        core.evaluate(inputs, 0.0, {"r3": np.empty((2, 2))})
    for shape, other, name in [((32, 2), (32, 3), "tokens"), ((31, 2), (31, 2), "values"), (32, (32, 1), "values")]:
        with pytest.raises(InvalidInputError, match=rf"^{name}: expected shape \(32, "):
            core.top_examples(0, activations(3, 8), 1, np.empty(shape, np.float32), np.empty(other, np.int64))
    with pytest.raises(InvalidInputError):
        core.tensor_read(0, _usae.DICTIONARY, np.empty((32, 7), np.float32))
    with pytest.raises(InvalidInputError, match="int64"):
        core.tensor_read(0, _usae.COUNTERS, np.empty(3, np.float32))


def test_row_numbers_are_int64_or_none(core):
    inputs = [activations(3, 8), activations(3, 6)]
    for rows in ([0, 1], np.zeros(2, np.int32), np.zeros(2), np.zeros(4, np.int64)[::2]):
        with pytest.raises(InvalidInputError, match=r"^rows: .*int64"):
            core.step(inputs, rows, 0, False)
    with pytest.raises(InvalidInputError):  # and not every row
        core.step(inputs, np.empty(0, np.int64), 0, False)
    assert core.step_count == 0


# --- Numbers, names and recipes ---------------------------------------------------------------------------------------


def test_a_recipe_has_every_entry_and_no_other():
    with pytest.raises(TypeError, match="unknown entry 'momentum'"):
        new_core(recipe={**RECIPE, "momentum": 0.9})
    for name in RECIPE:
        with pytest.raises(TypeError, match=f"missing entry '{name}'"):
            new_core(recipe={key: value for key, value in RECIPE.items() if key != name})
    for loss in (0.5, 1, None, "L1", "", b"l1"):
        with pytest.raises(InvalidInputError, match=r"recipe\['loss'\]: expected one of 'l1', 'mse', got"):
            new_core(recipe={**RECIPE, "loss": loss})
    for switch in (2, -1):
        with pytest.raises(InvalidInputError, match=r"recipe\['renormalize'\]: expected an integer from 0 to 1"):
            new_core(recipe={**RECIPE, "renormalize": switch})
    with pytest.raises(TypeError, match=r"recipe\['dead_tokens'\]: expected an integer, got None"):
        new_core(recipe={**RECIPE, "dead_tokens": None})
    for shares in (0.5, ["a", 1]):
        with pytest.raises(TypeError):
            new_core(recipe={**RECIPE, "prefixes": shares})
    for shares in (range(17), [-1.0, 1.0], [0.5, 0, 1], [float("nan"), 1], [0.5]):
        with pytest.raises(InvalidInputError, match="prefixes"):
            new_core(recipe={**RECIPE, "prefixes": shares})
    with pytest.raises(TypeError, match=r"recipe\['beta1'\]: expected a number"):
        new_core(recipe={**RECIPE, "beta1": "0.9"})


def test_integers_that_do_not_fit_are_invalid_input(core):
    x = activations(3, 8)
    for make in (
        lambda: new_core(n_concepts=2**63),
        lambda: new_core(n_concepts=0),
        lambda: new_core(k=-1),
        lambda: new_core(seed=-1),
        lambda: new_core(seed=2**64),
        lambda: new_core(n_threads=2**31),
        lambda: new_core(recipe={**RECIPE, "aux_k": -(2**63) - 1}),
        lambda: core.initialize(["a"], [2**63]),
        lambda: core.set_plan(-1, 0),
        lambda: core.step([x, x], None, 2**31, False),
        lambda: core.tensor_shape(2**31, 0),
        lambda: setattr(core, "step_count", -1),
        lambda: _usae.shuffled_rows(0, 2**63, 0, np.empty(1, np.int64)),
        lambda: _usae.set_threads(2**31),
    ):
        with pytest.raises(InvalidInputError, match="expected an integer from"):
            make()
    with pytest.raises(TypeError, match="k: expected an integer"):
        new_core(k=4.5)


def test_names_are_a_sequence_of_text(core):
    for names in ("ab", ["a", 3], [b"a", b"b"], None):
        with pytest.raises(TypeError):
            core.initialize(names, [8, 8])
    for names in (["a\0b", "c"], ["\ud800", "c"], ["a"], []):
        with pytest.raises(ValueError):
            core.initialize(names, [8, 8])
    assert core.names == ("vit", "dino")


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
    with pytest.raises(InvalidInputError, match="vit"):  # USAE_NOT_FINITE
        encode(core, x)
    for use in (
        lambda core: encode(core, activations(3, 8)),
        lambda core: core.decode(0, np.zeros((3, K), np.float32), np.zeros((3, K), np.int32), np.empty((3, 8), np.float32)),
        lambda core: core.tensor_shape(0, _usae.MEAN),
        lambda core: core.step([activations(3, 8)], None, 0, False),
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
        with pytest.raises(TypeError, match="cannot be copied or pickled"):
            attempt(core)
    with pytest.raises(TypeError):
        type("Subclass", (_usae.Core,), {})
    with pytest.raises(TypeError):
        _usae.Core.__new__(_usae.Core)
    with pytest.raises(AttributeError):
        core.names = ()
    with pytest.raises(AttributeError):
        del core.step_count


def test_a_core_says_what_it_is(core):
    assert (core.n_concepts, core.k, core.slots, core.seed) == (N_CONCEPTS, K, K, 2**64 - 1)
    assert (core.names, core.widths) == (tuple(WIDTHS), tuple(WIDTHS.values()))
    assert (new_core().names, new_core().widths) == ((), ())
    core.initialize(["Überraschung " * 50, "\U0001f600"], [3, 4])
    assert core.names == ("Überraschung " * 50, "\U0001f600") and core.widths == (3, 4)


def test_every_field_of_the_report_comes_back(core):
    report = core.step([activations(16, 8), activations(16, 6)], np.arange(16), 1, gradients=False)
    assert report["encoder"] == 1
    assert report["step"] == core.step_count == 1
    assert len(report["losses"]) == 2
    assert report["loss"] == pytest.approx(sum(report["losses"]))
    assert report["learning_rate"] == pytest.approx(1e-3)
    assert 0 < report["l0"] <= K
    assert report["dead"] == 0
    assert report["prefix"] == N_CONCEPTS
    assert {"auxiliary_loss", "gradient_norm"} < report.keys()


def test_tensors_go_out_and_in(core):
    assert core.tensor_shape(1, _usae.DICTIONARY) == (32, 6)
    assert core.tensor_shape(1, _usae.MEAN) == (6,)
    assert core.tensor_shape(1, _usae.COUNTERS) == (3,)
    bias, back = activations(32), np.empty(32, np.float32)
    core.tensor_write(1, _usae.ENCODER_BIAS, bias)
    core.tensor_read(1, _usae.ENCODER_BIAS, back)
    np.testing.assert_array_equal(back, bias)
    silent, back = np.arange(32), np.empty(32, np.int64)
    core.tensor_write(0, _usae.SILENT_TOKENS, silent)
    core.tensor_read(0, _usae.SILENT_TOKENS, back)
    np.testing.assert_array_equal(back, silent)


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
        lambda: core.initialize_from(["vit", "dino"], inputs),
        lambda: core.initialize_from(["vit", "dino"], [x, x.astype(int)]),
        lambda: core.step(inputs, rows, -1, False),
        lambda: core.step([x, x], rows, -1, False),
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
    for call in calls:
        # One block a call would be 200 each time; the smallest of three is free of what else goes on in the process.
        assert min(growth(call) for _ in range(3)) < 100, call.__code__.co_firstlineno
    assert held() == before


# --- Threads and signals ----------------------------------------------------------------------------------------------


def endless(core):
    """A call that takes minutes and no memory."""
    tokens = [np.broadcast_to(activations(width), (50_000_000, width)) for width in WIDTHS.values()]
    core.evaluate(tokens, 0.0, {"r2": np.empty((2, 2))})


def test_ctrl_c_stops_a_long_call_soon(core):
    asked = []

    def interrupt():
        asked.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.3, interrupt)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        endless(core)
    assert time.monotonic() - asked[0] < 1
    assert encode(core, activations(3, 8))[0].shape == (3, K)  # still of use


def test_an_exception_of_a_signal_handler_is_the_one_that_is_raised(core):
    def handler(number, frame):
        raise LookupError("the handler's own")

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(LookupError, match="the handler's own"):
            endless(core)
    finally:
        signal.signal(signal.SIGALRM, before)


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
            core.initialize_from(list(WIDTHS), tokens)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert said == [(tuple(WIDTHS), tuple(WIDTHS.values()), 1000, 0)]


def test_other_python_threads_run_during_a_call(core):
    ticks, done = [], threading.Event()

    def tick():
        while not done.wait(0.01):
            ticks.append(time.monotonic())

    thread = threading.Thread(target=tick)
    thread.start()
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        endless(core)
    done.set()
    thread.join()
    assert max(after - before for before, after in pairwise(ticks)) < 0.5


def test_many_threads_share_one_core(core):
    x = activations(500, 8)
    expected = encode(core, x)
    wrong, inputs = [], [x, activations(500, 6)]
    out = np.empty((500, 8), np.float32)

    def use():
        try:
            for _ in range(20):
                values, indices = encode(core, x)
                core.decode(0, values, indices, out.copy())
                core.evaluate(inputs, 0.0, {"r2": np.empty((2, 2))})
                if not (np.array_equal(values, expected[0]) and np.array_equal(indices, expected[1])):
                    wrong.append("other codes")
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_decoding_is_safe_while_another_thread_changes_the_models(core):
    """The core holds the room in `out` against the width that it decodes with, whenever the models change."""
    values, indices = encode(core, activations(64, 8))
    stop, wrong = threading.Event(), []

    def change():
        widths = 8
        while not stop.is_set():
            widths = 64 if widths == 8 else 8
            core.initialize(["vit"], [widths])
            time.sleep(0.001)  # or the decoder would hardly ever get the core on a busy machine

    thread = threading.Thread(target=change)
    thread.start()
    out = np.empty((64, 8), np.float32)
    decoded = refused = 0
    deadline = time.monotonic() + 30
    while min(decoded, refused) < 20 and time.monotonic() < deadline:
        try:
            core.decode(0, values, indices, out)
            decoded += 1
        except InvalidInputError as error:
            refused += 1
            if "out: expected 64 columns" not in str(error):
                wrong.append(error)
    stop.set()
    thread.join()
    assert not wrong
    assert min(decoded, refused) > 0


# --- The process ------------------------------------------------------------------------------------------------------


def test_the_module_says_what_it_runs_on():
    assert _usae.kernels() in INSTRUCTION_SETS
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
