"""The three tests of every model (save and load, padding, batching), and what the bound is made of."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM

from delta_vae import DeltaVaeConfig, DeltaVaeForCausalLM, DeltaVaeModel

Batch = tuple[Tensor, Tensor, Tensor]
Build = Callable[..., DeltaVaeForCausalLM]


def bound(model: DeltaVaeForCausalLM, batch: Batch) -> DeltaVaeModel:
    input_ids, mask, noise = batch
    return model(input_ids, mask, noise=noise if model.config.latent_dim else None)


def lengths(batch: Batch) -> list[int]:
    return batch[1].sum(1).tolist()


def test_save_and_load_give_equal_outputs(model: DeltaVaeForCausalLM, batch: Batch, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    for loader in (DeltaVaeForCausalLM, AutoModelForCausalLM):
        loaded = loader.from_pretrained(tmp_path)
        assert isinstance(loaded, DeltaVaeForCausalLM)
        assert loaded.config.to_dict().keys() == model.config.to_dict().keys()
        expected = model.state_dict()
        assert loaded.state_dict().keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())
        before, after = bound(model, batch), bound(loaded, batch)
        assert torch.equal(after.loss, before.loss)
        assert torch.equal(after.rate, before.rate)
        assert torch.equal(after.committed_rate, before.committed_rate)


def test_padding_never_changes_a_loss(model: DeltaVaeForCausalLM, batch: Batch) -> None:
    input_ids, mask, noise = batch
    padding = torch.full((len(input_ids), 5), 7)
    more = (torch.cat((input_ids, padding), 1), torch.cat((mask, 0 * padding), 1), torch.randn(len(input_ids), 13, 3))
    more[2][:, : noise.shape[1]] = noise
    plain, padded = bound(model, batch), bound(model, more)
    for part in ("rate", "distortion", "committed_rate", "auxiliary_rate"):
        expected = getattr(plain, part)
        if expected is not None:
            torch.testing.assert_close(getattr(padded, part), expected, atol=1e-5, rtol=1e-5)


def test_a_batchs_loss_is_the_mean_of_its_members(model: DeltaVaeForCausalLM, batch: Batch) -> None:
    input_ids, _, noise = batch
    alone = [
        model(input_ids[i : i + 1, :n], noise=noise[i : i + 1, : n - 1] if model.config.latent_dim else None).loss
        for i, n in enumerate(lengths(batch))
    ]
    torch.testing.assert_close(bound(model, batch).loss, torch.stack(alone).mean(), atol=1e-5, rtol=1e-5)


def test_the_loss_is_the_negative_elbo_by_hand(build_model: Build, batch: Batch) -> None:
    model = build_model()
    output = bound(model, batch)
    input_ids, _, noise = batch
    total = 0.0
    for i, n in enumerate(lengths(batch)):
        x, alpha = input_ids[i : i + 1, 1:n], torch.tensor(model.config.prior.alpha)
        q = model.encode(input_ids[i : i + 1, :n])
        z = q.mean + q.log_scale.exp() * noise[i, : n - 1]
        torch.testing.assert_close(z[0], output.latents[i, : n - 1])
        for k in range(3):
            t = torch.arange(n - 1)
            covariance = alpha[k] ** (t[:, None] - t).abs()
            p = torch.distributions.MultivariateNormal(torch.zeros(n - 1), covariance)
            posterior = torch.distributions.MultivariateNormal(q.mean[0, :, k], torch.diag(q.scale[0, :, k] ** 2))
            total += torch.distributions.kl_divergence(posterior, p)
        logits = model.decoder(x, z).logits
        total -= torch.distributions.Categorical(logits=logits).log_prob(x).sum()
    torch.testing.assert_close(output.loss, total / len(input_ids), atol=1e-3, rtol=1e-4)


def test_the_rate_never_falls_below_the_committed_rate(model: DeltaVaeForCausalLM, batch: Batch) -> None:
    output = bound(model, batch)
    assert (output.rate >= output.committed_rate - 1e-4).all()
    if output.kl is not None:
        torch.testing.assert_close(output.kl.sum((1, 2)), output.rate)
        assert (output.kl[~output.mask] == 0).all()


def test_the_auxiliary_rate_reaches_the_auxiliary_prior_alone(build_model: Build, batch: Batch) -> None:
    model = build_model()
    bound(model, batch).auxiliary_rate.mean().backward()
    touched = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert touched == {"auxiliary_prior"}


def test_the_loss_trains_the_auxiliary_prior_and_is_the_same_with_or_without(build_model: Build, batch: Batch) -> None:
    model = build_model()
    output = bound(model, batch)
    assert output.loss.item() == pytest.approx((output.rate + output.distortion).mean().item())
    output.loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    output = bound(model, batch)
    ((output.rate + output.distortion).mean() + output.auxiliary_rate.mean()).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, msg=name)


def test_without_noise_the_generator_decides(build_model: Build, batch: Batch) -> None:
    model = build_model()
    state = torch.random.get_rng_state()
    first, second, third = (
        model(batch[0], batch[1], generator=torch.Generator().manual_seed(seed)).latents for seed in (0, 0, 1)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_noise_of_another_shape_and_unknown_arguments_are_refused(build_model: Build, batch: Batch) -> None:
    model = build_model()
    with pytest.raises(ValueError, match=r"noise of shape \(1, 8, 3\): z needs \(4, 8, 3\)"):
        model(batch[0], batch[1], noise=batch[2][:1])
    with pytest.raises(TypeError, match="attention_masks"):
        model(batch[0], attention_masks=batch[1])
    with pytest.raises(ValueError, match="return_dict=False"):
        model(batch[0], batch[1], return_dict=False)


def test_embeddings_of_encoder_and_decoder_are_resized_together(build_model: Build, batch: Batch) -> None:
    model = build_model()
    before = bound(model, batch).rate
    model.resize_token_embeddings(30)
    assert model.config.encoder.vocab_size == model.config.decoder.vocab_size == 30
    assert model.decoder.head.weight.shape == (30, 16)
    torch.testing.assert_close(bound(model, batch).rate, before)


def test_a_variant_loads_as_it_was_saved(build_model: Build, batch: Batch, tmp_path: Path) -> None:
    model = build_model()
    model.save_pretrained(tmp_path, variant="first")
    loaded = DeltaVaeForCausalLM.from_pretrained(tmp_path, variant="first")
    assert torch.equal(bound(loaded, batch).loss, bound(model, batch).loss)


def test_rates_are_float32_under_autocast(build_model: Build, batch: Batch) -> None:
    model = build_model()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = bound(model, batch)
    assert {output[part].dtype for part in ("rate", "distortion", "kl", "committed_rate", "auxiliary_rate")} == {
        torch.float32
    }
    assert (output.rate >= output.committed_rate - 1e-4).all()


def test_bfloat16_weights_leave_the_prior_as_it_is(build_model: Build, batch: Batch) -> None:
    model = build_model()
    committed = bound(model, batch).committed_rate
    half = copy.deepcopy(model).to(torch.bfloat16)
    output = bound(half, batch)
    assert torch.equal(output.committed_rate, committed)
    assert output.rate.dtype == torch.float32
    assert (output.rate >= output.committed_rate - 1e-4).all()


def test_the_plain_model_is_the_same_bound(build_model: Build, batch: Batch, tmp_path: Path) -> None:
    model = build_model()
    model.save_pretrained(tmp_path)
    plain = AutoModel.from_pretrained(tmp_path)
    assert type(plain) is DeltaVaeModel
    x, mask = model.targets(batch[0], batch[1])
    assert torch.equal(plain(x, mask, batch[2]).loss, bound(model, batch).loss)


def test_nested_settings_can_be_overridden_on_loading(build_model: Build, tmp_path: Path) -> None:
    build_model().save_pretrained(tmp_path)
    loaded = DeltaVaeForCausalLM.from_pretrained(tmp_path, prior={"alpha": [0.1, 0.2, 0.3]})
    assert loaded.prior.config.alpha == [0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"prior": {"latent_dim": 5}, "decoder": {"latent_dim": 4}}, r"prior.latent_dim=5 and decoder.latent_dim=4"),
        (
            {"encoder": {"vocab_size": 9}, "decoder": {"vocab_size": 8}},
            r"encoder.vocab_size=9 and decoder.vocab_size=8",
        ),
        ({"prior": {"model_type": "my_prior"}}, r"prior.model_type='my_prior' is not registered: import the package"),
        ({"prior": {"model_type": "delta_vae_ar1_prior", "alfa": 0.5}}, r"unknown key 'alfa'; did you mean 'alpha'"),
        ({"priors": {}}, r"unknown key 'priors'; did you mean 'prior'"),
        ({"prior": {"alpha": 1.5}}, r"alpha=1.5: must be inside \(-1, 1\)"),
        (
            {"prior": {}, "decoder": {"model_type": "delta_vae_text_decoder", "latent_dim": 0}},
            r"prior given with decoder.latent_dim=0",
        ),
    ],
)
def test_wrong_configs_are_one_line_errors(config: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        DeltaVaeConfig(**config)
    assert "\n" not in str(error.value)


def test_the_defaults_are_a_whole_text_model() -> None:
    config = DeltaVaeConfig()
    assert config.latent_dim == config.prior.latent_dim == config.encoder.latent_dim == 8
    assert config.encoder.vocab_size == config.decoder.vocab_size


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda x, m: (x[:, :1], m[:, :1]), r"give \(batch, BOS \.\.\. EOS\), at least 2 long"),
        (lambda x, m: (x.clone().fill_(5), m), r"starts with token 5, not with BOS=0: use the model's own tokenizer"),
        (lambda x, m: (x, m[:, 1:]), r"attention_mask of shape \(4, 8\) for input_ids \(4, 9\)"),
        (lambda x, m: (x, m.flip(1)), r"mask row 1 has a one after a zero: pad on the right"),
        (lambda x, m: (x.repeat(1, 4), m.repeat(1, 4).fill_(1)), r"35 steps is over max_positions=32"),
        (lambda x, m: (x + torch.tensor([0] + [20] * 8), m), r"token id \d+ is outside vocab_size=23"),
    ],
)
def test_wrong_inputs_are_one_line_errors(build_model: Build, batch: Batch, edit: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model()(*edit(batch[0], batch[1]))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "model.safetensors").unlink(), r"model\.safetensors: not found; the checkpoint is incomplete"),
        (lambda d: (d / "config.json").unlink(), r"config\.json: not found"),
        (lambda d: (d / "config.json").write_text('{"model_type": "delta'), r"config\.json: damaged"),
        (lambda d: truncate(d / "model.safetensors", 100), r"model\.safetensors: damaged or truncated"),
        (lambda d: truncate(d / "model.safetensors", -100), r"model\.safetensors: damaged or truncated"),
    ],
    ids=["no weights", "no config", "half a config", "half a header", "weights cut short"],
)
def test_a_damaged_checkpoint_is_refused_by_name(
    build_model: Build, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    build_model().save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        DeltaVaeForCausalLM.from_pretrained(tmp_path)
    assert "\n" not in str(error.value)


def test_a_checkpoint_that_lacks_weights_is_refused(build_model: Build, tmp_path: Path) -> None:
    build_model(auxiliary=False).save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"lacks 6 weights of DeltaVaeForCausalLM \(first: auxiliary_prior\.head\.bias"
    ):
        DeltaVaeForCausalLM.from_pretrained(tmp_path, config=build_model().config)


def truncate(path: Path, size: int) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:size])


def test_a_model_without_latents_says_so(build_model: Build, batch: Batch) -> None:
    model = build_model("none")
    with pytest.raises(ValueError, match="encode: this model has no latents"):
        model.encode(batch[0], batch[1])
    with pytest.raises(ValueError, match="sample_latents: this model has no latents"):
        model.sample_latents(1, 2)
