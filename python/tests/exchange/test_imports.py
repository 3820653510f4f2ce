"""`usae.import_sae`: files as other libraries write them give the codes that those libraries compute, or are refused."""

import json

import numpy as np
import pytest
import safetensors.numpy

import usae
from support import exchange
from support.exchange import D, K, N, assert_same, changed, formulas, random_parts, table, tokens
from support.refusals import refuses

X = tokens()


def dense(parts):
    weight, bias, _, _ = parts
    return X @ weight.T + bias


def decoded(codes, parts):
    return codes @ parts[2] + parts[3]


@pytest.fixture
def parts():
    return random_parts()


# --- SAELens ----------------------------------------------------------------------------------------------------------


def test_topk_of_saelens(parts, tmp_path):
    codes = formulas.topk(dense(parts), K)
    sae = assert_same(usae.import_sae(exchange.saelens(tmp_path, parts)), X, codes, decoded(codes, parts))
    assert (sae.k, sae.recipe_.selection, sae.model_names_) == (K, "topk", ("model",))


def test_a_decoder_bias_that_is_subtracted_first_is_the_default_of_saelens(parts, tmp_path):
    folder = exchange.saelens(tmp_path, parts)
    changed(folder / "cfg.json", apply_b_dec_to_input=...)
    weight, bias, _, mean = parts
    codes = formulas.topk((X - mean) @ weight.T + bias, K)
    assert_same(usae.import_sae(folder), X, codes, decoded(codes, parts))


def test_norms_of_rows_may_differ_where_selection_is_by_them(tmp_path):
    parts = random_parts(spread=0.5)
    norms = np.linalg.norm(parts[2], axis=1)
    codes = formulas.topk(dense(parts) * norms, K)
    folder = exchange.saelens(tmp_path, parts, rescale_acts_by_decoder_norm=True)
    assert_same(usae.import_sae(folder), X, codes, codes / norms @ parts[2] + parts[3])


@pytest.mark.parametrize("spread", [1e-3, 0.05, 0.5])
def test_rows_keep_norms_that_differ_where_topk_does_not_select_by_them(spread, tmp_path):
    parts = random_parts(spread=spread)
    codes = formulas.topk(dense(parts), K)
    sae = assert_same(usae.import_sae(exchange.saelens(tmp_path, parts)), X, codes, decoded(codes, parts))
    assert sae.recipe_.dictionary_norm == "bounded"
    norms = np.linalg.norm(sae.dictionary("model"), axis=1)
    np.testing.assert_allclose(norms, np.linalg.norm(parts[2], axis=1) / np.linalg.norm(parts[2], axis=1).max(), rtol=1e-5)


def test_norms_of_rows_that_differ_within_the_tolerance_are_made_equal(tmp_path):
    folder = exchange.saelens(tmp_path, random_parts(spread=0.05))
    sae = usae.import_sae(folder, tolerance=0.1)
    assert sae.recipe_.dictionary_norm == "unit"
    codes = formulas.topk(dense(random_parts(spread=0.05)), K)
    assert (((sae.encode(X, "model").to_dense() > 0) == (codes > 0)).mean(1) > 0.9).all()


def test_jumprelu_with_one_threshold_and_with_thresholds_in_proportion_to_norms(tmp_path):
    for spread, folder in ((0.0, tmp_path / "one"), (0.5, tmp_path / "proportion")):
        parts = random_parts(spread=spread)
        norms = np.linalg.norm(parts[2], axis=1)
        threshold = (2 / norms).astype(np.float32)
        codes = formulas.above(dense(parts), threshold)
        exchange.saelens(folder, parts, {"threshold": threshold}, architecture="jumprelu")
        changed(folder / "cfg.json", k=...)
        sae = usae.import_sae(folder)
        assert_same(sae, X, codes, decoded(codes, parts), factor=1.0 if spread == 0 else norms)
        assert sae.recipe_.k_max == N and sae.encode(X, "model").k == N
        fewer = usae.import_sae(folder, k_max=3).encode(X, "model")
        assert fewer.k == 3 and ((fewer.to_dense() > 0).sum(1) == np.minimum((codes > 0).sum(1), 3)).all()


