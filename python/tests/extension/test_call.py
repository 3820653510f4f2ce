"""Calls of the core beside other threads and signals."""

import signal
import threading

import numpy as np
import pytest

from support.core import K, activations, encode
from support.interrupts import ctrl_c, while_the_core_works
from usae.errors import InvalidInputError

CALLS = {
    "evaluate": lambda core, x, out: core.evaluate([x[..., :8], x[..., :6]], 0.0, {"r2": out}),
    "encode": lambda core, x, out: core.encode(0, x[..., :8], out, np.empty(out.shape, np.int32)),
}
"""Calls that take minutes: of tokens that are all the same, so that they need no memory."""


@pytest.fixture(params=CALLS)
def endless(request, core):
    """A call and what it writes to, of which the last number stays as it is unless the call goes on to its end."""
    x = np.broadcast_to(activations(8), (50_000_000, 8))
    out = np.empty((2, 2)) if request.param == "evaluate" else np.empty((len(x), K), np.float32)
    out[-1, -1] = 7
    return lambda: CALLS[request.param](core, x, out), out


def test_another_thread_runs_during_a_call_and_ctrl_c_ends_it(core, endless):
    call, out = endless
    with pytest.raises(KeyboardInterrupt), while_the_core_works(ctrl_c) as go:
        go()
        call()
    assert out[-1, -1] == 7
    assert encode(core, activations(3, 8))[0].shape == (3, K)  # still of use


def test_an_exception_of_a_signal_handler_is_the_one_that_is_raised(endless):
    def handler(number, frame):
        raise LookupError("the handler's own")

    call, out = endless
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        raised = pytest.raises(LookupError, match="the handler's own")
        with raised, while_the_core_works(lambda: signal.raise_signal(signal.SIGUSR1)) as go:
            go()
            call()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert out[-1, -1] == 7


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
    """The core compares the size of `out` with the width that it decodes with, whenever the models change."""
    values, indices = encode(core, activations(64, 8))
    out, outcomes = np.empty((64, 8), np.float32), set()
    for before, after in [(8, 64), (64, 8)] * 50:
        core.initialize(["vit"], [before])
        with while_the_core_works(lambda after=after: core.initialize(["vit"], [after])) as go:
            go()
            try:
                core.decode(0, values, indices, out)
                outcomes.add("decoded")
            except InvalidInputError as error:
                outcomes.add(str(error).partition(":")[0])
    assert outcomes == {"decoded", "out"}
