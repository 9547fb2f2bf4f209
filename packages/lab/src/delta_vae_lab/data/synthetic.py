"""A source of sentences with one slow factor and known entropies: what a latent is worth to a decoder, exactly."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from delta_vae_lab.data.labels import Labels
from delta_vae_lab.data.text import TextSplits, text_splits
from delta_vae_lab.data.tokenization import SPECIAL_TOKENS, with_sentence_layout
from delta_vae_lab.randomness import derive_seed

NAME = "synthetic-slow-factor"

Symbols = npt.NDArray[np.int64]
Nats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SlowFactorSource:
    """p(x) = 1/F sum_f prod_t p(x_t | f): L symbols, independent given a factor f that holds for the whole sentence.

    The symbols fall into F groups of `group_size`; given f those of group f are `ratio` times as likely as the others.
    So a decoder that reads the past comes to know f by and by, and one that is told f at the start saves I(x; f) nats
    in all: the most that the slow factor can be worth to it. Every sentence has the same length, which tells nothing.
    """

    factors: int = 4  # F
    group_size: int = 4
    ratio: float = 2.0
    length: int = 48  # L

    def __post_init__(self) -> None:
        for name, least in (("factors", 2), ("group_size", 1), ("length", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least {least}")
        if not 1 < self.ratio < math.inf:
            raise ValueError(f"ratio={self.ratio}: must be greater than 1 and finite, or the factor changes nothing")

    @property
    def symbols(self) -> int:
        """V = F x group_size; symbol v is of group v // group_size."""
        return self.factors * self.group_size

    @property
    def log_emission(self) -> Nats:
        """ln p(v | f), (F, V) nats."""
        favoured = np.arange(self.symbols) // self.group_size == np.arange(self.factors)[:, None]
        weights = np.where(favoured, self.ratio, 1.0)
        emission: Nats = np.log(weights / weights.sum(1, keepdims=True))
        return emission

    def log_joint(self, x: Symbols) -> Nats:
        """ln p(x, f) of symbols (N, L), for every f: (N, F) nats."""
        joint: Nats = self.log_emission.T[x].sum(1) - math.log(self.factors)
        return joint

    def log_prob(self, x: Symbols) -> Nats:
        """ln p(x) of symbols (N, L): (N,) nats."""
        total: Nats = np.logaddexp.reduce(self.log_joint(x), axis=1)
        return total

    @property
    def entropy_given_factor_nats(self) -> float:
        """H(x | f) = -L sum_v p(v | f) ln p(v | f), the same for every f."""
        row = self.log_emission[0]
        return float(-self.length * (np.exp(row) * row).sum())

    @property
    def entropy_nats(self) -> float:
        """H(x), exactly: a sentence's probability depends on how often each group occurs, in whatever order.

        A sum over the partitions of L into F counts, each for as many sentences as have these counts.
        """
        other = self.log_emission[0, -1]
        counts = np.array(list(_partitions(self.length, self.factors)), dtype=np.int64)
        log_mean_odds = np.logaddexp.reduce(counts * math.log(self.ratio), axis=1) - math.log(self.factors)
        log_prob = self.length * other + log_mean_odds
        log_sentences = np.array([self._log_sentences(row) for row in counts.tolist()])
        return float(-(np.exp(log_sentences + log_prob) * log_prob).sum())

    @property
    def information_nats(self) -> float:
        """I(x; f) = H(x) - H(x | f), between 0 and ln F."""
        return self.entropy_nats - self.entropy_given_factor_nats

    def sample(self, count: int, rng: np.random.Generator) -> tuple[Symbols, Symbols]:
        """Factors (N,) and symbols (N, L)."""
        factors = rng.integers(self.factors, size=count)
        emission = np.exp(self.log_emission)
        return factors, np.stack([rng.choice(self.symbols, self.length, p=emission[f]) for f in factors])

    def _log_sentences(self, counts: list[int]) -> float:
        """ln of how many sentences have these group counts, in any assignment to the F groups."""
        assignments = math.factorial(self.factors)
        for repeated in Counter(counts).values():
            assignments //= math.factorial(repeated)
        orders = math.lgamma(self.length + 1) - sum(math.lgamma(count + 1) for count in counts)
        return math.log(assignments) + orders + self.length * math.log(self.group_size)


@dataclass(frozen=True)
class SlowFactorText:
    """Sentences of a source as text, one word a symbol; `labels` are their factors, `symbols_...` (N, L) as drawn."""

    source: SlowFactorSource
    text: TextSplits
    labels: Labels
    symbols_train: Symbols
    symbols_heldout: Symbols


def slow_factor_text(source: SlowFactorSource, *, train: int, heldout: int, seed: int) -> SlowFactorText:
    """So many sentences to train on and to judge by; the same seed gives the same."""
    drawn = {
        split: source.sample(count, np.random.default_rng(derive_seed(seed, f"{NAME} {split}")))
        for split, count in (("train", train), ("heldout", heldout))
    }
    (train_factors, train_symbols), (heldout_factors, heldout_symbols) = drawn["train"], drawn["heldout"]
    words = source_words(source)
    sentences = [[" ".join(words[v] for v in row) for row in x.tolist()] for x in (train_symbols, heldout_symbols)]
    origin = ", ".join(f"{name}={value}" for name, value in asdict(source).items())
    text = text_splits(NAME, f"drawn with {origin}, seed={seed}", *sentences)
    labels = Labels(train_factors, heldout_factors, tuple(map(str, range(source.factors))), "factor")
    return SlowFactorText(source, text, labels, train_symbols, heldout_symbols)


def source_words(source: SlowFactorSource) -> list[str]:
    """The word that each symbol is written as."""
    return [f"w{v}" for v in range(source.symbols)]


def source_tokenizer(source: SlowFactorSource) -> PreTrainedTokenizerFast:
    """One token a symbol, beside BOS, EOS and padding: nats a token are nats a symbol, EOS costing none."""
    vocabulary = [*SPECIAL_TOKENS.values(), *source_words(source)]
    backend = Tokenizer(models.WordLevel({word: place for place, word in enumerate(vocabulary)}))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return with_sentence_layout(backend, SPECIAL_TOKENS)


def _partitions(total: int, parts: int, largest: int | None = None) -> Iterator[list[int]]:
    """Non-increasing lists of `parts` counts, none over `largest`, that sum to `total`."""
    largest = total if largest is None else min(largest, total)
    if parts == 1:
        if total <= largest:
            yield [total]
        return
    for first in range(largest, -(-total // parts) - 1, -1):
        for rest in _partitions(total - first, parts - 1, first):
            yield [first, *rest]