@pytest.mark.parametrize(("spread", "lowest"), [(0.0, -0.5), (0.5, -0.5), (0.5, 0.3)])
def test_jumprelu_with_a_threshold_for_each_concept(spread, lowest, tmp_path):
    parts = random_parts(spread=spread)
    threshold = np.random.default_rng(2).uniform(lowest, 4, N).astype(np.float32)
    folder = exchange.saelens(tmp_path / "in", parts, {"threshold": threshold}, architecture="jumprelu")
    codes = formulas.above(dense(parts), threshold)
    factor = 1.0 if spread == 0 else np.linalg.norm(parts[2], axis=1)
    sae = assert_same(usae.import_sae(folder), X, codes, decoded(codes, parts), factor=factor)
    own = sae.parameters("model")
    if spread == 0:
        assert (own["threshold"] + own["threshold_rest"] == np.maximum(threshold, own["threshold"])).all()
    sae.save(tmp_path / "saved")
    loaded = usae.load(tmp_path / "saved")
    assert (loaded.encode(X, "model").values == sae.encode(X, "model").values).all()
    assert sae.evaluate({"model": X}).l0[0] == pytest.approx((codes > 0).sum(1).mean())
    largest = usae.import_sae(folder, k_max=3).encode(X, "model")  # of those that their thresholds let through
    kept = formulas.topk(codes * factor, 3)
    assert ((largest.to_dense() > 0) == (kept > 0)).all()
    for format in ("saelens", "visaebench"):
        sae.export(tmp_path / format, format)
        assert_same(usae.import_sae(tmp_path / format), X, codes, decoded(codes, parts), factor=factor)
        again, values = formulas.FORWARDS[format](tmp_path / format, X)
        np.testing.assert_allclose(again, codes * factor, atol=1e-4)
        np.testing.assert_allclose(values, decoded(codes, parts), atol=1e-3)
    with refuses("format"):
        sae.export(tmp_path / "crosscoder", "crosscoder")


@pytest.mark.parametrize("architecture", ["standard", "transcoder"])
def test_a_relu_is_a_threshold_of_0(architecture, tmp_path):
    parts = random_parts(out=D if architecture == "standard" else 7, spread=0.5)
    codes = np.maximum(dense(parts), 0)
    sae = usae.import_sae(exchange.saelens(tmp_path, parts, architecture=architecture))
    models = ("model", "model") if architecture == "standard" else ("model", "target")
    assert_same(sae, X, codes, decoded(codes, parts), models, factor=np.linalg.norm(parts[2], axis=1))


def test_a_transcoder_has_two_models_of_which_one_encodes_and_one_is_decoded(tmp_path):
    parts = random_parts(out=7)
    more = {"threshold": np.full(N, 1.5, np.float32)}
    folder = exchange.saelens(tmp_path, parts, more, architecture="jumprelu_transcoder", d_out=7)
    codes = formulas.above(dense(parts), more["threshold"])
    sae = assert_same(
        usae.import_sae(folder, names=["mlp_in", "mlp_out"]), X, codes, decoded(codes, parts), ("mlp_in", "mlp_out")
    )
    assert sae.n_features_in_ == {"mlp_in": D, "mlp_out": 7}
    assert (sae.encode(tokens(d=7), "mlp_out").indices == -1).all() and not sae.dictionary("mlp_in").any()


def test_files_of_saelens_before_version_6(parts, tmp_path):
    folder = exchange.saelens(tmp_path, parts)
    changed(
        folder / "cfg.json",
        architecture=...,
        k=...,
        activation_fn_str="topk",
        activation_fn_kwargs={"k": K},
        normalize_activations=False,
    )
    codes = formulas.topk(dense(parts), K)
    assert_same(usae.import_sae(folder), X, codes, decoded(codes, parts))


def test_the_factor_of_activations_is_folded_if_it_is_there(parts, tmp_path):
    folder = exchange.saelens(tmp_path, parts, normalize_activations="expected_average_only_in")
    with refuses("normalize_activations", error=usae.CheckpointError):
        usae.import_sae(folder)
    (folder / "activation_scaler.json").write_text(json.dumps({"scaling_factor": 2.0}))
    weight, bias, rows, mean = parts
    codes = formulas.topk(2 * X @ weight.T + bias, K)
    assert_same(usae.import_sae(folder), X, codes, (codes @ rows + mean) / 2)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, "bfloat16"])
