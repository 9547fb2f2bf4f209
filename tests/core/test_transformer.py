"""The shared stack: what a step sees (zero Jacobians), padding, caches, and its arithmetic against torch's own."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Cache, DynamicCache
from transformers.cache_utils import StaticLayer

from delta_vae_core import TransformerConfig, TransformerPreTrainedModel, TransformerStack, checked, lengths_to_mask
from delta_vae_core.attention import AttentionLayout, LatentAttention, ResidualLinear, SelfAttention
from delta_vae_core.rotary import Rotary

B, L, H, D, HEADS, LAYERS = 3, 6, 8, 3, 2, 2


@checked
class StackConfig(TransformerConfig):
    model_type = "stack_under_test"
    hidden_size: int = H
    num_heads: int = HEADS
    num_layers: int = LAYERS
    latent_dim: int = 0


class StackModel(TransformerPreTrainedModel):
    config_class = StackConfig

    def __init__(self, config: StackConfig) -> None:
        super().__init__(config)
        self.stack = TransformerStack(config, "causal", config.latent_dim)
        self.post_init()


def stack(
    direction: str = "causal", latent_dim: int = 0, latent_attention: str = "causal", positions: str = "rotary"
) -> TransformerStack:
    """In double precision, and the same weights whatever the direction."""
    torch.manual_seed(0)
    config = StackConfig(positions=positions, max_positions=16)
    return TransformerStack(config, direction, latent_dim, latent_attention).double().eval()


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def seen(run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """(steps out, steps in) bool: true where d out_t / d x_s is not zero. `run` maps (1, S, .) to (1, T, .)."""
    jacobian = torch.autograd.functional.jacobian(run, x)
    assert isinstance(jacobian, Tensor)
    return jacobian.abs().amax((0, 2, 3, 5)) > 0


def reach_of(direction: str, steps: int = L) -> Tensor:
    full = torch.ones(steps, steps, dtype=torch.bool)
    return {"causal": full.tril(), "anticausal": full.triu(), "none": full}[direction]


each_direction = pytest.mark.parametrize("direction", ["causal", "anticausal", "none"])
each_position = pytest.mark.parametrize("positions", ["rotary", "learned"])
each_latent_use = pytest.mark.parametrize(
    ("latent_dim", "latent_attention"), [(0, "causal"), (D, "causal"), (D, "full")], ids=["none", "causal", "full"]
)


@each_direction
@each_position
def test_what_a_step_sees(direction: str, positions: str) -> None:
    """<= t (causal), >= t (anti-causal), everything (none): and all of it."""
    run = stack(direction, positions=positions)
    assert torch.equal(seen(run, randn(1, L, H)), reach_of(direction))


@each_direction
@each_position
def test_no_step_that_counts_sees_padding(direction: str, positions: str) -> None:
    length = 4
    mask = lengths_to_mask(torch.tensor([length]), L)
    found = seen(partial(stack(direction, positions=positions), mask=mask), randn(1, L, H))
    assert torch.equal(found[:length, :length], reach_of(direction, length))
    assert not found[:length, length:].any()


@pytest.mark.parametrize("steps", [1, 4, L, 9])
def test_latents_seen_in_full(steps: int) -> None:
    """Any number of them."""
    run, x = stack(latent_dim=D, latent_attention="full"), randn(1, L, H)
    assert seen(lambda z: run(x, latents=z), randn(1, steps, D)).all()


def test_latents_seen_causally() -> None:
    """Step t sees z_{<=t}, and x still as before."""
    run, x, z = stack(latent_dim=D), randn(1, L, H), randn(1, L, D, seed=1)
    assert torch.equal(seen(lambda z: run(x, latents=z), z), reach_of("causal"))
    assert torch.equal(seen(lambda x: run(x, latents=z), x), reach_of("causal"))


@pytest.mark.parametrize("latent_attention", ["causal", "full"])
def test_no_step_that_counts_sees_a_padded_latent(latent_attention: str) -> None:
    length = 4
    mask = lengths_to_mask(torch.tensor([length]), L)
    run, x = stack(latent_dim=D, latent_attention=latent_attention), randn(1, L, H)
    found = seen(lambda z: run(x, mask, latents=z, latent_mask=mask), randn(1, L, D))
    expected = reach_of("causal" if latent_attention == "causal" else "none", length)
    assert torch.equal(found[:length, :length], expected)
    assert not found[:length, length:].any()


@each_position
def test_anticausal_is_causal_on_the_reversed_sequence(positions: str) -> None:
    """flip(anticausal(x)) == causal(flip(x)) with equal weights, each row reversed within its own length."""
    lengths = [6, 3, 1]
    mask = lengths_to_mask(torch.tensor(lengths))
    x = randn(B, L, H)
    anticausal = stack("anticausal", positions=positions)(x, mask)
    causal = stack("causal", positions=positions)
    for row, n in enumerate(lengths):
        reversed_row = x[row, :n].flip(0)[None]
        torch.testing.assert_close(anticausal[row, :n].flip(0), causal(reversed_row)[0])
    whole = stack("anticausal", positions=positions)(x)
    torch.testing.assert_close(whole.flip(1), causal(x.flip(1)))


@pytest.mark.parametrize(
    ("direction", "latent_dim", "latent_attention"),
    [
        ("causal", 0, "causal"),
        ("anticausal", 0, "causal"),
        ("none", 0, "causal"),
        ("causal", D, "causal"),
        ("causal", D, "full"),
    ],
)
@each_position
def test_padding_never_changes_what_counts(
    direction: str, positions: str, latent_dim: int, latent_attention: str
) -> None:
    """Each sequence of a batch as if it were alone, whatever its padding holds."""
    run = stack(direction, latent_dim, latent_attention, positions)
    lengths = [6, 3, 1]
    mask = lengths_to_mask(torch.tensor(lengths))
    x, z = randn(B, L, H), randn(B, L, D, seed=1) if latent_dim else None
    padding = ~mask[..., None]
    latents = None if z is None else z.masked_fill(padding, 1e3)
    together = run(x.masked_fill(padding, 1e3), mask, latents, latent_mask=mask)
    for row, n in enumerate(lengths):
        alone = run(x[row : row + 1, :n], latents=None if z is None else z[row : row + 1, :n])
        torch.testing.assert_close(together[row, :n], alone[0])


def static_cache() -> Cache:
    return Cache(layers=[StaticLayer(max_cache_len=L + 2) for _ in range(2 * LAYERS)])


@pytest.mark.parametrize("new_cache", [DynamicCache, static_cache], ids=["dynamic", "static"])
@pytest.mark.parametrize("chunks", [[1] * L, [3, 1, 2], [L], [L - 1, 1]], ids=str)
@each_position
@each_latent_use
def test_step_by_step_with_a_cache_equals_the_full_pass(
    new_cache: type[Cache], chunks: list[int], positions: str, latent_dim: int, latent_attention: str
) -> None:
    run = stack("causal", latent_dim, latent_attention, positions)
    x, z = randn(B, L, H), randn(B, L, D, seed=1) if latent_dim else None
    cache, pieces, start = new_cache(), [], 0
    for size in chunks:
        end = start + size
        latents = z[:, start:end] if z is not None and latent_attention == "causal" else z
        pieces.append(run(x[:, start:end], latents=latents, cache=cache))
        start = end
    torch.testing.assert_close(torch.cat(pieces, 1), run(x, latents=z))


@each_position
def test_a_sequence_over_the_limit_is_refused(positions: str) -> None:
    run = stack(positions=positions)
    assert run(randn(1, 16, H)).shape == (1, 16, H)
    with pytest.raises(ValueError, match="a sequence of 17 steps is over max_positions=16: shorten it, or build"):
        run(randn(1, 17, H))
    cache = DynamicCache()
    run(randn(1, 16, H), cache=cache)
    with pytest.raises(ValueError, match="17 steps is over max_positions=16"):
        run(randn(1, 1, H), cache=cache)


@each_direction
def test_the_stack_is_torch_s_pre_norm_encoder(direction: str) -> None:
    """With learned positions and equal weights, `nn.TransformerEncoder(norm_first=True)` under the direction's mask."""
    ours = stack(direction, positions="learned")
    layer = nn.TransformerEncoderLayer(
        H, HEADS, 4 * H, dropout=0.0, activation=partial(F.gelu, approximate="tanh"), batch_first=True, norm_first=True
    )
    theirs = nn.TransformerEncoder(layer, LAYERS, norm=nn.LayerNorm(H), enable_nested_tensor=False).double().eval()
    names = {
        "attention_norm": "norm1",
        "mlp_norm": "norm2",
        "attention.qkv.": "self_attn.in_proj_",
        "attention.output": "self_attn.out_proj",
        "mlp.inner": "linear1",
        "mlp.output": "linear2",
        "blocks": "layers",
    }
    weights = {}
    for name, value in ours.state_dict().items():
        for mine, torchs in names.items():
            name = name.replace(mine, torchs)  # noqa: PLW2901
        weights[name] = value
    positions = weights.pop("positions.weight")[:L]
    theirs.load_state_dict(weights)
    x = randn(B, L, H)
    forbidden = ~reach_of(direction)
    if direction == "anticausal":  # counts its positions from the end
        positions = positions.flip(0)
    torch.testing.assert_close(ours(x), theirs(x + positions, mask=forbidden))


