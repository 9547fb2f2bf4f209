"""The slow factor: which VAE's latents know what stays the same throughout a sentence of a source known exactly.

An autoregressive decoder comes to know the factor from the past, so its latents could save it no more than I(x; f)
nats, and an ordinary VAE leaves them unused. A delta-VAE pays for its latents in any case, and what is slow costs it
least beyond that. Both have the same encoder, decoder, data and steps, and differ in their prior alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.figure import Figure

from delta_vae_lab.configuration import flatten, load_config
from delta_vae_lab.data import heldout_batches, tokenize
from delta_vae_lab.data.synthetic import NAME, SlowFactorSource, SlowFactorText, slow_factor_text, source_tokenizer
from delta_vae_lab.estimates import Estimate, mean
from delta_vae_lab.evaluation import evaluate
from delta_vae_lab.experiments.request import Request
from delta_vae_lab.figures import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, STYLE, VERMILION
from delta_vae_lab.model_folder import save_model, save_reader
from delta_vae_lab.probe import probe, text_examples
from delta_vae_lab.run_folder import RunFolder, describe_device
from delta_vae_lab.sections import TextRunConfig
from delta_vae_lab.text_run import build_text_model
from delta_vae_lab.training import build_accelerator, train

TITLE = "A slow factor of a source known exactly"
TAKES: tuple[str, ...] = ()
CONFIGS = Path(__file__).parent / "configs" / "slow-factor"
PRIORS = {"delta_vae": "ar1", "ordinary_vae": "standard_normal"}


@dataclass(frozen=True)
class Scale:
    """The source, and how many sentences are trained on, judged by, and used to fit the probes."""

    source: SlowFactorSource
    train: int
    heldout: int
    probed: int


SCALES = {
    "smoke": Scale(SlowFactorSource(factors=2, group_size=2, ratio=2.0, length=6), train=64, heldout=40, probed=40),
    "small": Scale(SlowFactorSource(factors=2, group_size=8, ratio=1.75, length=48), 16_000, 1000, 2000),
}


def run(request: Request) -> dict[str, Any]:
    """Train, evaluate and probe every model for every seed.

    A seed is that of the sentences, of the initial parameters and of the noise.
    """
    settings = SCALES[request.scale]
    runs: list[dict[str, Any]] = []
    fingerprints = {}
    for seed in request.seeds:
        data = slow_factor_text(settings.source, train=settings.train, heldout=settings.heldout, seed=seed)
        fingerprints[str(seed)] = data.text.fingerprint
        for model, prior in PRIORS.items():
            config = load_config(TextRunConfig, request.scale, [f"seed={seed}", f"prior.kind={prior}"], CONFIGS)
            folder = RunFolder(request.output / "models" / f"slow-factor-{model}-seed-{seed}")
            runs.append(_run_one(model, config, data, settings.probed, folder))
    return {
        "data": {"name": NAME, "source": _known(settings.source), "by_seed": fingerprints},
        "runs": runs,
        "over_seeds": {model: _over_seeds([one for one in runs if one["model"] == model]) for model in PRIORS},
        "recovered": {model: recovered([one for one in runs if one["model"] == model]) for model in PRIORS},
    }


def recovered(runs: Sequence[dict[str, Any]]) -> str:
    """Whether a draw of z tells the factor: "yes" 5 standard errors over chance, "no" within 3, the same at every seed.

    Judged by a draw, which is what the decoder gets. The posterior means of a collapsed model differ by a thousandth of
    their noise, and a standardised classifier reads the factor from them all the same: their accuracy stands beside it.
    """
    over = [_over_chance(one["metrics"]) for one in runs]
    if all(errors > 5 for errors in over):
        return "yes"
    return "no" if all(errors <= 3 for errors in over) else "unclear"


def render(result: Mapping[str, Any]) -> str:
    """The result as a table, one column a model, of means over seeds and their standard errors."""
    known = result["data"]["source"]
    rows = [("", list(PRIORS))]
    for name, label in _ROWS.items():
        columns = [result["over_seeds"][model] for model in PRIORS]
        rows.append((label, [_cell(column, name) for column in columns]))
    rows.append(("factor recovered", list(result["recovered"].values())))
    width = max(len(label) for label, _ in rows)
    seeds = ", ".join(map(str, result["seeds"]))
    entropies = f"H(x) = {known['entropy_nats']:.3f}, H(x|f) = {known['entropy_given_factor_nats']:.3f} nats"
    worth = f"the factor is worth at most {known['information_nats']:.3f}, chance is {known['chance_accuracy']:.3f}"
    lines = [f"{result['data']['name']}, scale {result['scale']}, seeds {seeds}", f"{entropies}: {worth}", ""]
    lines += [f"{label:<{width}}" + "".join(f"  {cell:>16}" for cell in cells) for label, cells in rows]
    return "\n".join(lines)


_ROWS = {
    "exact_nll_nats": "exact -ln p(x) of the held-out sentences",
    "negative_elbo_nats": "negative ELBO",
    "distortion_nats": "  distortion",
    "rate_nats": "  rate, training prior",
    "committed_rate_nats": "    of it committed",
    "auxiliary_rate_nats": "  rate, auxiliary prior",
    "mutual_information_nats": "mutual information I(x; z)",
    "shuffle_gap_nats": "shuffle gap",
    "pooled_sample_accuracy": "probe of the factor, a draw of z",
    "pooled_accuracy": "probe of the factor, posterior means",
    "bag_of_words_accuracy": "probe of the factor, bag of words",
    "bayes_accuracy": "best possible",
}


def figures(result: Mapping[str, Any]) -> dict[str, Figure]:
    """What a linear classifier tells of the factor, and what z costs and is used for; means over seeds."""
    seeds, examples = result["seeds"], result["runs"][0]["metrics"]["heldout_examples"]
    over_seeds, several = result["over_seeds"], len(seeds) > 1
    told = over_seeds["delta_vae"] | {"chance_accuracy": result["data"]["source"]["chance_accuracy"]}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 4.2), layout="constrained")
        figure.suptitle(
            f"{result['data']['name']}, n = {examples:,} held-out sentences, "
            f"seed{'s' if several else ''} {', '.join(map(str, seeds))}"
            f"{'; bars: standard error over seeds' if several else ''}",
            x=0.01,
            ha="left",
        )
        accuracies, nats = figure.subplots(1, 2)
        for name, (label, line) in _REFERENCES.items():
            accuracies.axhline(told[name], label=label, zorder=1, **line)
        for one in _series(over_seeds, _PROBED):
            points: dict[str, Any] = {"marker": "o", "linestyle": "none", "capsize": 3}
            accuracies.errorbar(one.x, one.y, yerr=one.error, color=one.colour, label=one.label, **points)
        accuracies.set(ylim=(0, 1.02), ylabel="accuracy, held out", title="Linear probe of the factor")
        for one in _series(over_seeds, _NATS):
            width = 0.9 * _GROUP / len(_NATS)
            nats.bar(one.x, one.y, width, yerr=one.error, color=one.colour, label=one.label, error_kw={"elinewidth": 1})
        nats.axhline(0, color=BLACK, linewidth=0.8)
        nats.set(ylabel="nats a sentence", title="What z costs, and what it is used for")
        for axis in (accuracies, nats):
            axis.set(xticks=range(len(_MODELS)), xticklabels=_MODELS.values(), xlim=(-0.5, len(_MODELS) - 0.5))
            axis.grid(visible=False, axis="x")
            axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2)
    return {"recovered": figure}


_GROUP = 0.8  # of the distance from model to model is for the metrics of one
_MODELS = {"delta_vae": "δ-VAE", "ordinary_vae": "ordinary VAE"}
_PROBED = {
    "pooled_sample_accuracy": ("a draw of z, mean over steps", VERMILION),
    "pooled_accuracy": ("posterior means, mean over steps", BLUE),
}
# The same for both models. The bag of words is drawn broad, beneath: it can be as good as the best possible.
_REFERENCES: dict[str, tuple[str, dict[str, Any]]] = {
    "bag_of_words_accuracy": ("bag of words", {"color": SKY, "linewidth": 5, "alpha": 0.5}),
    "bayes_accuracy": ("best possible", {"color": BLACK, "linewidth": 1}),
    "chance_accuracy": ("chance", {"color": BLACK, "linewidth": 1, "linestyle": "--"}),
}
_NATS = {
    "rate_nats": ("rate, training prior", VERMILION),
    "committed_rate_nats": ("of it committed", BLUE),
    "auxiliary_rate_nats": ("rate, auxiliary prior", PURPLE),
    "mutual_information_nats": ("I(x; z)", GREEN),
    "shuffle_gap_nats": ("shuffle gap", ORANGE),
}


@dataclass(frozen=True)
class _Series:
    """A metric of every model: where it is drawn beside the others, its values, and the errors there are."""

    label: str
    colour: str
    x: list[float]
    y: list[float]
    error: list[float]


def _series(over_seeds: Mapping[str, Mapping[str, float]], metrics: Mapping[str, tuple[str, str]]) -> list[_Series]:
    offsets = [(place + 0.5) * _GROUP / len(metrics) - _GROUP / 2 for place in range(len(metrics))]
    columns = [over_seeds[model] for model in _MODELS]
    return [
        _Series(
            label,
            colour,
            x=[place + offset for place in range(len(columns))],
            y=[column[name] for column in columns],
            error=[column.get(f"{name}_stderr", 0.0) for column in columns],
        )
        for offset, (name, (label, colour)) in zip(offsets, metrics.items(), strict=True)
    ]


def _run_one(model: str, config: TextRunConfig, data: SlowFactorText, probed: int, folder: RunFolder) -> dict[str, Any]:
    """Train, evaluate and probe one model."""
    accelerator = build_accelerator(config, folder)
    tokenizer = source_tokenizer(data.source)
    batches = data.text.training_batches(
        tokenizer, batch_size=config.optimization.batch_size, seed=config.seed, max_length=config.max_length
    )
    heldout = tokenize(tokenizer, data.text.heldout, max_length=config.max_length)
    subject = build_text_model(config, tokenizer)
    resume = folder.holds_a_run
    folder.start(config, resume)
    subject = train(subject, batches, config, accelerator, folder, resume=resume)
    save_reader(tokenizer, folder.model)
    save_model(subject, folder.model)

    settings = config.evaluation
    metrics: dict[str, Any] = evaluate(
        subject,
        list(heldout_batches(heldout, settings.batch_size, tokenizer.pad_token_id)),
        seed=config.seed,
        importance_samples=settings.importance_samples,
        importance_examples=settings.importance_examples,
    )
    assert isinstance(data.text.train, list)
    train_part, heldout_part = (
        text_examples(tokenizer, sentences, labels, longest=config.max_length)
        for sentences, labels in (
            (data.text.train[:probed], data.labels.train[:probed]),
            (data.text.heldout, data.labels.heldout),
        )
    )
    accuracies, left_out = probe(subject, train_part, heldout_part, config.seed)
    assert not left_out, "every sentence has the same length"
    folder.release()
    x, factor = data.symbols_heldout, data.labels.heldout
    exact = mean(torch.from_numpy(-data.source.log_prob(x)))
    bayes = mean(torch.from_numpy(data.source.log_joint(x).argmax(1) == factor).double())
    return {
        "model": model,
        "seed": config.seed,
        "device": describe_device(accelerator.device, accelerator.num_processes),
        "config": flatten(config),
        "metrics": metrics
        | accuracies
        | exact.named("exact_nll_nats")
        | bayes.named("bayes_accuracy")
        | {"chance_accuracy": 1 / data.source.factors},
    }


def _known(source: SlowFactorSource) -> dict[str, float]:
    """The source and what is known of it exactly, in nats a sentence."""
    return {
        **asdict(source),
        "entropy_nats": source.entropy_nats,
        "entropy_given_factor_nats": source.entropy_given_factor_nats,
        "information_nats": source.information_nats,
        "entropy_rate_nats_per_symbol": source.entropy_nats / source.length,
        "chance_accuracy": 1 / source.factors,
    }


def _over_chance(metrics: dict[str, Any]) -> float:
    """By how many standard errors, of a classifier that guesses, a draw of z does better than guessing."""
    chance = metrics["chance_accuracy"]
    error = math.sqrt(chance * (1 - chance) / metrics["heldout_examples"])
    return float((metrics["pooled_sample_accuracy"] - chance) / error)


def _over_seeds(runs: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The mean of each metric over seeds, with its standard error where there are two or more."""
    summary: dict[str, float] = {}
    for name in _ROWS:
        values = torch.tensor([one["metrics"][name] for one in runs], dtype=torch.float64)
        summary |= mean(values).named(name) if len(values) > 1 else {name: float(values)}
    return summary


def _cell(column: dict[str, float], name: str) -> str:
    return str(Estimate.of(column, name)) if f"{name}_stderr" in column else f"{column[name]:.3f}"
