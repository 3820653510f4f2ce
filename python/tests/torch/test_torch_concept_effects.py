"""Effects of concepts on the outputs of networks, against edits by hand, autograd, and a readout that is known."""

import itertools
import json

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.nn import functional as F

import usae
import usae.torch
from support.autoencoders import RECIPE
from support.refusals import refuses
from usae.torch import Autoencoder, Edit, Model, concept_effects, intervene

pytestmark = pytest.mark.slow

SIZE = {"size": (16, 24), "mean": 0.0, "std": 1.0}


class Vit(nn.Module):
    """Logits from the class token and the patches, in two blocks."""

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
    """An embedding of norm 1 from a map of 8 x 12, which a ReLU changes in place."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 10, 2, 2), nn.ReLU(), nn.Conv2d(10, 10, 3, 1, 1))
        self.head = nn.Sequential(nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d((2, 2)), nn.Flatten(), nn.Linear(40, 7))

    def forward(self, images):
        return F.normalize(self.head(self.trunk(4 * images)), dim=1)


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
    smooth = np.random.default_rng(0).random((90, 3, 4, 6)).astype(np.float32)
    return F.interpolate(torch.from_numpy(smooth), size=(16, 24), mode="bilinear").numpy()


@pytest.fixture(scope="module")
def acts(models, pixels):
    return usae.torch.extract(models, pixels)


@pytest.fixture(scope="module")
def sae(acts):
    return usae.UniversalSAE(32, 6, recipe=RECIPE, seed=1).fit({name: x[:50] for name, x in acts.items()}, steps=150)


@pytest.fixture(scope="module")
def concepts(sae, acts):
    """The eight that fire most in the model where they fire least."""
    return np.argsort(-sae.evaluate(acts).firing_counts.min(0))[:8]


OUTPUTS = {"outputs": {"embedding": "embedding"}}
HELD_OUT = slice(50, None)


def outputs(net, images, model=None, sae=None, edit=None, name=None):
    with torch.no_grad():
        given = torch.from_numpy(images)
        if edit is None:
            return net(given).double()
        with intervene({name: model}, sae, edit):
            return net(given).double()


def codes_of(sae, model, images, name):
    codes = sae.encode(model(images), name)
    return np.asarray(codes).reshape(len(images), -1, codes.n_concepts)


@pytest.mark.parametrize("labelled", [False, True])
def test_every_number_is_that_of_an_edit_by_hand(nets, models, sae, pixels, concepts, labelled):
    images = pixels[HELD_OUT]
    labels = np.random.default_rng(1).integers(0, 5, len(images)) if labelled else None
    found = concept_effects(models, sae, images, concepts, labels=labels, batch_size=7, **OUTPUTS)
    assert found.model_names == ("vit", "embedding") and found.n_images == 40 and found.n_chosen == 8
    assert found.scores == (f"logit of the {'label' if labelled else 'predicted class'}", "share of the code's contribution")
    sizes = {name: np.zeros((len(images), 8)) for name in models}
    active = {name: np.zeros((len(images), 8), bool) for name in models}
    summed = {name: np.zeros((len(images), 8)) for name in models}
    for i, (name, net) in enumerate(nets.items()):
        codes = codes_of(sae, models[name], images, name)
        np.testing.assert_array_equal(found.images_active[i], (codes.max(1) > 0).sum(0))
        np.testing.assert_allclose(found.mean_code[i], codes.mean((0, 1)), rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(found.firing_rate[i], (codes > 0).mean((0, 1)))
        before = outputs(net, images)
        classes = before.argmax(1) if labels is None else torch.from_numpy(labels)
        bare = before - outputs(net, images, models[name], sae, Edit.ablate(range(32)), name)
        for place, concept in enumerate(concepts):
            change = outputs(net, images, models[name], sae, Edit.ablate(int(concept)), name) - before
            here = codes[..., concept].max(1) > 0
            if name == "vit":
                change = change - change.mean(1, keepdim=True)
                score, size = change.gather(1, classes[:, None])[:, 0], change.norm(dim=1) / 5**0.5
                np.testing.assert_allclose(found.class_changes["vit"][place], change[here].mean(0), atol=1e-5)
            else:
                score = (change * bare).sum(1) / (bare**2).sum(1)
                size = change.norm(dim=1) / before.norm(dim=1)
            assert found.change[i, place] == pytest.approx(float(score[here].mean()), rel=2e-3, abs=1e-5)
            assert found.size[i, place] == pytest.approx(float(size[here].mean()), rel=2e-3, abs=1e-5)
            sizes[name][:, place], active[name][:, place] = size.numpy() * here, here
            summed[name][:, place] = codes[..., concept].sum(1)
    one, other = sizes.values()
    for place in range(8):
        both = active["vit"][:, place] & active["embedding"][:, place]
        expected = {
            "agreement": spearmanr(one[:, place], other[:, place]),
            "active_agreement": spearmanr(one[both, place], other[both, place]),
            "code_agreement": spearmanr(summed["vit"][both, place], summed["embedding"][both, place]),
        }
        for name, rank in expected.items():
            if name == "agreement" or both.sum() >= 10:
                assert getattr(found, name).value[0, 1, place] == pytest.approx(rank.statistic, abs=0.03)  # sizes are rounded
    crossed = [spearmanr(one[:, 0], other[:, place]).statistic for place in range(1, 8)]
    crossed += [spearmanr(one[:, place], other[:, 0]).statistic for place in range(1, 8)]
    controls = found.agreement.controls[0, 1, 0]
    np.testing.assert_allclose(np.sort(controls[~np.isnan(controls)]), np.sort(crossed), atol=0.03)
    assert found.class_agreement is None and "classes" not in found.summary()


def test_changes_to_first_order_are_derivatives(nets, models, sae, pixels, concepts):
    """The derivative of the score with respect to a factor of the concept's code, at factor 1, by `Edit.scale`."""
    images = torch.from_numpy(pixels[HELD_OUT])
    found = concept_effects(models, sae, pixels[HELD_OUT], concepts, batch_size=9, **OUTPUTS)
    for i, (name, net) in enumerate(nets.items()):
        factors = torch.ones(32, requires_grad=True)
        before = outputs(net, pixels[HELD_OUT]).float()
        with intervene({name: models[name]}, sae, Edit.scale(range(32), factors)):
            output = net(images)
        if name == "vit":
            scores = output.gather(1, before.argmax(1)[:, None])[:, 0] - output.mean(1)
        else:
            bare = before - outputs(net, pixels[HELD_OUT], models[name], sae, Edit.ablate(range(32)), name).float()
            scores = ((output - before) * bare).sum(1) / (bare**2).sum(1)
        each = torch.stack([torch.autograd.grad(score, factors, retain_graph=True)[0] for score in scores]).numpy()
        known = found.images_active[i] > 0
        expected = -each.sum(0)[known] / found.images_active[i][known]
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found.first_order[i, known], expected, rtol=1e-3, atol=1e-4 * scale)
        expected = np.abs(each).sum(0)[known] / found.images_active[i][known]
        np.testing.assert_allclose(found.first_order_size[i, known], expected, rtol=1e-3, atol=1e-4 * scale)
        assert np.isnan(found.first_order[i, ~known]).all()
    assert (found.first_order_correlation > 0.8).all()


