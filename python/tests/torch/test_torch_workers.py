"""Pictures that threads read ahead: the same results to the bit, in order, and nothing left running."""

import gc
import itertools
import signal
import sqlite3
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset

import usae
from support.extraction import IDENTITY, Stopping, networks
from support.pictures import contents
from support.refusals import refuses
from usae.torch import Model, _feeder, batches, extract, fit

WAYS = [{"num_workers": n, "prefetch": ahead} for n in (1, 3) for ahead in (0, 1, 5)] + [{"num_workers": 2}]
WITHOUT = {"num_workers": 0}
N = 9


@pytest.fixture(scope="module")
def pictures():
    """Of sizes that decode in different times, the slowest first."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (400 if n % 4 == 0 else 20, 30 + n, 3), np.uint8) for n in range(N)]


@pytest.fixture(scope="module")
def models():
    return networks()


@pytest.fixture
def folder(pictures, tmp_path):
    path = tmp_path / "pictures"
    path.mkdir()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(path / f"{number}.png")
    return path


def left_running():
    return [thread for thread in threading.enumerate() if thread.name.startswith("usae-pictures")]


def same(given, expected):
    return given.keys() == expected.keys() and all(np.array_equal(x, expected[name]) for name, x in given.items())


def contents_of(store):
    return {name: np.asarray(x[:]) for name, x in store.items()}


class Examples(Dataset):
    """A data set, with what is to be done to an example before it is given."""

    def __init__(self, items, act=lambda number, item: item):
        self.items, self.act = items, act

    def __len__(self):
        return len(self.items)

    def __getitem__(self, number):
        return self.act(number, self.items[number]), "a label"


class Iterated:
    """Can be iterated over again and again, and is no list."""

    def __init__(self, begin):
        self.begin = begin

    def __iter__(self):
        return self.begin()


# --- The same ---------------------------------------------------------------------------------------------------------


def test_workers_give_the_same_bits_in_order_whatever_they_read(models, pictures, folder):
    files = sorted(folder.iterdir())
    sources = [
        lambda: folder,
        lambda: files,
        lambda: iter(files),
        lambda: pictures,
        lambda: (picture for picture in pictures),
        lambda: [Image.open(file) for file in files],
        lambda: (Image.open(file) for file in files),
        lambda: [file.open("rb") for file in files],
        lambda: [file.read_bytes() for file in files],
        lambda: [bytearray(file.read_bytes()) for file in files],
        lambda: Examples(pictures),
        lambda: Examples([Image.open(file) for file in files]),
        lambda: Examples(files),
        lambda: [Image.open(files[0]) for _ in range(1)] * N,
        lambda: [*files[:3], *pictures[3:6], *(Image.open(file) for file in files[6:])],
        lambda: np.stack([picture[:20, :30] for picture in pictures]),
        lambda: torch.from_numpy(np.stack([picture[:20, :30] for picture in pictures])),
    ]
    for number, source in enumerate(sources):
        expected = extract(models, source(), batch_size=2, **WITHOUT)
        for way in WAYS:
            assert same(extract(models, source(), batch_size=2, **way), expected), (number, way)
    assert not left_running()


def test_masks_and_crops_are_the_same_with_workers(models, folder):
    mask = np.random.default_rng(0).random((N, 16)) < 0.5
    expected = extract(models, folder, batch_size=2, crop=True, mask=mask, **WITHOUT)
    for way in WAYS:
        acts = extract(models, folder, batch_size=2, crop=True, mask=mask, **way)
        assert same(dict(acts), dict(expected)) and np.array_equal(acts.mask, expected.mask)


def test_an_array_that_an_iterable_changes_after_giving_it_is_read_before(models, pictures):
    buffer = np.empty((20, 30, 3), np.uint8)

    def filled():
        for picture in pictures:
            buffer[:] = picture[:20, :30]
            yield buffer

    def on_pillow():
        image = Image.new("RGB", (30, 20))
        for picture in pictures:
            image.paste(Image.fromarray(picture[:20, :30]))
            yield image

    expected = extract(models, [picture[:20, :30] for picture in pictures], **WITHOUT)
    for way, begin in itertools.product(WAYS, (filled, on_pillow)):
        assert same(extract(models, begin(), batch_size=2, **way), expected)
        assert same(extract(models, Iterated(begin), batch_size=2, **way), expected)


def test_a_data_set_is_read_by_one_thread_in_order_so_that_what_it_draws_is_the_same(models, pictures):
    def shifted(number, picture):
        return np.roll(picture, int(torch.randint(0, 20, ())), axis=0)

    def drawn(**way):
        torch.manual_seed(3)
        return extract(models, Examples(pictures, shifted), batch_size=2, **way)

    expected = drawn(**WITHOUT)
    assert all(same(drawn(**way), expected) for way in WAYS)


def test_a_data_set_that_works_in_the_callers_thread_alone_is_read_there(models, pictures):
    base = sqlite3.connect(":memory:")
    base.execute("create table pictures (data blob)")
    base.executemany("insert into pictures values (?)", [(contents(Image.fromarray(x), format="PNG"),) for x in pictures])

    def row(number, _):
        return base.execute("select data from pictures where rowid = ?", (number + 1,)).fetchone()[0]

    assert same(extract(models, Examples(range(N), row), num_workers=2), extract(models, pictures, **WITHOUT))


def test_a_store_is_the_same_with_workers_and_continued_by_them(models, folder, pictures, tmp_path):
    whole = extract(models, folder, batch_size=2, store=tmp_path / "whole", shard_images=4, **WITHOUT)
    files = [str(file.relative_to(folder)) for file in sorted(folder.iterdir())]
    for number, way in enumerate(WAYS):
        store = extract(models, folder, batch_size=2, store=tmp_path / f"{number}", shard_images=4, **way)
        assert list(store.images) == list(whole.images) == files and same(contents_of(store), contents_of(whole))
        place = tmp_path / f"stopped {number}"
        with pytest.raises(KeyboardInterrupt):
            extract(models, Stopping(pictures, 6), batch_size=2, store=place, shard_images=2, **way)
        assert not left_running()
        continued = extract(models, pictures, batch_size=2, store=place, shard_images=2, **way)
        assert len(continued.images) == N and same(contents_of(continued), contents_of(whole))


def test_training_on_a_stream_is_the_same_with_workers(models, pictures):
    recipe = usae.recipes.default(batch_size=64)
    trained = [
        fit(usae.UniversalSAE(16, 4, recipe=recipe, seed=1), models, pictures, steps=3, buffer_tokens=64, batch_size=2, **way)
        for way in ({"num_workers": 0}, {"num_workers": 2})
    ]
    assert np.array_equal(*[sae.dictionary("fine") for sae in trained])
    assert not left_running()


# --- Errors -----------------------------------------------------------------------------------------------------------


def test_a_picture_that_cannot_be_read_is_named_in_its_place(models, folder):
    (folder / "4.png").write_bytes(b"no picture")
    for way in (WITHOUT, *WAYS):
        pieces = batches(models, folder, batch_size=2, **way)
        assert [len(next(pieces)["fine"]) for _ in range(2)] == [2, 2]
        with refuses("images", f"'{folder / '4.png'}'"):
            next(pieces)
        assert not left_running()


def test_pictures_are_left_out_alike_with_workers(models, folder, pictures):
    for number in (0, 5, 8):
        (folder / f"{number}.png").write_bytes(b"no picture")

    def failing(number, picture):
        if number in (0, 5, 8):
            raise OSError("image file is truncated")
        return picture

    for source in (folder, Examples(pictures, failing)):
        found = []
        for way in (WITHOUT, *WAYS):
            skipped = []
            with pytest.warns(UserWarning, match="3 of 9"):
                acts = extract(models, source, batch_size=2, on_error="skip", skipped=skipped, **way)
            found.append((acts, skipped))
        assert all(same(acts, found[0][0]) and skipped == found[0][1] for acts, skipped in found)
        assert [picture.number for picture in found[0][1]] == [0, 5, 8]
        assert not any("<" in picture.reason for picture in found[0][1])  # the number of an open file, which changes


def test_an_error_of_the_iterable_comes_after_the_pictures_before_it(models, pictures):
    def some():
        yield from pictures[:5]
        raise RuntimeError("the disk is gone")

    for way, begin in itertools.product((WITHOUT, *WAYS), (lambda: some(), lambda: Iterated(some))):
        pieces, n = batches(models, begin(), batch_size=2, **way), 0
        with refuses("images[5]", "RuntimeError: the disk is gone") as error:
            for piece in pieces:
                n += len(piece["fine"])
        assert n == 4 and isinstance(error.value.__cause__, RuntimeError)
        assert not left_running()


def test_numbers_of_workers_and_batches_are_checked_when_they_are_given(models, pictures, tmp_path):
    for bad, argument in (
        (-1, "num_workers"),
        (1.5, "num_workers"),
        (True, "num_workers"),
        (-1, "prefetch"),
        ("2", "prefetch"),
    ):
        with refuses(argument, repr(bad)):
            batches(models, pictures, **{argument: bad})
        with refuses(argument, repr(bad)):
            extract(models, pictures, store=tmp_path / "store", **{argument: bad})
    assert not (tmp_path / "store").exists()


# --- Reading ahead ----------------------------------------------------------------------------------------------------


def test_pictures_are_read_while_the_network_computes(pictures):
    fifth_is_read = threading.Event()

    class Waiting(nn.Module):
        def forward(self, images):
            assert images.abs().sum() == 0 or fifth_is_read.wait(60)  # black ones only show the shape
            return images

    def noted(number, picture):
        if number == 4:
            fifth_is_read.set()
        return picture

    model = Model(Waiting(), "", size=8, channels_last=False, **IDENTITY)
    assert len(extract({"net": model}, Examples(pictures, noted), batch_size=2, num_workers=1)["net"]) == N


def test_an_iterator_is_taken_no_further_than_the_batch_unless_prefetch_says_so(models, folder):
    def begin(read):
        for file in sorted(folder.iterdir()):
            read.append(file)
            yield file

    for options, expected in (({}, 2), ({"prefetch": 2}, 5), ({"num_workers": 0, "prefetch": 2}, 2)):
        read = []
        pieces = batches(models, begin(read), batch_size=2, **{"num_workers": 2, **options})
        assert read == []
        next(pieces)
        assert len(read) == expected
        pieces.close()


def test_no_more_pictures_than_asked_for_wait_in_memory(models, pictures):
    read = []
    example = Examples(pictures, lambda number, picture: read.append(number) or picture)
    pieces = batches(models, example, batch_size=2, num_workers=3, prefetch=1)
    next(pieces)
    pieces.close()
    assert len(read) <= 4


# --- Nothing is left --------------------------------------------------------------------------------------------------


def test_threads_end_with_the_generator_however_it_ends(models, folder):
    pieces = batches(models, folder, batch_size=2, num_workers=2)
    assert not left_running()
    next(pieces)
    assert left_running()
    pieces.close()
    assert not left_running()
    pieces = batches(models, folder, batch_size=2, num_workers=2)
    next(pieces)
    del pieces
    gc.collect()
    assert not left_running()


def test_ctrl_c_and_errors_in_a_network_leave_nothing_running(folder):
    class Ending(nn.Module):
        error = None

        def forward(self, images):
            if images.abs().sum() > 0:
                raise self.error
            return images

    model = Model(Ending(), "", size=8, channels_last=False, **IDENTITY)
    for model.module.error in (KeyboardInterrupt(), MemoryError(), RuntimeError("sizes differ")):
        with pytest.raises((KeyboardInterrupt, MemoryError, usae.InvalidInputError)) as caught:
            extract({"net": model}, folder, batch_size=2, num_workers=2)
        assert caught.value.__traceback__ is not None and not left_running()


PROGRAM = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a shell it is ignored
from torch import nn
from usae.torch import Model, extract

class Slow(nn.Module):
    def forward(self, images):
        if images.abs().sum() > 0:
            print("computing", flush=True)
            time.sleep(60)
        return images

extract({"net": Model(Slow(), "", size=8, mean=0, std=1, channels_last=False)}, sys.argv[1], batch_size=2, num_workers=2)
"""


