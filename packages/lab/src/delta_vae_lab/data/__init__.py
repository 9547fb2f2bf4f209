"""Data for training and evaluation: sentences, tokenizers, images, and batches of either."""

from delta_vae_lab.data.image_batches import ImageBatch, ImageBatches, heldout_image_batches
from delta_vae_lab.data.image_splits import ImageSplits
from delta_vae_lab.data.images import load_images
from delta_vae_lab.data.streaming import StreamingTextBatches
from delta_vae_lab.data.text import TextSplits, load_text, word_count
from delta_vae_lab.data.text_batches import TextBatch, TextBatches, heldout_batches
from delta_vae_lab.data.tokenization import load_tokenizer, train_tokenizer
from delta_vae_lab.data.tokens import TokenizedText, tokenize

__all__ = [
    "ImageBatch",
    "ImageBatches",
    "ImageSplits",
    "StreamingTextBatches",
    "TextBatch",
    "TextBatches",
    "TextSplits",
    "TokenizedText",
    "heldout_batches",
    "heldout_image_batches",
    "load_images",
    "load_text",
    "load_tokenizer",
    "tokenize",
    "train_tokenizer",
    "word_count",
]
