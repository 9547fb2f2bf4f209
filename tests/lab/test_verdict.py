"""The verdict on runs whose figures are known, those of a prototype among them, and the table's every cell."""

import math
import re

import pytest

from delta_vae_lab.verdict import render_table, verdict


def metrics(
    gap: float, gap_error: float, rate: float, committed: float, slack_error: float = 0.001
) -> dict[str, float]:
    return {
        "sentences": 500, "tokens": 15_000, "information_sentences": 500,
        "rate_nats": rate, "rate_nats_stderr": slack_error,
        "committed_rate_nats": committed, "committed_rate_nats_stderr": 0.2,
        "slack_nats": rate - committed, "slack_nats_stderr": slack_error,
        "distortion_nats": 160.0, "distortion_nats_stderr": 1.5,
        "shuffle_gap_nats": gap, "shuffle_gap_nats_stderr": gap_error,
        "mutual_information_nats": 5.0, "mutual_information_nats_stderr": 0.1,
        "mutual_information_cap_nats": math.log(500),
        "mutual_information_given_length_nats": 2.0, "mutual_information_given_length_nats_stderr": 0.1,
        "mutual_information_given_length_cap_nats": 2.5,
        "marginal_kl_nats": 9.7, "marginal_kl_nats_stderr": 0.2,
        "nats_per_token": 5.83, "nats_per_token_stderr": 0.05,
        "active_units": 3, "active_units_above_0.2": 1, "latent_dim": 8,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("gap", "error", "rate", "committed", "said"),
    [
        (
            0.000,
            0.002,
            0.0005,
            0.0,
            "costs the decoder 0.0000 ± 0.0020 nats a sentence, nothing within 3 standard errors, and",
        ),
        (0.006, 0.003, 2.783, 2.779, "sits on its floor"),
        (0.011, 0.003, 52.58, 52.45, "0.0110 ± 0.0030 nats a sentence, next to nothing, and"),
        (0.2, 0.1, 15.0, 13.88, "pays 1.1200 ± 0.0010 nats of slack over a committed 13.88 all the same"),
    ],
)
def test_collapsed(gap: float, error: float, rate: float, committed: float, said: str) -> None:
    sentence = verdict(metrics(gap, error, rate, committed))
    assert sentence.startswith("Collapsed: ")
    assert said in sentence


@pytest.mark.parametrize(
    ("gap", "error", "rate", "committed"),
    [(3.29, 0.10, 14.71, 13.88), (33.4, 0.5, 40.2, 36.0), (78.0, 0.9, 45.3, 36.0)],
)
def test_not_collapsed(gap: float, error: float, rate: float, committed: float) -> None:
    sentence = verdict(metrics(gap, error, rate, committed, slack_error=0.01))
    assert sentence == (
        f"Not collapsed: another sentence's z costs the decoder {gap:.2f} ± {error:.2f} nats a sentence; "
        f"for that the rate pays {rate - committed:.3f} ± 0.010 nats of slack over a committed {committed:.2f} "
        "(beyond the length z tells 2.00 ± 0.10 nats about the sentence, I(x; z | n)). "
        "The bound is 5.830 ± 0.050 nats a token; "
        "whether latents lower it is for the decoder without latents (prior.kind=none) to say."
    )


def test_the_bound_told_is_that_against_the_auxiliary_prior_where_there_is_one() -> None:
    auxiliary = {"auxiliary_nats_per_token": 3.776, "auxiliary_nats_per_token_stderr": 0.037}
    assert "The bound against the auxiliary prior is 3.776 ± 0.037 nats a token; " in verdict(
        metrics(3.29, 0.10, 14.71, 13.88) | auxiliary
    )


def test_no_verdict_credits_z_with_what_a_wrong_z_costs() -> None:
    for gap in (0.0, 3.29):
        assert " from z" not in verdict(metrics(gap, 0.1, 14.71, 13.88))


def test_information_at_its_cap_is_said_to_be_a_lower_bound() -> None:
    at_cap = metrics(3.29, 0.10, 14.71, 13.88) | {"mutual_information_given_length_nats": 2.49}
    assert "z tells at least 2.49 ± 0.10 nats" in verdict(at_cap)


def test_a_decoder_without_latents_is_said_to_have_none() -> None:
    alone = {"distortion_nats": 118.3, "distortion_nats_stderr": 1.2}
    sentence = verdict(alone | {"nats_per_token": 3.816, "nats_per_token_stderr": 0.039})
    assert sentence == (
        "No latents: the decoder alone needs 118.3 ± 1.2 nats a sentence, 3.816 ± 0.039 a token. "
        "Latents are worth having where a model with them has a lower bound."
    )


def test_table_of_a_decoder_without_latents_has_no_rates() -> None:
    alone = {
        name: value for name, value in metrics(0.0, 0.0, 0.0, 0.0).items() if name not in ("latent_dim", "active_units")
    }
    table = render_table(alone, data="x", seed=0)
    assert "rate, training prior" not in table
    assert "slack" not in table
    assert "distortion" in table


def test_table_names_its_data_and_gives_bits_beside_nats() -> None:
    table = render_table(metrics(3.29, 0.10, 14.71, 13.88), data="lm1b-layout", seed=7)
    assert table.startswith("lm1b-layout: 500 held-out sentences, 15,000 tokens, seed 7\n")
    row = next(line for line in table.splitlines() if line.startswith("distortion"))
    nats, nats_error, bits, bits_error = (float(number) for number in re.findall(r"\d+\.\d+", row))
    assert (nats, nats_error) == (160.0, 1.5)
    assert bits == pytest.approx(160 / math.log(2), abs=0.05)
    assert bits_error == pytest.approx(1.5 / math.log(2), abs=0.05)
    assert "mutual information I(x; z) (at most 6.21)" in table
    assert "3 / 1 of 8" in table


def test_table_says_where_marginal_kl_is_but_an_upper_bound_and_where_sentences_were_left_out() -> None:
    cut = metrics(3.29, 0.10, 14.71, 13.88) | {"information_sentences": 300}
    near = cut | {"mutual_information_nats": 6.1}
    for figures, marginal in (
        (metrics(3.29, 0.10, 14.71, 13.88), "marginal KL, rate - I(x; z)  "),
        (cut, "marginal KL, rate - I(x; z) (300 sentences)"),
        (near, "marginal KL, rate - I(x; z) (at most this, for I(x; z) is near its cap; 300 sentences)"),
    ):
        table = render_table(figures, data="x", seed=0)
        assert marginal in table
        assert ("mutual information I(x; z) (at most 6.21; 300 sentences)" in table) == ("300" in marginal)


def test_table_has_no_row_for_what_was_not_measured_and_its_columns_align() -> None:
    table = render_table(metrics(3.29, 0.10, 14.71, 13.88), data="x", seed=0)
    assert "auxiliary" not in table
    assert "perplexity" not in table
    rows = [line for line in table.splitlines()[2:] if line.count("±") == 2]
    assert len({len(row) for row in rows}) == 1
