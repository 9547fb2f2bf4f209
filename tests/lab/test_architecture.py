"""From run config to model config: the numbers asked for are the numbers of the model."""

from typing import Any

import pytest

from delta_vae import DeltaVaeForCausalLM
from delta_vae_core import bits_to_nats
from delta_vae_lab.architecture import text_model_config
from delta_vae_lab.data.tokenization import train_tokenizer
from delta_vae_lab.sections import PriorSection, TextDecoderSection, TextEncoderSection, TextRunConfig

TOKENIZER = train_tokenizer(["a cat sat on a mat"] * 9, 262)


def build(max_length: int = 40, **prior: Any) -> Any:
    config = TextRunConfig(
        prior=PriorSection(**prior),
        encoder=TextEncoderSection(hidden_size=8, num_layers=1, num_heads=2, direction="none"),
        decoder=TextDecoderSection(hidden_size=12, num_layers=2, num_heads=2, dropout=0.3, latent_attention="full"),
        max_length=max_length,
    )
    return DeltaVaeForCausalLM(text_model_config(config, TOKENIZER))


def test_sizes_and_tokens_reach_the_parts() -> None:
    config = build(latent_dim=3, alpha=[0.1, 0.2, 0.3]).config
    assert config.encoder.hidden_size == 8
    assert config.encoder.direction == "none"
    assert config.decoder.num_layers == 2
    assert config.decoder.dropout == 0.3
    assert config.decoder.latent_attention == "full"
    assert config.latent_dim == config.encoder.latent_dim == config.auxiliary_prior.latent_dim == 3
    assert config.encoder.vocab_size == config.decoder.vocab_size == len(TOKENIZER)
    assert config.encoder.max_positions == config.decoder.max_positions == 40
    assert config.decoder.bos_token_id == TOKENIZER.bos_token_id
    assert config.decoder.eos_token_id == TOKENIZER.eos_token_id
    assert config.decoder.pad_token_id == TOKENIZER.pad_token_id


def test_alpha_is_what_was_given() -> None:
    assert build(latent_dim=2, alpha=[0.2, 0.4]).config.prior.alpha == [0.2, 0.4]
    assert build(latent_dim=3, alpha_low=0.5, alpha_high=0.9).config.prior.alpha == pytest.approx([0.5, 0.7, 0.9])


def test_a_committed_rate_is_solved_for() -> None:
    prior = build(latent_dim=4, committed_bits=8.0, steps=30).prior
    assert float(prior.committed_rate(30)) == pytest.approx(bits_to_nats(8.0))


def test_the_independent_prior_commits_delta_a_step_and_dimension() -> None:
    prior = build(kind="independent_delta", latent_dim=4, delta=0.1).prior
    assert float(prior.committed_rate(30)) == pytest.approx(4 * 30 * 0.1)


def test_the_standard_normal_prior_commits_nothing() -> None:
    assert float(build(kind="standard_normal", latent_dim=4).prior.committed_rate(30)) == 0


def test_the_lstm_prior_has_its_own_width_and_commits_nothing() -> None:
    model = build(kind="lstm", latent_dim=4, hidden_size=7)
    assert model.prior.lstm.hidden_size == 7
    assert model.auxiliary_prior.lstm.hidden_size == 128
    assert model.prior.lstm.input_size == model.auxiliary_prior.lstm.input_size == 4
    assert float(model.prior.committed_rate(30)) == 0


def test_the_twin_without_latents_is_the_decoder_less_what_reads_them() -> None:
    full, twin = build(latent_dim=2, alpha=[0.2, 0.4]), build(kind="none", latent_dim=2, alpha=[0.2, 0.4])
    assert twin.prior is None
    assert twin.encoder is None
    assert twin.auxiliary_prior is None
    shapes = {name: weight.shape for name, weight in full.decoder.state_dict().items()}
    assert {name: weight.shape for name, weight in twin.decoder.state_dict().items()}.items() <= shapes.items()