@pytest.mark.slow
def test_a_process_ends_at_once_by_ctrl_c(folder):
    with subprocess.Popen([sys.executable, "-c", PROGRAM, folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"computing\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT and said.rstrip().endswith(b"KeyboardInterrupt")


def test_threads_of_pytorch_are_as_they_were_for_all_but_the_workers(models, folder):
    of_others = []

    def note():
        of_others.append(torch.get_num_threads())

    before = torch.get_num_threads()
    of_workers = []
    try:
        torch.set_num_threads(2)
        note_in_worker = Examples(sorted(folder.iterdir()), lambda n, file: of_workers.append(torch.get_num_threads()) or file)
        for piece in batches(models, note_in_worker, batch_size=2, num_workers=2):
            other = threading.Thread(target=note)
            other.start()
            other.join()
            assert torch.get_num_threads() == 2 and len(piece) == 2
    finally:
        torch.set_num_threads(before)
    assert set(of_others) == {2} and set(of_workers) == {1}


def test_the_default_leaves_cores_to_networks_on_the_processor(models, monkeypatch):
    on_gpu = Model(nn.Identity(), "", size=8, **IDENTITY)
    monkeypatch.setattr(Model, "device", property(lambda self: torch.device("cuda" if self is on_gpu else "cpu")))
    for cores, on_cpu, beside_gpu in ((1, 0, 1), (2, 1, 2), (4, 2, 4), (64, 8, 16)):
        monkeypatch.setattr(_feeder._usae, "threads", lambda cores=cores: cores)
        assert _feeder.Feeding.of(None, None, models, []).n_workers == on_cpu
        assert _feeder.Feeding.of(None, None, {**models, "gpu": on_gpu}, []).n_workers == beside_gpu
