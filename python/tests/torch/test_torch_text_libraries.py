"""Networks of transformers with random weights, and tokenizers of transformers and tokenizers that are trained here.

What rows are is held to what these libraries say themselves: hidden states, offset mappings and truncation.
"""

import functools

import numpy as np
import pytest
import torch

import support.torchvision_without_cuda  # noqa: F401  # before transformers, which imports torchvision
import usae
from support import texts as made
from support.refusals import refuses
from usae.torch import TextModel, extract_texts

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

TEXTS = ["The cat sat on a mat.", "", "Dogs!", "  two   old\ndogs ran over the green hills , and found a ball 😀 é.", "a"]


def word_pieces():
    return tokenizers.Tokenizer.from_str(_trained_word_pieces())  # one training, because its order is not always the same


def byte_pairs():
    return tokenizers.Tokenizer.from_str(_trained_byte_pairs())


@functools.cache
def _trained_word_pieces():
    """Like BERT's: words in lower case, pieces that begin with ##, a special token at both ends."""
    model = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    model.normalizer = tokenizers.normalizers.BertNormalizer()
    model.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = tokenizers.trainers.WordPieceTrainer(vocab_size=60, special_tokens=special, show_progress=False)
    model.train_from_iterator(made.sentences(50), trainer)
    ends = [(name, model.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    model.post_processor = tokenizers.processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return model.to_str()


@functools.cache
def _trained_byte_pairs():
    """Like GPT-2's: bytes, with the space before a word in its first token, and no special tokens."""
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.post_processor = tokenizers.processors.ByteLevel(trim_offsets=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    model.train_from_iterator(made.sentences(50), trainer)
    return model.to_str()


def fast(tokenizer, **options):
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **options)


def bert(layers=3):
    torch.manual_seed(0)
    options = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 80}
    config = transformers.BertConfig(num_hidden_layers=layers, max_position_embeddings=40, **options)
    return transformers.BertModel(config).eval()


def gpt2(kind="GPT2Model"):
    torch.manual_seed(1)
    config = transformers.GPT2Config(n_layer=3, n_head=2, n_embd=12, vocab_size=300, n_positions=50)
    return getattr(transformers, kind)(config).eval()


def llama():
    torch.manual_seed(2)
    options = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 300}
    config = transformers.LlamaConfig(num_hidden_layers=2, num_key_value_heads=1, max_position_embeddings=64, **options)
    return transformers.LlamaModel(config).eval()


def t5():
    torch.manual_seed(3)
    config = transformers.T5Config(num_layers=2, num_heads=2, d_model=16, d_kv=8, d_ff=24, vocab_size=300)
    return transformers.T5Model(config).eval()


def distilbert():
    torch.manual_seed(4)
    config = transformers.DistilBertConfig(n_layers=3, n_heads=2, dim=16, hidden_dim=24, vocab_size=80)
    return transformers.DistilBertModel(config).eval()


@pytest.mark.parametrize(
    ("network", "tokenizer", "blocks"),
    [
        (bert, word_pieces, "encoder.layer"),
        (distilbert, word_pieces, "transformer.layer"),
        (gpt2, byte_pairs, "h"),
        (llama, byte_pairs, "layers"),
        (lambda: gpt2("GPT2LMHeadModel"), byte_pairs, "transformer.h"),
        (lambda: t5().get_encoder(), byte_pairs, "block"),
        (t5, byte_pairs, "block"),
        (lambda: torch.nn.DataParallel(t5()), byte_pairs, "block"),
    ],
)
def test_block_n_is_hidden_state_n(network, tokenizer, blocks):
    network, tokenizer = network(), fast(tokenizer())
    model = TextModel(network, tokenizer=tokenizer)
    n = model.module.config.num_hidden_layers
    assert model.layer == f"{blocks}.{n - 1}"
    acts = extract_texts({str(i): model.at(i) for i in range(1, n + 1)}, TEXTS, batch_size=3)
    inner = model.module
    for i in range(1, n):  # the last hidden state comes after a norm in some
        rows = []
        for text in TEXTS:
            encoded = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
            kept = np.array([not special for special in encoded["special_tokens_mask"]], bool)
            if kept.any():
                ids = torch.tensor([encoded["input_ids"]])
                with torch.no_grad():
                    states = inner(input_ids=ids, output_hidden_states=True).hidden_states
                rows.append(states[i][0].numpy()[kept])
        assert np.allclose(acts[str(i)], np.concatenate(rows), atol=1e-5)


@pytest.mark.parametrize("kind", [word_pieces, byte_pairs])
def test_spans_are_offset_mappings_and_nothing_is_set_in_the_users_tokenizer(kind):
    inside = kind()
    inside.enable_padding(length=30)
    inside.enable_truncation(12)
    before = inside.to_str()
    for tokenizer in (inside, fast(inside)):
        model = TextModel(bert(), 1, tokenizer=tokenizer)
        of_texts = model.tokenizer.tokens(TEXTS)
        plain = fast(kind())
        for text, tokens in zip(TEXTS, of_texts, strict=True):
            limit = 12 if tokenizer is inside else 40
            expected = plain(text, return_offsets_mapping=True, truncation=True, max_length=limit)
            assert tokens.ids.tolist() == expected["input_ids"]
            assert list(map(tuple, tokens.spans.tolist())) == expected["offset_mapping"]
            whole = plain(text)["input_ids"]
            assert tokens.n_cut == len(whole) - len(expected["input_ids"])
    assert inside.to_str() == before


