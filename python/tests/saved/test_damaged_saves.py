"""Saves that are damaged, foreign, from an older version or from a newer one."""

import errno
import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

import usae
from support.autoencoders import RECIPE, everything
from support.refusals import refuses_place
from support.saves import FILES, refuses_to_load, rewrite_json, without_later_fields
from usae._saved.header import FORMAT_VERSION

pytestmark = pytest.mark.slow


def rewrite_header(folder, change, sign=True):
    rewrite_json(folder / "usae.json", change, sign)


def rewrite_tensors(folder, change):
    """Change the tensors as somebody would who also knows how to sign them."""
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    tensors = change(tensors) or tensors
    sign(folder, safetensors.numpy.save(tensors))


def sign(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    described = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    rewrite_header(folder, lambda header: header.update(tensors=described))


def test_a_file_or_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    refuses_to_load(tmp_path / "empty", "usae.json")
    (tmp_path / "model.pt").write_bytes(b"\x80\x04")
    refuses_to_load(tmp_path / "model.pt", tmp_path / "model.pt")


def test_a_header_cut_short_anywhere_is_refused(saved):
    text = (saved / "usae.json").read_bytes()
    assert len(text) > 1000
    for length in [*range(0, 1000, 37), *range(1000, len(text) - 2, 997)]:
        (saved / "usae.json").write_bytes(text[:length])
        refuses_to_load(saved, "usae.json")


def test_tensors_cut_short_or_changed_anywhere_are_refused(saved):
    file = saved / "model.safetensors"
    content = file.read_bytes()
    for length in range(0, len(content), 4999):
        file.write_bytes(content[:length])
        refuses_to_load(saved, f"{length:,} of {len(content):,} bytes")
    for position in range(0, len(content), 4999):
        file.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        refuses_to_load(saved, "model.safetensors")
    file.write_bytes(content + b"\0")
    refuses_to_load(saved, "model.safetensors")
    file.unlink()
    refuses_to_load(saved, "model.safetensors")


def test_a_folder_in_the_place_of_a_file_is_called_one(trained, saved):
    shutil.move(saved / "model.safetensors", saved / "tensors")
    (saved / "model.safetensors").mkdir()
    refuses_to_load(saved, "model.safetensors")
    with refuses_place(saved, errno.EEXIST):
        trained.save(saved)
    (saved / "usae.json").unlink()
    (saved / "usae.json").mkdir()
    refuses_to_load(saved, "usae.json")
    with refuses_place(saved, errno.EEXIST):
        trained.save(saved)


def test_tensors_that_are_no_safetensors_file_are_refused_even_if_the_checksums_fit(saved):
    content = (saved / "model.safetensors").read_bytes()
    no_tensors = (2).to_bytes(8, "little") + b"{}"
    for hostile in (
        b"",
        b"\xff" * 8,
        (2**63).to_bytes(8, "little") + b"{}",
        no_tensors,
        (4).to_bytes(8, "little") + b"null",
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
        content[:-4],
        content + b"\0" * 4,
        content.replace(b'"data_offsets":[', b'"data_offsets":[9', 1),
        b"\x80\x04\x95" + content,
    ):
        sign(saved, hostile)
        refuses_to_load(saved, "dinov2.encoder_weight" if hostile == no_tensors else "model.safetensors")


def test_a_newer_format_is_refused_with_both_versions(saved):
    def newer(header):
        header.update(format_version=FORMAT_VERSION + 1, package_version="9.1", something_new=True)

    rewrite_header(saved, newer)
    refuses_to_load(saved, f"{FORMAT_VERSION + 1} from usae 9.1")


def as_format_2(header):
    without_later_fields(header, 2)


def as_format_1(header):
    without_later_fields(header, 1)
    for entry in header["history"]:
        del entry["prefix"]


SINCE_4 = {
    "aux_every": 1, "agreement": 0.0, "agreement_scale": None, "dictionary_norm": "unit", "input_noise": 0.0,
    "same_model_weight": 1.0,
}  # fmt: skip


def test_what_an_older_version_saved_is_read(trained, saved):
    rewrite_header(saved, as_format_1, sign=False)
    loaded, expected = everything(usae.load(saved)), everything(trained)
    # Nothing was merged, nothing drawn, and no row was outlying.
    as_then = dict(merge_cosine=None, prefixes=None, prefix_loss="mean", outlier_multiple=None, **SINCE_4)
    assert loaded.pop("recipe") == expected.pop("recipe").replace(**as_then)
    whole = trained.n_concepts
    as_read = [{key: x for key, x in entry.items() if key != "prefix"} | {"prefix": whole} for entry in trained.history_]
    assert loaded.pop("history") == repr(as_read)
    del loaded["repr"], expected["repr"], expected["history"]
    assert loaded == expected
    rewrite_header(saved, lambda header: header["recipe"].update(prefixes=[0.5, 1.0]), sign=False)
    refuses_to_load(saved, "usae.json")


def test_a_run_that_was_saved_before_auxk_was_on_some_tokens_goes_on_with_all(acts, tmp_path):
    recipe = RECIPE.replace(dead_tokens=1, prefixes=None, **SINCE_4)
    sae = usae.UniversalSAE(32, 4, recipe=recipe).fit(acts, steps=4)
    sae.save(tmp_path / "now", training_state=True)
    sae.save(tmp_path / "then", training_state=True)
    rewrite_header(tmp_path / "then", lambda header: without_later_fields(header, 3))
    now, then = usae.load(tmp_path / "now"), usae.load(tmp_path / "then")
    assert then.recipe == now.recipe == recipe
    for loaded in (now, then):
        loaded.set_total_steps(None)  # as more than the planned steps follow
        for model in range(len(acts)):
            loaded._autoencoder.write(model, "silent_tokens", np.where(np.arange(32) % 3 == 0, 500, 0))
        assert loaded.partial_fit(acts).dead > 0
    assert everything(now) == everything(then)


def test_a_save_of_a_format_without_a_checksum_is_read_and_only_that(trained, saved):
    rewrite_header(saved, as_format_2, sign=False)
    loaded, expected = everything(usae.load(saved)), everything(trained)
    assert loaded.pop("recipe") == expected.pop("recipe").replace(outlier_multiple=None, **SINCE_4) and loaded == expected
    rewrite_header(saved, lambda header: header.update(format_version=2))
    refuses_to_load(saved, "usae.json")
    rewrite_header(saved, lambda header: header.update(format_version=3), sign=False)
    refuses_to_load(saved, "usae.json")


def test_no_changed_bit_of_the_header_is_read_and_the_checksum_is_that_of_the_bytes_before_it(saved):
    file = saved / "usae.json"
    content = file.read_bytes()
    body, end = content[:-83], json.loads(content)["sha256"]
    assert hashlib.sha256(body).hexdigest() == end and content == body + f',\n  "sha256": "{end}"\n}}\n'.encode()
    for position in [*range(0, len(body), 61), *range(len(body), len(content))]:
        for bit in range(8) if position >= len(body) - 61 else (position % 8,):
            file.write_bytes(content[:position] + bytes([content[position] ^ 1 << bit]) + content[position + 1 :])
            refuses_to_load(saved, "usae.json")
    file.write_bytes(content + b"\n")
    refuses_to_load(saved, "usae.json")


def change(key, value):
    return lambda header: header.__setitem__(key, value)


def change_step(**fields):
    return lambda header: header["history"][3].update(fields)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda header: [1], "usae.json"),
        (lambda header: header.clear(), "usae.json"),
        (change("format", "USAE"), "usae.json"),
        (change("format_version", 0), "format_version"),
        (change("format_version", "1"), "format_version"),
        (change("format_version", True), "format_version"),
        (change("extra", 1), "extra"),
        (lambda header: header.pop("history") and None, "history"),
        (change("n_concepts", 33), "dinov2.encoder_weight"),
        (change("n_concepts", 0), "n_concepts"),
        (change("n_concepts", 2**31), "n_concepts"),
        (change("n_concepts", 10**30), "n_concepts"),
        (change("n_concepts", 32.0), "n_concepts"),
        (change("k", 33), "k"),
        (change("k", True), "k"),
        (change("seed", -1), "seed"),
        (change("seed", 2**64), "seed"),
        (change("n_steps", -1), "n_steps"),
        (change("models", []), "models"),
        (change("models", {"vit": 17}), "models"),
        (change("models", [{"name": str(i), "width": 1} for i in range(5000)]), "models"),
        (change("models", [{"name": "vit"}]), "models"),
        (change("models", [{"name": "vit", "width": 17}]), "standardized_types"),
        (lambda header: header["models"][0].update(width=0), "models"),
        (lambda header: header["models"][0].update(width=13), "dinov2.encoder_weight"),
        (lambda header: header["models"][0].update(name="vit"), "['vit', 'siglip', 'vit']"),
        (lambda header: header["models"][0].update(name="other"), "standardized_types"),
        (change("recipe", 3), "recipe"),
        (lambda header: header["recipe"].update(los="l1"), "los"),
        (lambda header: header["recipe"].update(loss="l3"), "loss"),
        (lambda header: header["recipe"].pop("loss") and None, "loss"),
        (change("resolved_recipe", None), "resolved_recipe"),
        (lambda header: header["resolved_recipe"].update(encoder="batchnorm"), "dinov2.bn_weight"),
        (lambda header: header["resolved_recipe"].update(batch_size=-1), "batch_size"),
        (change("training_state", False), "dinov2.counters"),
        (change("training_state", 1), "training_state"),
        (change("tensors", {"bytes": 3}), "tensors"),
        (change("history", {}), "history"),
        (change("history", [{"step": 1}]), "encoder"),
        (change("history", [7]), "usae.json"),
        (change_step(extra=1), "extra"),
        (change_step(step=0), "history[3].step"),
        (change_step(encoder=None), "history[3].encoder"),
        (change_step(loss="abc"), "history[3].loss"),
        (change_step(loss=True), "history[3].loss"),
        (change_step(l0=10**400), "history[3].l0"),
        (change_step(dead=1.5), "history[3].dead"),
        (change_step(losses=[1, 2, 3]), "history[3].losses"),
        (change_step(losses={"vit": 1.0}), "history[3].losses"),
        (change_step(validation=7), "history[3].validation"),
        (change_step(validation={"n_tokens": 1, "r2": [[1.0]], "l0": [1.0] * 3}), "history[3].validation"),
        (
            lambda header: header["resolved_recipe"].update(dead_tokens=None),
            "resolved_recipe.dead_tokens",
        ),
    ],
)
def test_a_header_that_usae_does_not_write_is_refused(saved, change, name):
    rewrite_header(saved, change)
    refuses_to_load(saved, name)


