"""What failures and differences do to steps that several autoencoders share: all end, and nothing changes."""

import re

import numpy as np
import pytest

import usae
from support.autoencoders import planted
from support.gangs import RECIPES, Gang, ThreadPeers, copies, parts, share, state
from support.refusals import faults_of, names, refuses
from usae import _usae
from usae._data.activations import as_aligned
from usae._saved.state import restored, snapshot
from usae._training import shared_steps

pytestmark = pytest.mark.slow  # together: each is short


def check_failed(outcomes, culprit, kind, value, saes, before):
    """Every process has the error of the one that failed, with its value; the others have the rank and the type too."""
    for rank, outcome in enumerate(outcomes):
        assert names(value, str(outcome), anywhere=True), outcome
        if rank == culprit:
            assert isinstance(outcome, kind)
        else:
            assert isinstance(outcome, usae.OtherProcessError), outcome
            assert re.search(rf"\b{culprit}\b.*\b{kind.__name__}\b", str(outcome)), outcome
    assert [state(sae) for sae in saes] == before


@pytest.mark.parametrize("bad", ["nan", "width", "missing", "not a mapping"])
def test_a_batch_that_one_process_cannot_use_stops_all_and_changes_nothing(bad):
    saes = copies(RECIPES["published"])
    before = [state(sae) for sae in saes]
    batch = planted(200, seed=99)
    batches = parts(batch)
    if bad == "nan":
        batches[1] = {name: np.where(np.arange(len(x))[:, None] == 3, np.nan, x) for name, x in batches[1].items()}
    elif bad == "width":
        batches[1] = batches[1] | {"vit": batches[1]["vit"][:, :5]}
    elif bad == "missing":
        batches[1] = {"vit": batches[1]["vit"]}
    else:
        batches[1] = None
    value = {"nan": "3", "width": "17", "missing": "dinov2", "not a mapping": "NoneType"}[bad]
    check_failed(share(saes, batches), 1, usae.InvalidInputError, value, saes, before)
    done = share(saes, parts(batch))
    assert all(outcome[0][0].step == 3 for outcome in done), "and all may go on"


class FailingCore:
    """A core whose part of an exchange fails."""

    def __init__(self, core, number, error):
        self._core, self._number, self._error = core, number, error

    def __getattr__(self, name):
        return getattr(self._core, name)

    def shared_fill(self, number, out):
        if number == self._number:
            raise self._error
        self._core.shared_fill(number, out)


@pytest.mark.parametrize("name, exchanges", [("published", 5), ("dead", 7), ("batchtopk", 10), ("two", 8), ("all", 24)])
@pytest.mark.parametrize("error", [KeyboardInterrupt("now"), MemoryError("none left")])
def test_whatever_fails_in_the_middle_stops_all_and_changes_nothing(name, exchanges, error):
    saes = copies(RECIPES[name])
    before = [state(sae) for sae in saes]
    for number in range(exchanges):

        def wrap(core, rank, number=number):
            return FailingCore(getattr(core, "_core", core), number if rank == 2 else -1, error)

        check_failed(share(saes, parts(planted(200, seed=99)), 0, wrap), 2, type(error), str(error), saes, before)
    (_, exchanged), _ = share(saes, parts(planted(200, seed=99)), 0, lambda core, rank: core._core)[0]
    assert len(exchanged.names) == exchanges, "each of them has failed above"


class DamagedPeers(ThreadPeers):
    """A network that spoils one number of one sum, in every process alike."""

    number = 0

    def all_reduce(self, array):
        wait = super().all_reduce(array)
        if array.ndim == 2:  # the exchange before a step
            return wait

        def damaged():
            wait()
            if self.number == 0:
                array[0] = np.nan
            self.number -= 1

        return damaged


@pytest.mark.parametrize("name", RECIPES)
def test_a_sum_that_is_damaged_is_refused_in_all_and_changes_nothing(name):
    saes = copies(RECIPES[name])
    before = [state(sae) for sae in saes]
    batches = parts(planted(200, seed=99))
    for number in range(30):

        def task(peers, number=number):
            peers.__class__, peers.number = DamagedPeers, number
            autoencoder = saes[peers.rank]._autoencoder
            return shared_steps.step(
                autoencoder,
                lambda: (as_aligned(batches[peers.rank], "batch", autoencoder.columns), None, 0),
                peers,
                shared_steps.ExchangeBuffers(),
            )

        outcomes = Gang(3).run(task)
        if isinstance(outcomes[0], tuple):
            break
        assert all(isinstance(outcome, usae.InvalidInputError) for outcome in outcomes), outcomes
        assert [state(sae) for sae in saes] == before
    assert number == len(outcomes[0][1].names), "every sum was damaged once"


