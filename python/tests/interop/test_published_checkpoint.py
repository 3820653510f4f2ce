"""Checkpoints of the published code: read without torch, without running anything, and to the architecture's own numbers."""

import collections
import contextlib
import copy
import io
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch

import usae
from reference import problems, published
from usae._files.torch_file import read
from usae.interop.published import load_published

N_CONCEPTS, K = 60, 8
WIDTHS = {"siglip": 24, "dinov2": 13}
STATISTICS = {"siglip": (-0.0305, 2.2315), "dinov2": (0.0329, 2.4741)}  # of the published runs


@pytest.fixture(scope="module")
def saes():
    """The published architecture with random weights and running statistics that are not those of its birth."""
    torch.manual_seed(0)
    result = {}
    for j, width in WIDTHS.items():
        pair = published.TopKSAE(width, N_CONCEPTS, K)
        norm = pair.encoder.final_block[1]
        with torch.no_grad():
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(0, 0.2)
            norm.running_mean.normal_(0, 0.2)
            norm.running_var.uniform_(0.1, 2)
            norm.num_batches_tracked += 12345
        result[j] = pair.eval()
    return result


def activations(n_tokens=100):
    random = np.random.default_rng(0)
    return {j: np.float32(random.normal(mean, std, (n_tokens, WIDTHS[j]))) for j, (mean, std) in STATISTICS.items()}


def training_checkpoint(pair, steps=2):
    """What the published code's `save_checkpoint` saves, optimiser state and a learning rate that is a tensor included."""
    optimizer = torch.optim.AdamW(pair.parameters(), lr=3e-4)
    rates = torch.linspace(1e-6, 3e-4, 10)
    before = {name: value.clone() for name, value in pair.state_dict().items()}
    for step in range(steps):
        pair.decode(pair.encode(torch.randn(16, pair.encoder.final_block[0].in_features))[1]).sum().backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] = rates[step]
    pair.load_state_dict(before)
    rate = optimizer.param_groups[0]["lr"]
    state = {"model_state_dict": pair.state_dict(), "optimizer_state_dict": optimizer.state_dict()}
    return {"epoch": 29, **state, "learning_rate": rate}


def assert_same_function(sae, saes):
    """Codes and reconstructions equal the architecture's own, from every model to every model."""
    for i, x in activations().items():
        mean, std = STATISTICS[i]
        standard = (torch.from_numpy(x) - mean) / (std + 1e-5)
        with torch.no_grad():
            pre, codes = copy.deepcopy(saes[i]).double().encode(standard.double())
        found = sae.encode(x, i)
        # Rounding of d multiply-adds of terms near 1, times BatchNorm's gain of up to 1.5 / sqrt(0.1).
        bound = 4 * problems.UNIT * 24 * 10 * 5
        np.testing.assert_allclose(sae.preactivations(x, i), pre.numpy(), rtol=0, atol=bound)
        # torch.topk fills up with zeros where fewer than k codes are positive: only positive entries mean anything.
        np.testing.assert_allclose(found.to_dense(), codes.numpy(), rtol=0, atol=bound)
        assert (found.to_dense() > 0).sum() == (codes > 0).sum()
        for j, pair in saes.items():
            mean, std = STATISTICS[j]
            with torch.no_grad():
                expected = copy.deepcopy(pair).double().decode(codes).numpy() * (std + 1e-5) + mean
            np.testing.assert_allclose(sae.decode(found, j), expected, rtol=0, atol=10 * bound)
            np.testing.assert_allclose(sae.reconstruct(x, i, j), expected, rtol=0, atol=10 * bound)


def saved(saes, folder, content=training_checkpoint, suffix=".pth"):
    paths = {}
    for j, pair in saes.items():
        paths[j] = folder / f"uni_{j}_checkpoint_29{suffix}"
        torch.save(content(pair), paths[j])
    return paths


# --- What can be read -------------------------------------------------------------------------------------------------


def test_training_checkpoints_give_the_architectures_codes_and_reconstructions(saes, tmp_path):
    sae = load_published(saved(saes, tmp_path), statistics=STATISTICS, k=K)
    assert sae.n_features_in_ == WIDTHS
    assert sae.recipe_.name == "published"
    assert_same_function(sae, saes)


def test_a_bare_state_dict_is_read(saes, tmp_path):
    paths = saved(saes, tmp_path, lambda pair: pair.state_dict(), ".pt")
    assert_same_function(load_published(paths, statistics=STATISTICS, k=K), saes)