def test_weights_of_other_types_are_those_weights(dtype, parts, tmp_path):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    rounded = [part.astype(dtype) for part in parts]
    exchange.saelens(tmp_path, rounded)
    held = [part.astype(np.float32) for part in rounded]
    codes = formulas.topk(dense(held), K)
    sae = usae.import_sae(tmp_path, tolerance=0.02)
    np.testing.assert_allclose(sae.encode(X, "model").to_dense(), codes, atol=0.1)


def test_thresholds_times_norms_are_kept_to_the_last_bit_and_never_below_the_lowest():
    from usae.interop.importing import _thresholds

    for seed in range(200):
        random = np.random.default_rng(seed)
        thresholds, norms = random.uniform(0.01, 4, 50), random.uniform(0.5, 2, 50)
        lowest, rest = _thresholds(thresholds, norms)
        assert (rest >= 0).all() and (np.float32(lowest) + rest == (thresholds * norms).astype(np.float32)).all()


# --- Others -----------------------------------------------------------------------------------------------------------


def test_sparsify_subtracts_the_decoder_bias_and_its_transcoder_does_not(parts, tmp_path):
    weight, bias, _, mean = parts
    codes = formulas.topk((X - mean) @ weight.T + bias, K)
    assert_same(usae.import_sae(exchange.sparsify(tmp_path / "sae", parts)), X, codes, decoded(codes, parts))
    codes = formulas.topk(dense(parts), K)
    sae = usae.import_sae(exchange.sparsify(tmp_path / "transcoder", parts, transcode=True))
    assert_same(sae, X, codes, decoded(codes, parts), ("model", "target"))


def test_visaebench_compares_batchtopk_with_at_least_and_jumprelu_with_more_than(tmp_path):
    eye = np.eye(D, dtype=np.float32)
    parts = [eye, np.zeros(D, np.float32), eye, np.zeros(D, np.float32)]
    x = np.full((1, D), 2.0, np.float32)
    reached = usae.import_sae(exchange.visaebench(tmp_path / "batchtopk", parts, activation="batchtopk", threshold=2.0))
    more = {"jump_thresholds": np.full(D, 2, np.float32)}
    missed = usae.import_sae(exchange.visaebench(tmp_path / "jumprelu", parts, more, activation="jumprelu"))
    assert (reached.encode(x, "model").to_dense() == 2).all() and not missed.encode(x, "model").to_dense().any()


def test_topk_of_visaebench_with_and_without_the_names_of_overcomplete(parts, tmp_path):
    weight, bias, rows, _ = parts
    codes = formulas.topk(dense(parts), K)
    assert_same(usae.import_sae(exchange.visaebench(tmp_path / "own", parts)), X, codes, decoded(codes, parts))
    names = {"encoder.final_block.0.weight": weight, "encoder.final_block.0.bias": bias, "dictionary._weights": rows}
    names["dictionary.multiplier"] = np.array(0.5, np.float32)
    folder = exchange.written(tmp_path / "names", "config.json", "model.safetensors", {"activation": "topk", "k": K}, names)
    assert_same(usae.import_sae(folder), X, codes, codes @ rows * np.exp(0.5))


def test_a_state_dict_of_overcomplete_needs_k(parts, tmp_path):
    weight, bias, rows, _ = parts
    state = {"encoder.final_block.0.weight": weight, "encoder.final_block.0.bias": bias, "dictionary._weights": 3 * rows}
    codes = formulas.topk(dense(parts), K)
    assert_same(usae.import_sae(state, k=K), X, codes, codes @ rows)
    safetensors.numpy.save_file(state, tmp_path / "state.safetensors")
    assert_same(usae.import_sae(tmp_path / "state.safetensors", k=K), X, codes, codes @ rows)
    with refuses("k", error=usae.CheckpointError):
        usae.import_sae(state)
    random = np.random.default_rng(5)
    norm = {name: random.uniform(0.5, 1.5, N).astype(np.float32) for name in ("weight", "bias", "running_mean", "running_var")}
    batchnorm = state | {f"encoder.final_block.1.{name}": value for name, value in norm.items()}
    pre = (dense(parts) - norm["running_mean"]) / np.sqrt(norm["running_var"] + 1e-5) * norm["weight"] + norm["bias"]
    codes = formulas.topk(pre, K)
    assert_same(usae.import_sae(batchnorm, k=K), X, codes, codes @ rows)
    jump = usae.import_sae(state | {"thresholds": np.full(N, 0.3, np.float32)})
    codes = formulas.above(dense(parts), np.exp(np.float32(0.3)))
    assert_same(jump, X, codes, codes @ rows)


