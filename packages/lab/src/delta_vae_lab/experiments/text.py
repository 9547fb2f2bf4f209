"""The paper's text model in small: bounds, linear probes, interpolations and unconditional samples.

Texts in the result are the models' own; those beside held-out sentences stay in the folder of each model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from delta_vae import DeltaVaeForCausalLM, spherical_interpolation
from delta_vae_lab.data import load_tokenizer
from delta_vae_lab.experiments.image_models import ORDINARY, WITHOUT_LATENTS
from delta_vae_lab.experiments.judging import check_labelled_text, text_references
from delta_vae_lab.experiments.request import Request
from delta_vae_lab.experiments.summaries import Runs, about, by_model, cell, errors, over_seeds, text_table
from delta_vae_lab.experiments.text_models import DELTA_VAE, warmed_up
from delta_vae_lab.experiments.trials import Trial, run_trials, shared, text_preset, trials
from delta_vae_lab.randomness import generator
from delta_vae_lab.samples import sample_sources
from delta_vae_lab.subject import evaluating
from delta_vae_lab.text_samples import Writer

TITLE = "Text: bounds, probes, interpolations and samples"
TAKES = ("data", "probe_data", "jobs")
SCALES = ("smoke", "small", "paper")

_COUNT, _WAYS, _LONGEST = 6, 3, 40


def run(request: Request) -> dict[str, Any]:
    """Train the models at every seed, probe those with latents, and let those of the first seed write."""
    preset = text_preset(request)
    if request.probe_data is not None:
        check_labelled_text(request.probe_data)
    models = {**DELTA_VAE, **warmed_up(preset), **ORDINARY, **WITHOUT_LATENTS}
    todo = trials(request, preset, models, probed=request.probe_data)
    found = shared(run_trials(todo, request.jobs), preset)
    if request.probe_data is not None:
        found["references"] = text_references(preset.config(), todo[0].run, request.probe_data)
    first = [trial for trial in todo if trial.seed == request.seeds[0]]
    return found | {"texts": {trial.name: _texts(trial) for trial in first}}


def render(result: Mapping[str, Any]) -> str:
    """Bounds, use of z and probes, means over seeds; then what the models wrote."""
    head = ["held out", "nats a token", "the same, aux. prior", "rate, nats", "committed", "rate, aux.", "I(x; z | n)",
            "shuffle gap", "probe, means", "probe, a draw"]  # fmt: skip
    rows = [_row(name, runs) for name, runs in by_model(result).items()]
    parts = [about(result), "", text_table(head, rows), "", f"{errors(result)}."]
    if told := result.get("references"):
        words, commonest = told["bag_of_words_accuracy"], told["majority_accuracy"]
        parts.append(
            f"Probes of {told['data']}, mean over steps; words: {words:.3f}, the commonest class: {commonest:.3f}."
        )
    for name, texts in result["texts"].items():
        for what, paragraphs in texts.items():
            parts += ["", f"{name}, seed {result['seeds'][0]}: {what}"]
            parts += [f"  {line}" for paragraph in paragraphs for line in (*paragraph, "")][:-1]
    return "\n".join(parts)


def _row(name: str, runs: Runs) -> list[str]:
    committed = over_seeds(runs, "committed_rate_nats")
    return [
        name,
        cell(over_seeds(runs, "nats_per_token")),
        cell(over_seeds(runs, "auxiliary_nats_per_token")),
        cell(over_seeds(runs, "rate_nats")),
        "-" if committed is None else f"{committed.value:.2f}",
        cell(over_seeds(runs, "auxiliary_rate_nats")),
        cell(over_seeds(runs, "mutual_information_given_length_nats")),
        cell(over_seeds(runs, "shuffle_gap_nats")),
        cell(over_seeds(runs, "pooled_accuracy", "probe"), 3),
        cell(over_seeds(runs, "pooled_sample_accuracy", "probe"), 3),
    ]


def _texts(trial: Trial) -> dict[str, list[list[str]]]:
    """Unconditional samples from every source, and ways from one draw of the auxiliary prior to another."""
    model = DeltaVaeForCausalLM.from_pretrained(trial.run.model)
    writer = Writer(model, load_tokenizer(str(trial.run.model)), generator(trial.seed, "samples"))
    with evaluating(model):
        texts = {
            f"samples, {origin}": list(writer.samples(source, _COUNT, _LONGEST))
            for source, origin in sample_sources(model).items()
        }
        if model.auxiliary_prior is not None:
            texts["from one z of the auxiliary prior to another, decoded greedily"] = [
                _way(writer, *model.sample_latents(2, _LONGEST, writer.generator)) for _ in range(_WAYS)
            ]
    return texts


def _way(writer: Writer, start: torch.Tensor, end: torch.Tensor, steps: int = 5) -> list[str]:
    latents = spherical_interpolation(start, end, steps)
    decoded = writer.model.generate(latents=latents, num_sequences=steps, max_new_tokens=_LONGEST)
    return [f"{i / (steps - 1):.2f}  {writer.text(ids)}" for i, ids in enumerate(decoded)]
