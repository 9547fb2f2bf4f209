"""The example's encoder and decoder: what each may see, padding, the cache, and the model composed of them."""

from pathlib import Path

import pytest
import torch
from seasonal_latents import (
    BackboneEncoder,
    BackboneEncoderConfig,
    GRUDecoder,
    GRUDecoderConfig,
    SeasonalPriorConfig,
)
from torch import Tensor
from transformers import DynamicCache, GPT2Config, LlamaConfig, PreTrainedConfig

from delta_vae import DeltaVaeConfig, DeltaVaeForCausalLM

B, L, D, V, H = 3, 7, 2, 19, 16
SHARED = {"vocab_size": V, "bos_token_id": 0, "eos_token_id": 1, "initializer_range": 0.3}
LLAMA = {"hidden_size": H, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
BACKBONES = {
    "gpt2": GPT2Config(n_embd=H, n_layer=2, n_head=2, n_positions=32, **SHARED),
    "llama": LlamaConfig(**LLAMA, **SHARED),
}
each_backbone = pytest.mark.parametrize("backbone", BACKBONES.values(), ids=BACKBONES)


def build_encoder(backbone: PreTrainedConfig) -> BackboneEncoder:
    torch.manual_seed(0)
    config = BackboneEncoderConfig(backbone=backbone.to_dict(), latent_dim=D, statistics_std=0.3)
    return BackboneEncoder(config).eval()


def build_decoder() -> GRUDecoder:
    torch.manual_seed(0)
    return GRUDecoder(GRUDecoderConfig(vocab_size=V, hidden_size=H, latent_dim=D, max_positions=32)).eval()


@pytest.fixture
def model() -> DeltaVaeForCausalLM:
    torch.manual_seed(0)
    config = DeltaVaeConfig(
        prior=SeasonalPriorConfig(latent_dim=D, period=3, alpha=0.9),
        encoder=BackboneEncoderConfig(backbone=BACKBONES["gpt2"], latent_dim=D, statistics_std=0.3),
        decoder=GRUDecoderConfig(vocab_size=V, hidden_size=H, latent_dim=D, max_positions=32),
    )
    return DeltaVaeForCausalLM(config).eval()


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    """input_ids and attention_mask (B, L + 1) of different lengths, and noise (B, L, D)."""
    generator = torch.Generator().manual_seed(1)
    input_ids = torch.randint(3, V, (B, L + 1), generator=generator)
    mask = torch.arange(L + 1) < torch.tensor([[L + 1], [4], [2]])
    input_ids[:, 0] = 0
    return input_ids.masked_fill(~mask, 2), mask.long(), torch.randn(B, L, D, generator=generator)


@each_backbone
def test_statistics_depend_on_the_present_and_the_future_alone(backbone: PreTrainedConfig) -> None:
    encoder = build_encoder(backbone)
    embeddings = torch.randn(1, L, H, generator=torch.Generator().manual_seed(1))
    jacobian = torch.autograd.functional.jacobian(lambda e: encoder(inputs_embeds=e).statistics, embeddings)
    sees, future = jacobian[0, :, :, 0].abs().sum((1, 3)), torch.triu(torch.ones(L, L, dtype=torch.bool))
    assert (sees[~future] == 0).all()
    assert (sees[future] > 1e-6).all()


@each_backbone
def test_padding_changes_no_counted_statistics(backbone: PreTrainedConfig) -> None:
    encoder = build_encoder(backbone)
    x = torch.randint(3, V, (1, L), generator=torch.Generator().manual_seed(2))
    padded = torch.cat((x, torch.tensor([[2, 7, 5]])), dim=1)
    among = encoder(padded, torch.arange(L + 3)[None] < L).statistics[:, :L]
    torch.testing.assert_close(among, encoder(x).statistics, atol=1e-5, rtol=1e-5)


def test_step_t_of_the_decoder_depends_on_tokens_before_t_and_z_up_to_t_alone() -> None:
    decoder, past = build_decoder(), torch.tril(torch.ones(L, L, dtype=torch.bool))
    generator = torch.Generator().manual_seed(2)
    read, z = torch.randn(1, L, H, generator=generator), torch.randn(1, L, D, generator=generator)

    def logits(read: Tensor, z: Tensor) -> Tensor:
        return decoder.read(inputs_embeds=read, latents=z).logits

    # Position s of what is read is token s - 1: step t may depend on positions 0 ... t, as on z.
    for jacobian in torch.autograd.functional.jacobian(logits, (read, z)):
        sees = jacobian[0, :, :, 0].abs().sum((1, 3))
        assert (sees[~past] == 0).all()
        assert (sees[past] > 1e-9).all()


def test_what_is_read_at_t_is_the_token_before_t() -> None:
    decoder, generator = build_decoder(), torch.Generator().manual_seed(1)
    x, z = torch.randint(3, V, (2, L), generator=generator), torch.randn(2, L, D, generator=generator)
    for t in range(L):
        changed = x.clone()
        changed[:, t] = (x[:, t] + 1) % V
        same = (decoder(changed, z).logits == decoder(x, z).logits).all(-1).all(0)
        assert same.tolist() == [True] * (t + 1) + [False] * (L - t - 1)


def test_token_by_token_with_a_cache_equals_the_whole() -> None:
    decoder, generator = build_decoder(), torch.Generator().manual_seed(1)
    tokens, z = torch.randint(3, V, (2, L), generator=generator), torch.randn(2, L, D, generator=generator)
    whole, cache = decoder.read(tokens, z).logits, DynamicCache()
    for first, last in ((0, 1), (1, 2), (2, 5), (5, L)):  # one at a time, and several at once
        part = decoder.read(tokens[:, first:last], z[:, first:last], cache=cache).logits
        torch.testing.assert_close(part, whole[:, first:last], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("latents", [None, torch.zeros(1, L - 1, D), torch.zeros(1, L, D + 1)], ids=str)
def test_latents_that_do_not_fit_are_refused(latents: Tensor | None) -> None:
    with pytest.raises(ValueError, match=r"latents: got .*, but the decoder needs \(1, 7, 2\), one a predicted token"):
        build_decoder()(torch.zeros(1, L, dtype=torch.long), latents)


def test_saved_and_loaded_the_model_gives_the_same(
    model: DeltaVaeForCausalLM, batch: tuple[Tensor, Tensor, Tensor], tmp_path: Path
) -> None:
    input_ids, mask, noise = batch
    model.save_pretrained(tmp_path)
    loaded = DeltaVaeForCausalLM.from_pretrained(tmp_path)
    before, after = model(input_ids, mask, noise), loaded(input_ids, mask, noise)
    for part in ("loss", "rate", "distortion", "committed_rate"):
        assert torch.equal(after[part], before[part])
    assert (before.rate >= before.committed_rate).all()


def test_padding_changes_nothing_and_a_batchs_loss_is_the_mean_of_its_members(
    model: DeltaVaeForCausalLM, batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    input_ids, mask, noise = batch
    alone = [
        model(input_ids[i : i + 1, :n], noise=noise[i : i + 1, : n - 1]).loss
        for i, n in enumerate(mask.sum(1).tolist())
    ]
    loss = model(input_ids, mask, noise).loss
    torch.testing.assert_close(loss, torch.stack(alone).mean(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("how", [{}, {"use_cache": False}, {"cache_implementation": "static"}], ids=str)
def test_greedy_generation_equals_full_recomputation(model: DeltaVaeForCausalLM, how: dict[str, object]) -> None:
    model.generation_config.eos_token_id = None
    latents = torch.randn(2, 10, D, generator=torch.Generator().manual_seed(0))
    tokens = torch.zeros(2, 1, dtype=torch.long)
    for t in range(10):
        best = model.decoder.read(tokens, latents[:, : t + 1]).logits[:, -1].argmax(-1)
        tokens = torch.cat((tokens, best[:, None]), dim=1)
    assert model.decode(latents, max_new_tokens=10, **how).tolist() == tokens.tolist()


def test_beams_carry_their_states_with_them(model: DeltaVaeForCausalLM) -> None:
    """A beam that goes on from another takes over its cache: equal to reading every beam anew."""
    model.generation_config.eos_token_id = None
    latents = torch.randn(2, 8, D, generator=torch.Generator().manual_seed(0))
    found = model.decode(latents, num_beams=V)
    assert found.tolist() == model.decode(latents, num_beams=V, use_cache=False).tolist()
    assert found.tolist() != model.decode(latents).tolist()


def test_a_reconstruction_does_not_depend_on_its_batch(
    model: DeltaVaeForCausalLM, batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    input_ids, mask, _ = batch
    together = model.reconstruct(input_ids, mask, generator=torch.Generator().manual_seed(0))
    for ids, row, n in zip(input_ids, together, mask.sum(1).tolist(), strict=True):
        alone = model.reconstruct(ids[None, :n])[0]
        assert row[: len(alone)].tolist() == alone.tolist()


def test_vocabularies_are_held_against_each_other_and_resized_together(model: DeltaVaeForCausalLM) -> None:
    model.resize_token_embeddings(V + 4)
    assert model.config.encoder.vocab_size == model.config.decoder.vocab_size == V + 4
    with pytest.raises(ValueError, match="encoder.vocab_size=19 and decoder.vocab_size=20"):
        DeltaVaeConfig(
            encoder=BackboneEncoderConfig(backbone=BACKBONES["llama"]), decoder=GRUDecoderConfig(vocab_size=20)
        )