def test_one_file_with_all_models_is_read(saes, tmp_path):
    torch.save({j: pair.state_dict() for j, pair in saes.items()}, tmp_path / "all.pt")
    assert_same_function(load_published(tmp_path / "all.pt", statistics=STATISTICS, k=K), saes)


def test_safetensors_files_are_read(saes, tmp_path):
    paths = {j: tmp_path / f"{j}.safetensors" for j in saes}
    for j, pair in saes.items():
        safetensors.torch.save_file(pair.state_dict(), paths[j])
    assert_same_function(load_published(paths, statistics=STATISTICS, k=K), saes)


def test_dictionaries_of_tensors_and_arrays_are_read(saes):
    tensors = {j: dict(pair.state_dict()) for j, pair in saes.items()}
    assert_same_function(load_published(tensors, statistics=STATISTICS, k=K), saes)
    arrays = {j: {key: tensor.numpy() for key, tensor in own.items()} for j, own in tensors.items()}
    assert_same_function(load_published(arrays, statistics=STATISTICS, k=K), saes)


def test_the_default_encoder_of_overcomplete_and_wrapped_models_are_read(saes, tmp_path):
    def plain(pair):
        return {key.replace("final_block.", ""): value for key, value in pair.state_dict().items()}

    def compiled(pair):
        return {f"_orig_mod.{key}": value for key, value in pair.state_dict().items()}

    def parallel(pair):
        return {f"module.{key}": value for key, value in pair.state_dict().items()}

    for content in (plain, compiled, parallel):
        assert_same_function(load_published(saved(saes, tmp_path, content), statistics=STATISTICS, k=K), saes)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_become_float32(saes, tmp_path, dtype):
    def converted(pair):
        return {key: value.to(dtype) if value.is_floating_point() else value for key, value in pair.state_dict().items()}

    sae = load_published(saved(saes, tmp_path, converted), statistics=STATISTICS, k=K)
    paths = {j: tmp_path / f"{j}.safetensors" for j in saes}
    for j, pair in saes.items():
        safetensors.torch.save_file(converted(pair), paths[j])
    same = load_published(paths, statistics=STATISTICS, k=K)
    for j, pair in saes.items():
        for name, value in published.to_parameters(pair).items():
            expected = torch.from_numpy(value).to(dtype).float().numpy()
            np.testing.assert_array_equal(sae.parameters(j)[name], expected, err_msg=name)
            np.testing.assert_array_equal(same.parameters(j)[name], expected, err_msg=name)


def test_views_and_parameters_are_read(saes, tmp_path):
    """Transposed, sliced and shared storage, as a state_dict may hold them."""

    def awkward(pair):
        state = dict(pair.state_dict())
        weight = state["encoder.final_block.0.weight"]
        state["encoder.final_block.0.weight"] = weight.T.contiguous().T
        wide = torch.randn(2 * N_CONCEPTS + 3, weight.shape[1] + 5)
        wide[3::2, 2:-3] = state["dictionary._weights"]
        state["dictionary._weights"] = torch.nn.Parameter(wide[3::2, 2:-3])
        shared = torch.cat([state["encoder.final_block.1.weight"], state["encoder.final_block.1.bias"]])
        state["encoder.final_block.1.weight"], state["encoder.final_block.1.bias"] = shared.chunk(2)
        return state

    assert_same_function(load_published(saved(saes, tmp_path, awkward), statistics=STATISTICS, k=K), saes)


def test_numpy_numbers_beside_the_tensors_do_not_matter(saes, tmp_path):
    def with_numpy(pair):
        return {**training_checkpoint(pair), "learning_rate": np.float64(2.3e-4), "epoch": np.int64(29)}

    assert_same_function(load_published(saved(saes, tmp_path, with_numpy), statistics=STATISTICS, k=K), saes)


def test_reading_needs_no_torch(saes, tmp_path):
    paths = saved(saes, tmp_path)
    script = textwrap.dedent(
        f"""
        import sys
        sys.modules["torch"] = None  # an import of it raises
        import numpy as np
        from usae.interop.published import load_published
        sae = load_published({ {j: str(path) for j, path in paths.items()}!r}, statistics={STATISTICS!r}, k={K})
        x = np.load({str(tmp_path / "x.npy")!r})
        np.save({str(tmp_path / "codes.npy")!r}, sae.encode(x, "siglip").to_dense())
        """
    )
    x = activations()["siglip"]
    np.save(tmp_path / "x.npy", x)
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    sae = load_published(paths, statistics=STATISTICS, k=K)
    np.testing.assert_array_equal(np.load(tmp_path / "codes.npy"), sae.encode(x, "siglip").to_dense())


