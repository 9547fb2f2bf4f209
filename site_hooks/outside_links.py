"""Links of a page to files outside `docs`: a git host serves them, the site names them instead."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"(?<!!)\[(?P<text>[^][]*)\]\((?P<target>\.\./[^)#\s]*)(?:#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """A page's source with each link to an existing file outside `docs` as its text and the file's path."""
    docs = Path(config["docs_dir"])
    folder = (docs / page.file.src_uri).parent

    def named(found: re.Match[str]) -> str:
        file = Path(os.path.normpath(folder / found["target"]))
        if file.is_relative_to(docs) or not file.exists():
            return found[0]
        path = f"`{file.relative_to(docs.parent).as_posix()}`"
        return path if found["text"].strip("`") in path else f"{found['text']} ({path})"

    return _LINK.sub(named, markdown)
