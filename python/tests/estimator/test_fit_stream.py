"""`UniversalSAE.fit_stream`: batches as they come, through a bounded buffer."""

import threading
import time

import numpy as np
import pytest

import usae
from support.autoencoders import RECIPE, everything, planted
from support.refusals import refuses
from support.streams import cut


def small(**options):
    return usae.UniversalSAE(32, 4, **{"recipe": RECIPE, "seed": 3} | options)


# --- Training ---------------------------------------------------------------------------------------------------------


def test_the_same_batches_give_the_same_bits_whoever_waits_for_whom_and_with_any_number_of_threads():
    acts, options = planted(1500, seed=2), {"steps": 8, "buffer_tokens": 256}
    batches, stepped, read = cut(acts, 128), threading.Semaphore(0), threading.Semaphore(0)

    def waiting_for_each_step():
        for number, batch in enumerate(batches):
            assert number < 2 or stepped.acquire(timeout=300)  # two fill the buffer
            yield batch

    def telling_of_each():
        for batch in batches:
            read.release()
            yield batch

    def wait_for_the_batch_after_the_next(report):
        assert report.step == 8 or read.acquire(timeout=300)

    expected = everything(small().fit_stream(batches, **options))
    late_data = small(n_threads=1).fit_stream(waiting_for_each_step(), **options, callbacks=[lambda _: stepped.release()])
    late_steps = small(n_threads=2).fit_stream(telling_of_each(), **options, callbacks=[wait_for_the_batch_after_the_next])
    cut_otherwise = small().fit_stream(iter(cut(acts, 120)), **options)
    assert everything(late_data) == everything(late_steps) == everything(cut_otherwise) == expected
    assert everything(small(seed=4).fit_stream(batches, **options)) != expected


def test_it_learns_what_training_on_arrays_does(acts, held_out):
    stream = small().fit_stream(cut(acts, 50), steps=300, buffer_tokens=600)
    expected = small().fit(acts, steps=300).evaluate(held_out).r2.mean()
    assert expected > 0.6 and abs(stream.evaluate(held_out).r2.mean() - expected) < 0.1


def test_statistics_and_dictionaries_come_from_the_first_rows_and_are_kept(acts, tmp_path):
    sae = small().fit_stream(cut(acts, 50), steps=1, buffer_tokens=200)
    first = small().fit({name: x[:200] for name, x in acts.items()}, steps=1)
    for name in acts:
        for tensor in ("mean", "scale"):
            np.testing.assert_array_equal(sae.parameters(name)[tensor], first.parameters(name)[tensor])
    sae.save(tmp_path / "run")
    assert everything(usae.load(tmp_path / "run")) == everything(sae)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_batches_may_be_images_of_any_float_type(acts, dtype):
    flat = [{name: x.astype(dtype) for name, x in batch.items()} for batch in cut(acts, 60)]
    images = [{name: x.reshape(15, 4, -1) for name, x in batch.items()} for batch in flat]
    results = [everything(small().fit_stream(x, steps=5, buffer_tokens=300)) for x in (flat, images)]
    assert results[0] == results[1]


def test_batches_may_be_bfloat16_tensors(acts):
    torch = pytest.importorskip("torch")
    batches = [{name: torch.from_numpy(x.copy()).bfloat16() for name, x in batch.items()} for batch in cut(acts, 60)]
    floats = [{name: x.float() for name, x in batch.items()} for batch in batches]
    results = [everything(small().fit_stream(x, steps=5, buffer_tokens=300)) for x in (batches, floats)]
    assert results[0] == results[1]


def test_a_buffer_smaller_than_a_batch_of_the_recipe_is_an_error_and_a_short_stream_has_smaller_batches(acts):
    with refuses("buffer_tokens", "100"):
        small().fit_stream(cut(acts, 50), steps=5, buffer_tokens=100)
    sae = small().fit_stream(cut({name: x[:70] for name, x in acts.items()}, 50), steps=5)
    assert sae.recipe_.batch_size == 70


def test_validation_callbacks_and_history_are_as_in_fit(acts, held_out):
    seen = []
    sae = small().fit_stream(cut(acts, 50), steps=10, validation=held_out, callbacks=[seen.append])
    assert [report.step for report in seen] == list(range(1, 11))
    assert [entry["step"] for entry in sae.history_ if "validation" in entry] == [2, 4, 6, 8, 10]
    stopped = small().fit_stream(cut(acts, 50), steps=10, callbacks=[lambda report: report.step == 4])
    assert stopped.n_steps_ == 4 and stopped.stream_report_.steps == 4


def test_a_planned_recipe_needs_no_steps(acts):
    assert small(recipe=RECIPE.replace(total_steps=4, warmup_steps=1)).fit_stream(cut(acts, 50)).n_steps_ == 4
    with refuses("steps", "None"):
        small().fit_stream(cut(acts, 50))


class Clock:
    """Stands still but for what a test adds to it, and tells each time that either thread looks at it."""

    def __init__(self):
        self.now, self.looked = 0.0, {"training": threading.Semaphore(0), "data": threading.Semaphore(0)}

    def __call__(self):
        now = self.now
        self.looked["training" if threading.current_thread() is threading.main_thread() else "data"].release()
        return now

    def wait_until_looked_at(self, thread, times):
        for _ in range(times):
            assert self.looked[thread].acquire(timeout=300)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


