"""`UniversalSAE.export`: keys, shapes and types of each format, what its formulas compute of them, and what is refused."""

import errno
import json

import numpy as np
import pytest
import safetensors.numpy

import usae
from support import exchange
from support.exchange import acts, formulas, table, trained
from support.refusals import refuses, refuses_place

N, K = table.N_CONCEPTS, table.K
A, B = table.WIDTHS["a"], table.WIDTHS["b"]

FORMS = {
    ("saelens", "topk"): {"W_enc": [A, N], "b_enc": [N], "W_dec": [N, A], "b_dec": [A]},
    ("saelens", "batchtopk"): {"W_enc": [A, N], "b_enc": [N], "W_dec": [N, A], "b_dec": [A], "threshold": [N]},
    ("sparsify", "topk"): {"encoder.weight": [N, A], "encoder.bias": [N], "W_dec": [N, A], "b_dec": [A]},
    ("visaebench", "topk"): {"encoder.weight": [N, A], "encoder.bias": [N], "decoder.weight": [N, A], "decoder.bias": [A]},
    ("visaebench", "batchtopk"): {
        "encoder.weight": [N, A], "encoder.bias": [N], "decoder.weight": [N, A], "decoder.bias": [A], "jump_thresholds": [N],
    },
    ("overcomplete", "topk"): {
        "encoder.final_block.0.weight": [N, A], "encoder.final_block.0.bias": [N], "dictionary._weights": [N, A],
        "dictionary.multiplier": [],
    },
}  # fmt: skip
WEIGHTS = {
    "saelens": "sae_weights.safetensors",
    "sparsify": "sae.safetensors",
    "visaebench": "model.safetensors",
    "overcomplete": "model.safetensors",
    "crosscoder": "model.safetensors",
}


@pytest.mark.parametrize(("format", "selection"), FORMS)
def test_keys_shapes_and_types_are_those_of_the_library(format, selection, tmp_path):
    done = trained(selection=selection).export(tmp_path / "out", format, model="a")
    tensors = safetensors.numpy.load_file(tmp_path / "out" / WEIGHTS[format])
    assert {name: list(value.shape) for name, value in tensors.items()} == FORMS[format, selection]
    assert {value.dtype for value in tensors.values()} == {np.dtype(np.float32)}
    assert sorted(done.files) == sorted(path.name for path in (tmp_path / "out").iterdir())


def test_a_transcoder_of_saelens_has_the_widths_of_both_models(tmp_path):
    done = trained(selection="batchtopk").export(tmp_path, "saelens", model="a", target="b")
    tensors = safetensors.numpy.load_file(tmp_path / "sae_weights.safetensors")
    assert [list(tensors[name].shape) for name in ("W_enc", "W_dec", "b_dec")] == [[A, N], [N, B], [B]]
    config = json.loads((tmp_path / "cfg.json").read_text())
    assert (config["architecture"], config["d_in"], config["d_out"]) == ("jumprelu_transcoder", A, B)
    assert config["apply_b_dec_to_input"] is False and config["metadata"]["sae_lens_version"] >= "6"
    assert done.architecture == "jumprelu_transcoder" and "a -> b" in done.summary()


def test_a_crosscoder_has_one_encoder_and_the_dictionaries_of_all(tmp_path):
    case = table.Case("", {"selection": "batchtopk", "k_max": 5}, one_width=True)
    table.trained(case).export(tmp_path, "crosscoder", model="c")
    tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    shapes = {"encoder.weight": [1, A, N], "encoder.bias": [N], "decoder.weight": [3, N, A], "decoder.bias": [3, A]}
    statistics = {"activation_mean": [3, A], "activation_std": [3, A], "activation_global_scale": [3], "target_rms": []}
    assert {name: list(value.shape) for name, value in tensors.items()} == shapes | statistics | {
        "k": [], "threshold": [], "code_normalization_id": [],
    }  # fmt: skip
    assert (tensors["k"].dtype, tensors["code_normalization_id"].dtype) == (np.int32, np.int64)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["encoder_layers"], config["num_layers"], config["num_decoder_layers"]) == ([2], 3, 3)


def test_dictionary_learning_gets_a_file_of_torch(tmp_path):
    torch = pytest.importorskip("torch")
    trained(selection="batchtopk").export(tmp_path, "dictionary_learning", model="a")
    state = torch.load(tmp_path / "ae.pt", weights_only=True)
    shapes = {"encoder.weight": [N, A], "encoder.bias": [N], "decoder.weight": [A, N], "b_dec": [A], "k": [], "threshold": []}
    assert {name: list(value.shape) for name, value in state.items()} == shapes
    assert (state["k"].dtype, state["threshold"].dtype) == (torch.int32, torch.float32)


