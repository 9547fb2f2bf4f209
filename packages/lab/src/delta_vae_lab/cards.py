"""The model card that lies beside the weights, rendered from a template, results.json and the model's config.json."""

from __future__ import annotations

import json
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from delta_vae import DeltaVaeConfig
from delta_vae_lab.modality import IMAGES, TEXT, modality_of
from delta_vae_lab.run_folder import RunFolder
from delta_vae_lab.verdict import render_table, verdict

_TASKS = {TEXT: "text-generation", IMAGES: "unconditional-image-generation"}

# What the Hub lists of a model: the bound that a user would compare, and what its latents are used for.
_LISTED = {
    TEXT: {
        "nats_per_token": "Negative ELBO, nats a token",
        "auxiliary_nats_per_token": "Negative ELBO against the auxiliary prior, nats a token",
        "perplexity_per_word": "Perplexity a word (bound)",
        "rate_nats": "Rate, nats a sentence",
        "committed_rate_nats": "Committed rate, nats a sentence",
        "shuffle_gap_nats": "Shuffle gap, nats a sentence",
    },
    IMAGES: {
        "bits_per_dim": "Negative ELBO, bits/dim",
        "auxiliary_bits_per_dim": "Negative ELBO against the auxiliary prior, bits/dim",
        "rate_bits_per_dim": "Rate, bits/dim",
        "rate_nats": "Rate, nats an image",
        "committed_rate_nats": "Committed rate, nats an image",
        "shuffle_gap_nats": "Shuffle gap, nats an image",
    },
}
# Without latents the distortion is -ln p(x) itself, and there is no rate.
_LISTED_WITHOUT_LATENTS = {
    TEXT: {
        "nats_per_token": "Negative log-likelihood, nats a token",
        "perplexity_per_word": "Perplexity a word",
    },
    IMAGES: {"bits_per_dim": "Negative log-likelihood, bits/dim"},
}
_TAGS_WITHOUT_LATENTS = {TEXT: ["language-model"], IMAGES: ["autoregressive-image-model"]}


def write_card(run: RunFolder, template: Path) -> None:
    """Write README.md into the run's model folder."""
    results = json.loads(run.results_file.read_text(encoding="utf-8"))
    metrics, data, kind = results["metrics"], results["data"], modality_of(results["metrics"])
    config = DeltaVaeConfig.from_pretrained(run.model)
    commits = metrics["committed_rate_nats"] > 0
    tags = _TAGS_WITHOUT_LATENTS[kind]
    if config.latent_dim:
        tags = ["variational-autoencoder", "representation-learning"]
    listed = [
        EvalResult(
            task_type=_TASKS[kind],
            dataset_type=data["name"],
            dataset_name=data["name"],
            metric_type=name,
            metric_name=label,
            metric_value=float(metrics[name]),
        )
        for name, label in (_LISTED if config.latent_dim else _LISTED_WITHOUT_LATENTS)[kind].items()
        if name in metrics
    ]
    card = ModelCard.from_template(
        ModelCardData(
            library_name="transformers",
            pipeline_tag=_TASKS[kind],
            tags=["delta-vae", *tags] if commits else tags,
            model_name=results["run"],
            eval_results=listed,
        ),
        template_path=str(template),
        location=str(run.model),
        config=config,
        commits=commits,
        table=render_table(metrics, data=data["name"], seed=results["seed"]),
        verdict=verdict(metrics),
        **results,
    )
    card.save(run.model / "README.md")
