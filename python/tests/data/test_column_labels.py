"""Labels of columns: what was trained on columns with labels takes no others, nor the same in another order."""

import copy
import json
import pickle

import numpy as np
import pytest
from data.test_row_labels import LabelledArray

import usae
from support.refusals import refuses
from support.saves import rewrite_json

pd = pytest.importorskip("pandas")

WIDTHS = {"a": 6, "b": 8}
NAMES = {name: [f"{name}{i}" for i in range(width)] for name, width in WIDTHS.items()}


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal((60, width)) for name, width in WIDTHS.items()}


@pytest.fixture(scope="module")
def frames(rows):
    return {name: pd.DataFrame(x, columns=NAMES[name]) for name, x in rows.items()}


@pytest.fixture
def sae(frames):
    return usae.UniversalSAE(16, 4, seed=0).fit(frames, steps=3).set_total_steps(None)


def turned(frames):
    """The same with the columns of "a" in another order."""
    return frames | {"a": frames["a"][NAMES["a"][::-1]]}


def entries(sae, rows, frames, tmp_path):
    """Every public entry that takes a model's activations, by name, with what its errors call those of model "a"."""
    store = usae.ActivationStore.create(tmp_path / "acts")
    store.append(frames)
    new = lambda: usae.UniversalSAE(16, 4)  # noqa: E731
    image = lambda x: np.asarray(x).reshape(15, 4, -1)  # noqa: E731
    return {
        "encode": ("x", lambda x: sae.encode(x["a"], "a")),
        "reconstruct": ("x", lambda x: sae.reconstruct(x["a"], "a", "b")),
        "preactivations": ("x", lambda x: sae.preactivations(x["a"], "a")),
        "evaluate": ("acts['a']", lambda x: sae.evaluate(x)),
        "masked": ("acts['a']", lambda x: sae.evaluate(usae.MaskedActivations(x, np.ones(60, bool)))),
        "partial_fit": ("batch['a']", lambda x: sae.partial_fit(x)),
        "gradients": ("batch['a']", lambda x: sae.gradients(x, encoder="a")),
        "validation": ("validation['a']", lambda x: new().fit(frames, steps=2, validation=x)),
        "fit_stream": ("batches[1]['a']", lambda x: new().fit_stream([frames, x], steps=2, buffer_tokens=2048)),
        "validation of a stream": (
            "validation['a']",
            lambda x: new().fit_stream([frames] * 40, steps=2, buffer_tokens=2048, validation=x),
        ),
        "controls": ("acts['a']", lambda x: usae.controls(sae, x, include=("tokens",))),
        "train of controls": ("train['a']", lambda x: usae.controls(sae, rows, train=x)),
        "top_examples": ("acts['a']", lambda x: usae.top_examples(sae, x, n=2, models=["a"])),
        "latent_scaling": ("acts['a']", lambda x: usae.latent_scaling(sae, x)),
        "fit_independent": ("acts['a']", lambda x: usae.fit_independent(x, like=sae, steps=2)),
        "append": ("acts['a']", lambda x: store.append(x)),
        "objective": (
            "activations of 'a'",
            lambda x: usae.objective(
                sae, LabelledArray(image(x["a"]), ("view", "token", "width"), width=x["a"].columns), "a", 0
            ),
        ),
        "set_parameters": ("parameters['mean']", lambda x: sae.set_parameters("a", {"mean": x["a"].mean()})),
    }


def test_every_entry_refuses_columns_in_another_order(sae, rows, frames, tmp_path):
    before = sae.parameters("a")
    for entry, (argument, call) in entries(sae, rows, frames, tmp_path).items():
        with refuses(argument, "'a5' in place of 'a0' at column 0", remedy="]"):
            pytest.fail(f"{entry} took them: {call(turned(frames))}")
        call(frames)
    assert before.keys() == sae.parameters("a").keys()


def test_the_proposed_remedy_helps(sae, rows, frames):
    assert sae.feature_names_in_ == NAMES
    expected = sae.encode(rows["a"], "a")
    given = turned(frames)["a"]
    with refuses("x", remedy="x[sae.feature_names_in_['a']]"):
        sae.encode(given, "a")
    for x in (given[sae.feature_names_in_["a"]], frames["a"], rows["a"], np.asarray(frames["a"])):
        np.testing.assert_array_equal(sae.encode(x, "a").values, expected.values)


@pytest.mark.parametrize("way", ["pickle", "deepcopy", "save", "checkpoint", "clone"])
def test_labels_are_kept(sae, frames, tmp_path, way):
    if way == "checkpoint":
        new = usae.UniversalSAE(16, 4, seed=0).fit(frames, steps=3, checkpoint=tmp_path / "run")
        assert new.feature_names_in_ == NAMES
        other = usae.Checkpoints(tmp_path / "run").load()
    elif way == "save":
        sae.save(tmp_path / "save")
        other = usae.load(tmp_path / "save")
    elif way == "clone":
        other = usae.UniversalSAE(**sae.get_params()).fit(frames, steps=1)
    else:
        other = copy.deepcopy(sae) if way == "deepcopy" else pickle.loads(pickle.dumps(sae))
    assert other.feature_names_in_ == NAMES
    with refuses("acts['a']"):
        other.evaluate(turned(frames))


def test_a_resumed_run_keeps_the_labels_of_its_start(rows, frames, tmp_path):
    sae = usae.UniversalSAE(16, 4, seed=0)
    stop = {"callbacks": [lambda report: report.step == 2]}
    sae.fit(frames, steps=4, checkpoint=tmp_path / "run", **stop)
    sae.fit(rows, steps=4, checkpoint=tmp_path / "run", resume=True)
    assert sae.feature_names_in_ == NAMES


