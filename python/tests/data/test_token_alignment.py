"""Tokens of several tokenizers, paired by their characters, against an implementation that looks at one character at a time."""

import types

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import usae
from support import texts as made
from support.refusals import refuses
from usae._data.token_alignment import WHITESPACE


def trimmed(text, span):
    start, end = span
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return (start, end) if start < end else tuple(span)


def segments(text, spans):
    """For each row its span and, for each model, its tokens; by joining whatever overlaps, until nothing does."""
    groups = []
    for model, each in spans.items():
        for number, span in enumerate(each):
            if span[0] < span[1]:
                groups.append((*trimmed(text, span), {model: [number]}))
    changed = True
    while changed:
        changed = False
        for one in groups:
            other = next((x for x in groups if x is not one and x[0] < one[1] and one[0] < x[1]), None)
            if other is not None:
                tokens = {model: sorted(one[2].get(model, []) + other[2].get(model, [])) for model in one[2] | other[2]}
                groups = [x for x in groups if x is not one and x is not other]
                groups.append((min(one[0], other[0]), max(one[1], other[1]), tokens))
                changed = True
                break
    rows = []
    for start, end, tokens in sorted(groups, key=lambda group: group[:2]):
        if len(tokens) < len(spans):
            continue
        of_model = {model: [trimmed(text, spans[model][number]) for number in numbers] for model, numbers in tokens.items()}
        first = next(iter(of_model.values()))
        if all(each == first for each in of_model.values()):
            rows += [(span, {m: [numbers[i]] for m, numbers in tokens.items()}, True) for i, span in enumerate(first)]
        else:
            rows.append(((start, end), tokens, False))
    return rows


def spans_in(text):
    span = st.tuples(*[st.integers(0, len(text))] * 2).map(lambda pair: tuple(sorted(pair)))
    return st.lists(span, max_size=6).map(sorted)


a_text = st.text(alphabet="ab \n\t.é😀", max_size=12)
spans_of_texts = st.lists(a_text.flatmap(lambda text: st.tuples(st.just(text), *[spans_in(text)] * 3)), min_size=1, max_size=4)


@given(spans_of_texts, st.sampled_from(["last", "first", "mean", "same"]), st.integers(1, 3))
def test_rows_are_those_of_one_text_after_another(cases, take, n_models):
    texts = [case[0] for case in cases]
    names = "abc"[:n_models]
    spans = {name: [case[1 + i] for case in cases] for i, name in enumerate(names)}
    expected = []
    for number, text in enumerate(texts):
        rows = segments(text, {name: each[number] for name, each in spans.items()})
        expected += [(number, *row) for row in rows if take != "same" or row[2]]
    if not expected:
        with refuses("texts", "none"):
            usae.align_tokens(texts, spans, take=take)
        return
    found = usae.align_tokens(texts, spans, take=take)
    assert found.text_rows.text.tolist() == [row[0] for row in expected]
    assert list(map(tuple, found.text_rows.spans.tolist())) == [row[1] for row in expected]
    acts = {name: [np.random.default_rng(n).standard_normal((len(x), 3)) for n, x in enumerate(spans[name])] for name in names}
    given_back = found.activations(acts)
    for name in names:
        pick = {"first": lambda x: x[0], "mean": lambda x: x.mean(0)}.get(take, lambda x: x[-1])
        rows = [pick(acts[name][number][tokens[name]]) for number, _, tokens, _ in expected]
        assert np.allclose(given_back[name], rows, rtol=1e-12, atol=1e-12)
        dropped = found.dropped[name]
        used = sum(len(tokens[name]) for _, _, tokens, _ in expected)
        assert dropped.rows == len(found) == len(expected)
        assert dropped.tokens == sum(map(len, spans[name])) and dropped.merged == used - len(expected)
        assert dropped.special == sum(start == end for each in spans[name] for start, end in each)


def test_one_tokenizer_loses_nothing_but_what_has_no_characters():
    spans = [[(0, 0), (0, 1), (0, 1), (1, 2), (2, 3), (0, 0)]]  # class token, é in two bytes, new line, x
    found = usae.align_tokens(["é\nx"], {"early": spans, "late": spans})
    assert found.text_rows.spans.tolist() == [[0, 1], [0, 1], [1, 2], [2, 3]]
    assert found.dropped["late"] == (6, 0, 2, 0, 0, 0) and found.tokens("early").tolist() == [1, 2, 3, 4]


def test_the_example_of_the_documents():
    text = "unaligned words"
    spans = {"a": [[(0, 9), (9, 15)]], "b": [[(0, 2), (2, 7), (7, 9), (10, 15)]]}
    found = usae.align_tokens([text], spans)
    assert [found.text_rows.context(row).characters for row in range(2)] == ["unaligned", "words"]
    assert found.tokens("b").tolist() == [2, 3] and usae.align_tokens([text], spans, take="first").tokens("b").tolist() == [
        0,
        3,
    ]
    assert found.dropped["b"].merged == 2
    assert usae.align_tokens([text], spans, take="same").tokens("b").tolist() == [3]


def test_padding_and_lists_give_the_same():
    texts = made.sentences(20)
    spans = {"words": [made.words(text) for text in texts], "pieces": [made.pieces(text) for text in texts]}
    rng = np.random.default_rng(0)
    acts = {name: [rng.standard_normal((len(x), 4)).astype(np.float32) for x in each] for name, each in spans.items()}
    expected = usae.align_tokens(texts, spans).activations(acts)
    of_padded = usae.align_tokens(texts, {name: made.padded(each) for name, each in spans.items()})
    found = of_padded.activations({name: made.padded(each, np.nan) for name, each in acts.items()})
    assert of_padded.dropped["words"].special > 0 == expected.dropped["words"].special
    for name in spans:
        assert np.array_equal(found[name], expected[name]) and found[name].dtype == np.float32
    assert found.text_rows.spans.tolist() == expected.text_rows.spans.tolist()