@pytest.mark.parametrize(
    "cls", ["AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE", "JumpReluAutoEncoder", "AutoEncoder"]
)
@pytest.mark.parametrize("alone", [False, True])
def test_the_classes_of_dictionary_learning(cls, alone, parts, tmp_path):
    torch = pytest.importorskip("torch")
    weight, bias, rows, mean = parts
    pre = (X - (0 if cls == "JumpReluAutoEncoder" else mean)) @ weight.T + bias
    threshold = {"AutoEncoder": 0.0, "AutoEncoderTopK": -1.0}.get(cls, 1.25)
    codes = formulas.topk(pre, K) if cls == "AutoEncoderTopK" else formulas.above(pre, threshold)
    state = {"W_enc": weight.T, "b_enc": bias, "W_dec": rows, "b_dec": mean, "threshold": np.float32(threshold)}
    if cls == "JumpReluAutoEncoder":
        state["threshold"] = np.full(N, threshold, np.float32)
    elif cls == "MatryoshkaBatchTopKSAE":
        state |= {"k": np.int32(K), "group_sizes": np.array([N - 4, 4])}
    else:
        state = {"encoder.weight": weight, "encoder.bias": bias, "decoder.weight": rows.T, "b_dec": mean}
        state |= {"k": np.int32(K), "threshold": np.float32(threshold)}
    if cls == "AutoEncoder":
        state = {"encoder.weight": weight, "encoder.bias": bias, "decoder.weight": rows.T, "bias": mean}
    state = {name: torch.from_numpy(np.array(value)) for name, value in state.items()}
    if alone:
        sae = usae.import_sae(state)
    else:
        torch.save(state, tmp_path / "ae.pt")
        (tmp_path / "config.json").write_text(json.dumps({"trainer": {"dict_class": cls, "k": K}, "buffer": {}}))
        sae = usae.import_sae(tmp_path)
        assert_same(usae.import_sae(tmp_path / "ae.pt"), X, codes, decoded(codes, parts))
    assert_same(sae, X, codes, decoded(codes, parts))


def test_a_row_of_zeros_adds_nothing_but_takes_its_place_in_the_code(parts, tmp_path):
    parts[2][3] = 0
    codes = formulas.topk(dense(parts), K)
    sae = assert_same(usae.import_sae(exchange.saelens(tmp_path, parts)), X, codes, decoded(codes, parts))
    assert (sae.encode(X, "model").to_dense()[:, 3] > 0).any() and not sae.dictionary("model")[3].any()


# --- Round trips ------------------------------------------------------------------------------------------------------


TOPK = [{}, {"scale": "dimension"}, {"encoder": "batchnorm"}]
BATCHTOPK = {"selection": "batchtopk", "k_max": 5}
BOUNDED = {"dictionary_norm": "bounded", "weight_decay": 3.0}
ROUND_TRIPS = [
    *((format, recipe, False) for format in ("saelens", "sparsify", "visaebench", "dictionary_learning") for recipe in TOPK),
    *(("overcomplete", recipe, unit_rows) for recipe in TOPK for unit_rows in (False, True)),
    *((format, {}, True) for format in ("saelens", "sparsify", "visaebench", "dictionary_learning")),
    *(
        (format, BATCHTOPK, unit_rows)
        for format in ("saelens", "visaebench", "dictionary_learning")
        for unit_rows in (False, True)
    ),
    ("crosscoder", BATCHTOPK, False),
    *((format, BOUNDED, False) for format in ("saelens", "sparsify", "visaebench", "dictionary_learning")),
    *((format, BATCHTOPK | BOUNDED, False) for format in ("saelens", "visaebench", "dictionary_learning", "crosscoder")),
]


