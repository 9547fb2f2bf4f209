"""Tokenizers: BOS ... EOS around every sentence, no sentence changed or cut, the same one for the same text."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from delta_vae_lab.data import load_tokenizer, tokenize, tokens, train_tokenizer

TEXT = [f"the {noun} sat on the mat , said the {noun} ." for noun in ("cat", "dog", "hat")] * 3
TOKENIZER = train_tokenizer(TEXT, vocab_size=280)


def word_level(folder: Path, **special_tokens: str) -> str:
    """A tokenizer from elsewhere, with four words and no layout of its own."""
    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "the": 1, "cat": 2, "<s>": 3}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", **special_tokens).save_pretrained(folder)
    return str(folder)


def test_a_sentence_stands_between_bos_and_eos() -> None:
    ids = TOKENIZER("the cat sat").input_ids
    assert (ids[0], ids[-1]) == (TOKENIZER.bos_token_id, TOKENIZER.eos_token_id)
    assert TOKENIZER.decode(ids[1:-1]) == "the cat sat"
    assert len(TOKENIZER) == 280
    assert sorted([TOKENIZER.pad_token_id, TOKENIZER.bos_token_id, TOKENIZER.eos_token_id]) == [0, 1, 2]


@given(st.text())
def test_every_text_comes_back(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER(text).input_ids, skip_special_tokens=True) == text


@pytest.mark.parametrize("lookalike", ["</s>", "a <s> b", "<pad>"])
def test_what_looks_like_a_special_token_is_text(lookalike: str) -> None:
    ids = TOKENIZER(lookalike).input_ids
    assert not {0, 1, 2} & set(ids[1:-1])
    assert tokenize(TOKENIZER, [lookalike])[0].tolist() == ids


def test_the_same_text_gives_the_same_tokenizer() -> None:
    assert train_tokenizer(iter(TEXT), 280).backend_tokenizer.to_str() == TOKENIZER.backend_tokenizer.to_str()


def test_a_saved_tokenizer_is_the_same(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    for loaded in (PreTrainedTokenizerFast.from_pretrained(tmp_path), load_tokenizer(str(tmp_path))):
        for text in (*TEXT, "caf\u00e9 </s>"):
            assert loaded(text).input_ids == TOKENIZER(text).input_ids
        assert loaded.special_tokens_map == TOKENIZER.special_tokens_map
        assert loaded.padding_side == "right"
        assert loaded.decode(loaded("a , b </s>").input_ids, skip_special_tokens=True) == "a , b </s>"


def test_a_tokenizer_from_elsewhere_gets_the_layout(tmp_path: Path) -> None:
    folder = word_level(tmp_path, pad_token="[PAD]", eos_token="[SEP]")
    tokenizer = load_tokenizer(folder, bos_token="<s>")
    assert tokenizer.convert_ids_to_tokens(tokenizer("the cat").input_ids) == ["<s>", "the", "cat", "[SEP]"]
    assert tokenizer.bos_token_id == 3
    assert len(tokenizer) == 6
    tokenizer.save_pretrained(tmp_path / "again")
    again = PreTrainedTokenizerFast.from_pretrained(tmp_path / "again")
    assert again("the cat").input_ids == tokenizer("the cat").input_ids


def test_a_tokenizer_may_end_begin_and_pad_with_one_token(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(word_level(tmp_path), bos_token="<s>", eos_token="<s>", pad_token="<s>")
    assert tokenizer("the").input_ids == [3, 1, 3]


def test_tokenised_text_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "CHUNK", 2)
    text = tokenize(TOKENIZER, TEXT)
    assert [ids.tolist() for ids in text] == [TOKENIZER(sentence).input_ids for sentence in TEXT]
    assert text.lengths.tolist() == [len(TOKENIZER(sentence).input_ids) - 1 for sentence in TEXT]
    assert text.tokens.dtype == np.int32
    assert len(tokenize(TOKENIZER, [])) == 0


def test_a_long_sentence_is_dropped_and_counted_or_refused_but_never_cut() -> None:
    sentences = ["ab", "abcdefgh", "cd", "abcdefghi"]
    text = tokenize(TOKENIZER, sentences, max_length=3, too_long="drop")
    assert [TOKENIZER.decode(ids, skip_special_tokens=True) for ids in text] == ["ab", "cd"]
    assert text.dropped == 2
    with pytest.raises(
        ValueError, match="2 of 4 sentences have more than max_length=3 tokens; set max_length to 10 or"
    ):
        tokenize(TOKENIZER, sentences, max_length=3)
    assert len(tokenize(TOKENIZER, sentences, max_length=10)) == 4


def test_a_vocabulary_too_large_for_the_text() -> None:
    with pytest.raises(ValueError, match=r"vocab_size=5000 is more than the training text yields; use \d+ or less"):
        train_tokenizer(TEXT, vocab_size=5000)


def test_a_vocabulary_too_small_for_bytes() -> None:
    with pytest.raises(ValueError, match="vocab_size=258 cannot hold 256 bytes and 3 special tokens; use 259 or more"):
        train_tokenizer(TEXT, vocab_size=258)
    assert len(train_tokenizer(TEXT, vocab_size=259)) == 259


def test_a_tokenizer_without_special_tokens(tmp_path: Path) -> None:
    folder = word_level(tmp_path, eos_token="<s>")
    with pytest.raises(ValueError, match="has no pad_token, no bos_token; name one, as in tokenizer.pad_token='<s>'"):
        load_tokenizer(folder)
    with pytest.raises(ValueError, match="has no bos_token"):
        load_tokenizer(folder, pad_token="<pad>")


def test_a_tokenizer_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="tokenizer 'nobody/nothing' is neither a folder nor a name that loads"):
        load_tokenizer("nobody/nothing")
