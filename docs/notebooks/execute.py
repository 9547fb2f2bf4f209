"""Run notebooks from top to bottom and store what comes of it: `uv run python docs/notebooks/execute.py [NOTEBOOK]`."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def execute(path: Path) -> None:
    """Replace the notebook's outputs. When a cell fails, the file stays as it was."""
    notebook = nbformat.read(path, as_version=4)
    # No times, and one output for all that a cell prints in a row: another run of the same cells is the same file.
    NotebookClient(notebook, kernel_name="python3", record_timing=False, coalesce_streams=True).execute()
    nbformat.write(notebook, path)


for path in map(Path, sys.argv[1:] or sorted(Path(__file__).parent.glob("*.ipynb"))):
    execute(path)