@pytest.mark.parametrize(
    "text", ["NaN", "[" * 100_000, '{"format": "usae", "format": "usae"}', '{"format": "usae", "k": Infinity}', "\ufeff{}"]
)
def test_json_that_readers_disagree_about_is_refused(saved, text):
    (saved / "usae.json").write_text(text)
    refuses_to_load(saved, "usae.json")


def setitem(key, value):
    return lambda tensors: tensors.__setitem__(key, value)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (setitem("extra", np.zeros(1)), "extra"),
        (lambda tensors: tensors.pop("vit.mean") is None or None, "vit.mean"),
        (setitem("vit.mean", np.zeros(16, np.float32)), "vit.mean"),
        (setitem("vit.mean", np.zeros((17, 1), np.float32)), "vit.mean"),
        (setitem("vit.mean", np.zeros(17)), "vit.mean"),
        (setitem("vit.counters", np.zeros(3, np.int32)), "vit.counters"),
        (setitem("vit.mean", np.full(17, np.nan, np.float32)), "vit.mean"),
        (setitem("vit.dictionary", np.full((32, 17), np.inf, np.float32)), "vit.dictionary"),
        (setitem("vit.dictionary_second_moment", np.full((32, 17), np.nan, np.float32)), "vit.dictionary_second_moment"),
        (setitem("vit.dictionary_first_moment", np.full((32, 17), np.inf, np.float32)), "vit.dictionary_first_moment"),
        (setitem("vit.dictionary_second_moment", np.full((32, 17), -1, np.float32)), "vit.dictionary_second_moment"),
        (setitem("vit.scale", np.zeros(17, np.float32)), "scale"),
        (setitem("vit.silent_tokens", np.full(32, -1)), "vit.silent_tokens"),
        (setitem("vit.counters", np.array([1, -1, 1])), "vit.counters"),
    ],
)
def test_tensors_that_usae_does_not_write_are_refused_even_if_the_checksums_fit(saved, change, name):
    rewrite_tensors(saved, change)
    refuses_to_load(saved, name)


def test_loading_runs_no_code_of_the_file(tmp_path):
    # A pickle in the place of either file is refused as text or by its signature, never unpickled.
    marker = tmp_path / "ran"
    pickled = f"cos\nsystem\n(S'touch {marker}'\ntR.".encode()
    (tmp_path / "run").mkdir()
    for name in FILES:
        (tmp_path / "run" / name).write_bytes(pickled)
    refuses_to_load(tmp_path / "run", "usae.json")
    assert not marker.exists()
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, usae._saved.saved_folder; print('pickle' in vars(usae._saved.saved_folder))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert loaded.stdout == "False\n"
