"""What version 0.1.0 wrote, when all modules lay in one folder, still loads: pickles, saves, checkpoints and stores.

``fixtures/version_0_1_0.pkl`` was made by that version: {"objects": name -> pickle, "files": path -> bytes, "activations",
"names": public name, module and name there of each public class and function}.
"""

import dataclasses
import importlib
import json
import operator
import pathlib
import pickle

import numpy as np
import pytest

import usae
from usae import _old_pickles
from usae._saved import header

WRITTEN = pickle.loads((pathlib.Path(__file__).parents[1] / "fixtures" / "version_0_1_0.pkl").read_bytes())
ACTS = WRITTEN["activations"]


@pytest.fixture
def folder(tmp_path):
    for name, content in WRITTEN["files"].items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


def of_version(name):
    return pickle.loads(WRITTEN["objects"][name])


@pytest.mark.parametrize("name", [name for name in WRITTEN["objects"] if " " not in name])
def test_a_pickle_of_each_class_loads(name):
    assert type(of_version(name)) is operator.attrgetter(name)(usae)


def test_every_public_class_and_function_is_found_where_that_version_had_it():
    """A pickle names a class or a function by its module and its name there."""
    assert len(WRITTEN["names"]) > 60
    for public, module, name in WRITTEN["names"]:
        package, _, public_name = public.rpartition(".")
        package = importlib.import_module(package)
        assert getattr(importlib.import_module(module), name) is getattr(package, public_name)


def test_a_pickled_autoencoder_gives_the_codes_that_it_gave(folder):
    sae, codes = of_version("UniversalSAE"), of_version("Codes")
    assert sae.encode(ACTS["a"], "a") == codes
    assert usae.load(folder / "saved").encode(ACTS["a"], "a") == codes
    found, evaluation = sae.evaluate(ACTS), of_version("Evaluation")
    np.testing.assert_array_equal(found.firing_counts, evaluation.firing_counts)
    np.testing.assert_allclose(found.r2, evaluation.r2, rtol=1e-12)


def test_an_autoencoder_that_was_not_fitted_is_not():
    sae = of_version("UniversalSAE unfitted")
    assert sae.get_params()["k"] == 2 and not sae.__sklearn_is_fitted__()


def test_a_saved_autoencoder_goes_on_training_to_the_bits_of_the_pickled_one(folder):
    saved, pickled = usae.load(folder / "saved"), of_version("UniversalSAE")
    for sae in (saved, pickled):
        sae.partial_fit(ACTS)
    assert saved.parameters("b")["dictionary"].tobytes() == pickled.parameters("b")["dictionary"].tobytes()


def test_each_field_that_the_recipe_of_an_older_save_lacks_has_a_value_for_it():
    """Whoever adds a field to `usae.Recipe` adds it to `_FIELDS_SINCE` under the next `FORMAT_VERSION`."""
    written = json.loads(WRITTEN["files"]["saved/usae.json"])
    lacking = {field.name for field in dataclasses.fields(usae.Recipe)} - set(written["resolved_recipe"])
    later = {since: fields for since, fields in header._FIELDS_SINCE.items() if since > written["format_version"]}
    assert lacking == {name for fields in later.values() for name in fields}
    assert max(header._FIELDS_SINCE) <= header.FORMAT_VERSION
    for fields in header._FIELDS_SINCE.values():
        usae.Recipe(**fields)


def test_checkpoints_and_stores_are_read(folder):
    assert usae.Checkpoints(folder / "run").load().n_steps_ == 6
    store = usae.ActivationStore(folder / "store")
    np.testing.assert_allclose(store["a"][:], ACTS["a"], rtol=1e-3, atol=1e-3)


def test_a_pickled_store_reads_its_files(folder, monkeypatch):
    monkeypatch.chdir(folder)  # it was pickled with a relative path
    store = of_version("ActivationStore")
    np.testing.assert_array_equal(store["a"][:], usae.ActivationStore("store")["a"][:])


def test_a_pickled_exchange_has_its_numbers():
    exchanged = of_version("torch.Exchanged")
    assert (exchanged.names, exchanged.bytes, exchanged.waiting, exchanged.updating) == (("losses",), (8,), (0.5,), 0.125)


def test_a_pickled_layer_gives_the_activations_that_it_gave():
    images = np.random.default_rng(0).standard_normal((2, 3, 4, 6)).astype(np.float32)
    plain, changed = of_version("torch.Model"), of_version("torch.Model of a function")
    assert plain.grid == changed.grid == (2, 3) and plain.n_tokens == 6 and plain.width == 4
    np.testing.assert_array_equal(changed(images), np.maximum(plain(images), 0))
    assert (changed(images) > 0).any()


def test_every_old_name_stands_for_a_module_that_is_there():
    for old, new in _old_pickles.NEW_NAMES.items():
        assert importlib.import_module(old) is importlib.import_module(new)
        assert importlib.import_module(new).__name__ == new and importlib.import_module(new).__spec__.name == new