class Readout(nn.Module):
    """Looks tokens up by the image's colour, and reads logits from their mean."""

    def __init__(self, tokens, weights, offset):
        super().__init__()
        self.layer = nn.Identity()
        for name, value in {"tokens": tokens, "weights": weights, "offset": offset}.items():
            self.register_buffer(name, torch.from_numpy(value))

    def forward(self, images):
        numbers = (images[:, 0, 0, 0] * len(self.tokens)).round().long()
        return (self.layer(self.tokens[numbers]).mean(1) - self.offset) @ self.weights


def true_sae(truth):
    """An autoencoder whose concepts are the true ones: its encoder inverts the dictionary."""
    n = len(truth.membership)
    recipe = usae.Recipe(dictionary_norm="unit")
    sae = usae.UniversalSAE(n, n, recipe=recipe).initialize({name: x.shape[1] for name, x in truth.dictionaries.items()})
    for name, dictionary in truth.dictionaries.items():
        scale = np.linalg.norm(dictionary, axis=1)
        inverse = np.linalg.pinv(dictionary.astype(float)) * scale
        bias = -(truth.offsets[name] @ inverse) - 1e-3  # so that rounding is not active
        sae.set_parameters(name, {"encoder_weight": inverse.T.copy(), "dictionary": dictionary, "encoder_bias": bias})
    return sae


