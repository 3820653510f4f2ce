"""Activations of networks of language: layers, padding, special tokens, two tokenizers, and what is refused."""

import subprocess
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

import usae
import usae.torch
from support import texts as made
from support.refusals import refuses
from support.text_networks import encoder, recurrent
from usae.torch import TextModel, extract_texts, text_batches

TEXTS = ["The cat sat on a mat.", "", "Dogs!", "  two   old\ndogs ran over the green hills , and found a ball .", "a"]


def alone(network, tokenize, text, layer):
    """What a block gives for one text without padding, one [tokens, width]."""
    ids = torch.from_numpy(tokenize(text)[0])[None]
    kept = []
    handle = network.get_submodule(layer).register_forward_hook(lambda module, args, output: kept.append(output))
    with torch.no_grad():
        network(ids)
    handle.remove()
    return kept[0][0].numpy()


@pytest.mark.parametrize("batch_size", [1, 2, 32])
@pytest.mark.parametrize("kind", [encoder, recurrent])
def test_each_row_is_what_the_network_says_of_that_token_in_its_text_alone(kind, batch_size):
    network, tokenize = kind(), made.tokenizer()
    layers = ["blocks.0", "blocks.2"] if kind is encoder else ["embeddings"]
    model = TextModel(network, layers[0], tokenizer=tokenize)
    acts = extract_texts({layer: model.at(layer) for layer in layers}, TEXTS, batch_size=batch_size)
    for layer in layers:
        expected = [alone(network, tokenize, text, layer)[1:-1] for text in TEXTS]
        assert np.allclose(acts[layer], np.concatenate(expected), atol=1e-5)
        assert acts[layer].dtype == np.float32
    shown = [acts.text_rows.context(row, 0, 0).characters for row in range(len(acts.text_rows))]
    assert shown == [text[start:end] for text in TEXTS for start, end in made.words(text)]
    tokens = sum(len(made.words(text)) + 2 for text in TEXTS)
    assert acts.dropped[layers[0]] == (tokens, 0, 10, 0, 0, 0)


def test_layers_of_one_network_are_computed_in_one_pass_with_the_same_bits():
    network = encoder()
    model = TextModel(network, 1, tokenizer=made.tokenizer())
    models = {"first": model, "third": model.at(3), "same": TextModel(network, 3, tokenizer=model.tokenizer.given)}
    extract_texts({"third": model.at(3)}, TEXTS)  # the mode of the network is looked at once
    network.calls = 0
    acts = extract_texts(models, TEXTS)
    assert network.calls == 1
    for name, each in models.items():
        assert np.array_equal(acts[name], extract_texts({name: each}, TEXTS)[name])
    assert np.array_equal(acts["third"], acts["same"]) and not np.array_equal(acts["first"], acts["third"])


def test_layers_have_numbers_and_names():
    model = TextModel(encoder(), tokenizer=made.tokenizer())
    assert model.layer == "blocks.2" and "blocks.2" in repr(model)
    assert [model.at(n).layer for n in (1, 3, -1, -3)] == ["blocks.0", "blocks.2", "blocks.2", "blocks.0"]
    assert model.at("embeddings").layer == "embeddings" and model.layer == "blocks.2"
    assert model.at(2).tokenizer is model.tokenizer and model.device.type == "cpu" and model.max_tokens is None


def test_two_tokenizers_are_aligned_by_characters():
    models = {
        "words": TextModel(encoder(0), tokenizer=made.tokenizer()),
        "pieces": TextModel(encoder(1, width=12), tokenizer=made.tokenizer(made.pieces)),
    }
    acts = extract_texts(models, TEXTS)
    spans = {"words": [made.words(text) for text in TEXTS], "pieces": [made.pieces(text) for text in TEXTS]}
    aligned = usae.align_tokens(TEXTS, spans)
    assert np.array_equal(acts.text_rows.spans, aligned.text_rows.spans) and len(acts.text_rows) == len(aligned)
    assert acts.dropped["pieces"].merged == aligned.dropped["pieces"].merged > 0
    each = {name: extract_texts({name: model}, TEXTS)[name] for name, model in models.items()}
    for name in models:
        assert np.allclose(acts[name], each[name][aligned.tokens(name)], atol=1e-5)
    mean = extract_texts(models, TEXTS, take="mean")
    assert np.allclose(mean["words"], acts["words"], atol=1e-5) == (acts.dropped["words"].merged == 0)
    assert not np.allclose(mean["pieces"], acts["pieces"], atol=1e-3)


