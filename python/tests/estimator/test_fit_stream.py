"""`UniversalSAE.fit_stream`: batches as they come, through a bounded buffer."""

import threading
import time

import numpy as np
import pytest
from conftest import RECIPE, everything, planted

import usae
from usae._data.shuffle_buffer import ShuffleBuffer


def cut(acts, size):
    n = len(next(iter(acts.values())))
    return [{name: x[start : start + size] for name, x in acts.items()} for start in range(0, n, size)]


def small(**options):
    return usae.UniversalSAE(32, 4, **{"recipe": RECIPE, "seed": 3} | options)


def numbered(n):
    return {"a": np.arange(n, dtype=np.float32)[:, None], "b": -np.arange(n, dtype=np.float32)[:, None]}


def drawn(batches, capacity, batch_size, steps, seed=0):
    buffer = ShuffleBuffer(batches, capacity)
    rows = [batch["a"].array[:, 0].astype(int) for batch, _ in buffer.draw(seed, batch_size, steps)]
    return buffer, np.array(rows).reshape(steps, batch_size)


# --- The buffer -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
@pytest.mark.parametrize("capacity", [20, 64, 1000])
def test_every_row_is_drawn_once_whatever_the_size_of_batches_and_buffer(size, capacity):
    buffer, rows = drawn(iter(cut(numbered(200), size)), capacity, batch_size=20, steps=10)
    assert sorted(rows.ravel()) == list(range(200)) and buffer.tokens_read == 200 and buffer.epochs == 1
    with pytest.raises(usae.InvalidInputError, match=r"ended after 200 rows, enough for 10 of 11 steps of 20 rows"):
        drawn(iter(cut(numbered(200), size)), capacity, batch_size=20, steps=11)


def test_how_rows_are_cut_into_batches_does_not_matter_and_the_seed_does():
    results = [drawn(iter(cut(numbered(500), size)), 100, 10, 50)[1] for size in (1, 33, 500)]
    assert all((result == results[0]).all() for result in results)
    assert (drawn(iter(cut(numbered(500), 33)), 100, 10, 50, seed=1)[1] != results[0]).any()


def test_rows_of_models_stay_together():
    for batch, rows in ShuffleBuffer(cut(numbered(90), 7), 40).draw(0, 16, 50):
        assert rows is None and (batch["a"].array == -batch["b"].array).all()


