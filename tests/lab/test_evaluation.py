"""Held-out estimates against the model taken sentence by sentence, against quadrature, and on a model that copies."""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor
from torch.distributions import Normal

from delta_vae import DeltaVaeConfig, DeltaVaeForCausalLM
from delta_vae_decoders import TextDecoderConfig
from delta_vae_encoders import TextEncoderConfig
from delta_vae_lab.data.image_batches import heldout_image_batches
from delta_vae_lab.data.text_batches import TextBatch, heldout_batches
from delta_vae_lab.data.tokens import TokenizedText
from delta_vae_lab.doctor import diagnose
from delta_vae_lab.estimates import importance_weighted_nll
from delta_vae_lab.evaluation import evaluate, evaluate_bound, importance_log_weights
from delta_vae_lab.figures import write_figures
from delta_vae_lab.measurement import measure, rate_profile
from delta_vae_lab.modality import TEXT
from delta_vae_lab.randomness import derive_seed, latent_noise
from delta_vae_lab.reporting import HeldoutBound
from delta_vae_priors import AR1PriorConfig, AuxiliaryPrior, AuxiliaryPriorConfig, LSTMPriorConfig

BOS, EOS, PAD, VOCABULARY = 0, 1, 2, 12


def build(
    latent_dim: int = 3,
    *,
    auxiliary: bool = True,
    dropout: float = 0.0,
    alpha: float = 0.8,
    spread: float = 0.5,
    lstm: bool = False,
) -> DeltaVaeForCausalLM:
    """An untrained model whose posteriors differ from sentence to sentence, by `spread`."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "num_layers": 1,
        "num_heads": 2,
        "dropout": dropout,
    }
    decoder = TextDecoderConfig(**sizes, latent_dim=latent_dim, add_latents=True, initializer_range=0.3)
    if not latent_dim:
        return DeltaVaeForCausalLM(DeltaVaeConfig(decoder=decoder)).eval()
    config = DeltaVaeConfig(
        prior=LSTMPriorConfig(latent_dim=latent_dim, hidden_size=6)
        if lstm
        else AR1PriorConfig(latent_dim=latent_dim, alpha=alpha),
        encoder=TextEncoderConfig(**sizes, latent_dim=latent_dim, statistics_std=spread),
        decoder=decoder,
        auxiliary_prior=AuxiliaryPriorConfig(latent_dim=latent_dim, hidden_size=8) if auxiliary else None,
    )
    return DeltaVaeForCausalLM(config).eval()


def text(sentences: Sequence[Sequence[int]]) -> TokenizedText:
    rows = [np.array([BOS, *sentence, EOS], dtype=np.int32) for sentence in sentences]
    return TokenizedText(np.concatenate(rows), np.cumsum([0] + [len(row) for row in rows]))


@cache
def sentences(count: int = 21) -> tuple[tuple[int, ...], ...]:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 8, (count,), generator=generator).tolist()
    return tuple(tuple(torch.randint(3, VOCABULARY, (n,), generator=generator).tolist()) for n in lengths)


def batches(size: int, of: Sequence[Sequence[int]] | None = None) -> list[TextBatch]:
    return list(heldout_batches(text(of or sentences()), size, PAD))


def one_by_one(model: DeltaVaeForCausalLM, seed: int) -> dict[str, Tensor]:
    """Rate, distortion and so on of every sentence alone and unpadded, on the noise that belongs to its place."""
    columns: dict[str, list[float]] = {"rate": [], "distortion": [], "committed_rate": [], "auxiliary_rate": []}
    for place, sentence in enumerate(sentences()):
        ids = torch.tensor([[BOS, *sentence, EOS]])
        mask = torch.ones(1, len(sentence) + 1, dtype=torch.bool)
        noise = latent_noise(mask, model.config.latent_dim, derive_seed(seed, "evaluation"), 0, [place])
        with torch.no_grad():
            out = model(ids, noise=noise)
        for name, values in columns.items():
            values.append(float(out[name]))
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in columns.items()}


def silence(model: DeltaVaeForCausalLM) -> None:
    """Let the encoder say the same of every sentence: the posterior that attains the floor."""
    assert model.encoder is not None
    torch.nn.init.zeros_(model.encoder.statistics.weight)


def test_the_bound_is_the_mean_over_sentences_taken_alone() -> None:
    model = build()
    metrics, alone = evaluate_bound(model, batches(4), seed=3), one_by_one(model, seed=3)
    expected = {
        "rate_nats": alone["rate"],
        "committed_rate_nats": alone["committed_rate"],
        "slack_nats": alone["rate"] - alone["committed_rate"],
        "auxiliary_rate_nats": alone["auxiliary_rate"],
        "distortion_nats": alone["distortion"],
        "negative_elbo_nats": alone["rate"] + alone["distortion"],
        "auxiliary_negative_elbo_nats": alone["auxiliary_rate"] + alone["distortion"],
    }
    for name, values in expected.items():
        assert metrics[name] == pytest.approx(float(values.mean()), abs=1e-4), name
        assert metrics[f"{name}_stderr"] == pytest.approx(float(values.std()) / math.sqrt(21), abs=1e-4), name
    assert metrics["sentences"] == 21
    assert metrics["tokens"] == sum(len(sentence) + 1 for sentence in sentences())


def test_perplexities_are_of_sums_over_the_whole_set() -> None:
    model = build()
    metrics, alone = evaluate(model, batches(4), words=50, seed=3, importance_samples=1), one_by_one(model, seed=3)
    tokens = sum(len(sentence) + 1 for sentence in sentences())
    for prefix, rate in (("", alone["rate"]), ("auxiliary_", alone["auxiliary_rate"])):
        nats = float((rate + alone["distortion"]).sum())
        assert metrics[f"{prefix}nats_per_token"] == pytest.approx(nats / tokens, rel=1e-5)
        assert metrics[f"{prefix}perplexity_per_token"] == pytest.approx(math.exp(nats / tokens), rel=1e-5)
        assert metrics[f"{prefix}perplexity_per_word"] == pytest.approx(math.exp(nats / 50), rel=1e-5)


def test_neither_batch_size_nor_repetition_changes_an_estimate() -> None:
    model = build()
    by_size = [evaluate(model, batches(size), seed=5, importance_samples=6) for size in (1, 4, 4, 64)]
    assert by_size[1] == by_size[2]
    for name in by_size[0].keys() - {"smallest_batch_slack_nats"}:
        values = [metrics[name] for metrics in by_size]
        assert values == pytest.approx([values[0]] * 4, abs=2e-4), name
    other_seed = evaluate(model, batches(4), seed=6, importance_samples=6)
    assert other_seed["distortion_nats"] != by_size[1]["distortion_nats"]
    assert other_seed["rate_nats"] == by_size[1]["rate_nats"], "the rate needs no draw of z"


def test_rate_is_at_least_the_committed_rate_on_every_batch() -> None:
    model = build()
    metrics = evaluate_bound(model, batches(3))
    assert 0 < metrics["smallest_batch_slack_nats"] < metrics["slack_nats"]
    silence(model)
    assert evaluate_bound(model, batches(3))["smallest_batch_slack_nats"] == pytest.approx(0, abs=1e-5)


def test_importance_weighted_bound_lies_between_elbo_and_log_p_by_quadrature() -> None:
    """Two tokens, one latent dimension: the integral over z done on a grid. Within 4 standard errors of the weights."""
    model: Any = build(latent_dim=1, alpha=0.3, spread=0.1)
    record = measure(model, batches(9, [(token,) for token in range(3, VOCABULARY)]), seed=0)
    grid = torch.linspace(-6, 6, 121)
    z = torch.cartesian_prod(grid, grid)[:, :, None]
    exact = []
    with torch.no_grad():
        log_prior = model.prior.log_prob(z, torch.ones(len(z), 2, dtype=torch.bool)).sum((1, 2))
        for x in record.x:
            log_likelihood = model.decoder(x.expand(len(z), 2), z).log_prob(x.expand(len(z), 2)).sum(1)
            exact.append(-(log_likelihood + log_prior).double().logsumexp(0) - 2 * math.log(0.1))
        log_weights = importance_log_weights(model, record, torch.arange(9), samples=500, seed=0)[0]
    nll, negative_elbo = importance_weighted_nll(log_weights), -log_weights.mean(0)
    error = log_weights.exp().std(0) / log_weights.exp().mean(0) / math.sqrt(500)
    assert log_weights.shape == (500, 9)
    assert bool(((nll - torch.stack(exact)).abs() < 4 * error).all())
    assert bool((negative_elbo > nll + error).all())


def test_importance_weights_are_joint_over_posterior_density() -> None:
    """Every weight again, from torch.distributions and one decoding a draw."""
    model: Any = build(latent_dim=2)
    record = measure(model, batches(8), seed=2)
    rows = torch.tensor([0, 9, 20])
    with torch.no_grad():
        log_weights = importance_log_weights(model, record, rows, samples=5, seed=2)
        for n, row in enumerate(rows.tolist()):
            length = int(record.mask[row].sum())
            ids = torch.cat([torch.tensor([BOS]), record.x[row, :length]])[None]
            x, mask = model.targets(ids)
            q = model.encode(ids)
            for k in range(5):
                z = q.mean + q.scale * latent_noise(mask, 2, derive_seed(2, "importance"), k, [int(record.places[row])])
                alpha = 0.8
                log_p = Normal(0.0, 1.0).log_prob(z[:, 0]).sum()
                log_p += Normal(alpha * z[:, :-1], math.sqrt(1 - alpha**2)).log_prob(z[:, 1:]).sum()
                log_q = Normal(q.mean, q.scale).log_prob(z).sum()
                log_likelihood = model.decoder(x, z, mask).log_prob(x).sum()
                auxiliary = model.auxiliary_prior.log_prob(z).sum()
                expected = torch.stack([log_p, auxiliary]) + log_likelihood - log_q
                torch.testing.assert_close(log_weights[:, k, n].float(), expected, atol=1e-4, rtol=0)


def test_importance_weighted_bound_is_of_as_many_samples_and_sentences_as_asked_for() -> None:
    metrics = evaluate(build(), batches(4), importance_samples=7, importance_examples=5)
    assert (metrics["importance_samples"], metrics["importance_sentences"]) == (7, 5)
    assert metrics["importance_gain_nats"] > 0
    assert metrics["auxiliary_importance_gain_nats"] > 0


def test_information_is_about_as_many_sentences_as_asked_for_and_they_alone() -> None:
    """Four of the 21, evenly spaced in the order by length, evaluated by themselves on the noise of their places."""
    model = build()
    metrics = evaluate(model, batches(4), importance_samples=1, information_examples=4)
    record = measure(model, batches(4), seed=0)
    rows = torch.tensor([0, 7, 13, 20])
    assert metrics["information_sentences"] == 4
    assert metrics["mutual_information_cap_nats"] == math.log(4)
    assert metrics["marginal_kl_nats"] + metrics["mutual_information_nats"] == pytest.approx(
        float(record.rate[rows].mean())
    )
    assert metrics["rate_nats"] == pytest.approx(float(record.rate.mean()))
    everything = evaluate(model, batches(4), importance_samples=1)
    assert everything["information_sentences"] == 21
    assert everything["active_units"] == metrics["active_units"]


def test_the_lm1b_preset_evaluates_on_the_whole_protocol_shard_and_not_on_all_fifty() -> None:
    preset = Path(__file__).parents[2] / "recipes/configs/lm1b/base.yaml"
    assert 6_075 <= yaml.safe_load(preset.read_text())["evaluation"]["examples"] < 50_000


def test_shuffle_gap_decodes_every_sentence_under_the_z_of_the_one_before() -> None:
    model = build()
    same_length = [(t, t + 1, 5) for t in range(3, 9)]
    record = measure(model, batches(4, same_length), seed=4)
    assert record.z is not None
    metrics = evaluate(model, batches(4, same_length), seed=4, importance_samples=1)
    gaps = []
    with torch.no_grad():
        for i in range(6):
            x = record.x[i : i + 1]
            shuffled, own = (model.decoder(x, record.z[j][None]).log_prob(x).sum() for j in (i - 1, i))
            gaps.append(own - shuffled)
    assert metrics["shuffle_gap_nats"] == pytest.approx(float(torch.stack(gaps).mean()), abs=1e-5)
    assert metrics["shuffle_gap_nats_stderr"] == pytest.approx(float(torch.stack(gaps).std()) / math.sqrt(6), abs=1e-5)


def test_at_the_floor_the_latents_tell_the_length_and_nothing_else() -> None:
    model = build(alpha=0.95)
    silence(model)
    metrics = evaluate(model, batches(4), importance_samples=1)
    assert metrics["slack_nats"] == pytest.approx(0, abs=1e-5)
    assert metrics["mutual_information_given_length_nats"] == pytest.approx(0, abs=1e-6)
    assert metrics["mutual_information_nats"] > 0
    assert metrics["active_units"] == 0
    assert metrics["marginal_kl_nats"] + metrics["mutual_information_nats"] == pytest.approx(metrics["rate_nats"])


@pytest.fixture(scope="module")
def copier() -> DeltaVaeForCausalLM:
    """Trained for a second or two on sentences of one token four times: z has to say which of the nine."""
    model = build(auxiliary=False, alpha=0.9).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    for step in range(150):
        token = torch.randint(3, VOCABULARY, (32, 1), generator=generator)
        ids = torch.cat([torch.full((32, 1), BOS), token.expand(32, 4), torch.full((32, 1), EOS)], 1)
        out = model(ids, generator=generator)
        optimizer.zero_grad()
        (out.distortion + min(1.0, step / 100) * 0.2 * out.rate).mean().backward()
        optimizer.step()
    return model.eval()


def test_a_decoder_that_copies_loses_log_nine_and_more_without_its_z(copier: DeltaVaeForCausalLM) -> None:
    """Nine sentences, equally often, each known from its z: I(x; z) = ln 9 = 2.197 nats."""
    nine = [(token,) * 4 for token in range(3, VOCABULARY)] * 8
    metrics = evaluate(copier, batches(16, nine), importance_samples=8)
    assert metrics["distortion_nats"] < 1
    assert metrics["mutual_information_nats"] == pytest.approx(math.log(9), abs=0.05)
    assert metrics["mutual_information_nats"] == pytest.approx(metrics["mutual_information_given_length_nats"])
    assert metrics["shuffle_gap_nats"] > math.log(9)
    assert metrics["active_units"] >= 1


def test_the_doctor_tells_a_model_that_copies_from_one_that_says_nothing(copier: DeltaVaeForCausalLM) -> None:
    nine = [(token,) * 4 for token in range(3, VOCABULARY)] * 8
    copies = diagnose(copier, batches(16, nine), importance_samples=2)
    assert not copies.collapsed
    assert "The encoder tells sentences apart: beyond the length z tells " in " ".join(copies.reasons)
    silent = build(alpha=0.95)
    silence(silent)
    diagnosis = diagnose(silent, batches(4), importance_samples=2)
    assert diagnosis.collapsed
    assert diagnosis.verdict.startswith("Collapsed: another sentence's z costs the decoder ")
    lengths = [len(sentence) + 1 for sentence in sentences()]
    floor = [1.5 * ((n - 2) * math.log(1 + 0.95**2) - math.log(1 - 0.95**2)) for n in lengths]
    assert diagnosis.metrics["rate_nats"] == pytest.approx(sum(floor) / len(floor), rel=1e-5)
    assert "The encoder says the same of every sentence: beyond the length z tells " in " ".join(diagnosis.reasons)


def test_bounds_of_samples_are_shared_out_to_the_tokens_of_their_own_sentences() -> None:
    """Four of the 21, evenly spaced; words are those of all, for tokens a word are the data's."""
    model = build()
    metrics = evaluate(model, batches(4), words=50, importance_samples=3, importance_examples=4)
    record = measure(model, batches(4), seed=0)
    tokens, all_tokens = int(record.units[torch.tensor([0, 7, 13, 20])].sum()), int(record.units.sum())
    for prefix in ("", "auxiliary_"):
        nats = 4 * metrics[f"{prefix}importance_weighted_nll_nats"] / tokens
        assert metrics[f"{prefix}importance_weighted_nats_per_token"] == pytest.approx(nats)
        assert metrics[f"{prefix}importance_weighted_perplexity_per_token"] == pytest.approx(math.exp(nats))
        assert metrics[f"{prefix}importance_weighted_perplexity_per_word"] == pytest.approx(
            math.exp(nats * all_tokens / 50)
        )


