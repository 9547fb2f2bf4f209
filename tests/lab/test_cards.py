"""The model card of every kind of model: it claims what the model's own config supports, and its code runs."""

import json
import re
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from delta_vae import DeltaVaeConfig, DeltaVaeForCausalLM
from delta_vae_decoders import TextDecoderConfig
from delta_vae_encoders import TextEncoderConfig
from delta_vae_lab.cards import write_card
from delta_vae_lab.data import heldout_batches, tokenize, train_tokenizer
from delta_vae_lab.evaluation import evaluate_text
from delta_vae_lab.run_folder import RunFolder
from delta_vae_priors import (
    AR1PriorConfig,
    AuxiliaryPriorConfig,
    IndependentDeltaPriorConfig,
    StandardNormalPriorConfig,
)

TEMPLATE = Path(__file__).parents[2] / "hub_cards/text.md.j2"
SENTENCES = ["a cat sat", "the dog ran off", "a mat", "they sat on the mat"]
FLOOR = "cannot fall below its committed part"
PRIORS = {
    "ar1": AR1PriorConfig(latent_dim=2, alpha=0.9),
    "independent_delta": IndependentDeltaPriorConfig(latent_dim=2, delta=0.07),
    "standard_normal": StandardNormalPriorConfig(latent_dim=2),
}


def card_of(folder: Path, prior: str, *, direction: str = "anticausal", attention: str = "causal") -> ModelCard:
    """A run folder with an untrained model, what is measured of it, and its card."""
    run = RunFolder(folder / "a-run")
    tokenizer = train_tokenizer(iter(SENTENCES * 10), 265)
    tokenizer.save_pretrained(run.model)
    latent_dim = 0 if prior == "none" else 2
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 16, "num_layers": 1, "num_heads": 2, "latent_dim": latent_dim}
    tokens = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    decoder = TextDecoderConfig(**sizes, **tokens, latent_attention=attention)
    config = DeltaVaeConfig(decoder=decoder)
    if latent_dim:
        config = DeltaVaeConfig(
            prior=PRIORS[prior],
            encoder=TextEncoderConfig(**sizes, direction=direction),
            decoder=decoder,
            auxiliary_prior=None
            if prior == "standard_normal"
            else AuxiliaryPriorConfig(latent_dim=latent_dim, hidden_size=8),
        )
    torch.manual_seed(0)
    model = DeltaVaeForCausalLM(config)
    model.save_pretrained(run.model)
    batches = heldout_batches(tokenize(tokenizer, SENTENCES), 2, tokenizer.pad_token_id)
    split = {"sentences": 4, "sha256": "0" * 64}
    results = {
        "run": "a-run",
        "command": "lm1b.py",
        "commit": None,
        "seed": 0,
        "device": "a CPU",
        "versions": {"python": "3"},
        "data": {"name": "four-sentences", "source": "this file", "train": split, "heldout": split},
        "metrics": evaluate_text(model, batches, words=17, importance_samples=2),
    }
    run.results_file.write_text(json.dumps(results))
    write_card(run, TEMPLATE)
    return ModelCard.load(run.model / "README.md")


KINDS = {
    "ar1": (
        {"prior": "ar1"},
        ["a-run: a text δ-VAE", "anti-causal", "latents up to the token", "AR(1)", FLOOR, "An auxiliary prior"],
        ["whole sentence", "all latents", "ordinary", "baseline", "standard normal"],
    ),
    "ar1, non-causal with full attention": (
        {"prior": "ar1", "direction": "none", "attention": "full"},
        ["a-run: a text δ-VAE", "sees the whole sentence", "attends over all latents", "AR(1)", FLOOR],
        ["anti-causal", "up to the token", "ordinary"],
    ),
    "independent delta": (
        {"prior": "independent_delta"},
        ["a-run: a text δ-VAE", "anti-causal", "a standard normal", "at least 0.07 nats", FLOOR],
        ["AR(1)", "ordinary"],
    ),
    "ordinary VAE": (
        {"prior": "standard_normal"},
        ["a-run: a text VAE", "ordinary VAE, whose rate can fall to zero", "anti-causal"],
        ["a text δ-VAE", FLOOR, "AR(1)", "A committed rate is not information", "An auxiliary prior"],
    ),
    "without latents": (
        {"prior": "none"},
        ["a-run: a text decoder without latents", "No latents: ", "no bound"],
        ["δ-VAE", FLOOR, "causal", "AR(1)", "shuffle gap", "upper bound", "KL("],
    ),
}


@pytest.mark.parametrize(("model", "said", "unsaid"), KINDS.values(), ids=KINDS.keys())
def test_a_card_claims_what_the_model_is_and_no_more(
    model: dict[str, str], said: list[str], unsaid: list[str], tmp_path: Path
) -> None:
    card = card_of(tmp_path, **model)
    text = " ".join(card.text.split("## Citation")[0].split())
    assert [claim for claim in said if claim not in text] == []
    assert [claim for claim in unsaid if claim in text] == []
    assert "{{" not in text
    assert ". ." not in text

    commits, latents = FLOOR in said, model["prior"] != "none"
    assert ("delta-vae" in card.data.tags) == commits
    assert ("variational-autoencoder" in card.data.tags) == latents
    listed = {result.metric_type: result.metric_name for result in card.data.eval_results}
    assert ("rate_nats" in listed) == ("shuffle_gap_nats" in listed) == latents
    assert listed["nats_per_token"].startswith("Negative ELBO" if latents else "Negative log-likelihood")

    (code,) = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    namespace: dict = {}
    exec(compile(code, "card", "exec"), namespace)
    assert namespace["ids"].shape[0] == 2