def test_rows_are_mixed_with_all_of_the_buffer():
    _, rows = drawn(iter(cut(numbered(10_000), 10)), 1000, 50, 150)
    assert rows[0].max() > 900 and rows[0].min() < 100 and len(np.unique(rows[0] // 100)) > 7
    # A row that is drawn with probability 1/20 stays for 20 batches on average, in which 1,000 rows come.
    ages = 1000 + 50 * np.arange(150)[:, None] - rows
    assert 500 < np.median(ages[50:]) < 1000


def test_a_list_is_gone_through_again_and_again_and_its_whole_is_the_buffer():
    buffer, rows = drawn(cut(numbered(100), 30), 1000, 10, 35)
    assert buffer.epochs == 5 and buffer.tokens_read == 100 + 34 * 10
    counts = np.bincount(rows.ravel(), minlength=100)
    assert counts.sum() == 350 and counts.min() >= 1 and counts.max() <= 5
    assert buffer.sample["a"].n_tokens == 100


def test_only_what_is_needed_is_taken_from_the_batches():
    taken = []
    batches = (taken.append(number) or batch for number, batch in enumerate(cut(numbered(1000), 10)))
    buffer = ShuffleBuffer(batches, 100)
    assert taken == list(range(10))
    for _ in buffer.draw(0, 20, 6):
        pass
    assert taken == list(range(20))


# --- Training ---------------------------------------------------------------------------------------------------------------


def test_the_same_batches_give_the_same_bits_whatever_the_timing_and_the_threads():
    acts = planted(1500, seed=2)

    def slow():
        for batch in cut(acts, 50):
            time.sleep(0.003)
            yield batch

    options = {"steps": 8, "buffer_tokens": 256}
    expected = everything(small().fit_stream(cut(acts, 50), **options))
    for batches, slowly in ((slow(), False), (cut(acts, 50), True), (iter(cut(acts, 120)), False)):
        callbacks = [lambda report: time.sleep(0.003)] if slowly else []
        sae = small(n_threads=1 if slowly else 2).fit_stream(batches, callbacks=callbacks, **options)
        assert everything(sae) == expected
    assert everything(small(seed=4).fit_stream(cut(acts, 50), **options)) != expected


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
    with pytest.raises(usae.InvalidInputError, match="buffer_tokens must be an integer from 128"):
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
    with pytest.raises(usae.InvalidInputError, match="steps must be given, because a stream does not tell its length"):
        small().fit_stream(cut(acts, 50))


def test_the_report_tells_who_waited_for_whom(acts):
    trained_two = threading.Event()

    def starving():  # the batch after the buffer's comes only when training has nothing left to do
        batches = cut(acts, 128)
        yield from batches[:1]
        assert trained_two.wait(60)
        time.sleep(0.05)
        yield from batches[1:]

    sae = small().fit_stream(starving(), steps=3, buffer_tokens=128, callbacks=[lambda report: trained_two.set()])
    report = sae.stream_report_
    assert isinstance(report, usae.StreamReport)
    assert (report.steps, report.tokens, report.tokens_read, report.epochs) == (3, 384, 384, 1)
    assert report.waited_for_data > 0 and 0 < report.share_waiting_for_data <= 1
    assert report.tokens_per_second == report.tokens / report.seconds
    idle = small().fit_stream(cut(acts, 600), steps=8, callbacks=[lambda report: time.sleep(0.01)]).stream_report_
    assert idle.waited_for_training > 0 and 0 < idle.share_waiting_for_training <= 1
    assert "tokens/s; training waited for data" in idle.summary()
    assert small().fit(acts, steps=2).stream_report_ is None


# --- What goes wrong --------------------------------------------------------------------------------------------------------


def test_bad_batches_before_the_first_step_leave_the_object_as_it_was(trained, acts):
    good = cut(acts, 50)
    for batches, message in [
        ([], "batches must hold at least one batch, got none"),
        (iter([]), "at least one batch"),
        (acts, "batches must be an iterable of mappings .* got dict; fit.acts. takes one mapping"),
        (7, "batches must be an iterable of mappings .* got int"),
        ([None], r"batches\[0\] must be a mapping"),
        ([good[0], None], r"batches\[1\] must be a mapping"),
        ([good[0], good[0] | {"vit": good[0]["vit"][:, :5]}], r"batches\[1\]\['vit'\] must have 17 columns"),
        ([good[0], {"vit": good[0]["vit"]}], r"batches\[1\] must hold every model"),
        ([good[0], good[0] | {"vit": good[0]["vit"][:9]}], r"batches\[1\]: every model must have the same number"),
        (
            [good[0], good[0] | {"vit": good[0]["vit"].astype(float)}],
            r"must have float32 elements, as the first .* got float64",
        ),
        ([good[0], good[0] | {"vit": good[0]["vit"] * np.nan}], r"batches\[1\]\['vit'\] must be finite, .* row 0, column 0"),
    ]:
        sae = small()
        with pytest.raises(usae.InvalidInputError, match=message):
            sae.fit_stream(batches, steps=5)
        assert not hasattr(sae, "history_")


def test_an_error_later_comes_when_its_batch_is_reached_and_what_was_learned_is_kept(acts):
    def failing():
        yield from cut(acts, 100)
        raise ConnectionError("the data is gone")

    before = threading.active_count()
    sae = small()
    with pytest.raises(ConnectionError, match="the data is gone"):
        sae.fit_stream(failing(), steps=50, buffer_tokens=200)
    done = sae.n_steps_
    assert done == (600 - 200) // 128 + 1 and threading.active_count() == before
    expected = small(recipe=RECIPE).fit_stream(
        cut(acts, 100), steps=50, buffer_tokens=200, callbacks=[lambda r: r.step == done]
    )
    assert everything(sae) == everything(expected)
    assert sae.stream_report_.steps == done


def test_a_generator_that_runs_dry_is_an_error_after_all_its_rows_were_used(acts):
    sae = small()
    with pytest.raises(usae.InvalidInputError, match=r"ended after 600 rows, enough for 4 of 9 steps of 128 rows; give a list"):
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