def test_the_report_tells_how_long_training_waited_for_data(acts, clock):
    batches = cut(acts, 128)

    def late():
        yield batches[0]
        clock.wait_until_looked_at("training", 4)  # at the start, before and after the first batch, before the second
        clock.now += 5
        yield from batches[1:]

    report = small().fit_stream(late(), steps=3, buffer_tokens=128).stream_report_
    assert isinstance(report, usae.StreamReport)
    assert (report.steps, report.tokens, report.tokens_read, report.epochs) == (3, 384, 384, 1)
    assert (report.waited_for_data, report.waited_for_training, report.seconds) == (5, 0, 5)
    assert (report.share_waiting_for_data, report.share_waiting_for_training) == (1, 0)
    assert report.tokens_per_second == 384 / 5
    assert "tokens/s; training waited for data" in report.summary()


def test_the_report_tells_how_long_data_waited_for_training(acts, clock):
    def late(report):
        if report.step == 1:
            clock.wait_until_looked_at("data", 5)  # before and after two waits that are over, and before the third
            clock.now += 3

    report = small().fit_stream(cut(acts, 128), steps=3, buffer_tokens=128, callbacks=[late]).stream_report_
    assert (report.waited_for_data, report.waited_for_training, report.seconds) == (0, 3, 3)
    assert (report.share_waiting_for_data, report.share_waiting_for_training) == (0, 1)


def test_there_is_a_report_of_a_stream_alone(acts):
    assert small().fit(acts, steps=2).stream_report_ is None


# --- What goes wrong --------------------------------------------------------------------------------------------------


def test_bad_batches_before_the_first_step_leave_the_object_as_it_was(trained, acts):
    good = cut(acts, 50)
    for batches, argument, got in [
        ([], "batches", "none"),
        (iter([]), "batches", "none"),
        (acts, "batches", "dict"),
        (7, "batches", "int"),
        ([None], "batches[0]", "NoneType"),
        ([good[0], None], "batches[1]", "NoneType"),
        ([good[0], good[0] | {"vit": good[0]["vit"][:, :5]}], "batches[1]['vit']", "shape [50, 5]"),
        ([good[0], {"vit": good[0]["vit"]}], "batches[1]", "none for dinov2, siglip"),
        (
            [good[0], good[0] | {"vit": good[0]["vit"][:9]}],
            "batches[1]",
            "dinov2: 50 [50, 12], siglip: 50 [50, 24], vit: 9 [9, 17]",
        ),
        (
            [good[0], good[0] | {"vit": good[0]["vit"].astype(float)}],
            "batches[1]['vit']",
            "float64",
        ),
        ([good[0], good[0] | {"vit": good[0]["vit"] * np.nan}], "batches[1]['vit']", "NaN or infinity in row 0, column 0"),
    ]:
        sae = small()
        with refuses(argument, got):
            sae.fit_stream(batches, steps=5)
        assert not hasattr(sae, "history_")


def test_an_error_later_comes_when_its_batch_is_reached_and_what_was_learned_is_kept(acts):
    def failing():
        yield from cut(acts, 100)
        raise ConnectionError("the data is gone")

    sae = small()
    with pytest.raises(ConnectionError, match="the data is gone"):
        sae.fit_stream(failing(), steps=50, buffer_tokens=200)
    done = sae.n_steps_
    assert done == (600 - 200) // 128 + 1
    assert "usae read-ahead" not in [thread.name for thread in threading.enumerate()]
    expected = small(recipe=RECIPE).fit_stream(
        cut(acts, 100), steps=50, buffer_tokens=200, callbacks=[lambda r: r.step == done]
    )
    assert everything(sae) == everything(expected)
    assert sae.stream_report_.steps == done


def test_a_generator_that_runs_dry_is_an_error_after_all_its_rows_were_used(acts):
    sae = small()
    with refuses("batches", "600 rows, enough for 4"):
        sae.fit_stream(iter(cut(acts, 100)), steps=9, buffer_tokens=200)
    assert sae.n_steps_ == 4
    short = small().fit_stream(iter(cut(acts, 100)), steps=4, buffer_tokens=200)
    assert short.n_steps_ == 4


def test_nobody_uses_the_batches_after_an_error_in_a_callback(acts):
    batches = iter(cut(planted(2000, 9), 100))

    def stop(report):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        small().fit_stream(batches, steps=9, buffer_tokens=200, callbacks=[stop])
    left = len(list(batches))
    assert 14 <= left <= 18


def test_a_store_can_be_streamed(acts, tmp_path):
    with usae.ActivationStore.create(tmp_path / "acts", dtype="float32") as store:
        store.append(acts)
    batches = store.batches(100, seed=1)
    first = next(batches)
    assert first["vit"].shape == (100, 17)
    rest = list(batches)
    whole = np.concatenate([first["vit"], *(batch["vit"] for batch in rest)])
    assert len(whole) == 600 and sorted(map(tuple, whole)) == sorted(map(tuple, acts["vit"]))
    again = next(store.batches(100, seed=1, position=100))
    np.testing.assert_array_equal(again["vit"], rest[0]["vit"])
    small().fit_stream(store.batches(128), steps=4, buffer_tokens=128)