@pytest.mark.parametrize(("format", "recipe", "unit_rows"), ROUND_TRIPS)
def test_a_round_trip_gives_the_same_codes(format, recipe, unit_rows, tmp_path):
    if format == "dictionary_learning":
        pytest.importorskip("torch")
    case = table.Case("", recipe, one_width=format == "crosscoder")
    sae, x = table.trained(case), table.activations(case.one_width)["a"]
    sae.export(tmp_path, format, model="a", unit_rows=unit_rows)
    back = usae.import_sae(tmp_path)
    ours = sae.encode(x, "a")
    assert_same(back, x, ours.to_dense(), sae.decode(ours, "a"), ("a", "a"))
    short = np.linalg.norm(sae.dictionary("a"), axis=1) < 0.999
    assert short.any() == (back.recipe_.dictionary_norm == "bounded") == (recipe.get("dictionary_norm") == "bounded")
    assert back.encode(x, "a").k == ours.k  # the cap too
    np.testing.assert_allclose(back.dictionary("a"), sae.dictionary("a"), atol=1e-6)
    if format == "crosscoder":
        assert_same(back, x, ours.to_dense(), sae.decode(ours, "c"), ("a", "c"))


@pytest.mark.parametrize(("format", "recipe", "target"), [("saelens", {"selection": "batchtopk"}, "b"), ("sparsify", {}, "c")])
def test_a_round_trip_of_a_pair_gives_the_same_codes(format, recipe, target, tmp_path):
    sae, x = exchange.trained(**recipe), exchange.acts()["a"]
    sae.export(tmp_path, format, model="a", target=target)
    ours = sae.encode(x, "a")
    assert_same(usae.import_sae(tmp_path), x, ours.to_dense(), sae.decode(ours, target), ("a", target))


def test_an_import_can_be_saved_and_trained_on(tmp_path):
    exchange.trained().export(tmp_path / "out", "saelens", model="a")
    sae = usae.import_sae(tmp_path / "out")
    sae.save(tmp_path / "saved")
    x = exchange.acts()["a"]
    assert (usae.load(tmp_path / "saved").encode(x, "a").values == sae.encode(x, "a").values).all()
    with pytest.warns(UserWarning):  # the optimiser starts again
        sae.partial_fit({"a": x[:256]})
    assert sae.n_steps_ == 1


def test_what_lies_beside_an_export_is_not_believed_of_weights_that_were_written_since(tmp_path):
    exchange.trained().export(tmp_path, "saelens", model="a")
    file = tmp_path / "sae_weights.safetensors"
    tensors = safetensors.numpy.load_file(file)
    tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    safetensors.numpy.save_file(tensors | {"b_enc": tensors["b_enc"] + 1}, file)
    with pytest.warns(UserWarning, match=r"usae_export\.json.*weights"):
        sae, x = usae.import_sae(tmp_path), exchange.acts()["a"]
    codes, values = formulas.saelens(tmp_path, x)
    assert_same(sae, x, codes, values)  # in the units of the file


