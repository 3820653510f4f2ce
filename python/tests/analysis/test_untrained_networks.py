"""`usae.controls(..., untrained=..., untrained_train=...)`: the same training on networks with random weights."""

import numpy as np
import pytest
import torch

import usae
from support.autoencoders import RECIPE, WIDTHS
from support.refusals import refuses
from usae.demo import networks

pytestmark = pytest.mark.slow

OPTIONS = {"include": ["untrained"], "progress": False}


@pytest.fixture
def sae(acts):
    return usae.UniversalSAE(32, 4, recipe=RECIPE, seed=3, n_threads=1).fit(acts, steps=40, progress=False)


@pytest.fixture
def random(acts, held_out):
    """Activations of the same widths in which models share nothing: rows to evaluate, and rows to train on."""
    rng = np.random.default_rng(0)
    return tuple({name: rng.normal(size=x.shape).astype(np.float32) for name, x in given.items()} for given in (held_out, acts))


def test_it_is_the_same_training_on_the_other_activations(sae, acts, held_out, random):
    before = sae.evaluate(held_out).to_dict()
    found = usae.controls(sae, held_out, untrained=random[0], untrained_train=random[1], **OPTIONS)
    by_hand = usae.UniversalSAE(32, 4, recipe=RECIPE, seed=3, n_threads=1).fit(random[1], steps=40, progress=False)
    assert found.untrained.to_dict() == by_hand.evaluate(random[0]).to_dict()
    assert found.evaluation.to_dict() == before == sae.evaluate(held_out).to_dict()
    table = found.table()
    assert table["untrained networks"]["r2_other"] < 0.2 < table["this autoencoder"]["r2_other"]
    assert "untrained networks" in found.summary() and "untrained" in repr(found)
    assert found.to_dict()["untrained"] == found.untrained.to_dict()
    few = usae.controls(sae, held_out, untrained=random[0], untrained_train=random[1], steps=2, **OPTIONS)
    assert few.untrained.r2.mean() != found.untrained.r2.mean()
    everything = usae.controls(sae, held_out, untrained=random[0], untrained_train=random[1], n_permutations=20, progress=False)
    assert everything.untrained.to_dict() == found.untrained.to_dict() and everything.initial is None
    assert usae.controls(sae, held_out, n_permutations=20, progress=False).untrained is None


def test_models_may_come_in_any_order_and_masks_are_those_of_the_trained_networks(sae, acts, held_out, random):
    masks = [np.arange(len(x["vit"])) % 3 > 0 for x in random]
    turned = [dict(reversed(x.items())) for x in random]
    found = usae.controls(
        sae, held_out, untrained=turned[0], untrained_train=turned[1], mask=masks[0], train_mask=masks[1], **OPTIONS
    )
    cut = [{name: x[mask] for name, x in given.items()} for given, mask in zip(random, masks, strict=True)]
    own = {name: x[masks[0]] for name, x in held_out.items()}
    expected = usae.controls(sae, own, untrained=cut[0], untrained_train=cut[1], **OPTIONS)
    assert np.array_equal(found.untrained.firing_counts, expected.untrained.firing_counts)
    assert np.allclose(found.untrained.r2, expected.untrained.r2, rtol=1e-9)
    assert found.untrained.model_names == tuple(WIDTHS)


def test_what_cannot_be_compared_is_refused_before_anything_is_run(sae, held_out, random):
    given = {"untrained": random[0], "untrained_train": random[1]}
    for argument in given:
        with refuses(argument, "None"):
            usae.controls(sae, held_out, **given | {argument: None}, **OPTIONS)
        with refuses(argument, "none for vit"):
            usae.controls(
                sae, held_out, **given | {argument: {n: x for n, x in given[argument].items() if n != "vit"}}, **OPTIONS
            )
        with refuses(f"{argument}['vit']"):
            usae.controls(
                sae, held_out, **given | {argument: given[argument] | {"vit": given[argument]["vit"][:, 1:]}}, **OPTIONS
            )
        with refuses(argument):
            usae.controls(sae, held_out, **given | {argument: given[argument] | {"vit": given[argument]["vit"][1:]}}, **OPTIONS)
    with refuses("untrained", "None"):
        usae.controls(sae, held_out, **OPTIONS)
    broken = random[1]["vit"].copy()
    broken[7, 1] = np.nan
    with pytest.raises(usae.InvalidInputError) as caught:
        usae.controls(sae, held_out, **given | {"untrained_train": random[1] | {"vit": broken}}, **OPTIONS)
    assert "untrained_train" in caught.value.__notes__[0]
    with refuses("mask"):
        usae.controls(sae, held_out, **given, mask=np.ones(3, bool), **OPTIONS)


def test_the_demonstrations_networks_have_the_same_form_untrained():
    state = torch.random.get_rng_state()
    first, again, other = (networks.untrained_networks(seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, trained in networks.load_networks().items():
        known, own = trained.state_dict(), first[name].state_dict()
        assert {key: x.shape for key, x in own.items()} == {key: x.shape for key, x in known.items()}
        assert all(torch.equal(x, again[name].state_dict()[key]) for key, x in own.items())
        assert any(not torch.equal(x, other[name].state_dict()[key]) for key, x in own.items())
        assert not first[name].training and not any(x.requires_grad for x in first[name].parameters())
