"""The text decoder: p(x_t | x_{<t}, z_{<=t}), by Jacobian and by cache."""

import pytest
import torch
from transformers import DynamicCache

from delta_vae_decoders import CategoricalLikelihood, TextDecoder, TextDecoderConfig

SIZES = {"vocab_size": 19, "hidden_size": 16, "num_layers": 2, "num_heads": 2, "max_positions": 16}
L, D = 6, 2
VARIANTS = [
    {"latent_dim": D},
    {"latent_dim": D, "add_latents": True, "positions": "learned"},
    {"latent_dim": D, "latent_attention": "full", "add_latents": True},
    {"latent_dim": 0},
]


def build(**variant: object) -> TextDecoder:
    torch.manual_seed(0)
    return TextDecoder(TextDecoderConfig(**SIZES, initializer_range=0.3, **variant)).eval()


def example(decoder: TextDecoder) -> tuple[torch.Tensor, torch.Tensor | None]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(3, 19, (2, L), generator=generator)
    return x, torch.randn(2, L, D, generator=generator) if decoder.config.latent_dim else None


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_step_t_depends_on_tokens_before_t_alone(variant: dict) -> None:
    decoder = build(**variant)
    _, z = example(decoder)
    embeddings = torch.randn(1, L, 16, generator=torch.Generator().manual_seed(2))

    def logits(read: torch.Tensor) -> torch.Tensor:
        return decoder.read(inputs_embeds=read, latents=None if z is None else z[:1]).logits

    jacobian = torch.autograd.functional.jacobian(logits, embeddings)[0, :, :, 0].abs().sum((1, 3))
    # Position s of what is read is token s - 1: step t (0-based) may depend on positions 0 ... t.
    past = torch.tril(torch.ones(L, L, dtype=torch.bool))
    assert (jacobian[~past] == 0).all()
    assert (jacobian[past] > 1e-6).all()


def test_what_is_read_at_t_is_the_token_before_t() -> None:
    decoder = build(latent_dim=D)
    x, z = example(decoder)
    for t in range(L):
        changed = x.clone()
        changed[:, t] = (x[:, t] + 1) % 19
        same = (decoder(changed, z).logits == decoder(x, z).logits).all(-1).all(0)
        assert same.tolist() == [True] * (t + 1) + [False] * (L - t - 1)


@pytest.mark.parametrize("variant", VARIANTS[:3], ids=str)
def test_step_t_depends_on_z_up_to_t_alone_unless_attention_is_full(variant: dict) -> None:
    decoder = build(**variant)
    x, z = example(decoder)
    jacobian = torch.autograd.functional.jacobian(lambda latents: decoder(x[:1], latents).logits, z[:1])
    sees = jacobian[0, :, :, 0].abs().sum((1, 3))
    allowed = torch.ones(L, L, dtype=torch.bool)
    if variant.get("latent_attention") != "full":
        allowed = torch.tril(allowed)
    assert (sees[~allowed] == 0).all()
    assert (sees[allowed] > 1e-7).all()


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_token_by_token_with_a_cache_equals_the_whole(variant: dict) -> None:
    decoder = build(**variant)
    x, z = example(decoder)
    whole = decoder(x, z).logits
    cache, read = DynamicCache(), torch.cat((torch.zeros(2, 1, dtype=torch.long), x[:, :-1]), dim=1)
    full = decoder.config.latent_attention == "full"
    for first, last in ((0, 1), (1, 2), (2, 5), (5, 6)):  # one at a time, and several at once
        latents = z if z is None or full else z[:, first:last]
        part = decoder.read(read[:, first:last], latents, cache=cache).logits
        torch.testing.assert_close(part, whole[:, first:last], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_drawing_step_by_step_reads_as_the_whole(variant: dict) -> None:
    decoder = build(**variant)
    x, z = example(decoder)
    whole = decoder(x, z).logits
    with torch.no_grad():
        next_logits = decoder.step_by_step(2, L, z)
        read = torch.cat((torch.zeros(2, 1, dtype=torch.long), x[:, :-1]), dim=1)
        found = [next_logits(tokens) for tokens in read.unbind(1)]
    torch.testing.assert_close(torch.stack(found, 1), whole, atol=1e-5, rtol=1e-4)


def test_padded_latents_are_not_seen_step_by_step_either() -> None:
    decoder = build(latent_dim=D, latent_attention="full")
    x, z = example(decoder)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]], dtype=torch.bool)
    with torch.no_grad():
        start = torch.zeros(2, dtype=torch.long)
        found = decoder.step_by_step(2, L, z, mask)(start)
        torch.testing.assert_close(found, decoder(x, z, mask).logits[:, 0], atol=1e-5, rtol=1e-4)


def test_log_prob_is_the_log_softmax_at_the_token() -> None:
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    x = torch.tensor([[0, 4, 2], [1, 1, 3]])
    expected = torch.distributions.Categorical(logits=logits).log_prob(x)
    torch.testing.assert_close(CategoricalLikelihood(logits).log_prob(x), expected)


def test_samples_follow_the_probabilities() -> None:
    probabilities = torch.tensor([0.1, 0.6, 0.3])
    likelihood = CategoricalLikelihood(probabilities.log().expand(4, 5000, 3))
    state = torch.random.get_rng_state()
    x = likelihood.sample(torch.Generator().manual_seed(0))
    assert x.shape == (4, 5000)
    # Five standard errors of a share estimated from 20,000 draws: at most 0.018.
    torch.testing.assert_close(x.flatten().bincount() / 20000, probabilities, atol=0.018, rtol=0)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_input_and_output_embeddings_are_one_unless_untied() -> None:
    tied, untied = build(latent_dim=0), build(latent_dim=0, tie_word_embeddings=False)
    assert tied.head.weight is tied.embedding.weight
    assert untied.head.weight is not untied.embedding.weight


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        (None, r"no latents were given to a decoder with latent_dim=2"),
        (torch.zeros(2, L - 1, D), r"latents of shape \(2, 5, 2\).*needs \(2, 6, 2\), one latent a predicted token"),
        (torch.zeros(1, L, D), r"latents of shape \(1, 6, 2\)"),
        (torch.zeros(2, L, 3), r"latents of shape \(2, 6, 3\)"),
    ],
)
def test_latents_that_do_not_fit_are_refused(latents: torch.Tensor | None, message: str) -> None:
    decoder = build(latent_dim=D)
    with pytest.raises(ValueError, match=message):
        decoder(example(decoder)[0], latents)
    with pytest.raises(ValueError, match=message):
        decoder.step_by_step(2, L, latents)


def test_latents_for_a_decoder_without_are_refused() -> None:
    decoder = build(latent_dim=0)
    with pytest.raises(ValueError, match="latent_dim=0: leave them out"):
        decoder(example(decoder)[0], torch.zeros(2, L, D))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"latent_attention": "some"}, r"latent_attention='some': use 'causal' or 'full'"),
        ({"pad_token_id": 8192}, r"pad_token_id=8192: must be a token of vocab_size=8192"),
        ({"positions": "sine"}, r"positions='sine': use 'rotary' or 'learned'"),
    ],
)
def test_wrong_configs_are_one_line_errors(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TextDecoderConfig(**wrong)
