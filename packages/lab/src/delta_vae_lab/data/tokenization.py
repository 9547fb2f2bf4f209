"""Tokenizers that write a sentence as BOS x_1 ... x_n EOS: trained on the training text, or any from Hugging Face."""

import os
from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

# A rank has about one core to itself, and a pool of threads does not survive a fork. A user's own setting wins.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SPECIAL_TOKENS = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}


def train_tokenizer(sentences: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE of exactly `vocab_size` tokens: no unknown token, and decoding gives every sentence back.

    The same sentences give the same tokenizer.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    smallest = len(alphabet) + len(SPECIAL_TOKENS)
    if vocab_size < smallest:
        raise ValueError(f"vocab_size={vocab_size} cannot hold 256 bytes and 3 special tokens; use {smallest} or more")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=list(SPECIAL_TOKENS.values()),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(sentences, trainer)
    if backend.get_vocab_size() < vocab_size:
        raise ValueError(
            f"vocab_size={vocab_size} is more than the training text yields; use {backend.get_vocab_size()} or less, "
            f"or more text"
        )
    return with_sentence_layout(backend, SPECIAL_TOKENS)


def load_tokenizer(
    name_or_path: str,
    *,
    bos_token: str | None = None,
    eos_token: str | None = None,
    pad_token: str | None = None,
) -> PreTrainedTokenizerFast:
    """A fast Hugging Face tokenizer, made to write BOS ... EOS.

    A special token that it lacks must be named; one that its vocabulary lacks is added (size the model by `len`).
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"tokenizer {name_or_path!r} is neither a folder nor a name that loads ({reason}); give one"
        ) from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ValueError(f"tokenizer {name_or_path!r} is {type(tokenizer).__name__}; choose one with a tokenizer.json")
    special_tokens = {
        "pad_token": pad_token or tokenizer.pad_token,
        "bos_token": bos_token or tokenizer.bos_token,
        "eos_token": eos_token or tokenizer.eos_token,
    }
    if missing := [role for role, token in special_tokens.items() if token is None]:
        raise ValueError(
            f"tokenizer {name_or_path!r} has no {', no '.join(missing)}; name one, as in tokenizer.{missing[0]}='<s>'"
        )
    return with_sentence_layout(backend, special_tokens)


def with_sentence_layout(backend: Tokenizer, special_tokens: dict[str, str]) -> PreTrainedTokenizerFast:
    """Wrap `backend`. What looks like a special token inside a sentence stays text, so EOS is always the end."""
    backend.no_padding()
    backend.no_truncation()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, padding_side="right", split_special_tokens=True, **special_tokens
    )
    bos, eos = tokenizer.bos_token, tokenizer.eos_token
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=[bos, "$A", eos], special_tokens=[(bos, tokenizer.bos_token_id), (eos, tokenizer.eos_token_id)]
    )
    return tokenizer
