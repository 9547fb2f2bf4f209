"""Markdown documents whose tables and figures are those of committed results.

`python -m delta_vae_lab.report FILE.md ...` renders anew what stands between two comments, from the JSON files that
GLOB names, relative to the folder of FILE.md:

    <!-- results GLOB --> ... <!-- /results -->    the tables of runs, benchmarks or experiments
    <!-- figures GLOB --> ... <!-- /figures -->    the figures of experiments, drawn into figures/ beside FILE.md
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from delta_vae_lab.console import one_line_errors
from delta_vae_lab.experiments import experiment_figures, experiment_title, render_experiment, stem
from delta_vae_lab.figures import save_figure
from delta_vae_lab.result_tables import benchmark_table, results_table

_BLOCK = re.compile(r"(<!-- (results|figures) (\S+) -->\n).*?(<!-- /\2 -->)", re.DOTALL)
_OPENING = re.compile(r"<!-- (?:results|figures)\b.*")

FIGURES = "figures"


@dataclass(frozen=True)
class _Drawing:
    """A figure of an experiment; a picture in it is kept as pixels, everything else as lines."""

    name: str
    caption: str
    figure: Figure

    @property
    def suffix(self) -> str:
        return ".png" if any(axis.images for axis in self.figure.axes) else ".svg"


def render(document: str, folder: Path) -> str:
    """The document with every block rendered from the files it names; nothing is written."""

    def block(match: re.Match[str]) -> str:
        results = _results(match[3], folder)
        content = _tables(results) if match[2] == "results" else _references(match[3], results)
        return f"{match[1]}{content}\n{match[4]}"

    _refuse_open_blocks(document)
    return _BLOCK.sub(block, document)


def draw(document: str, folder: Path) -> None:
    """Write the figures that the document's blocks refer to into folder/figures."""
    for _, kind, glob, _ in _BLOCK.findall(document):
        if kind == "figures":
            for drawing in _drawings(_results(glob, folder)):
                save_figure(drawing.figure, folder / FIGURES, drawing.name)
                other = {".svg": ".png", ".png": ".svg"}[drawing.suffix]
                (folder / FIGURES / f"{drawing.name}{other}").unlink()


def _results(glob: str, folder: Path) -> list[dict[str, Any]]:
    paths = sorted(folder.glob(glob))
    if not paths:
        raise ValueError(f"{glob}: no results of that name in {folder}; run them, or correct the comment")
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def _refuse_open_blocks(document: str) -> None:
    """A block runs to the next comment that closes one of its kind, and must not swallow what is no part of it."""
    closed = {match.start() for match in _BLOCK.finditer(document)}
    for opening in _OPENING.finditer(document):
        if opening.start() not in closed:
            kind = opening[0].split()[1]
            remedy = f"give it one GLOB, a line of its own, and a <!-- /{kind} --> before the next block"
            raise ValueError(f"{opening[0]}: is no block, or within another; {remedy}")


def _tables(results: Sequence[Mapping[str, Any]]) -> str:
    """Runs, benchmarks or experiments: each kind of result as it is best read."""
    kinds = {next((kind for kind in ("benchmarks", "experiment") if kind in result), "run") for result in results}
    if len(kinds) > 1:
        raise ValueError(f"results of {' and '.join(sorted(kinds))} in one block: give each kind a block of its own")
    if kinds == {"benchmarks"}:
        return benchmark_table(results)
    if kinds == {"experiment"}:
        return "\n\n".join(_fenced(render_experiment(result)) for result in results)
    return results_table(results)


def _fenced(text: str) -> str:
    """The text as a code block, which backticks of its own do not end."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def _references(glob: str, results: Sequence[Mapping[str, Any]]) -> str:
    """A line for every figure of the results, as Markdown."""
    lines = [f"![{drawing.caption}]({FIGURES}/{drawing.name}{drawing.suffix})" for drawing in _drawings(results)]
    if not lines:
        raise ValueError(f"{glob}: has no figures; leave the block out")
    return "\n\n".join(lines)


def _drawings(results: Sequence[Mapping[str, Any]]) -> Iterator[_Drawing]:
    for result in results:
        if "experiment" not in result:
            raise ValueError("a figures block is of experiments alone; those of a run are in its own folder")
        for name, figure in experiment_figures(result).items():
            what = name.removeprefix(f"{stem(result)}-").replace("_", " ")
            yield _Drawing(name, _caption(result, what), figure)


def _caption(result: Mapping[str, Any], what: str) -> str:
    """The experiment's title, what the figure is of, and the data."""
    about = [what, *([result["data"]["name"]] if "data" in result else [])]
    return f"{experiment_title(result)} ({', '.join(about)})"


def main() -> None:
    """Render the blocks of the Markdown files named on the command line, and draw their figures."""
    parser = argparse.ArgumentParser(description="Render the tables and figures of committed results in Markdown.")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--debug", action="store_true", help="show where an error was raised")
    arguments = parser.parse_args()
    with one_line_errors(arguments.debug):
        for file in arguments.files:
            document = render(file.read_text(encoding="utf-8"), file.parent)
            draw(document, file.parent)
            file.write_text(document, encoding="utf-8")


if __name__ == "__main__":
    main()
