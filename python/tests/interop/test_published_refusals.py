"""Checkpoints that cannot be read: refused without running anything."""

import collections
import contextlib
import errno
import io
import os
import pickle
import shutil
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch

import usae
from reference import published
from support.published_checkpoints import N_CONCEPTS, STATISTICS, K, assert_same_function, saved
from support.refusals import refuses, refuses_place
from usae._files.torch_file import read
from usae.interop.published import load_published

pytestmark = pytest.mark.slow


def load_one(path_or_state, **options):
    return load_published({"siglip": path_or_state}, statistics={"siglip": STATISTICS["siglip"]}, k=K, **options)


class Runs:
    """Pickles as a call."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize(
    ("call", "arguments", "name"),
    [
        (os.system, ("touch {}",), "posix.system"),
        (eval, ("open({!r}, 'w')",), "__builtin__.eval"),
        (exec, ("open({!r}, 'w')",), "__builtin__.exec"),
        (open, ("{}", "w"), "io.open"),
        (getattr, ("text", "upper"), "__builtin__.getattr"),
        (shutil.copy, ("/etc/hostname", "{}"), "shutil.copy"),
    ],
)
@pytest.mark.parametrize("place", ["instead", "beside", "within"])
def test_a_pickle_that_would_run_something_is_refused_and_does_not(saes, tmp_path, call, arguments, name, place):
    trace = tmp_path / "trace"
    bad = Runs(call, *[argument.format(str(trace)) for argument in arguments])
    state = saes["siglip"].state_dict()
    content = {
        "instead": bad,
        "beside": {"epoch": bad, "model_state_dict": state},
        "within": {**state, "dictionary._weights": bad},
    }[place]
    torch.save(content, tmp_path / "bad.pth")
    with refuses(name, error=usae.CheckpointError):
        load_one(tmp_path / "bad.pth")
    assert not trace.exists()


def rewritten(path, new_path, changes):
    """The torch file with some entries replaced by the results of functions of their bytes, or left out (None)."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(new_path, "w") as new:
        for info in old.infolist():
            key = info.filename.split("/", 1)[1]
            data = changes[key](old.read(info)) if key in changes else old.read(info)
            if data is not None:
                new.writestr(info.filename, data)
    return new_path


def test_attributes_set_by_a_pickle_change_nothing_lasting(saes, tmp_path):
    path = saved(saes, tmp_path, lambda pair: pair.state_dict())["siglip"]
    hostile = (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x08\x00\x00\x00__name__X\x01\x00\x00\x00xsb0"
        b"ccollections\nOrderedDict\n}X\x05\x00\x00\x00itemsX\x01\x00\x00\x00xsb0}."
    )
    with pytest.raises(usae.CheckpointError):
        load_one(rewritten(path, tmp_path / "bad.pth", {"data.pkl": lambda _: hostile}))
    assert_same_function(
        load_published(saved(saes, tmp_path, lambda pair: pair.state_dict()), statistics=STATISTICS, k=K), saes
    )


