"""`push_to_hub` and ``hf://`` addresses, with a client that copies folders in place of the Hub."""

import json

import numpy as np
import pytest

import usae
from support import exchange
from support.exchange import K, N
from support.hub import Hub
from support.refusals import refuses


@pytest.fixture
def hub(tmp_path, monkeypatch):
    module = Hub(tmp_path / "hub")
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", module)
    return module


@pytest.fixture(scope="module")
def sae():
    return exchange.trained()


def test_what_is_pushed_is_loaded_and_each_model_is_there_for_saelens(hub, sae):
    assert (
        sae.push_to_hub("user/three", license="mit", token="secret", private=True, message="First") == "https://hub/user/three"
    )
    assert hub.calls == [("HfApi", "secret"), ("create_repo", "user/three", True), ("upload_folder", "user/three", "First")]
    files = sorted(
        str(path.relative_to(hub.root / "user/three")) for path in (hub.root / "user/three").rglob("*") if path.is_file()
    )
    own = ["README.md", "model.safetensors", "usae.json"]
    assert files == sorted(own + [f"saelens/{name}/{file}" for name in "abc" for file in (
        "cfg.json", "sae_weights.safetensors", "usae_export.json")])  # fmt: skip
    loaded, x = usae.load("hf://user/three"), exchange.acts()["a"]
    assert (loaded.encode(x, "a").values == sae.encode(x, "a").values).all()
    assert hub.calls[-1] == ("snapshot_download", "user/three", None, ["usae.json", "model.safetensors"])
    one = usae.import_sae("hf://user/three/saelens/a")
    exchange.assert_same(one, x, sae.encode(x, "a").to_dense(), sae.reconstruct(x, "a", "a"), ("a", "a"))
    assert hub.calls[-1][-1] == ["saelens/a/*"]


def test_a_revision_and_a_folder_can_be_named(hub, sae):
    sae.save(hub.root / "user" / "many" / "layer" / "11")
    assert usae.load("hf://user/many@v1.0/layer/11/").model_names_ == sae.model_names_
    assert hub.calls == [("snapshot_download", "user/many", "v1.0", ["layer/11/usae.json", "layer/11/model.safetensors"])]


def test_the_card_says_what_is_known_and_that_the_rest_is_not_given(hub, sae, tmp_path):
    sae.push_to_hub("user/bare", license="cc-by-4.0", saelens=False)
    bare = (hub.root / "user" / "bare" / "README.md").read_text()
    assert 'license: "cc-by-4.0"' in bare and "Data: not given" in bare and "saelens" not in bare and "base_model" not in bare
    acts = exchange.acts()
    models = {"a": {"width": 24, "source": "timm:vit", "layer": "blocks.11", "size": 224}, "b": 32, "c": 24}
    with usae.ActivationStore.create(tmp_path / "store", models, dtype="float32") as store:
        store.append(acts)
    evaluation = usae.controls(sae, acts, include=("tokens",), n_draws=5, progress=False)
    sae.push_to_hub(
        "user/full", license="mit", networks={"a": "org/vit", "b": "org/other"}, store=usae.ActivationStore(tmp_path / "store"),
        data="50 crops | of photographs", evaluation=evaluation,
    )  # fmt: skip
    card = (hub.root / "user" / "full" / "README.md").read_text()
    front = card.split("---\n")[1]
    header = {key: json.loads(value) for key, value in (line.split(": ", 1) for line in front.splitlines())}
    assert header["base_model"] == ["org/other", "org/vit"] and header["library_name"] == "usae" and "saelens" in header["tags"]
    for words in (
        "blocks.11",
        "size 224",
        "50 crops",
        f"{sae.evaluate(acts).r2[0, 1]:.3f}",
        "tokens permuted",
        '"learning_rate"',
    ):
        assert words in card
    assert 'usae.load("hf://user/full")' in card and '"saelens/a"' in card


def test_the_front_of_the_card_is_yaml(hub, sae):
    yaml = pytest.importorskip("yaml")
    sae.push_to_hub("user/yaml", license="mit", networks={"a": 'org/"vit: 1'})
    front = (hub.root / "user" / "yaml" / "README.md").read_text().split("---\n")[1]
    assert yaml.safe_load(front)["base_model"] == ['org/"vit: 1']


