"""What networks keep of their outputs when tokens are replaced, against plain hooks and the formulas."""

import json

import numpy as np
import pytest
import sklearn.linear_model
import torch
from torch import nn
from torch.nn import functional as F

import usae
import usae.torch
from support.autoencoders import RECIPE
from support.refusals import refuses
from usae.torch import Autoencoder, Model, faithfulness

pytestmark = pytest.mark.slow

SIZE = {"size": (16, 24), "mean": 0.0, "std": 1.0}


class Vit(nn.Module):
    """Logits from the class token and the mean of the patches, in two blocks."""

    def __init__(self):
        super().__init__()
        self.patches, self.summary = nn.Conv2d(3, 12, 4, stride=4), nn.Parameter(torch.randn(1, 1, 12))
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(12, 2, 16, 0.0, batch_first=True) for _ in range(2))
        self.head = nn.Linear(24, 5)

    def forward(self, images):
        tokens = self.patches(8 * images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.summary.expand(len(tokens), -1, -1), tokens], 1)
        for block in self.blocks:
            tokens = block(tokens)
        return 8 * self.head(torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], 1))


class Embedding(nn.Module):
    """An embedding from a map of 8 x 12."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 10, 2, 2), nn.ReLU(), nn.Conv2d(10, 10, 3, 1, 1))
        self.head = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d((2, 2)), nn.Flatten(), nn.Linear(40, 7))

    def forward(self, images):
        return self.head(self.trunk(4 * images))


@pytest.fixture(scope="module")
def nets():
    torch.manual_seed(0)
    return {"vit": Vit().eval(), "embedding": Embedding().eval()}


@pytest.fixture(scope="module")
def models(nets):
    return {
        "vit": Model(nets["vit"], "blocks.0", n_prefix_tokens=1, **SIZE),
        "embedding": Model(nets["embedding"], "trunk", **SIZE),
    }


@pytest.fixture(scope="module")
def pixels():
    smooth = np.random.default_rng(0).random((70, 3, 4, 6)).astype(np.float32)
    return F.interpolate(torch.from_numpy(smooth), size=(16, 24), mode="bilinear").numpy()


@pytest.fixture(scope="module")
def train(models, pixels):
    return usae.torch.extract(models, pixels[:50])


@pytest.fixture(scope="module")
def sae(train):
    return usae.UniversalSAE(32, 6, recipe=RECIPE, seed=1).fit(train, steps=150)


OUTPUTS = {"outputs": {"embedding": "embedding"}}


def resized(tokens, own, grid):
    if own == grid:
        return tokens
    places = torch.from_numpy(tokens).transpose(1, 2).unflatten(2, own)
    return F.interpolate(places, size=grid, mode="bilinear", antialias=True).flatten(2).transpose(1, 2).numpy()


def replaced(nets, name, images, tokens):
    """The output of a network into which a plain hook puts tokens, [n, tokens, width]."""

    def hook(_module, _inputs, output):
        if name == "vit":
            return torch.cat([output[:, :1], torch.from_numpy(tokens).float()], 1)
        return torch.from_numpy(tokens).float().transpose(1, 2).reshape(output.shape)

    layer = nets["vit"].blocks[0] if name == "vit" else nets["embedding"].trunk
    handle = layer.register_forward_hook(hook)
    with torch.no_grad():
        output = nets[name](torch.from_numpy(images))
    handle.remove()
    return output.double()


def numbers(kind, output, original, labels=None):
    cosine = F.cosine_similarity(output, original, dim=1).mean()
    if kind == "embedding":
        return float(1 - cosine), float(cosine)
    if labels is not None:
        return float(F.cross_entropy(output, torch.as_tensor(labels))), float(cosine)
    p, log = original.softmax(1), output.log_softmax(1)
    return float((p * (p.log() - log)).sum(1).mean()), float(cosine)


@pytest.mark.parametrize("labelled", [False, True])
def test_every_number_is_that_of_a_plain_hook(nets, models, sae, train, pixels, labelled):
    images = pixels[50:]
    labels = np.random.default_rng(1).integers(0, 5, 20) if labelled else None
    found = faithfulness(models, sae, images, train=train, labels=labels, batch_size=7, **OUTPUTS)
    assert found.model_names == ("vit", "embedding") and found.n_images == 20
    assert found.losses == ("cross-entropy" if labelled else "KL divergence", "1 - cosine")
    grids = {"vit": (4, 6), "embedding": (8, 12)}
    tokens = {name: model(images) for name, model in models.items()}
    for j, (target, kind) in enumerate((("vit", "logits"), ("embedding", "embedding"))):
        with torch.no_grad():
            original = nets[target](torch.from_numpy(images)).double()
        classes = labels if target == "vit" else None

        def check(place, array, target=target, kind=kind, original=original, classes=classes):
            output = replaced(nets, target, images, array)
            loss, cosine = numbers(kind, output, original, classes)
            assert place(found.loss) == pytest.approx(loss, rel=1e-3, abs=1e-6)
            assert place(found.cosine) == pytest.approx(cosine, rel=1e-4)
            if target == "vit":
                assert place(found.agreement) == pytest.approx(float((output.argmax(1) == original.argmax(1)).double().mean()))
                if labelled:
                    assert place(found.accuracy) == pytest.approx((output.argmax(1).numpy() == labels).mean())

        shape = tokens[target].shape
        mean = train[target].reshape(-1, shape[2]).mean(0, dtype=float)
        check(lambda x, j=j: x.original[j], tokens[target])
        check(lambda x, j=j: x.zero[j], np.zeros(shape))
        check(lambda x, j=j: x.mean[j], np.broadcast_to(mean, shape).copy())
        for i, source in enumerate(models):
            given = resized(tokens[source], grids[source], grids[target])
            check(lambda x, i=i, j=j: x.reconstructed[i, j], sae.reconstruct(given, source, target).reshape(shape))
            # Without a penalty that matters: what is left to test is that the right map is fitted on the right rows.
            fitted = sklearn.linear_model.LinearRegression().fit(
                train[source].reshape(-1, given.shape[2]).astype(float), train[target].reshape(-1, shape[2]).astype(float)
            )
            output = replaced(nets, target, images, fitted.predict(given.reshape(-1, given.shape[2])).reshape(shape))
            loss, _ = numbers(kind, output, original, classes)
            assert found.loss.linear[i, j] == pytest.approx(loss, rel=0.1, abs=0.01)
    assert found.loss.original[1] == pytest.approx(0, abs=1e-12)


def test_shares_of_the_loss_are_relative_to_a_null_and_the_original(models, sae, train, pixels):
    found = faithfulness(models, sae, pixels[50:], train=train, **OUTPUTS)
    loss = found.loss
    for null in ("mean", "zero"):
        worst, shares = getattr(loss, null), found.recovered(null)
        np.testing.assert_allclose(shares.original, 1)
        np.testing.assert_allclose(getattr(shares, null), 0, atol=1e-12)
        np.testing.assert_allclose(shares.reconstructed, (worst - loss.reconstructed) / (worst - loss.original))
        np.testing.assert_allclose(shares.linear, (worst - loss.linear) / (worst - loss.original))
    own = np.diag(found.recovered().reconstructed)
    assert (own > 0.5).all() and (np.diag(found.recovered().linear) > 0.95).all()  # a map to itself is nearly the identity
    with refuses("null", "'one'"):
        found.recovered("one")
    text = found.summary()
    for name in (*models, "code of vit", "linear map from embedding", "mean token", "loss recovered", "top-1 agreement"):
        assert name in text
    assert json.loads(json.dumps(found.to_dict()))["recovered"]["mean"] == [0, 0]


def test_results_do_not_depend_on_batches_workers_or_the_kind_of_iterable(models, sae, pixels):
    images = pixels[50:60]
    whole = faithfulness(models, sae, images, **OUTPUTS)
    ways = {
        "batches": faithfulness(models, sae, images, batch_size=3, num_workers=0, **OUTPUTS),
        "generator": faithfulness(models, sae, (each for each in images), num_workers=2, **OUTPUTS),
        "labels": faithfulness(models, sae, [(each, 3) for each in images], **OUTPUTS),
        "modules": faithfulness(models, Autoencoder.from_sae(sae), images, **OUTPUTS),
    }
    for found in ways.values():
        assert found.n_images == 10 and found.accuracy is None and found.loss.linear is None
        for one, other in zip(found.loss, whole.loss, strict=True):
            if one is not None:
                np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)


def test_pictures_that_cannot_be_read_take_their_labels_with_them(models, sae, pixels, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    given, labels, skipped = list(pixels[50:56]), [0, 1, 2, 3, 4, 0], []
    expected = faithfulness(models, sae, given, labels=labels, **OUTPUTS)
    given.insert(2, tmp_path / "broken.png")
    labels.insert(2, 4)
    options = {**OUTPUTS, "on_error": "skip", "skipped": skipped, "batch_size": 2}
    for form in (labels, iter(labels), np.array(labels), torch.tensor(labels), {"vit": labels}):
        with pytest.warns(UserWarning, match="1 of 7 pictures"):
            found = faithfulness(models, sae, given, labels=form, **options)
        np.testing.assert_allclose(found.loss.original, expected.loss.original, rtol=1e-5)
        np.testing.assert_allclose(found.accuracy.reconstructed, expected.accuracy.reconstructed)
    assert [each.number for each in skipped] == [2] * 5


def test_a_function_of_the_users_is_what_is_compared(nets, models, sae, pixels):
    images = pixels[50:58]
    plain = faithfulness(models, sae, images, **OUTPUTS)
    net = nets["embedding"]
    run = {"vit": lambda x: nets["vit"](x)[:, :2], "embedding": lambda x: net.head(net.trunk(4 * x))}
    half = faithfulness(models, sae, images, outputs="embedding", run=run)
    assert half.losses == ("1 - cosine", "1 - cosine")
    np.testing.assert_allclose(half.loss.reconstructed[:, 1], plain.loss.reconstructed[:, 1], rtol=1e-4)
    assert np.isnan(half.agreement.mean).all() and half.loss.reconstructed[0, 0] != plain.loss.reconstructed[0, 0]
    assert "top-1" not in half.summary()


def test_one_network_alone_and_a_compiled_one(nets, models, pixels, train):
    sae = usae.UniversalSAE(32, 6, recipe=RECIPE, seed=1).fit({"vit": train["vit"]}, steps=50)
    found = faithfulness({"vit": models["vit"]}, sae, pixels[50:54])
    assert found.loss.reconstructed.shape == (1, 1)
    compiled = Model(torch.compile(nets["vit"], backend="eager"), "blocks.0", n_prefix_tokens=1, **SIZE)
    again = faithfulness({"vit": compiled}, sae, pixels[50:54])
    np.testing.assert_allclose(again.loss.reconstructed, found.loss.reconstructed, rtol=1e-4)


def test_no_hook_is_left_and_the_network_is_as_before(nets, models, sae, pixels):
    with torch.no_grad():
        before = nets["vit"](torch.from_numpy(pixels[:2]))
    with pytest.raises(RuntimeError):
        faithfulness(models, sae, pixels[:3], run={"embedding": lambda x: nets["embedding"](x[:, :1])}, **OUTPUTS)
    for net in nets.values():
        assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())
    with torch.no_grad():
        assert torch.equal(nets["vit"](torch.from_numpy(pixels[:2])), before)


def test_what_cannot_be_measured_is_refused(nets, models, sae, train, pixels):
    images = pixels[:4]
    drawn = nets["embedding"]
    scalar = usae.UniversalSAE(32, 6, recipe=RECIPE.replace(center="scalar")).fit(train, steps=3)
    for argument, got, options in [
        ("outputs", "'classes'", {"outputs": "classes"}),
        ("outputs['vit']", "3", {"outputs": {"vit": 3}}),
        ("outputs", "", {"outputs": {"wit": "logits"}}),
        ("run", "function", {"run": lambda x: x}),
        ("run", "", {"run": {"wit": lambda x: x}}),
        ("run['vit']", "3", {"run": {"vit": 3}}),
        ("run", "Tensor", {"run": {"vit": lambda x: (nets["vit"](x),)}}),
        ("run", "torch.float32 [4]", {"run": {"vit": lambda x: nets["vit"](x)[:, 0]}}),
        ("outputs", '"logits" for an output [4, 5, 2]', {"run": {"vit": lambda x: nets["vit"](x)[..., None].repeat(1, 1, 2)}}),
        ("outputs", '"logits" for an output [4, 1]', {"run": {"vit": lambda x: nets["vit"](x)[:, :1]}}),
        ("run", "nothing", {"run": {"vit": lambda x: x}}),
        ("run", "another one", {"run": {"embedding": lambda x: drawn(x) + torch.randn(7)}}),
        ("run", "NaN or infinity", {"run": {"embedding": lambda x: drawn(x) * torch.nan}}),
        ("labels", "3", {"labels": 3}),
        ("labels", "'abcd'", {"labels": "abcd"}),
        ("labels", "3", {"labels": [0, 1, 2]}),
        ("labels", "3 for more pictures", {"labels": iter([0, 1, 2])}),
        ("labels", "more", {"labels": iter(range(5))}),
        ("labels[1]", "1.5", {"labels": [0, 1.5, 2, 3]}),
        ("labels[0]", "-1", {"labels": [-1, 1, 2, 3]}),
        ("labels", "7", {"labels": [0, 1, 2, 7]}),
        ("labels", "", {"labels": {"embedding": [0, 1, 2, 3]}}),
        ("labels", "labels and embeddings", {"labels": [0, 1, 2, 3], "outputs": "embedding"}),
        ("train", "list", {"train": [3]}),
        ("train", "none for embedding", {"train": {"vit": train["vit"]}}),
    ]:
        if got == "Tensor":
            got = "tuple"
        with refuses(argument, got):
            faithfulness(models, sae, images, **{**OUTPUTS, **options})
    with refuses("train", "None"):
        faithfulness(models, scalar, images, **OUTPUTS)
    with refuses("models"):
        faithfulness({"wit": models["vit"]}, sae, images)
    with refuses("models['vit']", "10"):
        faithfulness({"vit": models["embedding"]}, sae, images)
    with refuses("images", "none"):
        faithfulness(models, sae, [], **OUTPUTS)
    training = Vit().train()
    training.blocks[0].dropout.p = 0.5
    with refuses("module"):
        faithfulness({"vit": Model(training, "blocks.0", n_prefix_tokens=1, **SIZE, grid=(4, 6))}, sae, images)