def test_without_torch_dictionary_learning_says_what_to_install_and_makes_no_folder(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(ImportError) as caught:
        trained().export(tmp_path / "out", "dictionary_learning", model="a")
    assert "usae[torch]" in str(caught.value) and not (tmp_path / "out").exists()
    trained().export(tmp_path / "out", "saelens", model="a")


@pytest.mark.slow
def test_the_table_of_the_page_is_what_the_formulas_compute():
    pytest.importorskip("torch")
    page = (exchange.ROOT / "docs" / "exchange.md").read_text(encoding="utf-8")
    made = table.table()
    assert "wrong" not in made and "same concepts" not in made
    assert made in page, f"run tools/exchange_table.py, and put this into docs/exchange.md:\n{made}"


@pytest.mark.slow
def test_a_format_that_would_be_wrong_would_be_seen():
    def shifted(folder, x):
        codes, values = formulas.saelens(folder, x)
        return codes, values + 0.01

    words = {case.title: found.words for _, case, found, _ in table.results({"saelens": shifted}) if found is not None}
    assert len(words) > 5 and all(word.startswith("wrong by") for word in words.values())


def test_what_is_lost_is_told_and_what_is_not_is_not(tmp_path):
    free = trained(selection="batchtopk", k_max=N).export(tmp_path / "free", "saelens", model="a")
    capped = trained(selection="batchtopk", k_max=5).export(tmp_path / "capped", "saelens", model="a", acts=acts())
    assert free.same_codes and "k_max" not in free.lost and free.capped is None
    assert not capped.same_codes and {"k_max", "models", "training", "standardization"} == set(capped.lost)
    x = acts()["a"]
    pre, codes = trained(selection="batchtopk", k_max=5).preactivations(x, "a"), formulas.saelens(tmp_path / "capped", x)[0]
    assert capped.capped == ((codes > 0).sum(1) > 5).mean() > 0 and pre.shape == codes.shape
    alone = exchange.one_model(encoder="batchnorm").export(tmp_path / "alone", "saelens")
    assert {"batchnorm", "standardization", "training"} == set(alone.lost)
    scaled = trained().export(tmp_path / "scaled", "saelens", model="a", unit_rows=True)
    assert not scaled.same_codes and "units" in scaled.lost


def test_a_mean_far_from_0_costs_precision_which_is_told_and_one_that_float32_does_not_hold_is_refused(tmp_path):
    sae = exchange.one_model()
    sae.set_parameters("vit", {"mean": np.full(exchange.D, 3000.0)})
    assert "precision" in sae.export(tmp_path / "far", "saelens").lost
    sae.set_parameters("vit", {"mean_rest": np.full(exchange.D, 1e-5)})
    with refuses("model"):
        sae.export(tmp_path / "farther", "saelens")
    assert not (tmp_path / "farther").exists()


@pytest.mark.parametrize(
    ("recipe", "arguments", "argument"),
    [
        ({}, {"format": "safelens", "model": "a"}, "format"),
        ({}, {"format": "saelens"}, "model"),
        ({}, {"format": "saelens", "model": "d"}, "model"),
        ({}, {"format": "saelens", "model": "a", "target": "d"}, "target"),
        ({}, {"format": "saelens", "model": "a", "target": "b"}, "target"),
        ({}, {"format": "sparsify", "model": "a", "target": "b"}, "target"),
        ({}, {"format": "visaebench", "model": "a", "target": "c"}, "target"),
        ({}, {"format": "dictionary_learning", "model": "a", "target": "c"}, "target"),
        ({}, {"format": "overcomplete", "model": "a", "target": "c"}, "target"),
        ({}, {"format": "crosscoder", "model": "a"}, "format"),
        ({"selection": "batchtopk"}, {"format": "crosscoder", "model": "a"}, "format"),
        ({"selection": "batchtopk"}, {"format": "crosscoder", "model": "a", "target": "b"}, "target"),
        ({"selection": "batchtopk"}, {"format": "crosscoder", "model": "a", "unit_rows": True}, "unit_rows"),
        ({"selection": "batchtopk"}, {"format": "sparsify", "model": "a"}, "format"),
        ({"selection": "batchtopk"}, {"format": "overcomplete", "model": "a"}, "format"),
        ({"scale": "dimension"}, {"format": "saelens", "model": "a", "unit_rows": True}, "unit_rows"),
        ({}, {"format": "saelens", "model": "a", "unit_rows": "yes"}, "unit_rows"),
        ({}, {"format": "saelens", "model": "a", "acts": 3}, "acts"),
        ({}, {"format": "saelens", "model": "a", "acts": {"b": 3}}, "acts"),
        ({}, {"format": "saelens", "model": "a", "acts": {"a": np.zeros((3, 2), np.float32)}}, "acts"),
    ],
)
def test_what_would_be_wrong_is_refused_and_nothing_is_written(recipe, arguments, argument, tmp_path):
    with refuses(argument):
        trained(**recipe).export(tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_an_export_is_replaced_by_one_for_the_same_library_and_nothing_else_is(tmp_path):
    sae = trained()
    sae.export(tmp_path / "out", "saelens", model="a")
    first = (tmp_path / "out" / "sae_weights.safetensors").read_bytes()
    sae.export(tmp_path / "out", "saelens", model="b")
    assert (tmp_path / "out" / "sae_weights.safetensors").read_bytes() != first
    with refuses_place(tmp_path / "out", errno.EEXIST):
        sae.export(tmp_path / "out", "sparsify", model="a")
    sae.save(tmp_path / "saved")
    with refuses_place(tmp_path / "saved", errno.EEXIST):
        sae.export(tmp_path / "saved", "saelens", model="a")
    assert len(list((tmp_path / "saved").iterdir())) == 2
    (tmp_path / "file").write_text("")
    with refuses_place(tmp_path / "file", errno.ENOTDIR):
        sae.export(tmp_path / "file", "saelens", model="a")
    with pytest.raises(usae.NotInitializedError):
        usae.UniversalSAE(8, 2).export(tmp_path / "new", "saelens")
    assert not (tmp_path / "new").exists()


def test_batchtopk_before_its_first_step_is_topk_and_is_exported_as_such(tmp_path):
    sae = exchange.one_model(selection="batchtopk")
    done = sae.export(tmp_path, "saelens")
    assert done.architecture == "topk" and done.same_codes
    x = exchange.tokens()
    np.testing.assert_allclose(formulas.saelens(tmp_path, x)[0], sae.encode(x, "vit").to_dense(), atol=1e-5)
