"""Images of several concepts at once: the same as one after the other, and an end for all when one fails."""

import threading
import time

import numpy as np
import pytest

pytest.importorskip("torch")

import torch  # noqa: E402

import usae  # noqa: E402
from usae.demo import networks, side_by_side  # noqa: E402

OPTIONS = {"steps": 2, "views": 2, "seed": 3}
CONCEPTS = [5, 0, 9]


@pytest.fixture(scope="module")
def sae():
    widths = {name: network.width for name, network in networks.load_networks().items()}
    return usae.UniversalSAE(16, 4, seed=0).initialize(widths)


def with_cores(monkeypatch, n):
    monkeypatch.setattr(usae, "show_config", lambda: {"n_threads": n})


def of_pytorch_in_each_pass(monkeypatch):
    """Numbers of PyTorch's threads in passes, by the thread that makes the pass."""
    found = {}
    load = networks.load_models

    def load_models(**options):
        models = load(**options)
        for model in models.values():
            model.module.register_forward_pre_hook(
                lambda *_: found.setdefault(threading.get_ident(), set()).add(torch.get_num_threads())
            )
        return models

    monkeypatch.setattr(networks, "load_models", load_models)
    return found


@pytest.mark.slow
def test_images_are_the_same_bits_at_once_as_one_after_the_other(sae, monkeypatch):
    models = networks.load_models(threads=1)
    expected = [usae.maximize(sae, concept, models, progress=False, **OPTIONS) for concept in CONCEPTS]
    with_cores(monkeypatch, 2)
    found = side_by_side.maximized(sae, CONCEPTS, networks.load_models, **OPTIONS)
    assert [each.concept for each in found] == CONCEPTS
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one.images, other.images) and np.array_equal(one.history, other.history)


@pytest.mark.slow
@pytest.mark.parametrize(("cores", "at_once", "threads"), [(1, 1, 1), (2, 2, 1), (7, 3, 2)])
def test_cores_are_divided_between_concepts_first(sae, monkeypatch, cores, at_once, threads):
    before = torch.get_num_threads()
    with_cores(monkeypatch, cores)
    found = of_pytorch_in_each_pass(monkeypatch)
    side_by_side.maximized(sae, CONCEPTS, networks.load_models, **OPTIONS)
    assert len(found) <= at_once and set().union(*found.values()) == {threads}
    assert torch.get_num_threads() == before


def test_no_concept_has_no_images(sae):
    assert side_by_side.maximized(sae, [], networks.load_models, **OPTIONS) == []


def test_an_error_ends_the_others_too(sae, monkeypatch):
    with_cores(monkeypatch, 2)
    start = time.monotonic()
    with pytest.raises(usae.InvalidInputError):
        side_by_side.maximized(sae, [0, 16, 1, 2], networks.load_models, steps=10**6, views=2)
    assert time.monotonic() - start < 60, "a million steps take hours"
