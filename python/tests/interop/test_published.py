"""Checkpoints of the published code: read without torch, and to the architecture's own numbers."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import safetensors.torch
import torch

import usae
from reference import published
from support.published_checkpoints import (
    N_CONCEPTS,
    STATISTICS,
    WIDTHS,
    K,
    activations,
    assert_same_function,
    saved,
    training_checkpoint,
)
from usae.interop.published import load_published

pytestmark = pytest.mark.slow


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
    subprocess.run([sys.executable, "-c", script], check=True, timeout=600)
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
    with pytest.warns(UserWarning, match="training_state=True"):
        first = sae.partial_fit(activations(), encoder="siglip").loss
    for _ in range(20):
        last = sae.partial_fit(activations(), encoder="siglip").loss
    assert last < first
    sae.save(tmp_path / "saved")
    again = usae.load(tmp_path / "saved")
    np.testing.assert_array_equal(again.parameters("dinov2")["dictionary"], sae.parameters("dinov2")["dictionary"])
