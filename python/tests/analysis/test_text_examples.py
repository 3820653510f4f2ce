"""Top examples of texts: their characters in context, and one of a text at most."""

import dataclasses

import numpy as np
import pytest

import usae
from support.refusals import refuses
from usae.analysis import text_examples

NAMES = ("short", "wide")
LENGTHS = np.array([1, 7, 3, 1, 30, 2, 12, 5, 4, 9])
TEXTS = [" ".join(f"t{number}w{place}" for place in range(n)) for number, n in enumerate(LENGTHS)]


def rows():
    spans = [(found, found + len(word)) for text in TEXTS for word in text.split() for found in [text.index(word)]]
    return usae.TextRows(TEXTS, np.repeat(np.arange(len(TEXTS)), LENGTHS), spans)


@pytest.fixture
def sae():
    rng = np.random.default_rng(0)
    acts = {"short": rng.standard_normal((300, 6)), "wide": rng.standard_normal((300, 9))}
    return usae.UniversalSAE(16, 4, seed=0).fit(acts, steps=3, progress=False)


@pytest.fixture
def acts():
    rng = np.random.default_rng(1)
    return {"short": rng.standard_normal((LENGTHS.sum(), 6)), "wide": rng.standard_normal((LENGTHS.sum(), 9))}


def best(codes, texts, n):
    """The strongest row of each text, for each concept; ties go to the earlier row."""
    tokens, values = np.full((codes.shape[1], n), -1), np.zeros((codes.shape[1], n), np.float32)
    for concept, column in enumerate(codes.T):
        chosen = []
        for row in np.argsort(-column, kind="stable"):
            if column[row] > 0 and texts[row] not in texts[chosen]:
                chosen.append(row)
        chosen = chosen[:n]
        tokens[concept, : len(chosen)], values[concept, : len(chosen)] = chosen, column[chosen]
    return tokens, values


@pytest.mark.parametrize("chunk", [1, 16, 8192])
@pytest.mark.parametrize("masked", [False, True])
def test_one_of_each_text_is_the_strongest(sae, acts, monkeypatch, chunk, masked):
    monkeypatch.setattr(text_examples, "CHUNK", chunk)
    mask = np.random.default_rng(2).random(LENGTHS.sum()) < 0.7 if masked else np.ones(LENGTHS.sum(), bool)
    if masked:
        for name in NAMES:
            acts[name][~mask] = np.nan
    text_acts = usae.TextActivations(acts, rows())
    top = usae.top_examples(sae, text_acts, 4, one_per_text=True, mask=mask)
    for place, name in enumerate(NAMES):
        codes = sae.encode(np.where(mask[:, None], acts[name], 0), name).to_dense() * mask[:, None]
        tokens, values = best(codes, rows().text, 4)
        assert np.array_equal(top.tokens[place], tokens) and np.array_equal(top.values[place], values)
    assert top.n_tokens == mask.sum() and top.text_rows is text_acts.text_rows


def test_rows_of_a_text_may_be_anywhere_and_in_a_store(sae, acts, tmp_path):
    order = np.random.default_rng(3).permutation(LENGTHS.sum())
    there = rows()
    shuffled = usae.TextRows(TEXTS, there.text[order], there.spans[order])
    moved = {name: x[order].astype(np.float32) for name, x in acts.items()}
    with usae.ActivationStore.create(tmp_path / "store", dtype="float32") as store:
        store.append(moved)
    store = usae.ActivationStore(tmp_path / "store")
    for given in (moved, store):
        top = usae.top_examples(sae, given, 3, text_rows=shuffled, one_per_text=True)
        for place, name in enumerate(NAMES):
            codes = sae.encode(moved[name], name).to_dense()
            tokens, values = best(codes, shuffled.text, 3)
            assert np.array_equal(top.values[place], values) and np.array_equal(top.tokens[place], tokens)
    every = usae.top_examples(sae, store, 3, text_rows=shuffled)
    assert np.array_equal(every.tokens, usae.top_examples(sae, moved, 3).tokens) and every.text_rows is shuffled


def test_bfloat16_is_searched_too(sae, acts):
    torch = pytest.importorskip("torch")
    halved = {name: torch.from_numpy(x).bfloat16() for name, x in acts.items()}
    wide = {name: x.float() for name, x in halved.items()}
    found, expected = (usae.top_examples(sae, x, 3, text_rows=rows(), one_per_text=True) for x in (halved, wide))
    assert np.array_equal(found.tokens, expected.tokens)


def test_contexts_show_where_in_which_text_a_concept_fires(sae, acts):
    top = usae.top_examples(sae, usae.TextActivations(acts, rows()), 4, one_per_text=True)
    concept = int(np.argmax(top.values[1, :, 0]))
    contexts = top.contexts("wide", concept, before=5, after=4)
    for row, context in zip(top.tokens[1, concept], contexts, strict=False):
        text = TEXTS[context.text]
        assert context.text == top.text_rows.text[row] and context.characters == text[context.start : context.end]
        assert text[max(context.start - 5, 0) : context.end + 4] == context.before + context.characters + context.after
    report = top.report(concept)
    assert report.count("concept") == 2 and all(f"[{context.characters}]" in report for context in contexts)
    dead = dataclasses.replace(top, tokens=np.full_like(top.tokens, -1))
    assert dead.contexts("wide", concept) == [] and dead.report(concept).count("\n") == 1


def test_some_models_alone_are_searched(sae, acts):
    text_acts = usae.TextActivations(acts, rows())
    whole = usae.top_examples(sae, text_acts, 2, one_per_text=True)
    part = usae.top_examples(sae, text_acts, 2, models=["wide"], one_per_text=True)
    assert np.array_equal(part.tokens[0], whole.tokens[1]) and part.text_rows is text_acts.text_rows
    masked = usae.MaskedActivations(text_acts, np.ones(LENGTHS.sum(), bool))
    assert np.array_equal(usae.top_examples(sae, masked, 2, one_per_text=True).tokens, whole.tokens)


def test_what_cannot_be_searched_is_refused(sae, acts):
    with refuses("text_rows", "None"):
        usae.top_examples(sae, acts, one_per_text=True)
    with refuses("text_rows", "list"):
        usae.top_examples(sae, acts, text_rows=[1])
    with refuses("text_rows", "1"):
        usae.top_examples(sae, acts, text_rows=usae.TextRows(["a"], [0], [(0, 1)]))
    with refuses("one_per_text", "True"):
        usae.top_examples(sae, acts, text_rows=rows(), one_per_text=True, one_per_image=True, grid=(1, 1))
    with refuses("one_per_text", "2"):
        usae.top_examples(sae, acts, text_rows=rows(), one_per_text=2)
    top = usae.top_examples(sae, acts, 2)
    with refuses("text_rows", "None"):
        top.report(0)
    top = usae.top_examples(sae, acts, 2, text_rows=rows())
    with refuses("model"):
        top.contexts("other", 0)
    with refuses("concept", "16"):
        top.contexts("wide", 16)