def test_files_cut_anywhere_are_refused(saes, tmp_path):
    data = saved(saes, tmp_path)["siglip"].read_bytes()
    cut = tmp_path / "cut.pth"
    for length in [0, 1, 3, 30, 100, len(data) // 2, len(data) - 100, len(data) - 1]:
        cut.write_bytes(data[:length])
        with pytest.raises(usae.CheckpointError):
            load_one(cut)
    safetensors.torch.save_file(saes["siglip"].state_dict(), tmp_path / "whole.safetensors")
    data = (tmp_path / "whole.safetensors").read_bytes()
    for length in [8, 9, 50, len(data) // 2, len(data) - 1]:
        cut.write_bytes(data[:length])
        with pytest.raises(usae.CheckpointError):
            load_one(cut)


@pytest.mark.slow
def test_damaged_bytes_never_escape_as_another_error(saes, tmp_path):
    """In the pickle, whose checksum is made to fit again, and anywhere in the files."""
    torch_file = saved(saes, tmp_path, lambda pair: pair.state_dict())["siglip"]
    safetensors.torch.save_file(saes["siglip"].state_dict(), tmp_path / "whole.safetensors")
    with zipfile.ZipFile(torch_file) as archive:
        pickled = archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl")))
    random = np.random.default_rng(0)

    def damaged(data, within=None):
        data = bytearray(data)
        for position in random.integers(0, within or len(data), random.integers(1, 6)):
            data[position] = random.integers(0, 256)
        return bytes(data)

    bad = tmp_path / "bad.pth"
    for attempt in range(900):
        if attempt % 3 == 0:
            rewritten(torch_file, bad, {"data.pkl": lambda _: damaged(pickled)})
        elif attempt % 3 == 1:
            bad.write_bytes(damaged(torch_file.read_bytes()))
        else:
            bad.write_bytes(damaged((tmp_path / "whole.safetensors").read_bytes(), within=1000))  # its header
        with contextlib.suppress(usae.CheckpointError):  # a changed byte of an unused number does no harm
            load_one(bad)


def test_a_pickle_of_any_nesting_or_size_is_refused(saes, tmp_path):
    path = saved(saes, tmp_path, lambda pair: pair.state_dict())["siglip"]
    hostile = {
        "deep": b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b".",
        "memo": b"\x80\x02}r\xff\xff\xff\x7f.",
        "long": b"\x80\x04\x8e" + (2**60).to_bytes(8, "little") + b".",
        "empty": b"",
        "no end": b"\x80\x02}",
        "not a dictionary": b"\x80\x02K\x01.",
    }
    for name, data in hostile.items():
        bad = rewritten(path, tmp_path / "bad.pth", {"data.pkl": lambda _, data=data: data})
        with pytest.raises(usae.CheckpointError):
            load_one(bad)
            pytest.fail(name)


NESTED = b"\x80\x02}" + b"(" * 75_000 + b"t" * 75_000 + b"K\x01s."
BILLION = b"\x80\x02]q\x00" + b"".join(b"h%c]q%c(h%ch%ce" % (n, n + 1, n, n) for n in range(100)) + b"."


@pytest.mark.parametrize(
    "data",
    [
        NESTED,
        b"\x80\x02}r" + (2**28).to_bytes(4, "little") + b".",
        b"\x80\x02}q\x00(X\x01\x00\x00\x00ah\x00u.",  # a dictionary in itself
        b"\x80\x02}]q\x00h\x00as.",
        BILLION,
        b"\x80\x02}" + BILLION[2:-1] + b"K\x01s.",
        b"\x80\x02(" + b"ccollections\nOrderedDict\n)R" * 1000 + b"t.",
        b"\x80\x02ccollections\nOrderedDict\n]]K\x01aK\x01aa\x85R.",
        b"\x80\x02}\x8b\xff\xff\xff\x7f.",
        b"\x80\x02}L" + b"9" * 5000 + b"L\n.",
        b"\x80\x02}I" + b"9" * 100 + b"\nK\x01s.",
        b"\x80\x02\x8f(K\x01\x90.",  # a set
        b"\x80\x02}(K\x01u.",
        b"\x80\x02}0.",
        b"\x80\x02}00.",
        b"\x80\x02h\x05.",
        b"\x80\x02t.",
        b"\x80\x02}K\x01b.",
        b"\x80\x02}Q.",
        b"\x80\x02(iposix\nsystem\n.",
        b"\x80\x02c\n.",
    ],
    ids=range(21),
)
def test_a_hostile_pickle_is_refused_without_recursion_and_in_little_memory(saes, tmp_path, data):
    path = saved(saes, tmp_path, lambda pair: pair.state_dict())["siglip"]
    bad = rewritten(path, tmp_path / "bad.pth", {"data.pkl": lambda _: data})
    with refuses(bad, error=usae.CheckpointError):
        load_one(bad)


def test_many_names_of_one_tensor_take_no_more_than_the_file_can_hold(saes, tmp_path):
    state = saes["siglip"].state_dict()
    tied = {f"model {i}": state for i in range(4)}
    torch.save(tied, tmp_path / "tied.pth")
    statistics = dict.fromkeys(tied)
    assert list(load_published(tmp_path / "tied.pth", statistics=statistics, k=K).n_features_in_) == list(tied)
    many = {f"model {i}": state for i in range(6000)}
    torch.save(many, tmp_path / "many.pth")
    with refuses(tmp_path / "many.pth", error=usae.CheckpointError):
        load_published(tmp_path / "many.pth", statistics=dict.fromkeys(many), k=K)


def test_a_safetensors_file_that_is_longer_than_its_tensors_is_refused_before_it_is_read(saes, tmp_path):
    safetensors.torch.save_file(saes["siglip"].state_dict(), tmp_path / "long.safetensors")
    os.truncate(tmp_path / "long.safetensors", 2**42)  # takes no place on the disk
    with refuses(tmp_path / "long.safetensors", error=usae.CheckpointError):
        load_one(tmp_path / "long.safetensors")


def test_only_ordinary_files_are_read(saes, tmp_path):
    os.mkfifo(tmp_path / "fifo.pth")
    for path in (tmp_path / "fifo.pth", tmp_path, "/dev/zero"):
        with refuses(path, error=usae.CheckpointError):
            load_one(path)


def forged(tmp_path, shape, strides, offset=0, elements=6, storage="FloatStorage"):
    """A torch file whose encoder weight is a view of `elements` numbers, written by hand."""
    state = collections.OrderedDict()

    class Tensor:
        def __reduce__(self):
            return _rebuild_tensor_v2, (Storage(), offset, shape, strides, False, collections.OrderedDict())

    class Storage:
        pass

    def _rebuild_tensor_v2():
        pass

    state["encoder.final_block.0.weight"] = Tensor()

    class Pickler(pickle._Pickler):
        def persistent_id(self, thing):
            if isinstance(thing, Storage):
                return ("storage", storage, "0", "cpu", elements)

        def save_global(self, thing, name=None):
            if thing is _rebuild_tensor_v2:
                self.write(b"ctorch._utils\n_rebuild_tensor_v2\n")
            else:
                super().save_global(thing, name)

        dispatch = {**pickle._Pickler.dispatch, type(_rebuild_tensor_v2): save_global}

    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump(state)
    path = tmp_path / "forged.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", buffer.getvalue())
        archive.writestr("x/data/0", np.arange(elements, dtype=np.float32).tobytes())
    return path


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((2, 4), (4, 1), 0),  # 8 elements of 6
        ((2, 3), (3, 1), 1),
        ((2, 3), (1000, 1), 0),
        ((1, 1), (1, 1), 2**40),
        ((2**20, 2**20), (0, 0), 0),  # an expanded view of 4 TB
        ((2**40, 2**40), (2**40, 1), 0),
        ((-1, 3), (3, 1), 0),
        ((2, 3), (-3, 1), 3),
        ((2, 3), (3, 1), -1),
        ((2, 3), (3,), 0),
        ((0, 3), (3, 1), 0),
        ((2.0, 3), (3, 1), 0),
    ],
)
def test_a_view_outside_its_storage_is_refused(tmp_path, shape, strides, offset):
    path = forged(tmp_path, shape, strides, offset)
    with pytest.raises(usae.CheckpointError):
        read(path)["encoder.final_block.0.weight"].to_float32("weight")