def test_statistics_are_mean_and_std_with_the_published_epsilon(saes, tmp_path):
    paths = saved(saes, tmp_path)
    per_dimension = np.linspace(0.5, 2, WIDTHS["dinov2"])
    sae = load_published(paths, statistics={"siglip": None, "dinov2": (0.5, per_dimension)}, k=K)
    np.testing.assert_array_equal(sae.parameters("siglip")["mean"], 0)
    np.testing.assert_array_equal(sae.parameters("siglip")["scale"], 1)
    np.testing.assert_array_equal(sae.parameters("dinov2")["mean"], 0.5)
    np.testing.assert_array_equal(sae.parameters("dinov2")["scale"], np.float32(per_dimension + 1e-5))


def test_an_imported_model_can_be_trained_on_and_saved(saes, tmp_path):
    recipe = usae.recipes.published(total_steps=100, warmup_steps=0)
    sae = load_published(saved(saes, tmp_path), statistics=STATISTICS, k=K, recipe=recipe)
    with pytest.warns(UserWarning, match="optimiser"):
        first = sae.partial_fit(activations(), encoder="siglip").loss
    for _ in range(20):
        last = sae.partial_fit(activations(), encoder="siglip").loss
    assert last < first
    sae.save(tmp_path / "saved")
    again = usae.load(tmp_path / "saved")
    np.testing.assert_array_equal(again.parameters("dinov2")["dictionary"], sae.parameters("dinov2")["dictionary"])


# --- What is refused --------------------------------------------------------------------------------------------------


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
    with pytest.raises(usae.CheckpointError, match=name.replace(".", r"\.")) as caught:
        load_one(tmp_path / "bad.pth")
    assert "nothing was executed" in str(caught.value)
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
        with contextlib.suppress(usae.CheckpointError):  # a changed digit of an unused number does no harm
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
    with pytest.raises(usae.CheckpointError, match="LongStorage"):
        read(forged(tmp_path, (1, 2), (3, 1), storage="LongStorage"))["encoder.final_block.0.weight"].to_float32("weight")


def test_compressed_archives_are_refused(saes, tmp_path):
    path = saved(saes, tmp_path)["siglip"]
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "small.pth", "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
    with pytest.raises(usae.CheckpointError, match="compressed"):
        load_one(tmp_path / "small.pth")