@pytest.mark.parametrize("trained", [False, True])
def test_effects_of_known_concepts_through_a_known_readout_are_recovered(trained):
    """Two networks see the same concepts. What each concept does to each of six classes is known.

    Of the first concepts both networks make the same, of the next two the second network makes something else, and of the last
    two it makes nothing, although it has them.
    """
    rng = np.random.default_rng(0)
    truth = usae.synthetic.universal(
        {"a": 64, "b": 96},
        n_tokens=20_000,
        n_shared=16,
        n_private=0,
        frequency=0.05,
        frequency_cap=0.1,
        seed=1,
        noise=0.02 if trained else 0.0,
    )
    n_images, places, shared, other, unread = 150, 9, slice(0, 12), slice(12, 14), slice(14, 16)
    tokens = truth.sample(n_images * places, seed=2)
    effect = {name: rng.standard_normal((16, 6)) for name in ("a", "b")}
    effect["b"][shared] = effect["a"][shared]
    effect["b"][other] = -effect["a"][other]
    effect["b"][unread] = 0
    models, scale = {}, {"size": (6, 6), "mean": 0.0, "std": 1.0, "grid": (3, 3), "n_prefix_tokens": 0}
    for name, x in tokens.acts.items():
        weights = np.linalg.pinv(truth.dictionaries[name].astype(float)) @ effect[name]  # so that a code of 1 has this effect
        net = Readout(x.reshape(n_images, places, -1), weights.astype(np.float32), truth.offsets[name])
        models[name] = Model(net.eval(), "layer", **scale)
    images = np.broadcast_to((np.arange(n_images) / n_images).astype(np.float32)[:, None, None, None], (n_images, 3, 6, 6))
    recipe = RECIPE.replace(batch_size=256, outlier_multiple=None, dictionary_norm="unit")
    sae = usae.UniversalSAE(24, 5, recipe=recipe, seed=0).fit(truth.acts, steps=2000) if trained else true_sae(truth)
    found = concept_effects(models, sae, images.copy(), range(sae.n_concepts))

    true_codes = tokens.codes.toarray().reshape(n_images, places, 16)
    for i, name in enumerate(models):
        codes = np.asarray(sae.encode(tokens.acts[name], name))
        with np.errstate(invalid="ignore"):
            like = np.nan_to_num(np.corrcoef(true_codes.reshape(-1, 16).T, codes.T)[:16, 16:])
        match = like.argmax(1)
        assert (like.max(1) > 0.95).all()  # the autoencoder knows all concepts, so effects can be told
        predicted = (true_codes.mean(1) @ effect[name]).argmax(1)
        cosines, ratios, scores = [], [], []
        for concept, index in enumerate(match):
            here = true_codes[..., concept].max(1) > 0
            centred = effect[name][concept] - effect[name][concept].mean()
            change = -true_codes[here, :, concept].mean(1)[:, None] * centred
            if not centred.any():
                assert found.size[i, index] < 0.15 * np.nanmean(found.size[i])
                continue
            mean, expected = found.class_changes[name][index], change.mean(0)
            cosines.append(mean @ expected / np.linalg.norm(mean) / np.linalg.norm(expected))
            n_active = found.images_active[i, index]  # a trained code is also active, and tiny, where the true one is not
            ratios.append(found.size[i, index] * n_active / (np.linalg.norm(change, axis=1).sum() / 6**0.5))
            scores.append((found.change[i, index] * n_active, change[np.arange(len(change)), predicted[here]].sum()))
            assert found.first_order[i, index] == pytest.approx(found.change[i, index], abs=1e-4)  # the readout is linear
        assert min(cosines) > (0.9 if trained else 0.999) and np.median(cosines) > 0.98, cosines
        assert 0.9 < np.median(ratios) < 1.1 and (trained or (min(ratios) > 0.97 and max(ratios) < 1.03)), ratios
        assert np.corrcoef(np.transpose(scores))[0, 1] > (0.8 if trained else 0.999), scores
    classes, images_alike = found.class_agreement.value[0, 1, match], found.agreement.value[0, 1, match]
    assert (classes[shared] > (0.9 if trained else 0.999)).all() and (classes[other] < -0.9).all()
    least = 0.6 if trained else 0.9
    assert (images_alike[shared] > least).all() and (images_alike[other] > least).all()  # the same images, but other classes
    assert (found.agreement.p_value[0, 1, match[shared]] < 0.05).all()
    together = found.class_agreement.mean(match[shared])
    assert together.value[0, 1] > 0.95 > 0.5 > together.high[0, 1] and together.p_value[0, 1] < 0.01
    words, numbers = found.classes(int(match[0]), "a", 2)
    np.testing.assert_array_equal(words, np.argsort(found.class_changes["a"][match[0]])[:2])
    assert numbers[0] <= numbers[1] and "classes" in found.summary()


