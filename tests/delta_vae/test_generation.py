"""Generation against full recomputation, and where the latents come from."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers import GenerationConfig

from delta_vae import DeltaVaeForCausalLM, spherical_interpolation

Build = Callable[..., DeltaVaeForCausalLM]


def greedy_by_recomputation(model: DeltaVaeForCausalLM, latents: Tensor | None, batch: int, steps: int) -> Tensor:
    """The most probable token again and again, the whole sequence anew each time, nothing cached."""
    tokens = torch.zeros(batch, 1, dtype=torch.long)
    ended = torch.zeros(batch, dtype=torch.bool)
    for t in range(steps):
        full = latents is None or model.config.decoder.latent_attention == "full"
        seen = latents if full else latents[:, : t + 1]
        best = model.decoder.read(tokens, seen).logits[:, -1].argmax(-1)
        best[ended] = model.config.decoder.pad_token_id
        ended |= best == model.config.decoder.eos_token_id
        tokens = torch.cat((tokens, best[:, None]), dim=1)
        if ended.all():
            break
    return tokens


@pytest.mark.parametrize("how", [{}, {"use_cache": False}, {"cache_implementation": "static"}], ids=str)
def test_greedy_generation_equals_full_recomputation(model: DeltaVaeForCausalLM, how: dict) -> None:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(3, 10, 3, generator=generator) if model.config.latent_dim else None
    expected = greedy_by_recomputation(model, latents, 3, 10)
    where = {"num_sequences": 3} if latents is None else {"latents": latents}
    generated = model.generate(**where, max_new_tokens=10, do_sample=False, **how)
    assert generated.tolist() == expected.tolist()


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"temperature": 0.7, "top_k": 5},
        {"top_p": 0.8, "repetition_penalty": 1.3},
        {"num_return_sequences": 3, "min_new_tokens": 4},
    ],
    ids=str,
)
def test_random_draws_step_by_step_are_those_with_transformers_cache(model: DeltaVaeForCausalLM, how: dict) -> None:
    """Step by step is what `generate` does by itself; a `use_cache` that is asked for is transformers' own loop."""
    latents = torch.randn(2, 10, 3, generator=torch.Generator().manual_seed(0)) if model.config.latent_dim else None
    where = {"num_sequences": 2} if latents is None else {"latents": latents}
    how = {"max_new_tokens": 10, "do_sample": True} | how
    drawn = [
        model.generate(**where, **how, **path, generator=torch.Generator().manual_seed(1))
        for path in ({}, {"use_cache": True})
    ]
    assert drawn[0].tolist() == drawn[1].tolist()


class Adapted(nn.Linear):
    """As an adapter would: the weights of the layer that it stands for, and something beside them."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 9 * x[..., :1].tanh() * torch.linspace(-1, 1, self.out_features)


def adapt(model: DeltaVaeForCausalLM, where: str) -> None:
    """Stand something in the way of a layer's weights."""
    block, head = model.decoder.stack.blocks[0], model.decoder.head
    if where == "adapter":
        block.mlp.inner.__class__ = Adapted
    elif where == "adapter of the head":
        head.__class__ = Adapted
    elif where == "hook":
        block.attention.qkv.register_forward_hook(lambda module, inputs, output: -3 * output.roll(1, -1))
    else:  # as offloading puts itself before a module
        forward = block.mlp.output.forward
        block.mlp.output.forward = lambda x: -9 * forward(x)


@pytest.mark.parametrize("where", ["adapter", "adapter of the head", "hook", "another forward"])
def test_what_stands_before_a_layer_is_heeded(build_model: Build, where: str) -> None:
    model = build_model()
    latents = torch.randn(3, 10, 3, generator=torch.Generator().manual_seed(0))
    plain = model.generate(latents=latents, max_new_tokens=10, do_sample=False)
    bound = model.decoder(plain[:, 1:], latents[:, : plain.shape[1] - 1]).log_prob(plain[:, 1:])
    adapt(model, where)
    expected = greedy_by_recomputation(model, latents, 3, 10)
    assert expected.tolist() != plain.tolist()
    assert model.generate(latents=latents, max_new_tokens=10, do_sample=False).tolist() == expected.tolist()
    likelihood = model.decoder(plain[:, 1:], latents[:, : plain.shape[1] - 1])
    assert not torch.allclose(likelihood.log_prob(plain[:, 1:]), bound)


def test_a_prompt_is_continued(build_model: Build) -> None:
    model = build_model()
    latents = torch.randn(1, 10, 3, generator=torch.Generator().manual_seed(0))
    whole = model.decode(latents)
    prompt = whole[:, :4]
    assert torch.equal(model.decode(latents, input_ids=prompt), whole)


