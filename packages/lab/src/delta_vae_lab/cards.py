"""The model card of a run, rendered from a template, results.json, the model's config.json and what the run drew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from delta_vae import DeltaVaeConfig
from delta_vae_lab.modality import IMAGES, TEXT, modality_of
from delta_vae_lab.run_folder import RunFolder
from delta_vae_lab.verdict import render_table, verdict

_TASKS = {TEXT: "text-generation", IMAGES: "unconditional-image-generation"}
_TEMPLATES = {TEXT: "text.md.j2", IMAGES: "image.md.j2"}

# What the Hub lists of a model: the bounds that a user would compare, and what its latents are used for.
_OF_LATENTS = {
    "importance_weighted_nll_nats": "Importance-weighted bound",
    "rate_nats": "Rate",
    "committed_rate_nats": "Committed rate",
    "slack_nats": "Slack",
    "mutual_information_nats": "Mutual information I(x; z)",
    "shuffle_gap_nats": "Shuffle gap",
}
_LISTED = {
    TEXT: {
        "nats_per_token": "Negative ELBO, nats a token",
        "auxiliary_nats_per_token": "Negative ELBO against the auxiliary prior, nats a token",
        "perplexity_per_word": "Perplexity a word (bound)",
        **{name: f"{label}, nats a sentence" for name, label in _OF_LATENTS.items()},
    },
    IMAGES: {
        "bits_per_dim": "Negative ELBO, bits/dim",
        "auxiliary_bits_per_dim": "Negative ELBO against the auxiliary prior, bits/dim",
        "rate_bits_per_dim": "Rate, bits/dim",
        **{name: f"{label}, nats an image" for name, label in _OF_LATENTS.items()},
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

# The training curves are for who trains; they lie in the same folder.
_FIGURES = {
    "rate_by_step_and_dimension": "Where the rate is spent, by latent step and dimension",
    "rate_by_position": "The rate by latent step, over what is committed",
}
_SAMPLES = {
    "samples_prior": "samples, z from the training prior",
    "samples_auxiliary": "samples, z from the auxiliary prior",
    "samples_decoder": "samples",
    "fixed_z": "decodings of one z",
    "reconstructions": "reconstructions of held-out examples",
    "interpolations": "interpolations between held-out examples",
}


@dataclass(frozen=True)
class Link:
    """A file that the card shows, or leads to."""

    caption: str
    link: str

    @property
    def picture(self) -> bool:
        """Shown in place."""
        return self.link.endswith(".png")


def write_card(run: RunFolder) -> None:
    """Write README.md into the run's model folder; it loads the model from there."""
    render_card(run).save(run.model / "README.md")


def render_card(run: RunFolder, repo: str | None = None, revision: str | None = None) -> ModelCard:
    """The card of the run's model: that of its folder, or of the repository on the Hub that it is published in.

    There the model lies at the top, beside results.json, figures/ and samples/.
    """
    results = read_results(run)
    metrics, data, kind = results["metrics"], results["data"], modality_of(results["metrics"])
    config = DeltaVaeConfig.from_pretrained(run.model)
    commits = metrics["committed_rate_nats"] > 0
    root = "../" if repo is None else ""
    source = json.dumps(str(run.model) if repo is None else repo)
    if revision is not None:
        source += f", revision={json.dumps(revision)}"
    content = (
        _environment()
        .get_template(_TEMPLATES[kind])
        .render(
            card_data=_metadata(results, config, commits).to_yaml(),
            source=source,
            published=repo is not None,
            config=config,
            commits=commits,
            kind=kind,
            table=render_table(metrics, data=data["name"], seed=results["seed"]),
            verdict=verdict(metrics),
            figures=_links(run.figures, _FIGURES, f"{root}figures"),
            samples=_links(run.samples, _SAMPLES, f"{root}samples"),
            results_link=f"{root}results.json",
            config_link=f"{root}config.yaml",
            **results,
        )
    )
    return ModelCard(content)


def read_results(run: RunFolder) -> dict[str, Any]:
    """results.json of a finished run."""
    try:
        results: dict[str, Any] = json.loads(run.results_file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{run.results_file}: damaged ({error}); evaluate the run again, with --resume") from None
    return results


def _metadata(results: Mapping[str, Any], config: DeltaVaeConfig, commits: bool) -> ModelCardData:
    """What the Hub reads: task, tags, licence, and the estimates as its `model-index`."""
    metrics, data, kind = results["metrics"], results["data"], modality_of(results["metrics"])
    tags = _TAGS_WITHOUT_LATENTS[kind]
    if config.latent_dim:
        tags = ["variational-autoencoder", "representation-learning"]
    listed = [
        EvalResult(
            task_type=_TASKS[kind],
            dataset_type=data["name"],
            dataset_name=data["name"],
            metric_type=name,
            metric_name=label + _of_how_many(name, metrics),
            metric_value=float(metrics[name]),
        )
        for name, label in (_LISTED if config.latent_dim else _LISTED_WITHOUT_LATENTS)[kind].items()
        if name in metrics
    ]
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=_TASKS[kind],
        tags=["delta-vae", *tags] if commits else tags,
        license="other",
        license_name="terms-of-the-training-data",
        datasets=[data["name"]] if "/" in data["name"] else None,  # a name on the Hub; that of local data has no slash
        model_name=results["run"],
        eval_results=listed,
    )


def _of_how_many(name: str, metrics: Mapping[str, Any]) -> str:
    """What a bound that is estimated on fewer examples than the others must say."""
    if name != "importance_weighted_nll_nats":
        return ""
    examples = modality_of(metrics).examples
    return (
        f" (K = {metrics['importance_samples']}, {metrics[f'importance_{examples}']} of {metrics[examples]} {examples})"
    )


def _links(folder: Path, captions: Mapping[str, str], link: str) -> list[Link]:
    """Those that are there, of the captioned files, in the captions' order."""
    return [
        Link(caption, f"{link}/{name}{suffix}")
        for name, caption in captions.items()
        for suffix in (".png", ".txt")
        if (folder / f"{name}{suffix}").is_file()
    ]


def _environment() -> Environment:
    return Environment(  # noqa: S701 - Markdown, where nothing is escaped
        loader=PackageLoader("delta_vae_lab", "hub_cards"), undefined=StrictUndefined, keep_trailing_newline=True
    )
