"""The text files of a run, written by a small untrained model with a real tokenizer."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from delta_vae import DeltaVaeConfig, DeltaVaeForCausalLM
from delta_vae_decoders import TextDecoderConfig
from delta_vae_encoders import TextEncoderConfig
from delta_vae_lab.data.tokenization import train_tokenizer
from delta_vae_lab.data.tokens import tokenize
from delta_vae_lab.text_samples import write_text_samples
from delta_vae_priors import AR1PriorConfig, AuxiliaryPriorConfig

SENTENCES = [
    "A name is bound by an assignment.",
    "The value of an attribute is looked up, and then it is called.",
    "Modules are imported once.",
    "An expression is evaluated from left to right.",
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(SENTENCES, 270)


def build(tokenizer: PreTrainedTokenizerFast, latent_dim: int = 2, auxiliary: bool = True) -> DeltaVaeForCausalLM:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "num_layers": 1,
        "num_heads": 2,
        "latent_dim": latent_dim,
    }
    special = {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("bos", "eos", "pad")}
    decoder = TextDecoderConfig(**sizes, **special)
    if not latent_dim:
        return DeltaVaeForCausalLM(DeltaVaeConfig(decoder=decoder))
    config = DeltaVaeConfig(
        prior=AR1PriorConfig(latent_dim=latent_dim, alpha=0.9),
        encoder=TextEncoderConfig(**sizes),
        decoder=decoder,
        auxiliary_prior=AuxiliaryPriorConfig(latent_dim=latent_dim, hidden_size=8) if auxiliary else None,
    )
    return DeltaVaeForCausalLM(config)


def write(
    folder: Path, model: DeltaVaeForCausalLM, tokenizer: PreTrainedTokenizerFast, seed: int = 0
) -> dict[str, str]:
    generator = torch.Generator().manual_seed(seed)
    heldout = tokenize(tokenizer, SENTENCES)
    where = {"data": "reference", "generator": generator}
    write_text_samples(folder, model, tokenizer, heldout, **where, count=4, max_new_tokens=12)
    return {path.name: path.read_text() for path in sorted(folder.iterdir())}


def test_every_kind_of_text_is_written_under_a_heading(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    files = write(tmp_path, build(tokenizer).train(), tokenizer)
    assert list(files) == ["interpolations.txt", "reconstructions.txt", "samples_auxiliary.txt", "samples_prior.txt"]
    assert files["samples_prior.txt"].startswith("4 samples, z from the training prior; ")
    assert files["samples_auxiliary.txt"].startswith("4 samples, z from the auxiliary prior; ")
    assert all("reference" in text.splitlines()[0] for text in files.values())
    _, *pairs = files["reconstructions.txt"].rstrip().split("\n\n")
    assert [pair.splitlines()[0] for pair in pairs] == [f"sentence:        {sentence}" for sentence in SENTENCES]
    _, first, second = files["interpolations.txt"].rstrip().split("\n\n")
    assert first.splitlines()[0] == f"from  {SENTENCES[0]}"
    assert [line.split()[0] for line in first.splitlines()[1:-1]] == [
        "0.00",
        "0.17",
        "0.33",
        "0.50",
        "0.67",
        "0.83",
        "1.00",
    ]
    assert first.splitlines()[-1] == f"to    {SENTENCES[1]}"
    assert second.splitlines()[-1] == f"to    {SENTENCES[2]}"


def test_a_generator_decides_the_text_and_nothing_else_changes(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = build(tokenizer).train()
    state = torch.random.get_rng_state()
    first, again, other = (write(tmp_path / str(i), model, tokenizer, seed) for i, seed in enumerate((0, 0, 1)))
    assert first == again
    assert first["samples_prior.txt"] != other["samples_prior.txt"]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training


def test_what_does_not_end_says_so(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    model = build(tokenizer)
    with torch.no_grad():
        model.decoder.embedding.weight[tokenizer.eos_token_id] = 0
    samples = write(tmp_path, model, tokenizer)["samples_prior.txt"]
    assert "[no end in 12 tokens]" in samples


def test_models_without_auxiliary_prior_or_latents_write_what_they_can(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    without_auxiliary = write(tmp_path / "a", build(tokenizer, auxiliary=False), tokenizer)
    assert list(without_auxiliary) == ["interpolations.txt", "reconstructions.txt", "samples_prior.txt"]
    without_latents = write(tmp_path / "b", build(tokenizer, latent_dim=0), tokenizer)
    assert list(without_latents) == ["samples_decoder.txt"]
    assert without_latents["samples_decoder.txt"].startswith("4 samples, from a decoder without latents; ")