def test_values_and_functions_of_the_users(nets, models, sae, pixels, concepts):
    images = pixels[HELD_OUT]
    run = {"vit": lambda x: nets["vit"](x)[:, 0], "embedding": lambda x: nets["embedding"](x)[:, :3]}
    kinds = {"vit": "value", "embedding": "logits"}
    found = concept_effects(models, sae, images, concepts[:2], outputs=kinds, run=run)
    assert found.scores == ("value", "logit of the predicted class") and list(found.class_changes) == ["embedding"]
    concept = int(concepts[0])
    change = outputs(nets["vit"], images, models["vit"], sae, Edit.ablate(concept), "vit") - outputs(nets["vit"], images)
    here = codes_of(sae, models["vit"], images, "vit")[..., concept].max(1) > 0
    assert found.change[0, 0] == pytest.approx(float(change[here, 0].mean()), rel=1e-3, abs=1e-5)
    assert found.size[0, 0] == pytest.approx(float(change[here, 0].abs().mean()), rel=1e-3, abs=1e-5)


def test_results_do_not_depend_on_batches_workers_or_the_kind_of_iterable(models, sae, pixels, concepts):
    images = pixels[60:85]
    options = {**OUTPUTS, "concepts": concepts[:3], "most_images": 12, "seed": 4}
    whole = concept_effects(models, sae, images, **options)
    ways = {
        "batches": concept_effects(models, sae, images, batch_size=3, num_workers=0, **options),
        "generator": concept_effects(models, sae, (each for each in images), num_workers=2, **options),
        "pairs": concept_effects(models, sae, [(each, 3) for each in images], **options),
        "modules": concept_effects(models, Autoencoder.from_sae(sae), images, **options),
    }
    for found in ways.values():
        assert found.n_images == 25
        for name in ("change", "size", "first_order", "mean_code"):
            np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(found.agreement.value, whole.agreement.value, atol=0.03)  # of the same twelve images
    every = concept_effects(models, sae, images, **{**options, "most_images": 25})
    np.testing.assert_allclose(every.change, whole.change, rtol=1e-3, atol=1e-5)
    few = concept_effects(models, sae, images, **{**options, "most_images": 5})
    assert np.isnan(few.agreement.value).all() and np.isnan(few.agreement.p_value).all()  # of so few it would be chance