def test_foreign_files_are_refused_with_what_to_do(saes, tmp_path):
    state = saes["siglip"].state_dict()
    torch.save(state, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(usae.CheckpointError, match=r"torch\.save"):
        load_one(tmp_path / "legacy.pth")
    (tmp_path / "bare.pkl").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(usae.CheckpointError, match="pickle"):
        load_one(tmp_path / "bare.pkl")
    (tmp_path / "text.pth").write_text("weights, perhaps")
    with pytest.raises(usae.CheckpointError, match="neither"):
        load_one(tmp_path / "text.pth")
    with zipfile.ZipFile(tmp_path / "any.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(usae.CheckpointError, match="torch.save"):
        load_one(tmp_path / "any.zip")
    torch.save(saes["siglip"], tmp_path / "module.pth")  # the module itself, a pickle of classes
    with pytest.raises(usae.CheckpointError, match=r"state_dict"):
        load_one(tmp_path / "module.pth")
    with pytest.raises(usae.CheckpointError, match="cannot read") as caught:
        load_one(tmp_path / "nothing.pth")
    assert isinstance(caught.value, OSError)
    assert caught.value.filename == str(tmp_path / "nothing.pth")


def state_without(state, *keys, **changes):
    result = {key: value for key, value in state.items() if key not in keys}
    return {**result, **{key.replace("__", "."): value for key, value in changes.items()}}


def test_other_architectures_are_refused(saes):
    state = dict(saes["siglip"].state_dict())
    running = ["encoder.final_block.1.running_mean", "encoder.final_block.1.running_var"]
    with pytest.raises(usae.CheckpointError, match="running_mean.*missing"):
        load_one(state_without(state, *running))  # LayerNorm
    with pytest.raises(usae.CheckpointError, match="mlp_blocks"):
        load_one({**state, "encoder.mlp_blocks.0.0.weight": torch.zeros(24, 24)})
    with pytest.raises(usae.CheckpointError, match="multiplier"):
        load_one({**state, "dictionary.multiplier": torch.tensor(0.5)})
    load_one({**state, "dictionary.multiplier": torch.tensor(0.0)})
    with pytest.raises(usae.CheckpointError, match=r"dictionary\.dictionary"):
        load_one({**state_without(state, "dictionary._weights"), "dictionary.dictionary": torch.zeros(N_CONCEPTS, 24)})
    with pytest.raises(usae.CheckpointError, match="unknown scheduler"):
        load_one({"model_state_dict": state, "scheduler": {}})


@pytest.mark.parametrize("key", list(published.TopKSAE(4, 8, 2).state_dict()))
def test_missing_and_misshapen_tensors_are_named(saes, key):
    state = dict(saes["siglip"].state_dict())
    if key.endswith("num_batches_tracked"):
        load_one(state_without(state, key))
        return
    with pytest.raises(usae.CheckpointError, match=key.replace(".", r"\.")):
        load_one(state_without(state, key))
    for bad in [torch.zeros(N_CONCEPTS + 1, 24), torch.zeros(3), torch.zeros(N_CONCEPTS, 24, 1), torch.zeros(())]:
        with pytest.raises(usae.CheckpointError):
            load_one({**state, key: bad})
    for value in (float("nan"), float("inf"), 1e300):
        with pytest.raises(usae.CheckpointError, match="finite"):
            load_one({**state, key: torch.full(state[key].shape, value, dtype=torch.float64)})
    with pytest.raises(usae.CheckpointError):
        load_one({**state, key: torch.ones(state[key].shape, dtype=torch.int64)})


def test_a_negative_running_variance_is_refused(saes):
    state = dict(saes["siglip"].state_dict())
    state["encoder.final_block.1.running_var"] = -state["encoder.final_block.1.running_var"]
    with pytest.raises(usae.CheckpointError, match="negative"):
        load_one(state)


def test_models_of_unequal_size_are_refused(saes):
    torch.manual_seed(0)
    models = {"siglip": saes["siglip"].state_dict(), "dinov2": published.TopKSAE(13, N_CONCEPTS + 4, K).state_dict()}
    with pytest.raises(usae.CheckpointError, match="same number of concepts"):
        load_published(models, statistics=STATISTICS, k=K)


def test_bad_arguments_are_refused(saes, tmp_path):
    models = {j: pair.state_dict() for j, pair in saes.items()}
    for statistics, words in [
        (None, "YAML"),
        ({"siglip": (0, 1)}, "none for 'dinov2'"),
        ({**STATISTICS, "vit": (0, 1)}, "unknown model 'vit'"),
        ({**STATISTICS, "siglip": 3.0}, "mean, std"),
        ({**STATISTICS, "siglip": (0, 1, 2)}, "mean, std"),
        ({**STATISTICS, "siglip": (0, [1, 2])}, "mean, std"),
        ({**STATISTICS, "siglip": (0, float("nan"))}, "finite"),
        ({**STATISTICS, "siglip": (0, -1)}, "negative"),
        ({**STATISTICS, "siglip": ("a", "b")}, "mean, std"),
    ]:
        with pytest.raises(usae.InvalidInputError, match=words):
            load_published(models, statistics=statistics, k=K)
    with pytest.raises(usae.InvalidInputError, match="batchnorm"):
        load_published(models, statistics=STATISTICS, k=K, recipe=usae.recipes.default())
    with pytest.raises(usae.InvalidInputError, match="k must not exceed"):
        load_published(models, statistics=STATISTICS, k=N_CONCEPTS + 1)
    with pytest.raises(usae.InvalidInputError):
        load_published({}, statistics={}, k=K)
    with pytest.raises(usae.InvalidInputError):
        load_published(3, statistics=STATISTICS, k=K)
    with pytest.raises(usae.InvalidInputError):
        load_published({"siglip": 3}, statistics={"siglip": None}, k=K)
    path = saved(saes, tmp_path)["siglip"]
    with pytest.raises(usae.CheckpointError, match="one model"):
        load_published(path, statistics=STATISTICS, k=K)