def test_what_is_watched_in_training_is_all_but_the_bound_of_many_samples() -> None:
    model = build()
    watched = HeldoutBound(batches(4), seed=3)(model, step=10)
    metrics = evaluate(model, batches(4), seed=3, importance_samples=2)
    assert {"heldout_shuffle_gap_nats", "heldout_mutual_information_nats", "heldout_active_units"} <= watched.keys()
    assert watched == {f"heldout_{name}": value for name, value in metrics.items() if "importance" not in name}
    alone = HeldoutBound(batches(4), seed=3)(build(latent_dim=0), step=10)
    assert "heldout_distortion_nats" in alone
    assert "heldout_shuffle_gap_nats" not in alone


def test_images_for_a_model_of_text_are_refused() -> None:
    images = heldout_image_batches(np.zeros((4, 1, 8, 8), dtype=np.uint8), 2)
    with pytest.raises(ValueError, match=r"a batch of images for DeltaVaeForCausalLM, a model of sentences: give it"):
        evaluate(build(), images)


def test_a_decoder_without_latents_has_nothing_for_the_doctor() -> None:
    with pytest.raises(ValueError, match=r"no encoder \(latent_dim=0\): without latents nothing can collapse"):
        diagnose(build(latent_dim=0), batches(4))


def test_a_decoder_without_latents_has_a_distortion_and_no_more() -> None:
    model = build(latent_dim=0)
    metrics = evaluate(model, batches(4), words=60)
    assert metrics["rate_nats"] == metrics["committed_rate_nats"] == 0
    assert metrics["negative_elbo_nats"] == metrics["distortion_nats"] > 0
    assert metrics["perplexity_per_word"] > metrics["perplexity_per_token"] > 1
    assert not {name for name in metrics if "information" in name or "shuffle" in name or "auxiliary" in name}
    with pytest.raises(ValueError, match="without latents has no rate"):
        rate_profile(model, measure(model, batches(4), seed=0))