def test_a_view_inside_its_storage_is_read(tmp_path):
    weight = read(forged(tmp_path, (2, 2), (1, 3), 1))["encoder.final_block.0.weight"]
    np.testing.assert_array_equal(weight.to_float32("weight"), [[1, 4], [2, 5]])


def test_a_type_that_is_no_float_is_refused(tmp_path):
    with refuses("weight", error=usae.CheckpointError):
        read(forged(tmp_path, (1, 2), (3, 1), storage="LongStorage"))["encoder.final_block.0.weight"].to_float32("weight")


def test_compressed_archives_are_refused(saes, tmp_path):
    path = saved(saes, tmp_path)["siglip"]
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "small.pth", "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
    with refuses(tmp_path / "small.pth", error=usae.CheckpointError):
        load_one(tmp_path / "small.pth")


def test_foreign_files_are_refused_with_what_to_do(saes, tmp_path):
    state = saes["siglip"].state_dict()
    torch.save(state, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    with refuses(tmp_path / "legacy.pth", error=usae.CheckpointError):
        load_one(tmp_path / "legacy.pth")
    (tmp_path / "bare.pkl").write_bytes(pickle.dumps({"a": 1}))
    with refuses(tmp_path / "bare.pkl", error=usae.CheckpointError):
        load_one(tmp_path / "bare.pkl")
    (tmp_path / "text.pth").write_text("weights, perhaps")
    with refuses(tmp_path / "text.pth", error=usae.CheckpointError):
        load_one(tmp_path / "text.pth")
    with zipfile.ZipFile(tmp_path / "any.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with refuses(tmp_path / "any.zip", error=usae.CheckpointError):
        load_one(tmp_path / "any.zip")
    torch.save(saes["siglip"], tmp_path / "module.pth")  # the module itself, a pickle of classes
    with refuses(tmp_path / "module.pth", error=usae.CheckpointError):
        load_one(tmp_path / "module.pth")
    with refuses_place(tmp_path / "nothing.pth", errno.ENOENT):
        load_one(tmp_path / "nothing.pth")


def state_without(state, *keys, **changes):
    result = {key: value for key, value in state.items() if key not in keys}
    return {**result, **{key.replace("__", "."): value for key, value in changes.items()}}


def test_other_architectures_are_refused(saes):
    state = dict(saes["siglip"].state_dict())
    running = ["encoder.final_block.1.running_mean", "encoder.final_block.1.running_var"]
    with refuses("encoder.final_block.1.running_mean", error=usae.CheckpointError):
        load_one(state_without(state, *running))  # LayerNorm
    with refuses("encoder.mlp_blocks.0.0.weight", error=usae.CheckpointError):
        load_one({**state, "encoder.mlp_blocks.0.0.weight": torch.zeros(24, 24)})
    with refuses("dictionary.multiplier", error=usae.CheckpointError):
        load_one({**state, "dictionary.multiplier": torch.tensor(0.5)})
    load_one({**state, "dictionary.multiplier": torch.tensor(0.0)})
    with refuses("dictionary.dictionary", error=usae.CheckpointError):
        load_one({**state_without(state, "dictionary._weights"), "dictionary.dictionary": torch.zeros(N_CONCEPTS, 24)})
    with refuses("scheduler", error=usae.CheckpointError):
        load_one({"model_state_dict": state, "scheduler": {}})


@pytest.mark.parametrize("key", list(published.TopKSAE(4, 8, 2).state_dict()))
def test_missing_and_misshapen_tensors_are_named(saes, key):
    state = dict(saes["siglip"].state_dict())
    if key.endswith("num_batches_tracked"):
        load_one(state_without(state, key))
        return
    with refuses(key, error=usae.CheckpointError):
        load_one(state_without(state, key))
    for bad in [torch.zeros(N_CONCEPTS + 1, 24), torch.zeros(3), torch.zeros(N_CONCEPTS, 24, 1), torch.zeros(())]:
        with pytest.raises(usae.CheckpointError):
            load_one({**state, key: bad})
    for value in (float("nan"), float("inf"), 1e300):
        with refuses("models['siglip']", "NaN or infinity", error=usae.CheckpointError):
            load_one({**state, key: torch.full(state[key].shape, value, dtype=torch.float64)})
    with pytest.raises(usae.CheckpointError):
        load_one({**state, key: torch.ones(state[key].shape, dtype=torch.int64)})


def test_a_negative_running_variance_is_refused(saes):
    state = dict(saes["siglip"].state_dict())
    state["encoder.final_block.1.running_var"] = -state["encoder.final_block.1.running_var"]
    with refuses("bn_running_var", error=usae.CheckpointError):
        load_one(state)


def test_models_of_unequal_size_are_refused(saes):
    torch.manual_seed(0)
    models = {"siglip": saes["siglip"].state_dict(), "dinov2": published.TopKSAE(13, N_CONCEPTS + 4, K).state_dict()}
    with refuses("models", error=usae.CheckpointError):
        load_published(models, statistics=STATISTICS, k=K)


def test_bad_arguments_are_refused(saes, tmp_path):
    models = {j: pair.state_dict() for j, pair in saes.items()}
    for statistics, argument, got in [
        (None, "statistics", "NoneType"),
        ({"siglip": (0, 1)}, "statistics", "none for 'dinov2'"),
        ({**STATISTICS, "vit": (0, 1)}, "statistics", ""),
        ({**STATISTICS, "siglip": 3.0}, "statistics['siglip']", ""),
        ({**STATISTICS, "siglip": (0, 1, 2)}, "statistics['siglip']", ""),
        ({**STATISTICS, "siglip": (0, [1, 2])}, "statistics['siglip']", ""),
        ({**STATISTICS, "siglip": (0, float("nan"))}, "statistics['siglip']", "(0, nan)"),
        ({**STATISTICS, "siglip": (0, -1)}, "statistics['siglip']", "(0, -1)"),
        ({**STATISTICS, "siglip": ("a", "b")}, "statistics['siglip']", ""),
    ]:
        with refuses(argument, got):
            load_published(models, statistics=statistics, k=K)
    with refuses("recipe", "Recipe(name='default'"):
        load_published(models, statistics=STATISTICS, k=K, recipe=usae.recipes.default())
    with refuses("k", "61"):
        load_published(models, statistics=STATISTICS, k=N_CONCEPTS + 1)
    with refuses("models", "an empty mapping"):
        load_published({}, statistics={}, k=K)
    with refuses("models", "int"):
        load_published(3, statistics=STATISTICS, k=K)
    with refuses("models['siglip']", "int"):
        load_published({"siglip": 3}, statistics={"siglip": None}, k=K)
    path = saved(saes, tmp_path)["siglip"]
    with refuses(path, error=usae.CheckpointError):
        load_published(path, statistics=STATISTICS, k=K)
