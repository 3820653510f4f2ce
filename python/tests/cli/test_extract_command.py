"""`usae extract`: from pictures to a store."""

import importlib
import sys
import types

import numpy as np
import pytest

import usae
from support.commands import printed, refusal, run
from support.refusals import names
from usae import cli

pytestmark = pytest.mark.slow

pytest.importorskip("torch")


def test_extract_keeps_what_the_networks_say(made, tmp_path, capsys):
    from usae.demo.networks import load_models
    from usae.torch import extract

    options = ["--network", "demo", "--grid", "4x4", "--dtype", "float32", "--batch-size", "5", "--shard-images", "8"]
    arguments = [
        "extract",
        "--images",
        made / "photographs",
        *options,
        "--device",
        "cpu",
        "--output",
        tmp_path / "new" / "acts",
    ]
    told = printed(capsys, *arguments)
    store = usae.ActivationStore(tmp_path / "new" / "acts")
    assert told == {
        "store": str(store.path),
        "models": store.models,
        "n_images": 12,
        "skipped": [],
        "n_tokens": 12 * 16,
        "grid": [4, 4],
        "dtype": "float32",
    }
    assert store.n_shards == 2 and store.images[0] == "00.png"
    for name, x in extract(load_models(), made / "photographs", grid=4).items():
        np.testing.assert_allclose(store[name][:], x, rtol=1e-5, atol=1e-5)


def test_extract_goes_on_where_it_was_interrupted(made, tmp_path, monkeypatch):
    arguments = ["extract", "--images", made / "photographs", "--network", "demo", "--shard-images", "4"]
    append, shards = usae.ActivationStore.append, []

    def stopping(self, *args, **options):
        if len(shards) == 2:
            raise KeyboardInterrupt
        append(self, *args, **options)
        shards.append(self.n_shards)

    monkeypatch.setattr(usae.ActivationStore, "append", stopping)
    assert cli.main([*map(str, arguments), "--output", str(tmp_path / "acts")]) == 130
    monkeypatch.undo()
    assert not usae.ActivationStore(tmp_path / "acts").finished
    run(*arguments, "--output", tmp_path / "acts")
    run(*arguments, "--output", tmp_path / "at-once")
    files = [{file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("acts", "at-once")]
    assert files[0] == files[1]


def test_extract_takes_the_crop_and_the_layer_that_are_asked_for(made, tmp_path, monkeypatch, capsys):
    (tmp_path / "two_nets.py").write_text(
        "from torch import nn\n"
        "from usae.torch import Model\n"
        "def plain(): return nn.Sequential(nn.Conv2d(3, 5, 32, stride=32), nn.ReLU())\n"
        "def ready(): return Model(plain().eval(), '1', size=64, mean=0.5, std=0.5)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    arguments = ["extract", "--images", made / "photographs", "--network", "a=two_nets:ready", "--crop"]
    told = printed(capsys, *arguments, "--output", tmp_path / "acts")
    assert told["models"]["a"]["layer"] == "1" and usae.ActivationStore(tmp_path / "acts").metadata == {"crop": True}
    line = refusal(capsys, *arguments, "--layer", "a=0", "--output", tmp_path / "acts")
    assert names("--layer", line, anywhere=True), line


def test_networks_of_torchvision_have_the_scale_of_their_weights(made, tmp_path, monkeypatch, recwarn):
    from torch import nn

    pretrained = type("Net", (nn.Sequential,), {"__module__": "torchvision.models.tiny"})(nn.Conv2d(3, 5, 32, 32), nn.ReLU())
    own = types.SimpleNamespace(mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6])
    weights = types.SimpleNamespace(DEFAULT=types.SimpleNamespace(transforms=lambda: own))
    fake = types.SimpleNamespace(get_model=lambda name, weights: pretrained, get_model_weights=lambda name: weights)
    real = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", lambda name: fake if name == "torchvision.models" else real(name))
    arguments = ["extract", "--images", made / "photographs", "--network", "a=torchvision:tiny", "--layer", "a=1"]
    run(*arguments, "--output", tmp_path / "acts")
    assert usae.ActivationStore(tmp_path / "acts").models["a"]["mean"] == pytest.approx([0.1, 0.2, 0.3])
    assert not [each for each in recwarn.list if "mean" in str(each.message)]
    del own.mean, own.std  # as for detection, where the network itself normalises
    run(*arguments, "--output", tmp_path / "others")
    assert usae.ActivationStore(tmp_path / "others").models["a"]["mean"] == pytest.approx([0.485, 0.456, 0.406])


def test_a_device_that_is_not_here_is_refused(made, tmp_path, capsys):
    for device in ("cudaa", "meta", "hpu"):
        line = refusal(
            capsys,
            "extract",
            "--images",
            made / "photographs",
            "--network",
            "demo",
            "--device",
            device,
            "--output",
            tmp_path / "x",
        )
        assert names("--device", line, anywhere=True), line


def test_extract_takes_workers_and_names_their_flags(made, tmp_path, capsys):
    arguments = ["extract", "--images", made / "photographs", "--network", "demo", "--output", tmp_path / "acts"]
    for flag in ("--num-workers", "--prefetch"):
        assert cli.main([*map(str, arguments), flag, "-1"]) == 2 and flag in capsys.readouterr().err
    assert not (tmp_path / "acts").exists()
    run(*arguments, "--num-workers", "2", "--prefetch", "1")
    given, kept = usae.ActivationStore(made / "acts"), usae.ActivationStore(tmp_path / "acts")
    assert all(np.array_equal(kept[name][:], given[name][:]) for name in given)


def test_layers_of_one_pretrained_network_share_it(monkeypatch):
    from torch import nn

    from usae.cli.networks import load_networks

    timm = types.SimpleNamespace(create_model=lambda name, pretrained: nn.Sequential(nn.Conv2d(3, 4, 2), nn.ReLU()))
    monkeypatch.setitem(sys.modules, "timm", timm)
    layers = {"early": "0", "late": "1", "other": "1"}
    models = load_networks(["early=timm:a", "late=timm:a", "other=timm:b"], layers)
    assert {name: model.layer for name, model in models.items()} == layers
    assert models["early"].module is models["late"].module is not models["other"].module
