"""Activations whose mean is huge against their spread: computed in the type that came, or warned of."""

import pickle
import warnings

import numpy as np
import pytest
import torch

import usae
from support.autoencoders import RECIPE
from support.refusals import refuses
from support.saves import rewrite_json
from support.worlds import fit_two, two_models

pytestmark = pytest.mark.slow

HELD_OUT = two_models(500, seed=5)


def moved(acts, offset, dtype=np.float64):
    return {name: (x.astype(float) + offset).astype(dtype) for name, x in acts.items()}


@pytest.fixture(scope="module")
def plain():
    return fit_two(two_models(), steps=100)


@pytest.mark.parametrize("offset", [1e5, 1e8, -1e8, 1e10])
def test_float64_with_a_huge_mean_gives_the_results_of_none(plain, offset, tmp_path):
    sae = fit_two(moved(two_models(), offset), steps=100)
    held_out = moved(HELD_OUT, offset)
    assert np.allclose(sae.evaluate(held_out).r2, plain.evaluate(HELD_OUT).r2, atol=2e-3)
    codes = sae.encode(held_out["a"], "a")
    assert (codes.indices == plain.encode(HELD_OUT["a"], "a").indices).mean() > 0.97
    decoded = sae.decode(codes, "b")
    assert np.square(decoded - held_out["b"]).mean() < 0.4 * HELD_OUT["b"].var()
    latent = usae.latent_scaling(sae, held_out, progress=False)
    known = usae.latent_scaling(plain, HELD_OUT, progress=False)
    assert np.nanmedian(np.abs(latent.beta_activation - known.beta_activation)) < 1e-2


def test_what_float32_cannot_hold_of_the_mean_is_saved_and_copied(tmp_path):
    acts = moved(two_models(300), 1e8)
    sae = fit_two(acts, steps=3)
    sae.save(tmp_path / "sae")
    loaded = usae.load(tmp_path / "sae")
    fresh = usae.UniversalSAE(64, 4, recipe=sae.recipe, seed=0).initialize(sae.n_features_in_)
    for name in ("a", "b"):
        backwards = dict(reversed(sae.parameters(name).items()))  # a mean that is set resets its rest
        fresh.set_parameters(name, backwards)
    for other in (loaded, fresh):
        assert np.array_equal(other.encode(acts["a"], "a").values, sae.encode(acts["a"], "a").values)
        assert np.array_equal(other.parameters("b")["mean_rest"], sae.parameters("b")["mean_rest"])
    sae.set_parameters("a", {"mean": np.zeros(24)})
    assert not np.any(sae._initialized().read(0, "mean_rest"))


def test_a_run_with_a_huge_mean_resumes_to_the_same_bits(tmp_path):
    acts = moved(two_models(600), 1e8)
    whole = fit_two(acts, steps=6)
    sae = usae.UniversalSAE(64, 4, recipe=whole.recipe, seed=0)
    sae.fit(acts, steps=6, checkpoint=tmp_path / "run", callbacks=[lambda report: report.step == 3])
    resumed = usae.UniversalSAE(64, 4, recipe=whole.recipe, seed=0).fit(acts, steps=6, checkpoint=tmp_path / "run", resume=True)
    for tensor, values in whole.parameters("a").items():
        assert np.array_equal(values, resumed.parameters("a")[tensor])


def test_an_ordinary_mean_leaves_no_rest(plain):
    assert "mean_rest" not in plain.parameters("a")


@pytest.mark.parametrize(("dtype", "offset"), [(np.float16, 3000), (np.float16, 300), (np.float32, 1e7)])
def test_rounding_of_the_array_is_warned_of(dtype, offset):
    with pytest.warns(UserWarning, match=f"'a'.*{np.dtype(dtype).name}"):
        fit_two(moved(two_models(300), offset, dtype), steps=2)


def test_units_that_float16_rounds_are_warned_of():
    with pytest.warns(UserWarning, match="'a'.*float16"):
        fit_two({name: (x.astype(float) * 1e-7).astype(np.float16) for name, x in two_models(300).items()}, steps=2)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_ordinary_rounding_is_not(dtype, recwarn):
    fit_two(moved(two_models(300), 1, dtype), steps=2)
    assert not recwarn.list


def uses(sae):
    """Everything that takes activations of a trained autoencoder, and what its errors call them."""
    one, new = "x", lambda: usae.UniversalSAE(64, 4, recipe=sae.recipe, seed=0)  # noqa: E731
    wide = moved(HELD_OUT, 3000)
    return {
        "encode": (one, lambda x: sae.encode(x["a"], "a")),
        "reconstruct": (one, lambda x: sae.reconstruct(x["a"], "a", "b")),
        "preactivations": (one, lambda x: sae.preactivations(x["a"], "a")),
        "evaluate": ("acts['a']", lambda x: sae.evaluate(x)),
        "partial_fit": ("batch['a']", lambda x: sae.partial_fit(x)),
        "gradients": ("batch['a']", lambda x: sae.gradients(x, encoder="a")),
        "validation": ("validation['a']", lambda x: new().fit(wide, steps=2, validation=x)),
        "validation of a stream": ("validation['a']", lambda x: new().fit_stream([wide] * 9, steps=2, validation=x)),
        "top_examples": ("acts['a']", lambda x: usae.top_examples(sae, x, n=2)),
        "latent_scaling": ("acts['a']", lambda x: usae.latent_scaling(sae, x, owner="a", progress=False)),
        "controls": ("acts['a']", lambda x: usae.controls(sae, x, include=("tokens",))),
        "train of controls": ("train['a']", lambda x: usae.controls(sae, wide, train=x, include=("tokens",))),
    }


