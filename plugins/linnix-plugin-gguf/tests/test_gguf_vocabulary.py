"""Tokens keep their ids, their kinds and the way in which text becomes them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linnix_core import LinnixError
from linnix_plugin_gguf.architecture import NotSupported
from linnix_plugin_gguf.testing import _field, _number
from linnix_plugin_gguf.vocabulary import Kind, read_vocabulary


@pytest.fixture
def tokenizer(checkpoint):
    """The vocabulary of a tokenizer.json that was edited."""

    def make(edit=None, **options):
        edits = {"tokenizer.json": edit} if edit else {}
        return read_vocabulary(checkpoint(edit=edits, **options))

    return make


@pytest.mark.parametrize("kind", ["llama-bpe", "qwen2", "smollm", "gpt-2"])
def test_the_way_text_is_cut_is_told_from_what_tokenizer_json_says(tokenizer, kind):
    vocabulary = tokenizer(tokenizer=kind)
    assert (vocabulary.model, vocabulary.pre) == ("gpt2", kind)


def test_whole_words_that_are_merged_nevertheless_are_another_kind(tokenizer):
    vocabulary = tokenizer(lambda tree: tree["model"].update(ignore_merges=False))
    assert vocabulary.pre == "smaug-bpe"


@pytest.mark.parametrize(
    "pre_tokenizer",
    [
        None,
        {"type": "Whitespace"},
        {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True},
        {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": False}, {"type": "ByteLevel"},
        ]},
        {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": r"\w+"}, "behavior": "Isolated"},
            {"type": "ByteLevel", "use_regex": False},
        ]},
    ],
)  # fmt: skip
def test_a_way_that_nobody_knows_is_no_guess(tokenizer, pre_tokenizer):
    with pytest.raises(NotSupported, match="is none that is known here"):
        tokenizer(lambda tree: tree.update(pre_tokenizer=pre_tokenizer))


def test_tokens_have_their_kinds(tokenizer):
    def add(tree):
        for number, content, special in ((900, "<|seen|>", False), (901, "<call>", False)):
            tree["added_tokens"].append({"id": number, "content": content, "special": special})

    vocabulary = tokenizer(add)
    kinds = dict(zip(vocabulary.tokens, vocabulary.kinds, strict=True))
    assert kinds["<|im_end|>"] is Kind.CONTROL
    assert kinds["<|seen|>"] is Kind.CONTROL  # by its looks
    assert kinds["<call>"] is Kind.USER_DEFINED
    assert kinds["the"] is Kind.NORMAL
    assert kinds["[PAD899]"] is Kind.UNUSED  # a gap
    assert vocabulary.tokens[901] == "<call>"


#: As DeepSeek writes its marks.
USER = "<\N{FULLWIDTH VERTICAL LINE}User\N{FULLWIDTH VERTICAL LINE}>"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (USER, Kind.CONTROL),
        ("<|im\nend|>", Kind.CONTROL),
        ("<unused7>", Kind.CONTROL),
        ("<pad>", Kind.CONTROL),
        ("<mask>", Kind.CONTROL),
        ("<2mass>", Kind.CONTROL),
        ("[@BOS@]", Kind.CONTROL),
        ("<padding>", Kind.USER_DEFINED),
        ("a <|im_end|>", Kind.USER_DEFINED),
        ("<think>", Kind.USER_DEFINED),
    ],
)
def test_a_mark_is_told_by_its_looks_wherever_it_was_added(tokenizer, checkpoint, content, kind):
    """User-defined tokens are found in every text, so that telemetry could open a turn."""
    added = {"id": 900, "content": content, "special": False}
    vocabulary = tokenizer(lambda tree: tree["added_tokens"].append(added))
    assert vocabulary.kinds[900] is kind
    path = checkpoint(tokenizer="sentencepiece", name="pieces")
    before = len(read_vocabulary(path).tokens)
    (path / "added_tokens.json").write_text(json.dumps({content: before}))
    assert read_vocabulary(path).kinds[before] is kind


def test_rows_without_a_token_are_filled_up(tokenizer):
    vocabulary = tokenizer()
    count = len(vocabulary.tokens)
    vocabulary.pad(count + 2)
    assert vocabulary.tokens[count:] == [f"[PAD{count}]", f"[PAD{count + 1}]"]
    assert vocabulary.kinds[count:] == [Kind.UNUSED] * 2
    with pytest.raises(LinnixError, match="tokens, and the model"):
        vocabulary.pad(count)


def test_sentencepiece_keeps_pieces_scores_and_kinds(tokenizer):
    vocabulary = tokenizer(tokenizer="sentencepiece")
    assert (vocabulary.model, vocabulary.adds_space) == ("llama", True)
    assert vocabulary.tokens[:4] == ["<unk>", "<s>", "</s>", "<0x00>"]
    assert vocabulary.kinds[:4] == [Kind.UNKNOWN, Kind.CONTROL, Kind.CONTROL, Kind.BYTE]
    place = vocabulary.tokens.index("▁the")
    assert vocabulary.kinds[place] is Kind.NORMAL
    assert vocabulary.scores[place] == -(place - 259)


def test_tokens_that_were_added_to_sentencepiece_are_there(checkpoint):
    path = checkpoint(
        tokenizer="sentencepiece",
        edit={
            "tokenizer_config.json": lambda tree: tree["added_tokens_decoder"].update(
                {"496": {"content": "<|im_start|>", "special": True}}
            )
        },
    )
    before = len(read_vocabulary(path).tokens)
    (path / "added_tokens.json").write_text(json.dumps({"<call>": before}))
    vocabulary = read_vocabulary(path)
    assert (vocabulary.tokens[496], vocabulary.kinds[496]) == ("<|im_start|>", Kind.CONTROL)
    assert (vocabulary.tokens[-1], vocabulary.kinds[-1]) == ("<call>", Kind.USER_DEFINED)
    (path / "added_tokens.json").write_text(json.dumps({"<call>": before + 1}))
    with pytest.raises(LinnixError, match="with a gap before it"):
        read_vocabulary(path)


def test_a_unigram_model_is_not_taken_for_bpe(checkpoint):
    path = checkpoint(tokenizer="sentencepiece")
    piece = _field(1, _field(1, b"a") + _number(3, 1))
    (path / "tokenizer.model").write_bytes(piece + _field(2, _number(3, 1)))
    with pytest.raises(NotSupported, match="no BPE of sentencepiece"):
        read_vocabulary(path)


def test_sentencepiece_that_became_json_is_scored_by_its_merges(tokenizer):
    def become(tree):
        tree["normalizer"] = {"type": "Prepend", "prepend": "▁"}
        tree["model"].update(
            byte_fallback=True,
            unk_token="<unk>",
            vocab={"<unk>": 0, "<0x41>": 1, "a": 2, "b": 3, "ab": 4, "aba": 5},
            merges=[["a", "b"], ["ab", "a"], ["a", "ba"]],
        )
        tree["added_tokens"] = []

    vocabulary = tokenizer(become)
    assert vocabulary.scores == [-2, -2, -2, -2, 0, -1]
    assert vocabulary.kinds[:3] == [Kind.UNKNOWN, Kind.BYTE, Kind.NORMAL]
    assert vocabulary.adds_space is True


@pytest.mark.parametrize(
    "edit",
    [
        lambda tree: tree.pop("model"),
        lambda tree: tree["model"].update(vocab=[1]),
        lambda tree: tree["model"].update(vocab={"a": "b"}),
        lambda tree: tree.update(added_tokens=[{"id": "x"}]),
        lambda tree: tree.update(added_tokens=[{"id": 10**9, "content": "far"}]),
        lambda tree: tree.update(added_tokens=[{"id": -1, "content": "before"}]),
        lambda tree: tree.update(pre_tokenizer=[]),
    ],
)
def test_a_tokenizer_that_is_none_is_refused(tokenizer, edit):
    with pytest.raises(LinnixError):
        tokenizer(edit)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader_of_sentencepiece(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("bytes")
    (folder / "tokenizer.model").write_bytes(data)
    with pytest.raises(LinnixError):
        read_vocabulary(folder)
