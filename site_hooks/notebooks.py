"""Notebooks of `docs` as pages of the site: their text, code and outputs as they were committed. None is executed."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

_FENCE = "`" * 5  # longer than any in a cell
_LINK = re.compile(r"(\]\([^)\s:]+)\.ipynb\)")
_IMAGE_TYPES = {"image/svg+xml": "svg", "image/png": "png"}


def on_files(files: Files, *, config: Any, **_: Any) -> Files:
    """With a page, and the images of its outputs, for each NAME.ipynb; the notebook itself stays a file to download."""
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        path = PurePosixPath(notebook.src_uri)
        content = json.loads(notebook.content_string)
        parts = [f'<a href="{path.name}" download>This notebook as a file</a>, to run it yourself.']
        for number, cell in enumerate(content["cells"]):
            source = "".join(cell["source"])
            parts.append(source if cell["cell_type"] == "markdown" else _fenced(source, "python"))
            for place, output in enumerate(cell.get("outputs", [])):
                image = _image(output)
                if image is None:
                    parts.extend(_text(output))
                    continue
                suffix, data = image
                name = f"{path.stem}-{number}-{place}.{suffix}"
                files.append(File.generated(config, str(path.with_name(name)), content=data))
                parts.append(f"![Output of the code above]({name})")
        parts[0], parts[1] = parts[1], parts[0]  # the heading first
        files.append(File.generated(config, str(path.with_suffix(".md")), content="\n\n".join(parts) + "\n"))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A page's source with links to notebooks leading to their pages."""
    return _LINK.sub(r"\1.md)", markdown)


def _image(output: dict[str, Any]) -> tuple[str, bytes] | None:
    """The suffix and the content of an output that is an image."""
    for kind, suffix in _IMAGE_TYPES.items():
        if kind in output.get("data", {}):
            data = "".join(output["data"][kind])
            return suffix, data.encode() if suffix == "svg" else base64.b64decode(data)
    return None


def _text(output: dict[str, Any]) -> Iterator[str]:
    """What was printed, or what the last expression reads as."""
    text = "".join(output.get("text", output.get("data", {}).get("text/plain", "")))
    if text.strip():
        yield _fenced(text, "text")


def _fenced(text: str, language: str) -> str:
    return f"{_FENCE}{language}\n{text.rstrip()}\n{_FENCE}"