@pytest.fixture(scope="module")
def far():
    return fit_two(moved(two_models(), 3000), steps=20)


@pytest.mark.parametrize("loaded", [False, True])
def test_a_type_that_rounds_the_spread_away_is_refused(far, loaded, tmp_path):
    if loaded:
        far.save(tmp_path / "sae")
    sae = usae.load(tmp_path / "sae") if loaded else far
    before = sae.n_steps_
    narrow = moved(HELD_OUT, 3000, np.float16)
    for entry, (argument, use) in uses(sae).items():
        with refuses(argument, "float16", remedy="wider type"):
            pytest.fail(f"{entry} took it: {use(narrow)}")
    assert sae.n_steps_ == before
    with refuses("x", "bfloat16"):
        sae.encode(torch.from_numpy(moved(HELD_OUT, 3000)["a"]).bfloat16(), "a")


@pytest.mark.filterwarnings("ignore:model")
@pytest.mark.parametrize("way", ["none", "save", "pickle", "checkpoint"])
def test_the_type_that_was_trained_on_is_taken_also_after_a_save(way, tmp_path):
    """Its rounding is a tenth of the variance or more, of which training warned."""
    narrow, coarser = moved(HELD_OUT, 3000, np.float16), moved(HELD_OUT, 3000)
    sae = usae.UniversalSAE(64, 4, recipe=RECIPE.replace(batch_size=512), seed=0)
    sae.fit(moved(two_models(), 3000, np.float16), steps=20, checkpoint=tmp_path / "run", progress=False)
    sae.save(tmp_path / "save", training_state=True)
    ways = {
        "none": lambda: sae,
        "save": lambda: usae.load(tmp_path / "save"),
        "pickle": lambda: pickle.loads(pickle.dumps(sae)),
        "checkpoint": lambda: usae.Checkpoints(tmp_path / "run").load(),
    }
    sae = ways[way]()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, (_, use) in uses(sae).items():
            if "validation" not in name and name != "partial_fit":
                use(narrow)
    sae.set_total_steps(None).partial_fit(narrow)
    with refuses("x", "bfloat16"):
        sae.encode(torch.from_numpy(coarser["a"]).bfloat16(), "a")


@pytest.mark.parametrize("types", [{"c": "float16"}, {"a": "int8"}, {"a": ["float16"]}, ["float16"]])
def test_types_in_files_are_checked(far, tmp_path, types):
    far.save(tmp_path / "save")
    rewrite_json(tmp_path / "save" / "usae.json", lambda header: header | {"standardized_types": types})
    with refuses("standardized_types", error=usae.CheckpointError):
        usae.load(tmp_path / "save")


def test_float32_is_refused_where_the_mean_needs_float64():
    sae = fit_two(moved(two_models(300), 1e8), steps=3)
    sae.evaluate(moved(HELD_OUT, 1e8))
    with refuses("acts['a']", "float32"):
        sae.evaluate(moved(HELD_OUT, 1e8, np.float32))


def test_some_rounding_is_warned_of_once_for_each_model_and_type(recwarn):
    sae = fit_two(moved(two_models(300), 100), steps=3)
    narrow = moved(HELD_OUT, 100, np.float16)
    sae.evaluate(moved(HELD_OUT, 100))
    assert not recwarn.list
    for _ in range(3):
        sae.evaluate(narrow)
        sae.encode(narrow["a"], "a")
    found = [str(warning.message) for warning in recwarn.list]
    assert [text.split(":")[0] for text in found] == ["model 'a'", "model 'b'"]
    assert all("float16" in text and "; " in text for text in found)
    assert all(warning.filename == __file__ for warning in recwarn.list)
    sae.set_parameters("a", {"mean": np.full(24, 3000.1)})
    with refuses("x", "float16"):
        sae.encode(narrow["a"], "a")
    sae.set_parameters("a", {"mean": np.zeros(24)})
    sae.encode(narrow["a"], "a")


@pytest.mark.filterwarnings("ignore:model")
def test_the_type_that_was_trained_on_is_taken():
    narrow = moved(two_models(300), 3000, np.float16)
    sae = fit_two(narrow, steps=3)
    sae.evaluate(narrow)
    sae.set_total_steps(None)
    sae.partial_fit(moved(HELD_OUT, 3000))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("changes", [{}, {"scale": "dimension"}, {"center": "scalar"}])
def test_healthy_activations_of_any_type_are_taken_in_silence(dtype, changes, recwarn):
    acts = moved(two_models(300), 1)
    for x in acts.values():
        x[:, 0], x[:, 1] = 1024, 0  # constant
        x[:, 2] *= 30
        x[0] *= 50  # an attention sink
    sae = fit_two(acts, steps=3, **changes)
    recwarn.clear()
    narrow = {name: torch.from_numpy(x).to(getattr(torch, dtype)) for name, x in acts.items()}
    sae.set_total_steps(None)
    sae.evaluate(narrow)
    sae.partial_fit(narrow)
    assert not recwarn.list
