"""The model card of a run or of one part of its model, from a template, results.json and what the run drew.

`python -m delta_vae_lab.cards RESULTS.json ... --output FOLDER` renders the card of each into FOLDER/RUN.md.
"""

from __future__ import annotations

import argparse
import html
import json
import os
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined
from transformers import AutoModel

from delta_vae import DeltaVaeConfig
from delta_vae_core.versions import FORMAT_KEY, reading
from delta_vae_lab.captions import FIGURES, SAMPLES
from delta_vae_lab.console import one_line_errors
from delta_vae_lab.estimates import Estimate
from delta_vae_lab.modality import IMAGES, TEXT, modality_of
from delta_vae_lab.parts import PARTS, Part, part_of
from delta_vae_lab.run_folder import RunFolder
from delta_vae_lab.verdict import render_table, verdict
from delta_vae_lab.whole_results import of_whole_results

_TASKS = {TEXT: "text-generation", IMAGES: "unconditional-image-generation"}
_TEMPLATES = {TEXT: "text.md.j2", IMAGES: "image.md.j2"}

# What the Hub lists of a model: the bounds that a user would compare, and what its latents are used for.
_OF_LATENTS = {
    "importance_weighted_nll_nats": "Importance-weighted bound",
    "distortion_nats": "Distortion",
    "rate_nats": "Rate",
    "auxiliary_rate_nats": "Rate against the auxiliary prior",
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

# What transformers writes into a config that was saved.
_OF_SAVING = {"architectures", "dtype", "transformers_version"}


@dataclass(frozen=True)
class Link:
    """A file that the card shows, or leads to."""

    caption: str
    link: str

    @property
    def picture(self) -> bool:
        """Shown in place."""
        return self.link.endswith(".png")


@dataclass(frozen=True)
class Place:
    """Where a card is read: what `from_pretrained` is given there, and the ways to what lies there of the run.

    source: Python arguments. published: on the Hub, not in the folder of the run.
    """

    source: str
    published: bool
    results: str
    config: str | None = None
    figures: Sequence[Link] = ()
    samples: Sequence[Link] = ()


def write_card(run: RunFolder) -> None:
    """Write README.md into the run's model folder; it loads the model from there."""
    render_card(run).save(run.model / "README.md")


def render_card(
    run: RunFolder, repo: str | None = None, revision: str | None = None, part: str | None = None
) -> ModelCard:
    """The card of the run's model: that of its folder, or of the repository on the Hub that it is published in.

    There the model lies at the top, beside results.json, figures/ and samples/. part: the one that is published alone,
    a name of `PARTS`.
    """
    root = "../" if repo is None else ""
    shown = None if part is None else PARTS[part]
    place = Place(
        source=_arguments(str(run.model) if repo is None else repo, revision),
        published=repo is not None,
        results=f"{root}results.json",
        config=f"{root}config.yaml" if run.config_file.is_file() else None,
        figures=_links(run.figures, FIGURES, f"{root}figures", None if shown is None else shown.figures),
        samples=_links(run.samples, SAMPLES, f"{root}samples", None if shown is None else shown.samples),
    )
    return card_of(read_results(run.results_file), place, part)


@of_whole_results
def card_of(results: Mapping[str, Any], place: Place, part: str | None = None) -> ModelCard:
    """The card of what results.json is of, to be read at this place."""
    metrics, data, kind = results["metrics"], results["data"], modality_of(results["metrics"])
    config = DeltaVaeConfig(**results["model"])
    shown = None if part is None else part_of(config, part, results["run"])
    estimates = metrics if shown is None else shown.concerned(metrics)
    commits = metrics["committed_rate_nats"] > 0
    content = (
        _environment()
        .get_template(_TEMPLATES[kind] if shown is None else shown.template)
        .render(
            card_data=_metadata(results, estimates, config, shown).to_yaml(),
            source=place.source,
            published=place.published,
            config=config,
            commits=commits,
            kind=kind,
            text=kind is TEXT,
            table=render_table(estimates, data=" ".join(data["name"].split()), seed=results["seed"]),
            verdict=verdict(metrics),
            figures=place.figures,
            samples=place.samples,
            results_link=place.results,
            config_link=place.config,
            **({} if shown is None else _of_part(shown, config, metrics)),
            **{name: value for name, value in results.items() if name != "model"},
        )
    )
    return ModelCard(content)


def committed_card(file: Path, folder: Path) -> ModelCard:
    """The card of a results.json, whatever its name, as of the repository user/RUN, to be read in this folder.

    It leads to the file itself; what else a run wrote is not there to be led to.
    """
    results = read_results(file)
    way = Path(os.path.relpath(file, folder)).as_posix()
    return card_of(results, Place(_arguments(f"user/{results['run']}", None), published=True, results=way))


def model_section(config: DeltaVaeConfig) -> dict[str, Any]:
    """The composed config as results.json has it: every key of ours, of each part that there is."""
    parts = config.to_diff_dict()
    return {
        name: {key: value for key, value in parts[name].items() if key not in _OF_SAVING}
        for name in config.sub_configs
        if getattr(config, name) is not None
    }


def read_results(file: Path) -> dict[str, Any]:
    """results.json of a finished run."""
    try:
        results: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, a number of thousands of digits, nested too deep
        raise ValueError(f"{file}: damaged ({error}); evaluate the run again, with --resume") from None
    if not isinstance(results, dict):
        raise ValueError(f"{file}: holds no JSON object; give the results.json of a run")  # noqa: TRY004 - a user's file
    versions = results.get("versions")
    written_by = versions.get("delta-vae") if isinstance(versions, dict) else None
    with reading(str(file), written_by, results.get(FORMAT_KEY)):
        missing = [name for name in ("run", "data", "model", "metrics") if name not in results]
        if missing:
            raise ValueError(
                f"{file}: has no {missing[0]!r}; "
                "give the results.json of a run, or evaluate the run again, with --resume"
            )
    return results


def _arguments(source: str, revision: str | None) -> str:
    """What `from_pretrained` is given."""
    named = json.dumps(source, ensure_ascii=False)
    return named if revision is None else f"{named}, revision={json.dumps(revision, ensure_ascii=False)}"


def _of_part(part: Part, config: DeltaVaeConfig, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What only the card of a part says."""
    decoder = config.decoder
    said: dict[str, Any] = {
        "part": part,
        "part_class": _class_name(getattr(config, part.name)),
        "prior_class": None if config.prior is None else _class_name(config.prior),
        "steps": decoder.height if hasattr(decoder, "height") else min(32, decoder.max_positions),
    }
    if "auxiliary_rate_nats" in metrics:
        said |= {
            "rate": Estimate.of(metrics, "rate_nats"),
            "auxiliary_rate": Estimate.of(metrics, "auxiliary_rate_nats"),
            "taken_back": metrics["rate_nats"] - metrics["auxiliary_rate_nats"],
        }
    return said


def _class_name(config: Any) -> str:
    """Of the model that a part's config is of."""
    return type(AutoModel.from_config(config)).__name__


def _metadata(
    results: Mapping[str, Any], metrics: Mapping[str, Any], config: DeltaVaeConfig, part: Part | None
) -> ModelCardData:
    """What the Hub reads: task, tags, licence, and of the estimates these `metrics` as its `model-index`.

    A part alone does nothing of the Hub's tasks, but for the encoder, whose features are the statistics of z.
    """
    data, kind = results["data"], modality_of(metrics)
    tags = _TAGS_WITHOUT_LATENTS[kind]
    if config.latent_dim:
        tags = ["variational-autoencoder", "representation-learning"]
    if results["metrics"]["committed_rate_nats"] > 0:
        tags = ["delta-vae", *tags]
    task: str | None = _TASKS[kind]
    if part is not None:
        tags = [*tags, part.name.replace("_", "-")]
        task = "feature-extraction" if part.name == "encoder" else None
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
        pipeline_tag=task,
        tags=tags,
        license="other",
        license_name="terms-of-the-training-data",
        datasets=[data["name"]] if "/" in data["name"] else None,  # a name on the Hub; that of local data has no slash
        model_name=results["run"] if part is None else f"{results['run']}, {part.label}",
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


def _links(folder: Path, captions: Mapping[str, str], link: str, names: Set[str] | None) -> list[Link]:
    """Those that are there, of the captioned files of these names, in the captions' order; None is all."""
    return [
        Link(caption, f"{link}/{name}{suffix}")
        for name, caption in captions.items()
        for suffix in (".png", ".txt")
        if (names is None or name in names) and (folder / f"{name}{suffix}").is_file()
    ]


def _environment() -> Environment:
    environment = Environment(  # noqa: S701 - Markdown; what comes from data goes through `prose` or `code`
        loader=PackageLoader("delta_vae_lab", "hub_cards"), undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters |= {"prose": _prose, "code": _code}
    return environment


def _prose(text: object) -> str:
    """What comes from data as text of one line: no HTML, no image or link, no column of a table."""
    line = html.escape(" ".join(str(text).split()), quote=False)
    return re.sub(r"([\\\[\]|`])", r"\\\1", line)


def _code(text: object) -> str:
    """The same for between two backticks, where Markdown shows every other character as it is."""
    return " ".join(str(text).split()).replace("`", "'").replace("|", "\\|")


def main() -> None:
    """Render the cards of the results files named on the command line, as of repositories user/RUN."""
    parser = argparse.ArgumentParser(description="Render the model cards of committed results.")
    parser.add_argument("results", nargs="+", type=Path, help="results.json of runs, whatever their names")
    parser.add_argument("--output", required=True, type=Path, help="the folder of the cards, RUN.md")
    parser.add_argument("--debug", action="store_true", help="show where an error was raised")
    arguments = parser.parse_args()
    with one_line_errors(arguments.debug):
        for file in arguments.results:
            card = committed_card(file, arguments.output)
            name = read_results(file)["run"]
            if not isinstance(name, str) or Path(name).name != name:
                raise ValueError(f"{file}: has the run {name!r}, which is no name of a file; mend it")
            card.save(arguments.output / f"{name}.md")


if __name__ == "__main__":
    main()