def test_an_evaluation_says_what_to_ablate_and_finds_controls(models, sae, acts, pixels):
    evaluation = sae.evaluate({name: x[HELD_OUT] for name, x in acts.items()})
    found = concept_effects(models, sae, pixels[HELD_OUT], evaluation=evaluation, n_controls=2, **OUTPUTS)
    universal = np.flatnonzero(evaluation.universal())
    assert set(found.chosen) == set(universal) and len(universal) < 50
    energy = evaluation.energy.min(0)[found.chosen]
    assert (np.diff(energy) <= 0).all()
    named = concept_effects(models, sae, pixels[HELD_OUT], [3], evaluation=evaluation, n_controls=5, **OUTPUTS)
    assert named.n_chosen == 1 and len(named.concepts) == 6 and named.concepts[0] == 3
    with np.errstate(divide="ignore"):
        features = np.log(np.concatenate([evaluation.mean_activation, evaluation.firing_counts]))
    distances = np.abs(features - features[:, [3]]).max(0)
    assert set(named.concepts) == set(np.argsort(distances)[:6])
    nothing = concept_effects(models, sae, pixels[HELD_OUT], **OUTPUTS)
    assert not len(nothing.concepts) and (nothing.first_order_agreement.value[0, 1] > -1).any()
    assert "0 ablated concepts" in nothing.summary() and "<table>" in nothing._repr_html_()


def test_one_network_alone_a_compiled_one_and_one_without_gradients(nets, models, pixels, acts):
    sae = usae.UniversalSAE(32, 6, recipe=RECIPE, seed=1).fit({"vit": acts["vit"]}, steps=50)
    evaluation = sae.evaluate({"vit": acts["vit"]})
    found = concept_effects({"vit": models["vit"]}, sae, pixels[:12], evaluation=evaluation)
    assert found.n_chosen == (~evaluation.dead[0]).sum() and np.isnan(found.agreement.value).all()
    assert "agreement of" not in found.summary()
    compiled = Model(torch.compile(nets["vit"], backend="eager"), "blocks.0", n_prefix_tokens=1, **SIZE)
    again = concept_effects({"vit": compiled}, sae, pixels[:12], found.chosen)
    np.testing.assert_allclose(again.change, found.change, rtol=1e-3, atol=1e-5)
    run = {"vit": lambda x: nets["vit"](x).detach()}
    bare = concept_effects({"vit": models["vit"]}, sae, pixels[:12], found.chosen, run=run, first_order=False)
    np.testing.assert_allclose(bare.change, found.change, rtol=1e-3, atol=1e-5)
    assert bare.first_order is None and bare.first_order_agreement is None and np.isnan(bare.first_order_correlation).all()
    with refuses("run", "one that does not", "first_order=False"):
        concept_effects({"vit": models["vit"]}, sae, pixels[:12], run=run)
    with refuses("run", "one that does not"):
        concept_effects(
            {"vit": models["vit"]}, sae, pixels[:12], run={"vit": lambda x: nets["vit"](x).detach() + nets["vit"].head.bias}
        )


def test_results_are_tables_that_join_those_of_an_evaluation(models, sae, acts, pixels, concepts):
    found = concept_effects(models, sae, pixels[HELD_OUT], concepts, **OUTPUTS)
    frame = found.to_frame().join(sae.evaluate(acts).to_frame())
    assert len(frame) == 32 and frame.index.name == "concept"
    for i, name in enumerate(found.model_names):
        np.testing.assert_array_equal(frame[f"size[{name}]"][concepts], found.size[i])
        np.testing.assert_array_equal(frame[f"first_order[{name}]"], found.first_order[i])
    assert frame["change[vit]"].notna().sum() == (~np.isnan(found.change[0])).sum()
    for name, what in itertools.product(
        ("effect_agreement", "active_effect_agreement", "active_code_agreement", "first_order_agreement"), ("", "_null", "_p")
    ):
        assert f"{name}{what}[vit, embedding]" in frame
    stored = json.loads(json.dumps(found.to_dict()))
    assert stored["n_chosen"] == 8 and len(stored["agreement"]["null"][0][1]) == 8
    for words in ("vit", "embedding", "agreement of", "active images", "to first order", str(concepts[0])):
        assert words in found.summary()
    assert "8 concepts ablated" in repr(found)
    with refuses("model", "'embedding'"):
        found.classes(int(concepts[0]), "embedding")
    with refuses("concept"):
        found.classes(int(np.setdiff1d(np.arange(32), concepts)[0]), "vit")
    with refuses("concepts"):
        found.agreement.mean([8])


