"""Tables of committed results, rendered into Markdown between two comments.

`python -m delta_vae_lab.report README.md` renders every `<!-- results GLOB -->` ... `<!-- /results -->` of the file
anew, from the results.json files that GLOB names, relative to the file's folder.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from delta_vae_lab.estimates import Estimate

_BLOCK = re.compile(r"(<!-- results (\S+) -->\n).*?(<!-- /results -->)", re.DOTALL)

# Column heads, and the metric that stands below each.
_COLUMNS = {
    "rate": "rate_nats",
    "committed": "committed_rate_nats",
    "slack": "slack_nats",
    "I(x; z \\| n)": "mutual_information_given_length_nats",
    "shuffle gap": "shuffle_gap_nats",
    "distortion": "distortion_nats",
    "auxiliary rate": "auxiliary_rate_nats",
    "bound a token": "nats_per_token",
    "bound a token, auxiliary": "auxiliary_nats_per_token",
    "perplexity a word, auxiliary": "auxiliary_perplexity_per_word",
}


def render(document: str, folder: Path) -> str:
    """The document with every results block rendered from the files it names."""

    def block(match: re.Match[str]) -> str:
        paths = sorted(folder.glob(match[2]))
        if not paths:
            raise ValueError(f"{match[2]}: no results of that name in {folder}; run them, or correct the comment")
        return f"{match[1]}{results_table([json.loads(path.read_text()) for path in paths])}\n{match[3]}"

    return _BLOCK.sub(block, document)


def results_table(results: Sequence[Mapping[str, Any]]) -> str:
    """One row a run, in nats a sentence ± standard error over held-out sentences, and a line on where they are from."""
    ordered = sorted(results, key=lambda result: (result["metrics"]["committed_rate_nats"], result["run"]))
    lines = [f"| run | {' | '.join(_COLUMNS)} |", f"|---|{'---|' * len(_COLUMNS)}"]
    for result in ordered:
        cells = (_cell(result["metrics"], name) for name in _COLUMNS.values())
        lines.append(f"| {result['run']} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_sources(ordered)])


def _cell(metrics: Mapping[str, float], name: str) -> str:
    # A model without latents has one bound, which is what it is under either prior.
    if name not in metrics and "latent_dim" not in metrics:
        name = name.removeprefix("auxiliary_")
    if name not in metrics:
        return "-"
    return str(Estimate.of(metrics, name)) if f"{name}_stderr" in metrics else f"{metrics[name]:.2f}"


def _sources(results: Sequence[Mapping[str, Any]]) -> list[str]:
    sources: dict[str, list[str]] = {}
    for result in results:
        data, metrics = result["data"], result["metrics"]
        where = (
            f"{data['name']}, {metrics['sentences']:,} held-out sentences of {metrics['tokens']:,} tokens, "
            f"{metrics['steps']:,} steps, seed {result['seed']}, {result['device']}, "
            f"torch {result['versions']['torch']}, commit {str(result['commit'])[:12]}"
        )
        sources.setdefault(where, []).append(result["run"])
    if len(sources) == 1:
        return [f"Nats a sentence ± standard error over sentences. {next(iter(sources))}."]
    return [f"Nats a sentence ± standard error over sentences. {'; '.join(sources)}."]


def main() -> None:
    """Render the results blocks of the Markdown files named on the command line."""
    parser = argparse.ArgumentParser(description="Render the tables of committed results in Markdown files.")
    parser.add_argument("files", nargs="+", type=Path)
    for file in parser.parse_args().files:
        file.write_text(render(file.read_text(encoding="utf-8"), file.parent), encoding="utf-8")


if __name__ == "__main__":
    main()
