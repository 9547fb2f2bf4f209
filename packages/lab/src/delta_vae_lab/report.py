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
    "rate, auxiliary prior": "auxiliary_rate_nats",
    "negative ELBO a token": "nats_per_token",
    "the same, auxiliary prior": "auxiliary_nats_per_token",
    "perplexity a word, auxiliary prior": "auxiliary_perplexity_per_word",
}
_RATES = {"rate_nats", "committed_rate_nats", "slack_nats", "auxiliary_rate_nats"}


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
    ordered = sorted(results, key=lambda result: (_has_latents(result), result["metrics"]["committed_rate_nats"]))
    lines = [f"| run | {' | '.join(_COLUMNS)} |", f"|---|{'---|' * len(_COLUMNS)}"]
    for result in ordered:
        cells = (_cell(result, name) for name in _COLUMNS.values())
        lines.append(f"| {result['run']} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", _sources(ordered)])


def _has_latents(result: Mapping[str, Any]) -> bool:
    return "latent_dim" in result["metrics"]


def _cell(result: Mapping[str, Any], name: str) -> str:
    if not _has_latents(result):
        name = (
            name if name in _RATES else name.removeprefix("auxiliary_")
        )  # its one bound is what it is under either prior
    if f"{name}_stderr" not in result["metrics"] or (name in _RATES and not _has_latents(result)):
        return "-"
    return str(Estimate.of(result["metrics"], name))


def _sources(results: Sequence[Mapping[str, Any]]) -> str:
    """What the rows have in common, and what they do not, without repeating it."""
    seeds: dict[str, set[int]] = {}
    for result in results:
        metrics = result["metrics"]
        where = (
            f"{result['data']['name']}, {metrics['sentences']:,} held-out sentences of {metrics['tokens']:,} tokens, "
            f"{metrics['steps']:,} steps, {result['device']}, torch {result['versions']['torch']}"
        )
        seeds.setdefault(where, set()).add(result["seed"])
    sources = [f"{where}, seed {' and '.join(map(str, sorted(seeds[where])))}" for where in seeds]
    return (
        f"Nats a sentence ± standard error over sentences; bounds in nats a token. {'; '.join(sources)}. "
        "Command, commit and data fingerprint are in each results file."
    )


def main() -> None:
    """Render the results blocks of the Markdown files named on the command line."""
    parser = argparse.ArgumentParser(description="Render the tables of committed results in Markdown files.")
    parser.add_argument("files", nargs="+", type=Path)
    for file in parser.parse_args().files:
        file.write_text(render(file.read_text(encoding="utf-8"), file.parent), encoding="utf-8")


if __name__ == "__main__":
    main()