def test_pictures_that_cannot_be_read_take_their_labels_with_them(models, sae, pixels, concepts, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    given, labels, skipped = list(pixels[50:62]), [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1], []
    expected = concept_effects(models, sae, given, concepts, labels=labels, **OUTPUTS)
    given.insert(2, tmp_path / "broken.png")
    labels.insert(2, 4)
    with pytest.warns(UserWarning, match="1 of 13 pictures"):
        found = concept_effects(
            models, sae, given, concepts, labels=labels, on_error="skip", skipped=skipped, batch_size=5, **OUTPUTS
        )
    np.testing.assert_allclose(found.change, expected.change, rtol=1e-3, atol=1e-5)
    assert [each.number for each in skipped] == [2]


def test_no_hook_is_left_and_the_network_is_as_before(nets, models, sae, pixels, concepts):
    before = outputs(nets["vit"], pixels[:2])
    with pytest.raises(RuntimeError):
        run = {"embedding": lambda x: nets["embedding"](x[:, :1])}
        concept_effects(models, sae, pixels[:3], concepts, run=run, **OUTPUTS)
    concept_effects(models, sae, pixels[:3], concepts, **OUTPUTS)
    for net in nets.values():
        assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())
        assert all(weight.grad is None for weight in net.parameters())
    assert torch.equal(outputs(nets["vit"], pixels[:2]), before)


def test_what_cannot_be_measured_is_refused(nets, models, sae, acts, pixels):
    images, drawn = pixels[:4], nets["embedding"]
    other = usae.UniversalSAE(16, 4, recipe=RECIPE).fit(acts, steps=2).evaluate(acts)
    for argument, got, options in [
        ("concepts", "32", {"concepts": 32}),
        ("concepts", "-1", {"concepts": [-1]}),
        ("concepts", "none", {"concepts": []}),
        ("concepts", "[1, 1]", {"concepts": [1, 1]}),
        ("evaluation", "3", {"evaluation": 3}),
        ("evaluation", "16", {"evaluation": other}),
        ("n_controls", "-1", {"n_controls": -1}),
        ("outputs", "'classes'", {"outputs": "classes"}),
        ("outputs", "", {"outputs": {"wit": "logits"}}),
        ("outputs", '"logits" for an output [4, 1]', {"run": {"vit": lambda x: nets["vit"](x)[:, :1]}}),
        ("run", "function", {"run": lambda x: x}),
        ("run", "nothing", {"run": {"vit": lambda x: x}}),
        ("run", "another one", {"run": {"embedding": lambda x: drawn(x) + torch.randn(7)}}),
        ("run", "NaN or infinity", {"run": {"embedding": lambda x: drawn(x) * torch.nan}}),
        ("labels", "3", {"labels": [0, 1, 2]}),
        ("labels", "7", {"labels": [0, 1, 2, 7]}),
        ("labels", "more", {"labels": iter(range(5))}),
        ("first_order", "'no'", {"first_order": "no"}),
        ("most_images", "0", {"most_images": 0}),
        ("seed", "-1", {"seed": -1}),
    ]:
        with refuses(argument, got):
            concept_effects(models, sae, images, **{**OUTPUTS, **options})
    with refuses("models"):
        concept_effects({"wit": models["vit"]}, sae, images)
    with refuses("models['vit']", "10"):
        concept_effects({"vit": models["embedding"]}, sae, images)
    with refuses("images", "none"):
        concept_effects(models, sae, [], **OUTPUTS)