def test_masks_leave_tokens_out_and_are_counted():
    texts = ["a b c", "d"]
    spans = {"x": [[(0, 1), (2, 3), (4, 5)], [(0, 1)]], "y": [[(0, 1), (2, 3), (4, 5)], [(0, 1)]]}
    found = usae.align_tokens(texts, spans, mask={"y": [[True, False, True], [True]]})
    assert found.dropped["y"] == (4, 1, 0, 0, 0, 0) and found.dropped["x"] == (4, 0, 0, 1, 0, 0)
    assert found.tokens("x").tolist() == [0, 2, 3]
    padded = {name: made.padded([np.array(x) for x in each]) for name, each in spans.items()}
    attention = np.array([[1, 1, 1], [1, 0, 0]])
    of_padding = usae.align_tokens(texts, padded, mask={"x": attention.astype(bool)})
    assert of_padding.dropped["x"] == (6, 2, 0, 0, 0, 0) and of_padding.dropped["y"] == (6, 0, 2, 0, 0, 0)
    with refuses("mask['x']", "int64", "astype(bool)"):
        usae.align_tokens(texts, padded, mask={"x": attention})


def test_outputs_of_networks_and_tensors_of_any_type_are_taken():
    spans = {"a": torch.tensor([[[0, 1], [2, 3]]])}
    state = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    aligned = usae.align_tokens(["a b"], spans)
    output = types.SimpleNamespace(last_hidden_state=state)
    for x in (state, output, [state[0]], state.bfloat16(), state.double().numpy()):
        assert aligned.activations({"a": x})["a"].tolist() == [[1, 2], [3, 4]]
    assert aligned.activations({"a": state.half()})["a"].dtype == np.float16
    assert aligned.activations({"a": state.bfloat16()})["a"].dtype == np.float32


def test_space_is_what_python_calls_space():
    assert WHITESPACE.tolist() == [code for code in range(0x110000) if chr(code).isspace()]


def test_a_lone_surrogate_is_a_character():
    assert len(usae.align_tokens(["a\ud800"], {"a": [[(0, 1), (1, 2)]]})) == 2


def test_fit_and_evaluate_take_the_result():
    texts = made.sentences(60)
    spans = {"words": [made.words(text) for text in texts], "pieces": [made.pieces(text) for text in texts]}
    aligned = usae.align_tokens(texts, spans)
    rng = np.random.default_rng(0)
    acts = aligned.activations({n: [rng.standard_normal((len(x), 4)) for x in each] for n, each in spans.items()})
    sae = usae.UniversalSAE(8, 2).fit(acts, steps=3, progress=False)
    assert sae.evaluate(acts).n_tokens == len(aligned)
    first = usae.MaskedActivations(acts, acts.text_rows.numbers_in_text > 0)
    assert sae.evaluate(first).n_left_out == 60
    assert acts.report().count("\n") == 2 and acts.report() == aligned.report()


@pytest.mark.parametrize(
    ("argument", "changes", "got"),
    [
        ("texts", {"texts": "a b"}, "one text"),
        ("spans", {"spans": [[(0, 1)]]}, ""),
        ("spans", {"spans": {}}, ""),
        ("spans['a']", {"spans": {"a": [[(0, 1)], [(0, 1)]]}}, "2"),
        ("spans['a']", {"spans": {"a": 3}}, "int"),
        ("spans['a']", {"spans": {"a": np.zeros((1, 2, 3), int)}}, "[1, 2, 3]"),
        ("spans['a'][0]", {"spans": {"a": [[(0.0, 1.0)]]}}, "float64"),
        ("spans['a'][0]", {"spans": {"a": [[0, 1]]}}, "[2]"),
        ("spans['a'][0]", {"spans": {"a": [[(0, 1), (2,)]]}}, ""),
        ("spans['a']", {"spans": {"a": [[(2, 4)]]}}, "[2, 4]"),
        ("texts", {"spans": {"a": [[(0, 1)]], "b": [[(2, 3)]]}}, "none"),
        ("take", {"take": "middle"}, "'middle'"),
        ("mask", {"mask": [[True]]}, "list"),
        ("mask", {"mask": {"b": [[True]]}}, ""),
        ("mask['a']", {"mask": {"a": [[True]]}}, "1"),
    ],
)
def test_what_cannot_be_aligned_is_refused(argument, changes, got):
    arguments = {"texts": ["a b"], "spans": {"a": [[(0, 1), (2, 3)]]}} | changes
    with refuses(argument, got):
        usae.align_tokens(**arguments)


@pytest.mark.parametrize(
    ("argument", "acts", "got"),
    [
        ("acts", [1], ""),
        ("acts", {}, "none"),
        ("acts", {"a": [np.ones((2, 3))], "b": 1}, ""),
        ("acts['a']", {"a": np.ones((2, 3))}, "[2, 3]"),
        ("acts['a']", {"a": [np.ones((3, 3))]}, "3"),
        ("acts['a']", {"a": "text"}, "str"),
        ("acts['a'][0]", {"a": [np.ones((2, 3), int)]}, "int64"),
        ("acts['a'][0]", {"a": [np.ones(3)]}, "[3]"),
    ],
)
def test_activations_of_other_tokens_are_refused(argument, acts, got):
    with refuses(argument, got):
        usae.align_tokens(["a b"], {"a": [[(0, 1), (2, 3)]]}).activations(acts)


def test_an_unknown_model_is_refused():
    with refuses("model"):
        usae.align_tokens(["a"], {"a": [[(0, 1)]]}).tokens("b")