def test_batches_together_are_what_extraction_gives():
    model = TextModel(encoder(), tokenizer=made.tokenizer())
    whole = extract_texts({"a": model}, TEXTS)
    parts = list(text_batches({"a": model}, iter(TEXTS), batch_size=1))
    assert len(parts) == 4  # the second text has no row
    assert np.allclose(np.concatenate([part["a"] for part in parts]), whole["a"], atol=1e-5)
    joined = usae.TextRows.joined(part.text_rows for part in parts)
    assert joined.spans.tolist() == whole.text_rows.spans.tolist() and len(joined.texts) == 4


def test_batches_go_into_a_store_and_their_texts_are_found_there(tmp_path):
    model = TextModel(encoder(), tokenizer=made.tokenizer())
    rows = []
    with usae.ActivationStore.create(tmp_path / "store", dtype="float32") as store:
        for part in text_batches({"a": model, "b": model.at(1)}, made.sentences(30), batch_size=8):
            store.append(part)
            rows.append(part.text_rows)
    store, rows = usae.ActivationStore(tmp_path / "store"), usae.TextRows.joined(rows)
    sae = usae.UniversalSAE(16, 2, seed=0).fit(store, steps=5, progress=False)
    top = usae.top_examples(sae, store, 3, text_rows=rows, one_per_text=True)
    concept = int(np.argmax(top.values[0, :, 0]))
    assert len({context.text for context in top.contexts("a", concept)}) == len(top.contexts("a", concept)) > 0


def test_long_texts_are_cut_and_counted():
    model = TextModel(encoder(), tokenizer=made.tokenizer(special=False), max_tokens=3)
    acts = extract_texts({"a": model}, TEXTS)
    n = [len(made.words(text)) for text in TEXTS]
    assert acts.dropped["a"].cut == sum(max(each - 3, 0) for each in n) and len(acts["a"]) == sum(min(each, 3) for each in n)


def test_half_precision_is_returned_and_refused_beyond_its_range():
    model = TextModel(encoder(), tokenizer=made.tokenizer())
    acts = extract_texts({"a": model}, TEXTS, dtype="float16")
    assert acts["a"].dtype == np.float16 and np.allclose(acts["a"], extract_texts({"a": model}, TEXTS)["a"], atol=2e-3)
    network = encoder()
    nn.init.constant_(network.embeddings.weight, 1e5)
    with refuses("dtype", '"float16"'):
        extract_texts({"a": TextModel(network, "embeddings", tokenizer=made.tokenizer())}, TEXTS, dtype="float16")


def test_nothing_of_the_users_changes():
    network, threads = encoder(), torch.get_num_threads()
    model = TextModel(network, tokenizer=made.tokenizer(), threads=1)
    before = {name: x.clone() for name, x in network.state_dict().items()}
    extract_texts({"a": model, "b": model.at(1)}, TEXTS)
    assert all(torch.equal(x, before[name]) for name, x in network.state_dict().items())
    assert not any(part._forward_hooks for part in network.modules()) and torch.get_num_threads() == threads


def test_a_network_in_training_mode_is_refused():
    network = encoder()
    network.blocks[0].layer.dropout.p = 0.5
    network.train()
    with refuses("module"):
        extract_texts({"a": TextModel(network, tokenizer=made.tokenizer())}, TEXTS)


def test_wrapped_and_half_networks_are_taken():
    network = encoder()
    expected = extract_texts({"a": TextModel(network, tokenizer=made.tokenizer())}, TEXTS)["a"]
    wrapped = TextModel(nn.DataParallel(network), tokenizer=made.tokenizer())
    assert np.array_equal(extract_texts({"a": wrapped}, TEXTS)["a"], expected) and wrapped.layer == "blocks.2"
    cast = TextModel(network, tokenizer=made.tokenizer(), autocast=torch.bfloat16)
    assert np.allclose(extract_texts({"a": cast}, TEXTS)["a"], expected, atol=0.1)


def test_what_a_library_cannot_import_is_no_fault_of_the_folder(monkeypatch, tmp_path):
    class Library(types.ModuleType):
        def __getattr__(self, name):
            raise ModuleNotFoundError("Could not import module 'AutoModel'")

    monkeypatch.setitem(sys.modules, "transformers", Library("transformers"))
    with pytest.raises(ImportError, match="AutoModel"):
        TextModel(tmp_path)


