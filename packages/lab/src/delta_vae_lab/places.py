"""Where output is to go: refused before anything is computed for it."""

from __future__ import annotations

import os
from pathlib import Path


def check_folder(folder: Path) -> None:
    """Raise `ValueError` unless it is a folder that may be written to, or may be made."""
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not place.is_dir():
        raise ValueError(f"{folder}: {'it' if place == folder else place} is a file; give another folder to write to")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f"{folder}: {place} may not be written to; give another folder, or change its permissions")
