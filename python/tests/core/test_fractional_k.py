"""BatchTopK with a mean number of active concepts that is no whole number."""

import json

import numpy as np
import pytest

import usae
from support.autoencoders import RECIPE, WIDTHS, everything, planted
from support.exchange import random_parts as parts_of
from support.exchange import tokens, visaebench
from support.refusals import refuses

N_CONCEPTS = 64
BATCH = RECIPE.replace(selection="batchtopk")


def made(k, **recipe):
    return usae.UniversalSAE(N_CONCEPTS, k, recipe=BATCH.replace(**recipe), seed=3)


@pytest.fixture(scope="module")
def acts():
    return planted(700, seed=5)


@pytest.fixture(scope="module")
def fitted(acts):
    return made(4.3).fit(acts, steps=20)


@pytest.mark.parametrize("k", [1.5, 2.003, 4.3, 4.75, 4.999])
@pytest.mark.parametrize("rows", [1, 7, 130])
def test_a_batch_keeps_the_product_rounded_down_as_sae_lens_computes_it(k, rows, acts):
    sae = made(k).initialize(WIDTHS)
    report = sae.partial_fit({name: x[:rows] for name, x in acts.items()}, encoder="vit")
    assert round(report.l0 * rows) == int(k * rows)


def test_a_whole_mean_gives_the_same_bits_however_it_is_written(acts):
    whole, written_out = (made(k).fit(acts, steps=6) for k in (4, np.float64(4)))
    assert everything(written_out) | {"repr": ""} == everything(whole) | {"repr": ""}
    assert written_out._autoencoder.k == 4 and type(written_out._autoencoder.k) is int


def test_codes_have_the_mean_number_in_and_after_training(fitted, acts):
    assert fitted.k == 4.3 and repr(fitted).startswith("UniversalSAE(n_concepts=64, k=4.3")
    assert all(entry["l0"] <= 4.3 for entry in fitted.history_)
    assert fitted.encode(acts["vit"], "vit").values.shape == (700, 18)  # 4 k, rounded up
    np.testing.assert_allclose(fitted.evaluate(acts).l0, 4.3, rtol=0.15)


def test_before_any_step_a_token_has_the_number_rounded_up(acts):
    sae = made(4.3).initialize(WIDTHS)
    assert ((sae.encode(acts["vit"], "vit").indices >= 0).sum(1) == 5).all()


def test_it_is_saved_and_training_goes_on_to_the_same_bits(acts, tmp_path):
    batches = [{name: x[i : i + 130] for name, x in acts.items()} for i in range(0, 500, 100)]
    never_stopped, stopped = made(4.3), made(4.3)
    for i, batch in enumerate(batches):
        never_stopped.partial_fit(batch)
        stopped.partial_fit(batch)
        if i == 2:
            stopped.save(tmp_path / "run", training_state=True)
            stopped = usae.load(tmp_path / "run")
    assert stopped.k == 4.3 and everything(stopped) == everything(never_stopped)
    fit = dict(steps=8, checkpoint=tmp_path / "checkpoints", resume=True)
    assert everything(made(4.3).fit(acts, **fit)) == everything(made(4.3).fit(acts, **fit))
    with refuses("resume"):
        made(4.4).fit(acts, **fit)


@pytest.mark.slow
def test_it_goes_into_whatever_is_trained_beside(fitted, acts):
    alone = usae.fit_independent(acts, like=fitted, steps=2)
    assert {sae.k for sae in alone.values()} == {4.3}
    joined = usae.UniversalSAE(N_CONCEPTS, 4.3, recipe=BATCH).fit({name: acts[name] for name in ("dinov2", "vit")}, steps=3)
    assert joined.add_model("siglip", acts, steps=2).k == 4.3
    assert usae.controls(fitted, acts, train=acts, include=["agreement", "seeds"], steps=2).agreement is not None


@pytest.mark.parametrize("k", [0, 0.5, -1.5, 64.5, 65, np.nan, np.inf, "4.3", None, True])
def test_a_mean_is_a_number_from_1_to_all(k, acts):
    with refuses("k"):
        made(k).fit(acts, steps=1)


@pytest.mark.parametrize("k", [4.3, 4.0, np.float64(4)])
def test_topk_has_none(k, acts):
    with refuses("k", remedy=""):
        usae.UniversalSAE(N_CONCEPTS, k).fit(acts, steps=1)


def test_a_cap_below_it_is_refused(acts):
    with refuses("recipe: k_max", got=4):
        made(4.3, k_max=4).fit(acts, steps=1)
    assert made(4.3, k_max=5).fit(acts, steps=1).encode(acts["vit"], "vit").values.shape[1] == 5


