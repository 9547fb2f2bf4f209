"""Text for training and evaluation: sentences, tokenizers and batches."""

from delta_vae_lab.data.batches import TextBatch, TextBatches, heldout_batches
from delta_vae_lab.data.streaming import StreamingTextBatches
from delta_vae_lab.data.text import TextSplits, load_text, word_count
from delta_vae_lab.data.tokenization import load_tokenizer, train_tokenizer
from delta_vae_lab.data.tokens import TokenizedText, tokenize

__all__ = [
    "StreamingTextBatches",
    "TextBatch",
    "TextBatches",
    "TextSplits",
    "TokenizedText",
    "heldout_batches",
    "load_text",
    "load_tokenizer",
    "tokenize",
    "train_tokenizer",
    "word_count",
]
