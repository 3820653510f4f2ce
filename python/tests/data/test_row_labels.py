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


def entries_with_masks(sae, tmp_path):
    """Every public entry that takes a mask, by name, with what its errors call the mask."""
    store = usae.ActivationStore.create(tmp_path / "acts", {"a": 6, "b": 8})
    new = lambda: usae.UniversalSAE(16, 4)  # noqa: E731
    return {
        "fit": ("mask", lambda x, mask: new().fit(x, steps=2, mask=mask)),
        "one model's": ("mask['b']", lambda x, mask: new().fit(x, steps=2, mask={"b": mask})),
        "MaskedActivations": ("mask", lambda x, mask: usae.MaskedActivations(x, mask)),
        "validation": ("mask", lambda x, mask: new().fit(x, steps=2, validation=usae.MaskedActivations(x, mask))),
        "partial_fit": ("mask", lambda x, mask: new().partial_fit(x, mask=mask)),
        "gradients": ("mask", lambda x, mask: sae.gradients(x, encoder="a", mask=mask)),
        "encode": ("mask", lambda x, mask: sae.encode(x["a"], "a", mask=mask)),
        "reconstruct": ("mask", lambda x, mask: sae.reconstruct(x["a"], "a", "b", mask=mask)),
        "preactivations": ("mask", lambda x, mask: sae.preactivations(x["a"], "a", mask=mask)),
        "evaluate": ("mask", lambda x, mask: sae.evaluate(x, mask=mask)),
        "controls": ("mask", lambda x, mask: usae.controls(sae, x, include=("tokens",), mask=mask)),
        "train of controls": ("train_mask", lambda x, mask: usae.controls(sae, x, train=x, train_mask=mask, include=())),
        "top_examples": ("mask", lambda x, mask: usae.top_examples(sae, x, n=2, mask=mask)),
        "latent_scaling": ("mask", lambda x, mask: usae.latent_scaling(sae, x, mask=mask, progress=False)),
        "fit_independent": ("mask", lambda x, mask: usae.fit_independent(x, like=sae, steps=2, mask=mask)),
        "append": ("mask", lambda x, mask: store.append(x, mask=mask)),
    }


def test_every_entry_refuses_masks_whose_labels_differ(sae, rows, names, tmp_path):
    frames = {name: pd.DataFrame(x, index=names) for name, x in zip("ab", rows, strict=True)}
    mask = pd.Series(np.arange(60) < 40, index=names)
    for entry, (argument, call) in entries_with_masks(sae, tmp_path).items():
        with refuses(argument, "'image 14, token 3' in place of 'image 0, token 0' at row 0", remedy="mask.loc[other.index]"):
            pytest.fail(f"{entry} took it: {call(frames, mask[::-1])}")


def test_masks_with_the_same_labels_or_none_are_taken_by_position(sae, rows, names):
    plain, counts = dict(zip("ab", rows, strict=True)), np.arange(60) < 40
    frames = {name: pd.DataFrame(x, index=names) for name, x in plain.items()}
    expected = sae.evaluate(plain, mask=counts).r2
    same = pd.Series(counts, index=names)
    for acts, mask in (
        (frames, same),
        (frames, same[::-1].loc[names]),
        (frames, same.to_frame()),
        (frames, counts),
        (frames, counts.tolist()),
        (frames, pd.Series(counts)),
        ({name: pd.DataFrame(x) for name, x in plain.items()}, same),
        (plain, same),
        ({"a": rows[0], "b": frames["b"]}, {"a": same, "b": counts}),
    ):
        np.testing.assert_array_equal(sae.evaluate(acts, mask=mask).r2, expected)
    np.testing.assert_array_equal(sae.encode(frames["a"], "a", mask=same).values, sae.encode(rows[0], "a", mask=counts).values)


def test_labelled_masks_are_compared_in_each_dimension(sae, rows):
    dims, coords = ("image", "token", "width"), {"image": [f"{n}.jpg" for n in range(15)], "token": list("abcd")}
    acts = {
        name: LabelledArray(x.reshape(15, 4, -1), dims, **coords) for name, x in zip("ab", rows, strict=True)
    }  # fmt: skip
    counts = np.random.default_rng(2).random((15, 4)) < 0.6
    expected = sae.evaluate(dict(zip("ab", rows, strict=True)), mask=counts.ravel()).r2
    for mask in (LabelledArray(counts, dims[:2], **coords), LabelledArray(counts, ("picture", "place")), counts):
        np.testing.assert_array_equal(sae.evaluate(acts, mask=mask).r2, expected)
    usae.MaskedActivations(acts, LabelledArray(counts[:, :1], dims[:2], image=coords["image"], token=["a"]))  # whole images
    usae.MaskedActivations(acts, LabelledArray(counts.ravel(), ("token",)))  # one dimension has the rows of both
    for mask in (
        LabelledArray(counts, dims[:2], **(coords | {"image": coords["image"][::-1]})),
        LabelledArray(counts, dims[:2], **(coords | {"token": list("abdc")})),
        LabelledArray(counts.T, ("token", "image")),
    ):
        with refuses("mask"):
            sae.evaluate(acts, mask=mask)


class OfNoIndex(np.lib.mixins.NDArrayOperatorsMixin):
    """Asking for its index is an error of another kind, as for np.nditer."""

    def __init__(self, values):
        self._values = np.asarray(values)

    def __array__(self, dtype=None, copy=None):
        return self._values

    @property
    def index(self):
        raise ValueError("Iterator does not have an index")


def test_what_fails_to_say_its_index_has_no_labels():
    x = np.random.default_rng(0).standard_normal((8, 3))
    sae = usae.UniversalSAE(4, 2).initialize({"a": 3})
    found = sae.evaluate({"a": OfNoIndex(x)}, mask=OfNoIndex(np.ones(8, bool)))
    assert found.to_dict() == sae.evaluate({"a": x}).to_dict()