def turned(x: Tensor) -> Tensor:
    """Rotary positions by complex numbers: feature i + j feature (i + half), times exp(j t 10000^(-2i / size))."""
    steps, size = x.shape[-2:]
    angle = torch.arange(steps)[:, None] * 10000.0 ** (-torch.arange(0, size, 2).double() / size)
    z = torch.complex(*x.double().chunk(2, -1)) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat((z.real, z.imag), -1)


def attend_by_hand(q: Tensor, k: Tensor, v: Tensor, reach: Tensor) -> Tensor:
    """softmax(q k / sqrt(size)) v over the reach; (B, L, HEADS * size) -> the same, by einsum."""
    q, k, v = (x.unflatten(-1, (HEADS, -1)) for x in (q, k, v))
    q, k = (turned(x.transpose(1, 2)).transpose(1, 2) for x in (q, k))
    score = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
    weight = score.masked_fill(~reach, -math.inf).softmax(-1)
    return torch.einsum("bhqk,bkhd->bqhd", weight, v.double()).flatten(2)


def test_rotary_self_attention_by_hand() -> None:
    torch.manual_seed(0)
    layer = SelfAttention(StackConfig(), 0).double()
    x = randn(B, L, H)
    rotary = Rotary(torch.arange(L), H // HEADS)
    found = layer(x, AttentionLayout(rotary, rotary, 0, causal=True), None)
    q, k, v = layer.qkv(x).chunk(3, -1)
    expected = layer.output(attend_by_hand(q, k, v, reach_of("causal")))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)  # our angles are float32


