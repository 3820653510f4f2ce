"""The contract of the estimator: arguments, errors, copies."""

import copy
import pickle
import warnings

import pytest
import sklearn.base

import usae
from support.autoencoders import WIDTHS, everything, planted, small
from support.refusals import refuses
from usae import Codes, UniversalSAE

# --- The estimator ----------------------------------------------------------------------------------------------------


def test_the_constructor_only_stores_and_scikit_learn_can_clone():
    arguments = {"n_concepts": "many", "k": -1, "recipe": usae.recipes.published(), "seed": None, "n_threads": 0.5}
    sae = UniversalSAE(**arguments)
    assert sae.get_params() == arguments
    copied = sklearn.base.clone(sae)
    assert copied.get_params() == arguments
    assert sae.set_params(k=7) is sae and sae.k == 7
    with refuses("params", remedy="n_concepts, k"):
        sae.set_params(k=8, n_concept=3)
    assert sae.k == 7


@pytest.mark.parametrize(
    ("arguments", "argument", "got"),
    [
        ({"n_concepts": 0}, "n_concepts", "0"),
        ({"n_concepts": 8.0}, "n_concepts", "8.0"),
        ({"n_concepts": "8"}, "n_concepts", "'8'"),
        ({"n_concepts": 2**31}, "n_concepts", "2147483648"),
        ({"k": 0}, "k", "0"),
        ({"k": 33}, "k", "33"),
        ({"k": True}, "k", "True"),
        ({"seed": -1}, "seed", "-1"),
        ({"seed": 2**64}, "seed", "18446744073709551616"),
        ({"seed": None}, "seed", "None"),
        ({"n_threads": 0}, "n_threads", "0"),
        ({"n_threads": "2"}, "n_threads", "'2'"),
        ({"recipe": "published"}, "recipe", "str"),
        ({"recipe": {"loss": "l1"}}, "recipe", "dict; see usae.recipes and usae.Recipe.from_dict"),
    ],
)
def test_an_argument_that_cannot_be_used_is_refused_when_it_is_used_and_nothing_changes(
    trained, acts, arguments, argument, got
):
    sae = copy.deepcopy(trained)
    before = everything(sae)
    sae.set_params(**arguments)
    for call in (lambda: sae.fit(acts, steps=1), lambda: sae.initialize(WIDTHS)):
        with refuses(argument, got):
            call()
    sae.set_params(**trained.get_params())
    assert everything(sae) == before
    with refuses(argument, got):
        UniversalSAE(32, 4).set_params(**arguments).partial_fit(acts)


def test_before_there_are_parameters_every_use_says_what_to_do(acts, tmp_path):
    sae = small()
    codes = Codes([[1.0]], [[0]], 32)
    for use in (
        lambda: sae.encode(acts["vit"], "vit"),
        lambda: sae.decode(codes, "vit"),
        lambda: sae.reconstruct(acts["vit"], "vit", "siglip"),
        lambda: sae.preactivations(acts["vit"], "vit"),
        lambda: sae.evaluate(acts),
        lambda: sae.dictionary("vit"),
        lambda: sae.parameters("vit"),
        lambda: sae.set_parameters("vit", {}),
        lambda: sae.gradients(acts, encoder="vit"),
        lambda: sae.save(tmp_path / "run"),
        lambda: sae.model_names_,
        lambda: sae.n_features_in_,
        lambda: sae.recipe_,
        lambda: sae.history_,
        lambda: sae.n_steps_,
    ):
        with pytest.raises(usae.NotInitializedError):
            use()
    assert not hasattr(sae, "history_")
    assert not sae.__sklearn_is_fitted__()
    assert list(tmp_path.iterdir()) == []


def test_models_keep_the_order_in_which_they_were_first_given(acts):
    order = ["vit", "dinov2", "siglip"]
    sae = small().fit({name: acts[name] for name in order}, steps=1)
    assert sae.model_names_ == tuple(order)
    assert sae.n_features_in_ == {name: WIDTHS[name] for name in order}
    assert list(sae.n_features_in_) == order
    sae.partial_fit(acts)
    assert sae.model_names_ == sae.evaluate(acts).model_names == tuple(order)


def test_errors_are_of_the_kinds_that_users_expect():
    assert issubclass(usae.InvalidInputError, ValueError)
    assert issubclass(usae.NotInitializedError, ValueError) and issubclass(usae.NotInitializedError, AttributeError)
    assert issubclass(usae.CheckpointError, ValueError) and issubclass(usae.CheckpointFileError, OSError)
    assert issubclass(usae.UsaeMemoryError, MemoryError)
    assert all(issubclass(getattr(usae, name), usae.UsaeError) for name in usae.__all__ if name.endswith("Error"))


# --- Learning ---------------------------------------------------------------------------------------------------------


def test_widths_are_checked(trained):
    before = everything(trained)
    for widths, argument, got in (
        ({}, "widths", "an empty mapping"),
        (["vit"], "widths", "list"),
        ({"vit": 0}, "widths['vit']", "0"),
        ({"vit": 3.0}, "widths['vit']", "3.0"),
        ({"vit": True}, "widths['vit']", "True"),
        ({"": 3}, "widths", "''"),
    ):
        with refuses(argument, got):
            trained.initialize(widths)
    assert everything(trained) == before


def test_initialize_makes_a_working_autoencoder_without_data(acts):
    sae = small().initialize(WIDTHS)
    assert (sae.n_steps_, sae.history_, sae.recipe_.dead_tokens) == (0, [], 1_000_000)
    for name in WIDTHS:
        parameters = sae.parameters(name)
        assert (parameters["mean"] == 0).all() and (parameters["scale"] == 1).all()
        assert sae.decode(sae.encode(acts[name], name), name).shape == acts[name].shape
    assert everything(small().initialize(WIDTHS)) == everything(sae)


# --- Copies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [copy.deepcopy, lambda sae: pickle.loads(pickle.dumps(sae))])
def test_a_copy_is_independent_and_goes_on_like_the_original(sae, acts, how):
    sae.set_total_steps(None)  # or the plan would be over, and a step would change nothing
    copied, original = how(sae), everything(sae)
    assert everything(copied) == original
    copied.partial_fit(acts)
    assert everything(sae) == original != everything(copied)
    sae.partial_fit(acts)
    assert everything(sae) == everything(copied)
    assert how(small()).get_params() == small().get_params()


def test_no_warning_is_given_without_a_reason(acts):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sae = small().fit(planted(300, 5), steps=3).set_total_steps(None)
        sae.partial_fit(acts)
        sae.evaluate(acts)