def test_latents_change_what_is_generated(build_model: Build) -> None:
    model = build_model()
    first, second = (torch.randn(1, 12, 3, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert model.decode(first).tolist() != model.decode(second).tolist()


def test_the_generator_decides_everything_and_nothing_else_moves(build_model: Build) -> None:
    model = build_model()
    state = torch.random.get_rng_state()
    first, second, third = (
        model.generate(
            num_sequences=3, max_new_tokens=12, do_sample=True, generator=torch.Generator().manual_seed(seed)
        ).tolist()
        for seed in (0, 0, 1)
    )
    assert first == second != third
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("kind", ["ar1", "lstm"])
def test_latents_come_from_the_auxiliary_prior_where_there_is_one(build_model: Build, kind: str) -> None:
    with_auxiliary, without = build_model(kind), build_model(kind, auxiliary=False)
    for model, prior in ((with_auxiliary, with_auxiliary.auxiliary_prior), (without, without.prior)):
        drawn = model.sample_latents(2, 6, torch.Generator().manual_seed(3))
        assert torch.equal(drawn, prior.sample(2, 6, torch.Generator().manual_seed(3)))
    drawn = with_auxiliary.sample_latents(2, 6, torch.Generator().manual_seed(3), source="prior")
    assert torch.equal(drawn, with_auxiliary.prior.sample(2, 6, torch.Generator().manual_seed(3)))


def test_one_z_can_be_decoded_many_times_and_searched_by_beams(build_model: Build) -> None:
    model = build_model()
    latents = torch.randn(2, 8, 3, generator=torch.Generator().manual_seed(0))
    many = model.generate(latents=latents, do_sample=True, num_return_sequences=4, generator=torch.Generator())
    assert many.shape[0] == 8
    assert model.generate(latents=latents, do_sample=False, num_beams=3).shape[0] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"latents": torch.zeros(1, 3, 3), "max_new_tokens": 10}, r"3 latents for 10 steps: .* at most 3 new tokens"),
        ({"input_ids": torch.zeros(1, 5, dtype=torch.long), "max_length": 5}, r"prompt of 5 tokens leaves 0"),
        ({"num_sequences": 1, "max_new_tokens": 40}, r"is over max_positions=32"),
        ({"input_ids": torch.tensor([[0, 5, 1]]), "max_new_tokens": 3}, r"prompt ends with EOS"),
        (
            {"input_ids": torch.zeros(1, 3, dtype=torch.long), "attention_mask": torch.tensor([[0, 1, 1]])},
            r"attention_mask with zeros: prompts of different lengths",
        ),
    ],
)
def test_what_cannot_be_generated_is_a_one_line_error(build_model: Build, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model().generate(do_sample=False, **({"min_new_tokens": 40} | arguments))


def test_reconstruction_decodes_the_posterior_mean(build_model: Build, batch: tuple[Tensor, Tensor, Tensor]) -> None:
    model = build_model()
    input_ids, mask, _ = batch
    rebuilt = model.reconstruct(input_ids, mask, generator=torch.Generator().manual_seed(0))
    longest = model.decode(model.encode(input_ids[:1]).mean)[0]
    assert rebuilt[0, : len(longest)].tolist() == longest.tolist()
    sampled = model.reconstruct(input_ids, mask, sample=True, generator=torch.Generator().manual_seed(0))
    assert sampled.shape[0] == len(input_ids)


@pytest.mark.parametrize("variant", [{}, {"direction": "none", "latent_attention": "full"}], ids=str)
def test_a_reconstruction_does_not_depend_on_its_batch(
    build_model: Build, batch: tuple[Tensor, Tensor, Tensor], variant: dict
) -> None:
    model = build_model(**variant)
    input_ids, mask, _ = batch
    together = model.reconstruct(input_ids, mask, generator=torch.Generator().manual_seed(0))
    for ids, row, n in zip(input_ids, together, mask.sum(1).tolist(), strict=True):
        alone = model.reconstruct(ids[None, :n])[0]
        assert row[: len(alone)].tolist() == alone.tolist()


def test_a_generation_config_says_how_long(build_model: Build) -> None:
    model = build_model()
    model.generation_config.eos_token_id = None
    assert model.generate(generation_config=GenerationConfig(max_length=5, do_sample=False)).shape == (1, 5)
    assert model.generate(generation_config=GenerationConfig(max_new_tokens=5, do_sample=False)).shape == (1, 6)


def test_padding_after_the_end_does_not_change_an_interpolation(build_model: Build) -> None:
    model = build_model()
    first, second = torch.tensor([0, 5, 6, 1]), torch.tensor([0, 7, 1])
    padded = torch.tensor([0, 7, 1, 2, 2])
    paths = [model.interpolate(first, ids, generator=torch.Generator().manual_seed(0)) for ids in (second, padded)]
    assert paths[0].tolist() == paths[1].tolist()


def test_a_cache_can_be_asked_for_step_by_step(build_model: Build) -> None:
    model = build_model()
    latents = torch.randn(1, 6, 3, generator=torch.Generator().manual_seed(0))
    tokens = torch.tensor([[0, 5, 6, 7, 8, 9]])
    whole = model(tokens, latents=latents).logits
    first = model(tokens[:, :4], latents=latents[:, :4], use_cache=True)
    rest = model(tokens[:, 4:], latents=latents[:, 4:], past_key_values=first.past_key_values)
    torch.testing.assert_close(torch.cat((first.logits, rest.logits), 1), whole, atol=1e-5, rtol=1e-4)


def test_an_interpolation_ends_at_the_two_reconstructions(
    build_model: Build, batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    model = build_model()
    first, second = batch[0][0], batch[0][2, :6]
    path = model.interpolate(first, second, steps=4, generator=torch.Generator().manual_seed(0))
    assert path.shape[0] == 4
    alone = model.decode(model.encode(first[None]).mean)[0]
    assert path[0, : len(alone)].tolist() == alone.tolist()


def test_spherical_interpolation_keeps_the_variance_of_independent_draws() -> None:
    a, b = torch.randn(2, 40_000, 1, generator=torch.Generator().manual_seed(0))
    path = spherical_interpolation(a, b, 5)
    torch.testing.assert_close(path[0], a)
    torch.testing.assert_close(path[-1], b, atol=1e-6, rtol=1e-5)
    # Five standard errors of a variance from 40,000 draws: 5 sqrt(2 / 40,000) = 0.035.
    torch.testing.assert_close(path.var(1).flatten(), torch.ones(5), atol=0.035, rtol=0)