def test_rotary_latent_attention_by_hand() -> None:
    torch.manual_seed(0)
    layer = LatentAttention(StackConfig(), LAYERS, D).double()
    x, z = randn(B, L, H), randn(B, L, D, seed=1)
    rotary = Rotary(torch.arange(L), H // HEADS)
    found = layer(x, z, AttentionLayout(rotary, rotary, 0, causal=True), None)
    k, v = layer.key_value(z).chunk(2, -1)
    expected = layer.output(attend_by_hand(layer.query(x), k, v, reach_of("causal")))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_rotary_angles_are_taken_in_float32() -> None:
    """bfloat16 could not count to 500; the rotated features then only carry its rounding."""
    x = randn(1, 1, 500, 8).bfloat16()
    rotated = Rotary(torch.arange(500), 8)(x)
    assert rotated.dtype == torch.bfloat16
    torch.testing.assert_close(rotated.double(), turned(x), rtol=0, atol=0.05)


def test_dropout_acts_in_training_alone() -> None:
    torch.manual_seed(0)
    run = TransformerStack(StackConfig(dropout=0.5, latent_dim=D), "causal", D)
    x, z = randn(1, L, H).float(), randn(1, L, D).float()
    assert not torch.equal(run(x, latents=z), run(x, latents=z))
    run.eval()
    assert torch.equal(run(x, latents=z), run(x, latents=z))


def test_initialisation_is_gpt_2_s() -> None:
    """normal(0, 0.02); what writes into the residual stream smaller by sqrt(2 layers); biases 0."""
    torch.manual_seed(0)
    model = StackModel(StackConfig(hidden_size=128, num_layers=8, latent_dim=32, positions="learned"))
    residual = [module for module in model.modules() if isinstance(module, ResidualLinear)]
    assert len(residual) == 3 * 8
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            expected = 0.02 / 4 if isinstance(module, ResidualLinear) else 0.02
            assert module.weight.std().item() == pytest.approx(expected, rel=0.05)
            assert not isinstance(module, nn.Linear) or module.bias.eq(0).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"hidden_size": 10, "num_heads": 4}, "hidden_size=10: use a multiple of num_heads=4"),
        ({"hidden_size": 6, "num_heads": 2}, "hidden_size / num_heads=3: rotary positions need an even head size"),
        ({"positions": "absolute"}, "positions='absolute': use 'rotary' or 'learned'"),
        ({"dropout": 1.0}, r"dropout=1\.0: must be in \[0, 1\)"),
        ({"dropout": -0.1}, r"dropout=-0\.1"),
        ({"latent_dim": -1}, r"latent_dim=-1: must be at least 0 \(0 means no latents\)"),
        ({"num_layers": 0}, "num_layers=0: must be at least 1"),
        ({"max_positions": 0}, "max_positions=0: must be at least 1"),
        ({"vocab_size": 0}, "vocab_size=0: must be at least 1"),
        ({"feed_forward_size": 0}, "feed_forward_size=0: must be at least 1"),
    ],
)
def test_a_wrong_size_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"StackConfig: {message}"):
        StackConfig(**wrong)