def test_names_of_models_that_are_no_names_of_folders(hub):
    sae = usae.UniversalSAE(N, K).initialize({"../a": 3, "__/a": 3, ".": 3, "b c": 3})
    sae.push_to_hub("user/odd", license="mit")
    folders = sorted(path.name for path in (hub.root / "user" / "odd" / "saelens").iterdir())
    assert len(folders) == 4 and all(set(name) <= set("abcdel_.mo0123") and not name.startswith(".") for name in folders)


@pytest.mark.parametrize("address", ["hf://user/none", "hf://user/none/folder"])
def test_what_the_hub_refuses_is_an_error_of_one_line_with_the_address(hub, address):
    for load in (usae.load, usae.import_sae):
        with pytest.raises(usae.CheckpointFileError) as caught:
            load(address)
        assert caught.value.filename == address and "\n" not in str(caught.value)


def test_a_failed_upload_is_an_error_with_the_address(hub, sae, monkeypatch):
    def refused(**arguments):
        raise RuntimeError("403")

    monkeypatch.setattr(hub, "upload_folder", refused)
    with pytest.raises(usae.CheckpointFileError) as caught:
        sae.push_to_hub("user/three", license="mit")
    assert caught.value.filename == "hf://user/three"


def test_without_huggingface_hub_the_error_says_what_to_install(sae, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    for call in (lambda: usae.load("hf://user/repo"), lambda: sae.push_to_hub("user/repo", license="mit")):
        with pytest.raises(ImportError) as caught:
            call()
        assert "huggingface_hub" in str(caught.value)


@pytest.mark.parametrize(
    "address", ["hf://", "hf://user", "hf://user/", "hf://user/re po", "hf://user/repo/../x", "hf://../x", "hf://u/r@/x"]
)
def test_addresses_that_are_none(hub, address):
    with refuses("path"):
        usae.load(address)
    assert hub.calls == []


@pytest.mark.parametrize(
    ("arguments", "argument"),
    [
        ({"repo": "user"}, "repo"),
        ({"repo": "user/name/more"}, "repo"),
        ({"repo": 3}, "repo"),
        ({"license": ""}, "license"),
        ({"license": "a\nb"}, "license"),
        ({"license": None}, "license"),
        ({"networks": {"d": "org/vit"}}, "networks"),
        ({"networks": {"a": 3}}, "networks['a']"),
        ({"networks": "org/vit"}, "networks"),
        ({"store": "acts"}, "store"),
        ({"data": "two\nlines"}, "data"),
        ({"evaluation": "good"}, "evaluation"),
        ({"saelens": "yes"}, "saelens"),
        ({"private": 2}, "private"),
        ({"token": 3}, "token"),
        ({"message": ""}, "message"),
    ],
)
def test_arguments_that_cannot_be_used_upload_nothing(hub, sae, arguments, argument):
    with refuses(argument):
        sae.push_to_hub(**({"repo": "user/name", "license": "mit"} | arguments))
    assert hub.calls == []


def test_an_evaluation_of_another_autoencoder_is_refused(hub, sae):
    other = exchange.one_model()
    evaluation = other.evaluate({"vit": exchange.tokens()})
    with refuses("evaluation"):
        sae.push_to_hub("user/name", license="mit", evaluation=evaluation)


def test_the_client_is_called_as_the_real_one_is():
    real = pytest.importorskip("huggingface_hub")
    import inspect

    for name in ("create_repo", "upload_folder"):
        ours = set(inspect.signature(getattr(Hub, name)).parameters)
        assert ours <= set(inspect.signature(getattr(real.HfApi, name)).parameters)
    assert set(inspect.signature(Hub.snapshot_download).parameters) - {"self"} <= set(
        inspect.signature(real.snapshot_download).parameters
    )
    assert np.all([hasattr(real, name) for name in ("HfApi", "snapshot_download")])


def test_each_model_has_a_folder_of_its_own_whatever_the_names(hub):
    names = ["a_b", "a_b_2", "a b", "A_B", "a/b", ".a b", "", "é" * 300, "x" * 300]
    names = [name or "." for name in names]
    x = np.random.default_rng(0).standard_normal((64, 5)).astype(np.float32)
    sae = usae.UniversalSAE(n_concepts=8, k=2, seed=0).fit({name: x * (i + 1) for i, name in enumerate(names)}, steps=2)
    sae.push_to_hub("user/many", license="mit")
    folders = sorted(path.name for path in (hub.root / "user/many/saelens").iterdir())
    assert len({folder.lower() for folder in folders}) == len(names)
    of = {usae.import_sae(hub.root / "user/many/saelens" / folder).model_names_[0] for folder in folders}
    assert of == set(names)
