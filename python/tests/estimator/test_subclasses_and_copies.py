"""What subclasses and users add is kept by copies, and scikit-learn's tools take the estimator."""

import copy
import pickle

import numpy as np
import pytest
import sklearn.base
import sklearn.pipeline
import sklearn.utils
import sklearn.utils.validation

import usae
from support.autoencoders import everything, small
from support.refusals import refuses
from usae import Codes, UniversalSAE


class Named(UniversalSAE):
    """Adds an argument, names those that it passes on, and has a slot."""

    __slots__ = ("note",)

    def __init__(self, n_concepts=32, k=4, *, label="none", recipe=None, seed=0, n_threads=None):
        super().__init__(n_concepts, k, recipe=recipe, seed=seed, n_threads=n_threads)
        self.label = label


class PassingOn(UniversalSAE):
    def __init__(self, *args, label="none", **keywords):
        super().__init__(*args, **keywords)
        self.label = label


class Fixed(UniversalSAE):
    """Decides arguments of its base class itself."""

    def __init__(self, label="none"):
        super().__init__(32, 4)
        self.label = label


class Unnamed(UniversalSAE):
    def __init__(self, *arguments):
        super().__init__(*arguments)


class NoCodes(Codes):
    pass


class Doubling(sklearn.base.TransformerMixin, sklearn.base.BaseEstimator):
    def fit(self, acts, y=None):
        return self

    def transform(self, acts):
        return {name: 2 * x for name, x in acts.items()}


COPIES = [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
SUBCLASSES = [lambda: Named(label="a"), lambda: PassingOn(32, 4, label="a"), lambda: Fixed("a")]


@pytest.mark.parametrize("make", SUBCLASSES)
def test_arguments_of_a_subclass_are_cloned_and_set(make, acts):
    sae = make().fit(acts, steps=2)
    cloned = sklearn.base.clone(sae)
    assert type(cloned) is type(sae) and cloned.label == "a" and not cloned.__sklearn_is_fitted__()
    assert cloned.get_params() == sae.get_params() and "label" in sae.get_params()
    assert everything(cloned.fit(acts, steps=2)) == everything(sae)
    assert sae.set_params(label="b").label == "b" and repr(sae).startswith(type(sae).__name__) and "'b'" in repr(sae)
    with refuses("params", remedy="label"):
        sae.set_params(lable="c")


def test_arguments_without_names_are_refused():
    with refuses("params", "*arguments"):
        Unnamed(32, 4).get_params()


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("make", [*SUBCLASSES, small])
def test_a_copy_has_every_attribute(how, make, acts):
    sae = make().fit_stream([acts], steps=3, buffer_tokens=2048)
    sae.my_note = {"why": [1, 2]}
    if isinstance(sae, Named):
        sae.note = "in a slot"
    copied = how(sae)
    assert type(copied) is type(sae) and copied.my_note == sae.my_note and copied.get_params() == sae.get_params()
    assert not isinstance(sae, Named) or copied.note == "in a slot"
    assert everything(copied) == everything(sae) and copied.stream_report_ == sae.stream_report_
    fresh = make()
    fresh.my_note = "not fitted"
    assert how(fresh).my_note == "not fitted" and not how(fresh).__sklearn_is_fitted__()


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_knows_that_its_optimizer_was_lost(how, trained, acts, tmp_path):
    trained.save(tmp_path / "sae")
    loaded = usae.load(tmp_path / "sae").set_total_steps(None)
    with pytest.warns(UserWarning, match="training_state=True"):
        how(loaded).partial_fit(acts)
    loaded.save(tmp_path / "again", training_state=True)
    with pytest.warns(UserWarning, match="training_state=True"):
        usae.load(tmp_path / "again").partial_fit(acts)


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_of_codes_of_a_subclass_has_its_class_and_attributes(how):
    codes = NoCodes(np.ones((2, 1), np.float32), np.zeros((2, 1), int), 3)
    codes.note = "mine"
    assert type(how(codes)) is NoCodes and how(codes).note == "mine" and how(codes) == codes


def test_a_pipeline_ends_with_it(acts):
    pipeline = sklearn.pipeline.Pipeline([("double", Doubling()), ("sae", small())])
    pipeline.set_params(sae__seed=3).fit(acts, sae__steps=2)
    assert pipeline["sae"].n_steps_ == 2 and pipeline["sae"].seed == 3
    pipeline.fit(acts, np.zeros(len(next(iter(acts.values())))), sae__steps=1)  # labels are not used
    assert sklearn.base.clone(pipeline)["sae"].seed == 3


@pytest.mark.skipif(not hasattr(sklearn.utils, "get_tags"), reason="scikit-learn has tags since 1.6")
def test_scikit_learn_knows_what_it_takes():
    tags = sklearn.utils.get_tags(small())
    assert tags.input_tags.dict and not tags.input_tags.two_d_array and not tags.target_tags.required


def test_scikit_learn_knows_what_it_is_and_whether_it_was_fitted(acts):
    sae = small()
    assert not sklearn.base.is_classifier(sae) and not sklearn.base.is_regressor(sae)
    with pytest.raises(sklearn.exceptions.NotFittedError):
        sklearn.utils.validation.check_is_fitted(sae)
    sklearn.utils.validation.check_is_fitted(sae.fit(acts, steps=1))


def test_held_out_activations_in_the_place_of_labels_are_refused(acts):
    with refuses("y", "a mapping", "validation"):
        small().fit(acts, acts)