def test_two_real_tokenizers_share_all_but_space_and_drop_what_one_does_not_see():
    models = {"bert": TextModel(bert(), tokenizer=fast(word_pieces())), "gpt2": TextModel(gpt2(), tokenizer=byte_pairs())}
    acts = extract_texts(models, TEXTS)
    rows = acts.text_rows
    shown = [rows.context(row, 0, 0).characters for row in range(len(rows))]
    for number, text in enumerate(TEXTS):
        assert "".join(shown[row] for row in np.flatnonzero(rows.text == number)) == "".join(text.split())
    assert "😀" in shown
    dropped = acts.dropped["gpt2"]
    assert dropped.special == 0 and dropped.merged > 0  # bytes of 😀, and pieces of words
    assert dropped.without_partner >= 3  # space alone, which BERT does not see
    assert acts.dropped["bert"].special == 2 * len(TEXTS) and len(shown) == len(acts["gpt2"])


def test_a_folder_has_network_and_tokenizer(tmp_path):
    network, tokenizer = bert(), fast(word_pieces(), pad_token="[PAD]", model_max_length=16)
    network.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    found = TextModel(tmp_path)
    assert found.max_tokens == 16 and found.layer == "encoder.layer.2" and "BertModel" in repr(found)
    expected = extract_texts({"a": TextModel(network, tokenizer=tokenizer)}, TEXTS)
    acts = extract_texts({"a": found}, TEXTS)
    assert np.array_equal(acts["a"], expected["a"]) and acts.dropped["a"].cut == expected.dropped["a"].cut > 0
    (tmp_path / "config.json").write_text("{}")
    with refuses("network", repr(str(tmp_path))):
        TextModel(tmp_path)


def test_outputs_of_transformers_are_taken_by_the_alignment_itself():
    network, tokenizer = bert(), fast(word_pieces(), pad_token="[PAD]")
    encoded = tokenizer(TEXTS, return_offsets_mapping=True, padding=True, return_tensors="pt")
    mask = encoded["attention_mask"].bool()
    aligned = usae.align_tokens(TEXTS, {"last": encoded.pop("offset_mapping"), "first": tokenizer(
        TEXTS, return_offsets_mapping=True)["offset_mapping"]}, mask={"last": mask})  # fmt: skip
    with torch.no_grad():
        output = network(**encoded, output_hidden_states=True)
    lists = [state[each] for state, each in zip(output.hidden_states[1], mask, strict=True)]
    acts = aligned.activations({"last": output, "first": lists})
    model = TextModel(network, tokenizer=tokenizer)
    expected = extract_texts({"last": model, "first": model.at(1)}, TEXTS)
    for name in expected:
        assert np.allclose(acts[name], expected[name], atol=1e-5)
    assert aligned.dropped["last"].masked == int((~mask).sum()) and aligned.dropped["last"].special == 2 * len(TEXTS)


def test_a_slow_tokenizer_and_too_few_tokens_are_refused():
    with refuses("max_tokens", "2"):
        TextModel(bert(), tokenizer=word_pieces(), max_tokens=2)
    assert TextModel(bert(), tokenizer=word_pieces(), max_tokens=3).max_tokens == 3
    with refuses("texts"):
        extract_texts({"a": TextModel(bert(), tokenizer=word_pieces())}, ["a\ud800"])


@pytest.mark.parametrize("pad_token_id", [0, 1, 3])
def test_texts_are_cut_where_positions_end_that_begin_behind_that_of_padding(pad_token_id):
    torch.manual_seed(5)
    options = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 80, "num_hidden_layers": 2}
    config = transformers.RobertaConfig(max_position_embeddings=14, pad_token_id=pad_token_id, **options)
    model = TextModel(transformers.RobertaModel(config).eval(), 1, tokenizer=word_pieces())
    assert model.max_tokens == 14 - 1 - pad_token_id
    acts = extract_texts({"net": model}, ["a " * 40, "a"])
    assert len(acts["net"]) == model.max_tokens - 2 + 1 and acts.dropped["net"].cut == 40 - (model.max_tokens - 2)


@pytest.mark.parametrize("network", [bert, gpt2])
def test_a_padding_token_that_the_network_has_no_embedding_of_is_not_used(network):
    tokenizer = fast(word_pieces(), pad_token="[NEW]")
    tokenizer.add_tokens([f"<{n}>" for n in range(400)] + ["[LAST]"])
    tokenizer.pad_token = "[LAST]"
    model = TextModel(network(), 1, tokenizer=tokenizer)
    assert tokenizer.pad_token_id > 300
    together, alone = (extract_texts({"net": model}, TEXTS, batch_size=n) for n in (8, 1))
    assert np.allclose(together["net"], alone["net"], atol=1e-5)
