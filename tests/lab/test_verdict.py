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
        "mutual_information_nats": 4.0, "mutual_information_nats_stderr": 0.1,
        "mutual_information_cap_nats": math.log(500),
        "mutual_information_given_length_nats": 1.5, "mutual_information_given_length_nats_stderr": 0.1,
        "mutual_information_given_length_cap_nats": 2.5,
        "marginal_kl_nats": 9.7, "marginal_kl_nats_stderr": 0.2,
        "nats_per_token": 5.83, "nats_per_token_stderr": 0.05,
        "active_units": 3, "active_units_above_0.2": 1, "latent_dim": 8,
    }  # fmt: skip


def image_metrics(gap: float, gap_error: float, rate: float, committed: float) -> dict[str, float]:
    """Of 500 images of 3 x 32 x 32."""
    values = {
        "rate_nats": (rate, 0.01),
        "committed_rate_nats": (committed, 0.0),
        "slack_nats": (rate - committed, 0.01),
        "distortion_nats": (6200.0, 50.0),
        "negative_elbo_nats": (6200.0 + rate, 50.0),
        "shuffle_gap_nats": (gap, gap_error),
        "mutual_information_nats": (4.0, 0.1),
        "marginal_kl_nats": (rate - 4, 0.2),
        "importance_weighted_nll_nats": (6199.0 + rate, 60.0),
        "bits_per_dim": ((6200 + rate) / 3072 / math.log(2), 0.02),
        "rate_bits_per_dim": (rate / 3072 / math.log(2), 0.0001),
    }
    counts = {
        "images": 500, "dimensions": 500 * 3072, "information_images": 500,
        "importance_samples": 16, "importance_images": 64, "mutual_information_cap_nats": math.log(500),
        "active_units": 3, "active_units_above_0.2": 1, "latent_dim": 8,
    }  # fmt: skip
    return counts | {
        name: number
        for key, (value, error) in values.items()
        for name, number in ((key, value), (f"{key}_stderr", error))
    }


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
        "(beyond the length z tells 1.50 ± 0.10 nats about the sentence, I(x; z | n)). "
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
    for told in (2.49, 2.0):  # the cap is 2.5
        near = metrics(3.29, 0.10, 14.71, 13.88) | {"mutual_information_given_length_nats": told}
        assert f"z tells at least {told:.2f} ± 0.10 nats" in verdict(near)


def test_a_wrong_z_that_serves_better_is_said_to_cost_less_than_nothing() -> None:
    assert "-2.00 ± 0.10 nats a sentence, less than nothing, and" in verdict(metrics(-2.0, 0.1, 15.0, 13.88))


def test_a_decoder_without_latents_is_said_to_have_none() -> None:
    alone = {"distortion_nats": 118.3, "distortion_nats_stderr": 1.2}
    sentence = verdict(alone | {"nats_per_token": 3.816, "nats_per_token_stderr": 0.039})
    assert sentence == (
        "No latents: the decoder alone needs 118.3 ± 1.2 nats a sentence, 3.816 ± 0.039 a token. "
        "Latents are worth having where a model with them has a lower bound."
    )


@pytest.mark.parametrize(
    ("gap", "error", "said"),
    [
        (0.02, 0.01, "0.020 ± 0.010 nats an image, nothing within 3 standard errors, and the rate sits on its floor, "),
        (0.09, 0.01, "0.090 ± 0.010 nats an image, next to nothing, and the rate sits on its floor, "),
    ],
)
def test_collapsed_over_images(gap: float, error: float, said: str) -> None:
    sentence = verdict(image_metrics(gap, error, 55.08, 55.07))
    assert sentence.startswith("Collapsed: another image's z costs the decoder ")
    assert said in sentence
    assert sentence.endswith("0.010 ± 0.010 nats of slack over a committed 55.07.")


def test_not_collapsed_over_images() -> None:
    """6200 + 60 nats are 6260 / 3072 / ln 2 = 2.940 bits/dim."""
    assert verdict(image_metrics(12.3, 0.5, 60.0, 55.07)) == (
        "Not collapsed: another image's z costs the decoder 12.30 ± 0.50 nats an image; "
        "for that the rate pays 4.930 ± 0.010 nats of slack over a committed 55.07 "
        "(z tells 4.00 ± 0.10 nats about the image, I(x; z)). "
        "The bound is 2.940 ± 0.020 bits/dim; "
        "whether latents lower it is for the decoder without latents (prior.kind=none) to say."
    )


def test_the_bound_told_of_images_is_that_against_the_auxiliary_prior_where_there_is_one() -> None:
    measured = image_metrics(12.3, 0.5, 60.0, 55.07) | {"mutual_information_nats": 6.1}
    sentence = verdict(measured | {"auxiliary_bits_per_dim": 2.92, "auxiliary_bits_per_dim_stderr": 0.02})
    assert "The bound against the auxiliary prior is 2.920 ± 0.020 bits/dim; " in sentence
    assert "z tells at least 6.10 ± 0.10 nats" in sentence, "the cap is ln 500 = 6.21"


def test_an_image_decoder_without_latents_is_said_to_have_none() -> None:
    counts = {"images": 10, "dimensions": 30_720}
    alone = {"distortion_nats": 6200.0, "distortion_nats_stderr": 50.0}
    sentence = verdict(counts | alone | {"bits_per_dim": 2.912, "bits_per_dim_stderr": 0.023})
    assert sentence.startswith("No latents: the decoder alone needs 6,200 ± 50 nats an image, 2.912 ± 0.023 bits/dim. ")


def test_table_of_images_gives_bits_per_dim_beside_bits_and_nats() -> None:
    measured = image_metrics(12.3, 0.5, 60.0, 55.07)
    table = render_table(measured, data="cifar10", seed=7)
    title, _, heads, *rows = table.splitlines()
    assert title == "cifar10: 500 held-out images, 1,536,000 dimensions, seed 7"
    assert re.split(r"  +", heads) == ["an image, ± standard error", "nats", "bits", "bits/dim"]
    for label, nats in (("negative ELBO", 6260.0), ("rate, training prior", 60.0), ("shuffle gap", 12.3)):
        row = next(row for row in rows if row.startswith(label)).replace(",", "")
        shown = [float(number) for number in re.findall(r"([\d.]+) ±", row)]
        bits = nats / math.log(2)
        assert shown == [pytest.approx(nats), pytest.approx(bits, abs=0.5), pytest.approx(bits / 3072, abs=5e-4)]
    assert "IW NLL, training prior (K = 16, 64 images)" in table
    assert "mutual information I(x; z) (at most 6.21)" in table
    assert "beyond the length" not in table
    assert rows[-1].endswith("3 / 1 of 8")
    assert len({len(row) for row in rows if row.count("±") == 3}) == 1, "the columns align"


def test_table_of_an_image_decoder_without_latents_is_its_likelihood_alone() -> None:
    kept = ("images", "dimensions", "distortion_nats", "distortion_nats_stderr", "rate_nats", "rate_nats_stderr")
    alone = {name: value for name, value in image_metrics(0, 0, 0, 0).items() if name in kept}
    *_, last = render_table(alone, data="x", seed=0).splitlines()
    assert last.startswith("distortion")


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