# --- Refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"architecture": "gated"}, "architecture"),
        ({"architecture": "jumprelu_skip_transcoder"}, "architecture"),
        ({"architecture": 3}, "architecture"),
        ({"architecture": "standard", "activation_fn_str": "tanh-relu"}, "activation_fn"),
        ({"normalize_activations": "layer_norm"}, "normalize_activations"),
        ({"k": 0}, "k"),
        ({"k": N + 1}, "k"),
        ({"k": ...}, "k"),
        ({"apply_b_dec_to_input": "no"}, "apply_b_dec_to_input"),
    ],
)
def test_what_a_config_says_that_cannot_be_represented_is_refused(fields, name, parts, tmp_path):
    folder = exchange.saelens(tmp_path, parts)
    changed(folder / "cfg.json", **fields)
    with refuses(name, error=usae.CheckpointError) as caught:
        usae.import_sae(folder)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda t: t.pop("b_enc"), "b_enc"),
        (lambda t: t.update(W_skip=t["W_dec"]), "W_skip"),
        (lambda t: t.update(b_enc=t["b_enc"][:3]), "b_enc"),
        (lambda t: t.update(W_dec=t["W_dec"][:, :3]), "b_dec"),
        (lambda t: t.update(b_dec=t["b_dec"] * np.float32(np.nan)), "b_dec"),
        (lambda t: t.update(W_enc=t["W_enc"][0]), "W_enc"),
        (lambda t: t.update(W_enc=t["W_enc"].astype(np.int32)), "W_enc"),
        (lambda t: t.update(W_dec=0 * t["W_dec"]), "dictionary"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(change, name, parts, tmp_path):
    weight, bias, rows, mean = parts
    tensors = {"W_enc": np.ascontiguousarray(weight.T), "b_enc": bias, "W_dec": rows, "b_dec": mean}
    change(tensors)
    fields = {"architecture": "topk", "k": K, "apply_b_dec_to_input": False}
    exchange.written(tmp_path, "cfg.json", "sae_weights.safetensors", fields, tensors)
    with refuses(name, error=usae.CheckpointError):
        usae.import_sae(tmp_path)


def test_other_configs_that_cannot_be_represented(parts, tmp_path):
    for folder, name in (
        (exchange.sparsify(tmp_path / "1", parts, activation="groupmax"), "activation"),
        (exchange.sparsify(tmp_path / "2", parts, skip_connection=True), "skip_connection"),
        (exchange.visaebench(tmp_path / "3", parts, activation="tanh"), "activation"),
        (exchange.visaebench(tmp_path / "4", parts, activation="batchtopk"), "threshold"),
    ):
        with refuses(name, error=usae.CheckpointError):
            usae.import_sae(folder)


def test_crosscoders_that_sum_over_models_or_normalise_are_refused(tmp_path):
    case = table.Case("", {"selection": "batchtopk", "k_max": 5}, one_width=True)
    table.trained(case).export(tmp_path, "crosscoder", model="a")
    tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    for change, name in (
        ({"encoder.weight": np.repeat(tensors["encoder.weight"], 3, 0)}, "encoder.weight"),
        ({"code_normalization_id": np.array(1)}, "code_normalization_id"),
        ({key: np.ones_like(tensors[key]) for key in ("activation_mean", "activation_std")}, "activation_mean"),
    ):
        safetensors.numpy.save_file(tensors | change, tmp_path / "model.safetensors")
        with refuses(name, error=usae.CheckpointError):
            usae.import_sae(tmp_path)


def test_folders_and_files_that_are_none(parts, tmp_path):
    (tmp_path / "empty").mkdir()
    exchange.one_model().save(tmp_path / "saved")
    (tmp_path / "text").write_text("text")
    exchange.saelens(tmp_path / "broken", parts)
    (tmp_path / "broken" / "cfg.json").write_text("{")
    exchange.saelens(tmp_path / "list", parts)
    (tmp_path / "list" / "cfg.json").write_text("[]")
    exchange.saelens(tmp_path / "short", parts)
    whole = (tmp_path / "short" / "sae_weights.safetensors").read_bytes()
    (tmp_path / "short" / "sae_weights.safetensors").write_bytes(whole[:-9])
    for name in ("empty", "saved", "text", "broken", "list", "short"):
        with refuses(tmp_path / name, error=usae.CheckpointError):
            usae.import_sae(tmp_path / name)
    for missing in (tmp_path / "nowhere", tmp_path / "empty"):
        with pytest.raises(usae.CheckpointError):
            usae.import_sae(missing, "saelens")


@pytest.mark.parametrize(
    ("arguments", "argument"),
    [
        ({"path": 3}, "path"),
        ({"path": "hf://user"}, "path"),
        ({"path": "hf://user/repo/../other"}, "path"),
        ({"format": "safelens"}, "format"),
        ({"k": 0}, "k"),
        ({"k_max": 1.5}, "k_max"),
        ({"tolerance": -1}, "tolerance"),
        ({"names": ["a", "b"]}, "names"),
        ({"names": [""]}, "names"),
        ({"names": 3}, "names"),
        ({"n_threads": 0}, "n_threads"),
    ],
)
def test_arguments_that_cannot_be_used(arguments, argument, parts, tmp_path):
    folder = exchange.saelens(tmp_path, parts)
    with refuses(argument):
        usae.import_sae(**({"path": folder} | arguments))


def test_neither_torch_nor_the_library_is_imported(parts, tmp_path):
    import subprocess
    import sys

    exchange.saelens(tmp_path, parts)
    script = f"""
import sys, usae
sae = usae.import_sae({str(tmp_path)!r})
sae.export({str(tmp_path / "out")!r}, "sparsify")
print([name for name in ("torch", "sae_lens", "sparsify", "huggingface_hub") if name in sys.modules])
"""
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "[]\n"
