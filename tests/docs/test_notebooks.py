"""The notebooks of the site run from top to bottom and give what is stored in them.

After a change of a notebook, or of what it prints, run it anew and store what comes of it:

    uv run python docs/notebooks/execute.py

A cell tagged `varies` prints what depends on the last bits of a trained model, or on the text of the Python that runs
it: there another machine prints something else. What every other cell prints is the same anywhere. Pictures are not
compared.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted(ROOT.glob("docs/notebooks/*.ipynb"))
LARGEST = 400_000  # bytes: a page of the site, and a file whose every version git keeps
ABSOLUTE_PATH = re.compile(r"""(?:^|[\s'"(=])(?:/[\w.-]+/|[A-Za-z]:\\)""", re.MULTILINE)
EXECUTE = ROOT / "docs/notebooks/execute.py"

each_notebook = pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in NOTEBOOKS])


def read(path: Path) -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return notebook


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def texts(cell: dict[str, Any]) -> Iterator[str]:
    """What a cell printed or showed as text, in its order."""
    for output in cell["outputs"]:
        yield "".join(output["text"] if output["output_type"] == "stream" else output["data"].get("text/plain", ""))


def kinds(cell: dict[str, Any]) -> list[tuple[str, ...]]:
    """Of each output, what it is: a stream by its name, anything shown by its media types."""
    return [
        (output["output_type"], output.get("name", ""), *sorted(output.get("data", {}))) for output in cell["outputs"]
    ]


def test_the_notebooks_are_found() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["ask-for-bits", "latents-of-images"]


@each_notebook
def test_what_is_stored_is_of_one_clean_run(path: Path) -> None:
    notebook = read(path)
    cells = code_cells(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert {kind[:2] for cell in cells for kind in kinds(cell)} <= {
        ("stream", "stdout"),
        ("display_data", ""),
        ("execute_result", ""),
    }
    for cell in cells:
        for text in texts(cell):
            assert not ABSOLUTE_PATH.search(text), text
            assert " at 0x" not in text, text
    assert path.stat().st_size < LARGEST


@each_notebook
def test_its_format_is_valid_and_its_metadata_say_no_more_than_they_must(path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="the notebooks group is not installed")
    nbformat.validate(nbformat.read(path, as_version=4))
    notebook = read(path)
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert {key for cell in notebook["cells"] for key in cell["metadata"]} <= {"tags"}
    assert {tag for cell in notebook["cells"] for tag in cell["metadata"].get("tags", ())} == {"varies"}


@pytest.mark.slow
@each_notebook
def test_running_it_gives_what_is_stored(path: Path, tmp_path: Path) -> None:
    for module in ("nbclient", "ipykernel"):
        pytest.importorskip(module, reason="the notebooks group is not installed")
    stored = read(path)
    bare = {**stored, "cells": [dict(cell) for cell in stored["cells"]]}
    for cell in code_cells(bare):
        cell |= {"outputs": [], "execution_count": None}
    copy = tmp_path / path.name
    copy.write_text(json.dumps(bare), encoding="utf-8")
    own = {"IPYTHONDIR": str(tmp_path / "ipython"), "JUPYTER_CONFIG_DIR": str(tmp_path / "jupyter")}  # not the user's

    finished = subprocess.run(
        [sys.executable, EXECUTE, copy], cwd=tmp_path, env=os.environ | own, capture_output=True, text=True, check=False
    )

    assert finished.returncode == 0, finished.stderr
    for before, after in zip(code_cells(stored), code_cells(read(copy)), strict=True):
        assert after["source"] == before["source"]
        assert after["execution_count"] == before["execution_count"]
        assert kinds(after) == kinds(before), "".join(texts(after))
        if "varies" not in before["metadata"].get("tags", ()):
            assert list(texts(after)) == list(texts(before))
