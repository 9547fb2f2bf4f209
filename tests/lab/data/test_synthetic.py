"""The slow-factor source against enumeration, against its own samples, and as the text that a model reads."""

import itertools
import math

import numpy as np
import pytest

from delta_vae_lab.data import tokenize
from delta_vae_lab.data.synthetic import SlowFactorSource, slow_factor_text, source_tokenizer, source_words

SMALL = [
    SlowFactorSource(factors=2, group_size=1, ratio=3.0, length=5),
    SlowFactorSource(factors=3, group_size=1, ratio=2.0, length=4),
    SlowFactorSource(factors=2, group_size=2, ratio=1.5, length=4),
]
each_small = pytest.mark.parametrize("source", SMALL)


def every_sentence(source: SlowFactorSource) -> np.ndarray:
    return np.array(list(itertools.product(range(source.symbols), repeat=source.length)))


def by_hand(source: SlowFactorSource, row: np.ndarray, factor: int) -> float:
    """p(x | f), from the description of the source in words."""
    total = source.group_size * (source.ratio + source.factors - 1)
    return math.prod((source.ratio if v // source.group_size == factor else 1) / total for v in row.tolist())


@each_small
def test_probabilities_are_those_of_the_sum_over_factors(source: SlowFactorSource) -> None:
    x = every_sentence(source)
    expected = [np.mean([by_hand(source, row, f) for f in range(source.factors)]) for row in x]
    np.testing.assert_allclose(np.exp(source.log_prob(x)), expected)
    assert np.exp(source.log_prob(x)).sum() == pytest.approx(1)
    assert np.exp(source.log_joint(x)).sum() == pytest.approx(1)


@each_small
def test_entropies_are_those_of_all_sentences(source: SlowFactorSource) -> None:
    x = every_sentence(source)
    log_prob, log_joint = source.log_prob(x), source.log_joint(x)
    entropy = -(np.exp(log_prob) * log_prob).sum()
    joint = -(np.exp(log_joint) * log_joint).sum()
    assert source.entropy_nats == pytest.approx(entropy)
    assert source.entropy_given_factor_nats == pytest.approx(joint - math.log(source.factors))
    assert source.information_nats == pytest.approx(entropy + math.log(source.factors) - joint)


@pytest.mark.parametrize("factors", [2, 4])
def test_samples_have_the_entropies_of_the_source(factors: int) -> None:
    source = SlowFactorSource(factors=factors, group_size=4, ratio=2.0, length=24)
    factor, x = source.sample(4000, np.random.default_rng(0))
    nats = -source.log_prob(x)
    given = -source.log_joint(x)[np.arange(4000), factor] - math.log(factors)
    for values, entropy in ((nats, source.entropy_nats), (given, source.entropy_given_factor_nats)):
        assert values.mean() == pytest.approx(entropy, abs=4 * values.std() / math.sqrt(4000))
    assert np.bincount(factor) / 4000 == pytest.approx(np.full(factors, 1 / factors), abs=4 * math.sqrt(0.25 / 4000))


def test_a_long_sentence_gives_its_factor_away_and_a_short_one_hardly() -> None:
    known = [SlowFactorSource(factors=2, length=length).information_nats for length in (1, 2, 8, 32, 200)]
    assert known == sorted(known)
    assert known[0] < 0.06
    assert known[-1] == pytest.approx(math.log(2), abs=1e-4)


def test_the_same_seed_draws_the_same_and_another_another() -> None:
    source = SlowFactorSource(length=6)
    first, again, other = (slow_factor_text(source, train=20, heldout=10, seed=seed) for seed in (0, 0, 1))
    assert first.text == again.text
    assert first.labels.fingerprint == again.labels.fingerprint
    assert first.text.fingerprint["train"] != other.text.fingerprint["train"]
    assert set(first.text.train).isdisjoint(first.text.heldout)


def test_one_token_a_symbol_between_bos_and_eos() -> None:
    source = SlowFactorSource(factors=2, group_size=3, length=6)
    data = slow_factor_text(source, train=20, heldout=10, seed=0)
    tokenizer = source_tokenizer(source)
    words, text = source_words(source), tokenize(tokenizer, data.text.heldout)
    assert len(tokenizer) == source.symbols + 3
    assert text.lengths.tolist() == [7] * 10, "EOS included"
    for ids, symbols, sentence in zip(text, data.symbols_heldout, data.text.heldout, strict=True):
        assert ids.tolist()[0] == tokenizer.bos_token_id
        assert ids.tolist()[-1] == tokenizer.eos_token_id
        assert tokenizer.convert_ids_to_tokens(ids.tolist()[1:-1]) == [words[v] for v in symbols] == sentence.split()
    assert tokenizer.decode(text[0], skip_special_tokens=True) == data.text.heldout[0]


def test_labels_are_the_factors_of_their_sentences() -> None:
    source = SlowFactorSource(factors=4, group_size=2, ratio=50.0, length=30)
    data = slow_factor_text(source, train=40, heldout=20, seed=0)
    for symbols, labels in ((data.symbols_train, data.labels.train), (data.symbols_heldout, data.labels.heldout)):
        commonest = [np.bincount(row // 2, minlength=4).argmax() for row in symbols]
        assert commonest == labels.tolist()
    assert data.text.name == "synthetic-slow-factor"
    assert "ratio=50.0" in data.text.fingerprint["source"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"factors": 1}, "factors=1: must be at least 2"),
        ({"group_size": 0}, "group_size=0: must be at least 1"),
        ({"length": 0}, "length=0: must be at least 1"),
        ({"ratio": 1.0}, "ratio=1.0: must be greater than 1 and finite"),
        ({"ratio": math.nan}, "ratio=nan: must be greater than 1"),
    ],
)
def test_a_source_without_a_factor_is_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SlowFactorSource(**settings)