def test_a_file_without_labels_is_as_before_and_is_read(rows, tmp_path):
    sae = usae.UniversalSAE(16, 4, seed=0).fit(rows, steps=1)
    sae.save(tmp_path / "save")
    assert "column_labels" not in json.loads((tmp_path / "save" / "usae.json").read_text())
    assert usae.load(tmp_path / "save").feature_names_in_ == {}


@pytest.mark.parametrize(
    "labels", [{"c": ["x"] * 6}, {"a": ["x"] * 5}, {"a": "abcdef"}, {"a": [None] * 6}, {"a": [True] * 6}, {"a": [1.5] * 6}, []]
)
def test_labels_in_files_are_checked(sae, tmp_path, labels):
    sae.save(tmp_path / "save")
    rewrite_json(tmp_path / "save" / "usae.json", lambda header: header | {"column_labels": labels})
    with refuses("column_labels", error=usae.CheckpointError):
        usae.load(tmp_path / "save")


@pytest.mark.parametrize(
    "labels",
    [
        lambda n: [f"t{i}" for i in range(n)],
        lambda n: list(range(100, 100 + 7 * n, 7)),
        lambda n: pd.date_range("2024-01-01", periods=n, freq="h"),
        lambda n: pd.MultiIndex.from_product([range(n // 2), ["x", "y"]]),
        lambda n: pd.Categorical([f"c{i}" for i in range(n)]),
        lambda n: np.linspace(0, 1, n),
        lambda n: [("x", i) for i in range(n)],
        lambda n: ["same"] * (n - 1) + ["other"],
        lambda n: ["\ud800", "\0", '"column_labels": {}', "ü"] + [None] * (n - 5) + [True],
        lambda n: range(n),  # a frame without labels: its columns in another order are wrong nevertheless
        lambda n: range(n, 2 * n),
    ],
)
def test_labels_of_any_type_are_compared_also_after_a_save(rows, labels, tmp_path):
    frames = {name: pd.DataFrame(x, columns=labels(x.shape[1])) for name, x in rows.items()}
    usae.UniversalSAE(16, 4, seed=0).fit(frames, steps=1).save(tmp_path / "save")
    sae = usae.load(tmp_path / "save")
    expected = sae.encode(rows["a"], "a").values
    np.testing.assert_array_equal(sae.encode(frames["a"], "a").values, expected)
    with refuses("x"):
        sae.encode(frames["a"].iloc[:, ::-1], "a")


def test_frames_without_labels_fit_any_others(sae, rows, frames):
    expected = sae.encode(rows["a"], "a").values
    plain = usae.UniversalSAE(16, 4, seed=0).fit({name: pd.DataFrame(x) for name, x in rows.items()}, steps=3)
    for x in (
        pd.DataFrame(rows["a"]),
        pd.DataFrame(np.hstack([rows["b"], rows["a"]])).iloc[:, 8:],
        pd.DataFrame(rows["a"], columns=[f"column_{i}" for i in range(6)]),  # as Polars names them
        LabelledArray(rows["a"].reshape(15, 4, 6), ("image", "token", "width")),
    ):
        np.testing.assert_array_equal(sae.encode(x, "a").values, expected)
        np.testing.assert_array_equal(plain.encode(x, "a").values, expected)
    np.testing.assert_array_equal(plain.encode(frames["a"], "a").values, expected)
    with refuses("x", "'other' in place of 'a0' at column 0", remedy="np.asarray(x)"):
        sae.encode(frames["a"].rename(columns={"a0": "other"}), "a")


def test_labels_that_come_later_are_remembered(rows, frames):
    sae = usae.UniversalSAE(16, 4).initialize(WIDTHS)
    sae.partial_fit({name: pd.DataFrame(x) for name, x in rows.items()})
    sae.partial_fit(rows)
    sae.partial_fit(frames)
    assert sae.feature_names_in_ == NAMES
    with refuses("batch['a']"):
        sae.partial_fit(turned(frames))
    assert sae.n_steps_ == 3
    stream = usae.UniversalSAE(16, 4).fit_stream([rows, frames] * 20, steps=2, buffer_tokens=2048)
    assert stream.feature_names_in_ == NAMES


def test_labelled_arrays_are_compared_in_their_last_dimension(rows):
    dims = ("image", "token", "width")
    x = LabelledArray(rows["a"].reshape(15, 4, 6), dims, width=NAMES["a"])
    sae = usae.UniversalSAE(16, 4).fit({"a": x}, steps=1)
    sae.encode(x, "a")
    sae.encode(LabelledArray(rows["a"], ("row", "channel"), channel=NAMES["a"]), "a")
    with refuses("x", remedy=".sel("):
        sae.encode(LabelledArray(x.values, dims, width=NAMES["a"][::-1]), "a")


def test_a_store_keeps_labels(rows, frames, tmp_path):
    with usae.ActivationStore.create(tmp_path / "acts") as store:
        store.append(rows)
        store.append(frames)
    with usae.ActivationStore.create(tmp_path / "plain") as plain:
        plain.append(rows)
    assert "column_labels" not in json.loads((tmp_path / "plain" / "usae-store.json").read_text())
    store = usae.ActivationStore(tmp_path / "acts")
    with refuses("acts['a']"):
        store.append(turned(frames))
    store.finish()
    sae = usae.UniversalSAE(16, 4).fit(usae.ActivationStore(tmp_path / "acts"), steps=2)
    assert sae.feature_names_in_ == NAMES
    with refuses("x"):
        sae.encode(turned(frames)["a"], "a")
    with usae.ActivationStore.create(tmp_path / "other") as other:
        other.append(usae.ActivationStore(tmp_path / "acts"))
    assert usae.ActivationStore(tmp_path / "other")["a"].labels == tuple(NAMES["a"])