def test_no_library_of_language_is_needed():
    script = (
        "import sys, usae.torch; usae.torch.TextModel; print([m for m in ('transformers', 'tokenizers') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "[]\n"


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.embeddings = nn.Embedding(64, 4)
        self.pool = nn.AdaptiveAvgPool1d(1)
        self.unused = nn.Linear(2, 2)

    def forward(self, input_ids, attention_mask):
        return self.pool(self.embeddings(input_ids).transpose(1, 2))


@pytest.mark.parametrize(
    ("argument", "changes", "got"),
    [
        ("network", {"network": 3}, "3"),
        ("network", {"network": "no/such/folder"}, "'no/such/folder'"),
        ("tokenizer", {"tokenizer": None}, "None"),
        ("tokenizer", {"tokenizer": 3}, "3"),
        ("tokenizer", {"tokenizer": type("Slow", (), {"convert_tokens_to_ids": 0})()}, "Slow"),
        ("layer", {"layer": 4}, "4"),
        ("layer", {"layer": 0}, "0"),
        ("layer", {"layer": True}, "True"),
        ("layer", {"layer": "block.1"}, "'block.1'"),
        ("layer", {"layer": 1.5}, "1.5"),
        ("layer", {"network": recurrent()}, "None"),
        ("layer", {"network": recurrent(), "layer": 1}, "1"),
        ("max_tokens", {"max_tokens": 0}, "0"),
        ("autocast", {"autocast": "half"}, "'half'"),
        ("threads", {"threads": 0}, "0"),
        ("device", {"device": "moon"}, "'moon'"),
    ],
)
def test_what_is_no_model_of_language_is_refused(argument, changes, got):
    arguments = {"network": encoder(), "tokenizer": made.tokenizer()} | changes
    with refuses(argument, got):
        TextModel(arguments.pop("network"), **arguments)


@pytest.mark.parametrize(
    ("argument", "changes", "got"),
    [
        ("models", {"models": [1]}, "list"),
        ("models", {"models": {}}, ""),
        ("models['a']", {"models": {"a": encoder()}}, "Encoder"),
        ("texts", {"texts": "one text"}, "one text"),
        ("texts[1]", {"texts": ["a", 2]}, "2"),
        ("texts", {"texts": None}, "None"),
        ("texts", {"texts": ["", " "]}, "none"),
        ("texts", {"texts": []}, "none"),
        ("batch_size", {"batch_size": 0}, "0"),
        ("take", {"take": "best"}, "'best'"),
        ("dtype", {"dtype": "float64"}, "'float64'"),
        ("progress", {"progress": 2}, "2"),
    ],
)
def test_what_cannot_be_extracted_is_refused(argument, changes, got):
    arguments = {"models": {"a": TextModel(encoder(), tokenizer=made.tokenizer())}, "texts": TEXTS} | changes
    with refuses(argument, got):
        extract_texts(**arguments)


@pytest.mark.parametrize(
    ("argument", "network", "layer", "tokenize"),
    [
        ("layer 'pool' of Pooled", Pooled(), "pool", made.tokenizer()),
        ("layer 'unused' of Pooled", Pooled(), "unused", made.tokenizer()),
        ("network", Pooled(), "embeddings", lambda text: ([99], [(0, 1)])),
        ("network", Pooled(), "embeddings", lambda text: ([-1], [(0, 1)])),
        ("tokenizer", Pooled(), "embeddings", lambda text: 3),
        ("tokenizer", Pooled(), "embeddings", lambda text: ([1, 2], [(0, 1)])),
        ("tokenizer(texts[0])[0]", Pooled(), "embeddings", lambda text: ([0.5], [(0, 1)])),
        ("tokenizer(texts[0])[1]", Pooled(), "embeddings", lambda text: ([1], [(0, 1000)])),
    ],
)
def test_errors_of_networks_and_tokenizers_name_them(argument, network, layer, tokenize):
    model = TextModel(network.eval(), layer, tokenizer=tokenize)
    with refuses(argument):
        extract_texts({"a": model}, TEXTS[:1])


def test_activations_that_are_not_finite_are_refused_but_not_those_of_padding():
    network = encoder()
    with torch.no_grad():
        network.embeddings.weight[0] = torch.nan  # of padding
    models = {"a": TextModel(network, "embeddings", tokenizer=made.tokenizer())}
    assert np.isfinite(extract_texts(models, TEXTS)["a"]).all()
    with torch.no_grad():
        network.embeddings.weight[:] = torch.nan
    with refuses("activations of layer 'embeddings' of Encoder", "NaN"):
        extract_texts(models, TEXTS)
