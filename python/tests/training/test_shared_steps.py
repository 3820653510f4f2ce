"""Steps that several autoencoders share, in one process and without torch: what is told to whom, and what failures do."""

import threading

import numpy as np
import pytest

import usae
from support.autoencoders import everything, planted
from support.refusals import refuses
from usae import _usae
from usae._data.activations import as_aligned
from usae._saved.state import restored, snapshot
from usae._training import shared_steps

RECIPES = {
    "default": usae.recipes.default(merge_cosine=None, dead_tokens=0),
    "dead": usae.recipes.default(merge_cosine=None, dead_tokens=1, aux_k=7),
    "merging": usae.recipes.default(merge_cosine=0.3, merge_every=3, warmup_steps=0, dead_tokens=0),
    "published": usae.recipes.published(total_steps=50),
    "batchtopk": usae.recipes.default(selection="batchtopk", merge_cosine=None, dead_tokens=1, aux_k=7),
}
CROSSES = {
    "default": set(),
    "dead": {"residual means", "spreads"},
    "merging": {"tokens of merged duplicates"},
    "published": {"means", "covariance"},
    "batchtopk": {"upper halves", "lower halves", "ties", "residual means", "spreads"},
}
"""Besides gradients and the summary."""

SIZES = [100, 7, 93]