@pytest.mark.parametrize(
    "difference, what",
    [("steps", "steps"), ("recipe", "recipe"), ("seed", "seed"), ("parameters", "parameters"), ("moments", None)],
)
def test_autoencoders_that_differ_are_refused_in_all(difference, what):
    saes = copies(RECIPES["default"])
    if difference == "steps":
        saes[1].partial_fit(planted(50, seed=3))
    elif difference in ("recipe", "seed"):
        header, tensors = snapshot(saes[1]._autoencoder, training_state=True)
        header["seed"] += difference == "seed"
        header["resolved_recipe"]["learning_rate"] *= 2 if difference == "recipe" else 1
        saes[1]._autoencoder = restored(header, tensors, None)
    else:
        tensor = "dictionary" if difference == "parameters" else "dictionary_first_moment"
        values = saes[1]._autoencoder.read(1, tensor)
        values[7, 3] += 0.01
        saes[1]._autoencoder.write(1, tensor, values)
    outcomes = share(saes, parts(planted(200, seed=99)))
    if what is None:  # no step can see it before it has shown in a parameter that the fingerprint is of
        assert all(isinstance(outcome, tuple) for outcome in outcomes)
        what, seeds = "parameters", iter((98, 97, 96))
        while isinstance(outcomes[0], tuple):
            outcomes = share(saes, parts(planted(200, seed=next(seeds))))
    for outcome in outcomes:
        assert isinstance(outcome, usae.InvalidInputError), outcome
        assert not faults_of(type(outcome), str(outcome)), outcome
        assert all(names(word, str(outcome), anywhere=True) for word in (what, "1", "synchronize")), outcome


def test_processes_that_ask_for_different_encoders_are_refused():
    saes = copies(RECIPES["default"], 2)
    gang = Gang(2)
    batches = parts(planted(200, seed=99), [120, 80])

    def task(peers):
        autoencoder = saes[peers.rank]._autoencoder
        return shared_steps.step(
            autoencoder,
            lambda: (as_aligned(batches[peers.rank], "batch"), None, peers.rank),
            peers,
            shared_steps.ExchangeBuffers(),
        )

    assert all(names("encoder", str(outcome)) for outcome in gang.run(task))


@pytest.mark.parametrize("failure", [None, ValueError("enough")])
def test_who_leaves_tells_the_others(failure):
    saes = copies(RECIPES["default"], 2)
    before = [state(sae) for sae in saes]
    batches = parts(planted(200, seed=99), [120, 80])

    def task(peers):
        if peers.rank == 1:
            return shared_steps.leave(peers, failure)
        autoencoder = saes[0]._autoencoder
        return shared_steps.step(
            autoencoder, lambda: (as_aligned(batches[0], "batch"), None, -1), peers, shared_steps.ExchangeBuffers()
        )

    stayed, left = Gang(2).run(task)
    if failure is None:
        assert stayed is None and left is None
    else:
        assert left is failure and isinstance(stayed, usae.OtherProcessError) and "enough" in str(stayed)
    assert [state(sae) for sae in saes] == before
    saes[0].partial_fit(batches[0])  # no step is left open


def test_arrays_that_do_not_fit_end_the_step_with_words():
    sae = copies(RECIPES["published"], 1)[0]
    core, batch = sae._autoencoder.core, planted(60, seed=4)
    before = state(sae)

    def begun():
        core.shared_abandon()
        core.shared_begin([batch[name] for name in sae.model_names_], None, 0)
        return core.shared_agree(np.array([60]), 0)

    count = begun()[0][4]
    assert [kind for kind, *_ in begun()] == [
        _usae.EXCHANGE_MEANS, _usae.EXCHANGE_COVARIANCE, _usae.EXCHANGE_GRADIENT, _usae.EXCHANGE_GRADIENT,
        _usae.EXCHANGE_SUMMARY,
    ]  # fmt: skip
    fine = np.zeros(count, np.float32)
    for out in (
        np.zeros(count + 1, np.float32), np.zeros(count), np.zeros(2 * count, np.float32)[::2], None, b"\0" * 4 * count,
    ):  # fmt: skip
        begun()
        with pytest.raises((usae.InvalidInputError, TypeError)):
            core.shared_fill(0, out)
    for number in (1, -1, 2**62):
        begun()
        with pytest.raises(usae.InvalidInputError):
            core.shared_fill(number, fine)
    begun()
    core.shared_fill(0, fine)
    with refuses("exchange", "1"):
        core.shared_fill(1, fine)
    for sums in ([], [None] * 5, [fine] * 5, [None] * 6, 3, [b""] * 5):
        begun()
        with pytest.raises((usae.InvalidInputError, TypeError)):
            core.shared_finish(sums)
    for tokens, rank in (([59], 0), ([60], 1), ([60, 0], 0), ([], 0), ([60, -1], 0), ([1, 60], 0), ([60, 2**40], 0), (3, 0)):
        core.shared_abandon()
        core.shared_begin([batch[name] for name in sae.model_names_], None, 0)
        with pytest.raises((usae.InvalidInputError, TypeError)):
            core.shared_agree(np.array(tokens, np.int64) if tokens != 3 else 3, rank)
    core.shared_abandon()
    with refuses("step", "none"):
        core.shared_agree(np.array([60]), 0)
    core.shared_abandon()
    assert state(sae) == before


def test_a_step_that_a_lost_process_ends_leaves_no_sum_pending():
    """A thread of the network that still has an array would take the interpreter's lock to free it, even at its end."""

    class LosingPeers(ThreadPeers):
        pending = 0

        def all_reduce(self, array):
            if array.ndim == 2:  # the exchange before a step
                return lambda: None
            self.pending += 1
            waited = []

            def wait():
                if not waited:
                    self.pending -= 1
                waited.append(True)
                raise ConnectionResetError

            return wait

    (sae,) = copies(RECIPES["default"], 1)
    before = state(sae)

    def task(_):
        peers = LosingPeers(gang, 0)
        with pytest.raises(ConnectionResetError):
            shared_steps.step(
                sae._autoencoder,
                lambda: (as_aligned(planted(200, seed=9), "batch"), None, -1),
                peers,
                shared_steps.ExchangeBuffers(),
            )
        return peers.pending

    gang = Gang(1)
    assert gang.run(task) == [0]
    assert state(sae) == before