@pytest.mark.parametrize("k", [4.0, 0.3, 1e9, "4.3", [4]])
def test_a_save_with_another_k_is_refused(k, fitted, tmp_path):
    fitted.save(tmp_path / "run")
    header = json.loads((tmp_path / "run" / "usae.json").read_text())
    assert header["k"] == 4.3
    check_refused(tmp_path, header | {"k": k})


def test_a_save_of_topk_with_a_fractional_k_is_refused(acts, tmp_path):
    usae.UniversalSAE(N_CONCEPTS, 4).fit(acts, steps=1).save(tmp_path / "run")
    check_refused(tmp_path, json.loads((tmp_path / "run" / "usae.json").read_text()) | {"k": 4.5})


def check_refused(folder, header):
    from usae._files import checksummed_json

    header.pop(checksummed_json.KEY, None)
    (folder / "run" / "usae.json").write_text(checksummed_json.with_checksum(json.dumps(header, indent=2) + "\n"))
    with refuses("k", error=usae.CheckpointError):
        usae.load(folder / "run")


# --- Other libraries --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["saelens", "visaebench", "dictionary_learning", "crosscoder"])
def test_an_export_says_if_it_rounds_the_mean_and_comes_back_with_it(format, tmp_path):
    if format == "dictionary_learning":
        pytest.importorskip("torch")
    acts = planted(400, seed=1, widths={"a": 12, "b": 12})
    sae = made(4.7, k_max=N_CONCEPTS).fit(acts, steps=5)
    export = sae.export(tmp_path / "out", format, model="a")
    assert ("k" in export.lost) == (format != "saelens")  # whose JumpReLU has none
    back = usae.import_sae(tmp_path / "out")
    assert back.k == 4.7
    np.testing.assert_array_equal(back.encode(acts["a"], "a").indices, sae.encode(acts["a"], "a").indices)
    of_thresholds = format in ("saelens", "visaebench")  # whose JumpReLU has no k, so that one may be given
    assert usae.import_sae(tmp_path / "out", k=6.5).k == (6.5 if of_thresholds else 4.7)


def test_an_export_before_any_step_is_topk_with_a_whole_number(tmp_path):
    made(4.3).initialize({"a": 12}).export(tmp_path / "out", "saelens")
    assert json.loads((tmp_path / "out" / "cfg.json").read_text())["k"] == 5
    assert usae.import_sae(tmp_path / "out").k == 5


def test_a_mean_of_others_is_taken_as_it_is(tmp_path):
    parts = parts_of()
    sae = usae.import_sae(visaebench(tmp_path / "1", parts, activation="batchtopk", threshold=0.5, k=5.25))
    assert sae.k == 5.25 and sae.encode(tokens(), "model").values.any()
    weight, bias, rows, mean = parts
    state = {
        "encoder.weight": weight,
        "encoder.bias": bias,
        "decoder.weight": rows.T,
        "b_dec": mean,
        "threshold": np.float32(1),
    }
    for k in (np.float32(5.25), np.float64(5.25)):
        assert usae.import_sae(state | {"k": np.array(k)}).k == 5.25
    assert usae.import_sae(state | {"k": np.array(5, np.int32)}).k == 5
    assert usae.import_sae(state, k=5.25).k == 5.25
    with refuses("k", error=usae.CheckpointError):
        usae.import_sae(state | {"k": np.array(0.5, np.float32)})


@pytest.mark.parametrize("k", [5.25, "5.25", 0.5])
def test_a_fractional_k_of_others_topk_is_refused(k, tmp_path):
    folder = visaebench(tmp_path / "1", parts_of(), k=k)
    with refuses("k", error=usae.CheckpointError):
        usae.import_sae(folder)
    weight, bias, rows, mean = parts_of()
    state = {"encoder.weight": weight, "encoder.bias": bias, "decoder.weight": rows.T, "b_dec": mean}
    with refuses("k"):
        usae.import_sae(state, k=k)


def test_the_torch_encoder_selects_as_the_core_does(fitted, acts):
    torch = pytest.importorskip("torch")
    for sae in (fitted, made(4.3).initialize(WIDTHS)):
        encoder = usae.torch.Encoder.from_sae(sae, "vit")
        with torch.no_grad():
            ours = encoder(torch.from_numpy(acts["vit"][:50])).numpy()
        assert ((ours > 0).sum(1) == (sae.encode(acts["vit"][:50], "vit").indices >= 0).sum(1)).all()
