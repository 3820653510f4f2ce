"""`usae.import_published`: caches of the published code into a store."""

import shutil

import numpy as np
import pytest

import usae
from support.refusals import refuses
from usae.interop import published_caches
from usae.interop.published_caches import import_published

MODELS = {"dinov2": "DinoV2", "siglip": "SigLIP", "vit": "ViT_base"}
TOKENS = {"dinov2": 17, "siglip": 9, "vit": 10}
WIDTHS = {"dinov2": 4, "siglip": 6, "vit": 5}


def cached(seed, n=3):
    values = np.random.default_rng(seed)
    return {
        f"train/n0{number % 2}/img_{number}": {
            name: values.standard_normal((TOKENS[name], WIDTHS[name])).astype(np.float16) for name in MODELS
        }
        for number in range(n)
    }


@pytest.fixture(params=["apart", "combined"])
def folder(request, tmp_path):
    """Files as cache_imagenet_activations.py and combine_cached_acts.py of the published code write them."""
    for image, acts in cached(0).items():
        (tmp_path / "cache" / image).parent.mkdir(parents=True, exist_ok=True)
        if request.param == "combined":
            np.savez(tmp_path / "cache" / f"{image}_combined.npz", **{MODELS[name]: x for name, x in acts.items()})
        else:
            for name, x in acts.items():
                np.savez_compressed(tmp_path / "cache" / f"{image}_{MODELS[name]}.npz", activation=x, label=np.int64(7))
    return tmp_path / "cache"


def test_class_tokens_are_dropped_and_grids_brought_to_the_smallest(folder, tmp_path):
    store = import_published(folder, tmp_path / "acts", MODELS, shard_images=2)
    expected = cached(0)
    assert store.images == ("train/n00/img_0", "train/n00/img_2", "train/n01/img_1") == tuple(sorted(expected))
    assert store.grid == (3, 3) and store.n_shards == 2 and store.finished and store.models["vit"]["file"] == "ViT_base"
    for number, image in enumerate(store.images):
        np.testing.assert_array_equal(store["siglip"][number], expected[image]["siglip"])
        np.testing.assert_array_equal(store["vit"][number], expected[image]["vit"][1:])
        assert store["dinov2"][number].shape == (9, 4)
    assert usae.UniversalSAE(8, 2).fit(store, steps=2).n_features_in_ == WIDTHS


@pytest.mark.parametrize(("n", "size"), [(16, 14), (16, 3), (3, 16), (5, 5), (1, 4), (4, 1)])
def test_resizing_is_that_of_pytorch(n, size):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).standard_normal((n * n, 6)).astype(np.float32)
    maps = torch.from_numpy(x).T.reshape(1, 6, n, n)
    expected = torch.nn.functional.interpolate(maps, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    got = published_caches._resized(x, (n, n), (size, size))
    # PyTorch has the centres, up to 16, in float32, so that its weights are off by 1e-6.
    np.testing.assert_allclose(got, expected[0].flatten(1).T.numpy(), rtol=1e-5, atol=1e-5)


VIT = {"vit": "ViT_base"}


def test_a_grid_and_prefix_tokens_may_be_given(folder, tmp_path):
    store = import_published(folder, tmp_path / "acts", VIT, n_prefix_tokens={"vit": 1}, grid=(2, 5), dtype="float32")
    assert store["vit"].shape == (3, 10, 5)


@pytest.mark.parametrize(
    ("argument", "got", "arguments"),
    [
        ("n_prefix_tokens['vit']", "2", {"n_prefix_tokens": {"vit": 2}}),
        ("n_prefix_tokens['vit']", "1.0", {"n_prefix_tokens": {"vit": 1.0}}),
        ("n_prefix_tokens['vit']", "10", {"n_prefix_tokens": {"vit": 10}}),
        ("n_prefix_tokens", "1", {"n_prefix_tokens": 1}),
        ("n_prefix_tokens", "[1]", {"n_prefix_tokens": [1]}),
        ("n_prefix_tokens", "", {"n_prefix_tokens": {"wit": 1}}),
        ("tokens", "{'vit': 1}", {"n_prefix_tokens": {"vit": 1}, "tokens": {"vit": 1}}),
        ("grid", "3", {"grid": 3}),
        ("grid", "'33'", {"grid": "33"}),
        ("grid", "(3, 3, 3)", {"grid": (3, 3, 3)}),
        ("grid[1]", "2.5", {"grid": (3, 2.5)}),
        ("grid[0]", "0", {"grid": (0, 3)}),
    ],
)
def test_a_grid_or_number_of_prefix_tokens_that_cannot_be_is_refused_before_a_store_is_made(
    folder, tmp_path, argument, got, arguments
):
    with refuses(argument, got):
        import_published(folder, tmp_path / "acts", VIT, **arguments)
    assert not (tmp_path / "acts").exists()


def test_the_old_name_of_n_prefix_tokens_still_works_with_a_warning_that_has_the_new_one(folder, tmp_path):
    with pytest.warns(DeprecationWarning, match="n_prefix_tokens") as caught:
        old = import_published(folder, tmp_path / "old", VIT, tokens={"vit": 1})
    assert [warning.filename for warning in caught] == [__file__]
    new = import_published(folder, tmp_path / "new", VIT, n_prefix_tokens={"vit": 1})
    np.testing.assert_array_equal(old["vit"][:], new["vit"][:])


def test_what_is_missing_or_damaged_is_named(tmp_path):
    root = tmp_path / "cache"
    root.mkdir()
    models = {"vit": "ViT", "siglip": "SigLIP"}
    with refuses("folder", "none in"):
        import_published(root, tmp_path / "acts", models)
    for image in "ab":
        for source in models.values():
            np.savez(root / f"{image}_{source}.npz", activation=np.ones((9, 3), np.float16), label=0)
    whole = (root / "b_SigLIP.npz").read_bytes()

    def refused(argument, got="", error=usae.CheckpointError):
        with refuses(argument, got, error=error):
            import_published(root, tmp_path / "acts", models)
        store = tmp_path / "acts"
        if store.exists():  # begun, and so not finished
            assert not usae.ActivationStore(store).finished
            shutil.rmtree(store)

    (root / "b_SigLIP.npz").unlink()
    refused("models", "no file b_SigLIP.npz of 'siglip' (1 of 2 are missing)", error=usae.InvalidInputError)
    (root / "b_SigLIP.npz").write_bytes(whole[: len(whole) // 2])
    refused("b_SigLIP.npz")
    np.savez(root / "b_SigLIP.npz", other=np.ones((9, 3)))
    refused("'activation'")
    np.savez(root / "b_SigLIP.npz", activation=np.array([{}], dtype=object))
    refused("b_SigLIP.npz")
    np.savez(root / "b_SigLIP.npz", activation=np.ones(9))
    refused("'activation'", "(9,)")
    np.savez(root / "b_SigLIP.npz", activation=np.ones((10, 3)))
    refused("b_SigLIP.npz", "10")
    np.savez(root / "b_SigLIP.npz", activation=np.ones((9, 4)))
    refused("'SigLIP'")
    for image in "ab":
        np.savez(root / f"{image}_SigLIP.npz", activation=np.ones((12, 3)))
    refused("n_prefix_tokens", "None", error=usae.InvalidInputError)
    with refuses("models", "['vit']"):
        import_published(root, tmp_path / "acts", ["vit"])
    with refuses("models", "an empty mapping"):
        import_published(root, tmp_path / "acts", {})
