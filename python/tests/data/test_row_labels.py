"""Labels of rows: models whose labels differ are never paired by position, in any entry that takes several models' rows."""

import numpy as np
import pytest

import usae
from support.refusals import refuses

pd = pytest.importorskip("pandas")


class LabelledArray:
    """What xarray's DataArray shows of itself."""

    def __init__(self, values, dims, **coords):
        self.values, self.dims = values, dims
        self.indexes = {name: pd.Index(x) for name, x in coords.items()}

    def __array__(self, dtype=None, copy=None):
        return self.values


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    return rng.standard_normal((60, 6)), rng.standard_normal((60, 8))


@pytest.fixture
def names():
    return [f"image {n // 4}, token {n % 4}" for n in range(60)]


def entries(sae, tmp_path):
    """Every public entry that takes activations of several models, by name, and the argument that it gives them."""
    store = usae.ActivationStore.create(tmp_path / "acts", {"a": 6, "b": 8})
    new = lambda: usae.UniversalSAE(16, 4)  # noqa: E731
    return {
        "fit": ("acts", lambda x: new().fit(x, steps=2)),
        "validation": ("validation", lambda x: new().fit({k: np.asarray(v) for k, v in x.items()}, steps=2, validation=x)),
        "partial_fit": ("batch", lambda x: new().partial_fit(x)),
        "partial_fit again": ("batch", lambda x: usae.UniversalSAE(**sae.get_params()).partial_fit(x)),
        "gradients": ("batch", lambda x: sae.gradients(x, encoder="a")),
        "fit_stream": ("batches[0]", lambda x: new().fit_stream([x] * 9, steps=2, buffer_tokens=2048)),
        "evaluate": ("acts", lambda x: sae.evaluate(x)),
        "controls": ("acts", lambda x: usae.controls(sae, x, include=("tokens",))),
        "train of controls": ("train", lambda x: usae.controls(sae, {k: np.asarray(v) for k, v in x.items()}, train=x)),
        "top_examples": ("acts", lambda x: usae.top_examples(sae, x, n=2)),
        "latent_scaling": ("acts", lambda x: usae.latent_scaling(sae, x)),
        "fit_independent": ("acts", lambda x: usae.fit_independent(x, like=sae, steps=2)),
        "append": ("acts", lambda x: store.append(x)),
    }


@pytest.fixture
def sae(rows):
    return usae.UniversalSAE(16, 4, seed=0).fit(dict(zip("ab", rows, strict=True)), steps=3)


def test_every_entry_refuses_frames_whose_labels_differ(sae, rows, names, tmp_path):
    order = np.random.default_rng(1).permutation(60)
    a = pd.DataFrame(rows[0], index=names)
    b = pd.DataFrame(rows[1], index=names).iloc[order]
    for entry, (argument, call) in entries(sae, tmp_path).items():
        with refuses(f"{argument}['b']"):
            pytest.fail(f"{entry} took them: {call({'a': a, 'b': b})}")


@pytest.mark.parametrize(
    "labels",
    [
        lambda n: list(range(n)),
        lambda n: [f"t{i}" for i in range(n)],
        lambda n: pd.date_range("2024-01-01", periods=n, freq="h"),
        lambda n: pd.MultiIndex.from_product([range(n // 4), range(4)]),
        lambda n: pd.Categorical([f"c{i}" for i in range(n)]),
        lambda n: np.linspace(0, 1, n),
        lambda n: [("x", i) for i in range(n)],
        lambda n: [0] * (n - 1) + [1],
    ],
)
def test_labels_of_any_type_are_compared(sae, rows, labels):
    index = pd.Index(labels(60)) if not isinstance(labels(60), pd.Index) else labels(60)
    frames = {"a": pd.DataFrame(rows[0], index=index), "b": pd.DataFrame(rows[1], index=index)}
    expected = sae.evaluate(dict(zip("ab", rows, strict=True))).r2
    np.testing.assert_array_equal(sae.evaluate(frames).r2, expected)
    frames["b"] = frames["b"].iloc[::-1]
    with refuses("acts['b']", remedy=".loc"):
        sae.evaluate(frames)
    frames["b"] = frames["b"].iloc[::-1]
    np.testing.assert_array_equal(sae.evaluate(frames).r2, expected)


def test_frames_without_labels_and_arrays_fit_any_others(sae, rows, names):
    expected = sae.evaluate(dict(zip("ab", rows, strict=True))).r2
    named, plain = pd.DataFrame(rows[0], index=names), pd.DataFrame(rows[1])
    for given in (
        {"a": named, "b": rows[1]},
        {"a": named, "b": plain},
        {"a": pd.DataFrame(rows[0]), "b": plain},
        {"a": LabelledArray(rows[0].reshape(15, 4, 6), ("image", "token", "width"), image=range(15)), "b": plain},
    ):
        np.testing.assert_array_equal(sae.evaluate(given).r2, expected)
    with refuses("acts['b']", "1 in place of 0 at row 0"):
        sae.evaluate({"a": plain.iloc[:, :6], "b": plain.iloc[np.roll(np.arange(60), -1)]})


def test_labelled_arrays_are_compared_in_each_dimension(sae, rows):
    shapes = (15, 4, 6), (15, 4, 8)
    dims = ("image", "token", "width")
    coords = {"image": [f"{n}.jpg" for n in range(15)], "token": list("abcd")}
    a = LabelledArray(rows[0].reshape(shapes[0]), dims, **coords)
    expected = sae.evaluate(dict(zip("ab", rows, strict=True))).r2
    values = rows[1].reshape(shapes[1])
    for other in (
        LabelledArray(values, dims, **coords),
        LabelledArray(values, dims),
        LabelledArray(values, ("picture", "place", "channel")),
        LabelledArray(values, dims, **coords, width=list("zyxwvuts")),
    ):
        np.testing.assert_array_equal(sae.evaluate({"a": a, "b": other}).r2, expected)
    for other in (
        LabelledArray(values, dims, **(coords | {"image": coords["image"][::-1]})),
        LabelledArray(values, dims, **(coords | {"token": list("abdc")})),
        LabelledArray(values, ("token", "image", "width")),
    ):
        with refuses("acts['b']"):
            sae.evaluate({"a": a, "b": other})


def test_with_three_models_each_is_compared_with_each(rows, names):
    with refuses("acts['c']"):
        usae.UniversalSAE(16, 4).fit(
            {
                "a": pd.DataFrame(rows[0]),
                "b": pd.DataFrame(rows[1], index=names),
                "c": pd.DataFrame(rows[1], index=names[::-1]),
            },
            steps=1,
        )