class Gang:
    """Threads instead of processes."""

    def __init__(self, size):
        self.barrier = threading.Barrier(size, timeout=300)
        self.size, self.slots = size, {}

    def run(self, task):
        """What `task(peers)` returns or raises in each thread, by rank."""
        outcomes = [None] * self.size

        def one(rank):
            try:
                outcomes[rank] = task(ThreadPeers(self, rank))
            except BaseException as error:
                outcomes[rank] = error

        threads = [threading.Thread(target=one, args=[rank]) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(600)
            assert not thread.is_alive(), "nobody may be left waiting"
        return outcomes


class ThreadPeers:
    def __init__(self, gang, rank):
        self.gang, self.rank, self.size = gang, rank, gang.size
        self.calls, self.added = 0, []

    def meet(self, mine):
        self.calls += 1
        self.gang.slots[self.calls, self.rank] = mine
        self.gang.barrier.wait()
        return [self.gang.slots[self.calls, rank] for rank in range(self.size)]

    def all_reduce(self, array):
        def wait():
            total = np.sum([part.copy() for part in self.meet(array)], axis=0, dtype=array.dtype)
            self.gang.barrier.wait()
            array[:] = total
            self.added.append(total)

        return wait

    def all_gather(self, text):
        return self.meet(text)

    def broadcast(self, array):
        first = self.meet(array.copy())[0]
        array[:] = first


def copies(recipe, n=3, steps=2, **changes):
    """Autoencoders alike, after a few steps."""
    saes = [usae.UniversalSAE(48, 4, recipe=recipe, seed=5, n_threads=1, **changes) for _ in range(n)]
    for sae in saes:
        for step in range(steps):
            sae.partial_fit(planted(200, seed=20 + step))
        if recipe.dead_tokens:  # on these data every concept fires, so that it takes words to have dead ones
            for model in range(3):
                sae._autoencoder.write(model, "silent_tokens", np.where(np.arange(48) % 3 == 0, 500, 0))
    return saes


def parts(batch, sizes=SIZES):
    ends = np.cumsum([0, *sizes])
    return [{name: x[a:b] for name, x in batch.items()} for a, b in zip(ends, ends[1:], strict=False)]


def share(saes, batches, encoder=-1, wrap=lambda core, rank: core):
    def task(peers):
        autoencoder = saes[peers.rank]._autoencoder
        autoencoder.core = wrap(autoencoder.core, peers.rank)

        def take():
            return as_aligned(batches[peers.rank], "batch", autoencoder.widths), None, encoder

        return shared_steps.step(autoencoder, take, peers, shared_steps.ExchangeBuffers()), peers

    return Gang(len(saes)).run(task)


def test_a_shared_step_that_nobody_recorded_is_in_the_history_all_the_same():
    """As where Ctrl-C comes when it is done; here nobody records any."""
    saes = copies(RECIPES["default"], 2)
    for _ in range(2):
        share(saes, parts(planted(200, seed=99), [120, 80]))
    for sae in saes:
        assert [entry["step"] for entry in sae.history_] == [1, 2, 3, 4]


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("encoder", [0, 1, 2])
def test_a_shared_step_is_a_step_on_the_rows_of_all(name, encoder):
    *saes, single = copies(RECIPES[name], 4)
    batch = planted(200, seed=99)
    _, gradients = single.gradients(batch, encoder=single.model_names_[encoder])
    outcomes = share(saes, parts(batch), encoder)
    expected = single.partial_fit(batch, encoder=single.model_names_[encoder])

    (report, exchanged), peers = outcomes[0]
    assert report.encoder == expected.encoder and report.step == expected.step == 3
    assert report.dead == expected.dead and (name not in ("dead", "batchtopk") or report.dead > 0)
    assert report.loss == pytest.approx(expected.loss, rel=1e-6) and report.l0 == pytest.approx(expected.l0, rel=1e-6)
    assert report.gradient_norm == pytest.approx(expected.gradient_norm, rel=1e-5, nan_ok=True)
    for (other, _), _ in outcomes[1:]:
        assert (other.loss, other.l0, other.losses) == (report.loss, report.l0, report.losses)

    kinds = set(exchanged.names) - {n for n in exchanged.names if n.startswith("gradient")}
    assert kinds == {"summary"} | CROSSES[name]
    sums = peers.added[-len(exchanged.names) :]
    seen = 0
    for what, total in zip(exchanged.names, sums, strict=True):
        if what.startswith("gradient"):
            tensor, model = what.removeprefix("gradient of ").split(" of ")
            wanted = gradients[model][tensor].ravel()
            assert np.linalg.norm(total - wanted) < 1e-5 * np.linalg.norm(wanted), what
            seen += 1
    assert seen == (2 if name == "published" else 4)
    for sae in saes:
        assert everything(sae)["parameters"] == everything(saes[0])["parameters"], "the same bits in all"
        for number in range(3):
            assert np.array_equal(
                sae._autoencoder.read(number, "silent_tokens"), single._autoencoder.read(number, "silent_tokens")
            )
            assert np.array_equal(sae._autoencoder.read(number, "counters"), single._autoencoder.read(number, "counters"))


def state(sae):
    autoencoder = sae._autoencoder
    names = (*autoencoder.parameter_names(), *autoencoder.training_state_names())
    tensors = [autoencoder.read(m, name).tobytes() for m in range(len(autoencoder.names)) for name in names]
    return tensors, autoencoder.core.step_count


def check_failed(outcomes, culprit, kind, words, saes, before):
    for rank, outcome in enumerate(outcomes):
        if rank == culprit:
            assert isinstance(outcome, kind) and words in str(outcome)
        else:
            assert isinstance(outcome, usae.OtherProcessError), outcome
            assert f"rank {culprit}: {kind.__name__}" in str(outcome) and words in str(outcome)
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
    words = {"nan": "row 3", "width": "17 columns", "missing": "dinov2", "not a mapping": "mapping"}[bad]
    check_failed(share(saes, batches), 1, usae.InvalidInputError, words, saes, before)
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


@pytest.mark.parametrize("name, exchanges", [("published", 5), ("dead", 7)])
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


@pytest.mark.parametrize(
    "difference, what",
    [("steps", "steps done"), ("recipe", "recipe"), ("seed", "seed"), ("parameters", "parameters"), ("moments", None)],
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
        assert what in str(outcome) and "rank 1" in str(outcome) and "synchronize" in str(outcome)


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

    assert all("encoder" in str(outcome) for outcome in gang.run(task))


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


def test_everything_of_the_first_process_can_be_given_to_all():
    saes = copies(RECIPES["published"], 2, steps=3)
    for sae in saes[1:]:
        sae.initialize({name: x.shape[1] for name, x in planted(2, seed=0).items()})
    Gang(2).run(lambda peers: shared_steps.broadcast_state(saes[peers.rank]._autoencoder, peers))
    assert state(saes[0]) == state(saes[1]) and repr(saes[0].history_) == repr(saes[1].history_) and saes[1].n_steps_ == 3


def test_a_step_under_way_keeps_changes_out_until_it_ends(tmp_path):
    sae = copies(RECIPES["default"], 1)[0]
    core, batch = sae._autoencoder.core, planted(60, seed=4)
    before = state(sae)
    core.shared_begin([batch[name] for name in sae.model_names_], None, -1)
    for change in (
        lambda: sae.partial_fit(batch),
        lambda: sae.set_total_steps(1000),
        lambda: core.shared_begin([batch[name] for name in sae.model_names_], None, -1),
        lambda: sae._autoencoder.write(0, "scale", np.ones(12, np.float32)),
    ):
        with refuses("autoencoder", "one that was begun and has not ended"):
            change()
    sae.encode(batch["vit"], "vit")
    sae.save(tmp_path / "sae")
    core.shared_abandon()
    core.shared_abandon()
    assert state(sae) == before
    assert sae.partial_fit(batch).step == 3


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
                raise RuntimeError("connection closed by peer")

            return wait

    (sae,) = copies(RECIPES["default"], 1)
    before = state(sae)

    def task(_):
        peers = LosingPeers(gang, 0)
        with pytest.raises(RuntimeError, match="closed by peer"):
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
