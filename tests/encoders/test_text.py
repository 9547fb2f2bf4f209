"""The text encoder: what a latent's statistics may depend on."""

import pytest
import torch

from delta_vae_encoders import TextEncoder, TextEncoderConfig

SIZES = {"vocab_size": 19, "hidden_size": 16, "num_layers": 2, "num_heads": 2, "latent_dim": 2, "max_positions": 16}
L = 6


def build(direction: str, positions: str = "rotary") -> TextEncoder:
    torch.manual_seed(0)
    config = TextEncoderConfig(
        **SIZES, direction=direction, positions=positions, initializer_range=0.3, statistics_std=0.5
    )
    return TextEncoder(config).eval()


def dependence(encoder: TextEncoder) -> torch.Tensor:
    """(T, L): the size of d statistics_t / d embedding_s."""
    embeddings = torch.randn(1, L, SIZES["hidden_size"], generator=torch.Generator().manual_seed(1))
    jacobian = torch.autograd.functional.jacobian(lambda e: encoder(inputs_embeds=e).statistics, embeddings)
    return jacobian[0, :, :, 0].abs().sum((1, 3))


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_anticausal_statistics_depend_on_the_present_and_the_future_alone(positions: str) -> None:
    sees = dependence(build("anticausal", positions))
    future = torch.triu(torch.ones(L, L, dtype=torch.bool))
    assert (sees[~future] == 0).all()
    assert (sees[future] > 1e-6).all()


def test_noncausal_statistics_depend_on_everything() -> None:
    assert (dependence(build("none")) > 1e-6).all()


@pytest.mark.parametrize("direction", ["anticausal", "none"])
def test_padding_changes_no_counted_step(direction: str) -> None:
    encoder = build(direction)
    x = torch.randint(3, 19, (1, L), generator=torch.Generator().manual_seed(2))
    padded = torch.cat((x, torch.tensor([[2, 7, 5]])), dim=1)
    mask = torch.arange(L + 3)[None] < L
    alone, among = encoder(x).statistics, encoder(padded, mask).statistics[:, :L]
    torch.testing.assert_close(alone, among, atol=1e-6, rtol=1e-5)


def test_statistics_start_small_and_not_at_zero() -> None:
    torch.manual_seed(0)
    encoder = TextEncoder(TextEncoderConfig(vocab_size=500, hidden_size=64, num_layers=2, latent_dim=4)).eval()
    statistics = encoder(torch.randint(0, 500, (32, 40))).statistics
    assert 0.03 < statistics.std().item() < 0.07  # statistics_std = 0.05


def test_a_sequence_over_the_position_limit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"17 steps is over max_positions=16: shorten it, or build"):
        build("anticausal")(torch.zeros(1, 17, dtype=torch.long))


def test_a_token_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match=r"token id 19 is outside vocab_size=19"):
        build("anticausal")(torch.tensor([[3, 19]]))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"direction": "causal"}, r"direction='causal': use 'anticausal' or 'none'"),
        ({"latent_dim": 0}, r"latent_dim=0: an encoder needs at least one"),
        ({"hidden_size": 30, "num_heads": 4}, r"hidden_size=30: use a multiple of num_heads=4"),
        ({"hiden_size": 30}, r"unknown key 'hiden_size'; did you mean 'hidden_size'\?"),
        ({"dropout": "0.1"}, r"TextEncoderConfig: .*dropout.*'0.1'"),
    ],
)
def test_wrong_configs_are_one_line_errors(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        TextEncoderConfig(**wrong)
    assert "\n" not in str(error.value)