def test_profile_sums_to_the_rate_and_its_floor_to_the_committed_rate() -> None:
    model = build()
    record = measure(model, batches(4), seed=0)
    profile = rate_profile(model, record)
    sentences_at = profile.sequences[:, None]
    assert profile.sequences.tolist() == [sum(len(s) + 1 > t for s in sentences()) for t in range(record.mask.shape[1])]
    torch.testing.assert_close((profile.kl * sentences_at).sum(), record.rate.sum(), atol=1e-3, rtol=0)
    torch.testing.assert_close((profile.committed * sentences_at).sum(), record.committed_rate.sum(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("auxiliary", [True, False])
def test_an_lstm_prior_has_every_estimate_and_commits_nothing(tmp_path: Path, auxiliary: bool) -> None:
    """And with the auxiliary prior's weights its rate and its bound of many samples are the auxiliary prior's."""
    model = build(lstm=True, auxiliary=auxiliary)
    torch.nn.init.normal_(model.prior.head.weight, generator=torch.Generator().manual_seed(2))
    like_ar1 = evaluate(build(auxiliary=auxiliary), batches(4), importance_samples=3).keys()
    metrics = evaluate(model, batches(4), importance_samples=3)
    assert metrics.keys() == like_ar1
    assert all(math.isfinite(value) for value in metrics.values())
    assert metrics["committed_rate_nats"] == 0 < metrics["rate_nats"]
    record = measure(model, batches(4), seed=0)
    profile = rate_profile(model, record)
    assert profile.committed.eq(0).all()
    assert profile.kl.shape == profile.committed.shape
    write_figures(tmp_path, [], profile, data="x", seed=0, modality=TEXT)
    assert list(tmp_path.glob("*.png"))
    if auxiliary:
        same = build(lstm=True)
        same.auxiliary_prior = AuxiliaryPrior(AuxiliaryPriorConfig(latent_dim=3, hidden_size=6)).eval()
        same.auxiliary_prior.load_state_dict(same.prior.state_dict())
        metrics = evaluate(same, batches(4), importance_samples=3)
        for name in ("rate_nats", "negative_elbo_nats", "importance_weighted_nll_nats"):
            assert metrics[f"auxiliary_{name}"] == pytest.approx(metrics[name], rel=1e-6)


def test_evaluation_leaves_modes_gradients_and_random_state_alone() -> None:
    model = build(dropout=0.5).train()
    model.prior.eval()
    modes = [module.training for module in model.modules()]
    state = torch.random.get_rng_state()
    first, second = (evaluate(model, batches(4), importance_samples=2) for _ in range(2))
    assert first == second, "dropout is off inside"
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_training_goes_on_after_an_evaluation() -> None:
    """A prior's constants, made under no_grad, must not be inference tensors."""
    model = build().train()
    evaluate_bound(model, batches(4))
    batch = batches(4)[0]
    model(batch.input_ids, batch.attention_mask, generator=torch.Generator().manual_seed(0)).loss.backward()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"importance_samples": 0}, r"importance_samples=0: .* take 1 or more"),
        ({"importance_examples": 1}, r"importance_examples=1: .* needs 2 or more"),
        ({"information_examples": 1}, r"information_examples=1: .* needs 2 or more"),
    ],
)
def test_what_cannot_be_estimated_is_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(build(), batches(4), **options)


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(ValueError, match="evaluation set is empty"):
        evaluate_bound(build(), [])
