"""What names data: `builtin`, a path, or a data set on the Hub."""

import re
from pathlib import Path

LONGEST = 255  # bytes of a part of a path
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # and bytes that are no UTF-8


def check_spec(spec: str) -> None:
    """Raise `ValueError` for what can be neither: an empty path would be the folder that a command is run in."""
    unsaid = not spec.strip() or _CONTROL.search(spec)
    if unsaid or any(len(part.encode()) > LONGEST for part in Path(spec).parts):
        raise ValueError(f"data {spec!r}: is no path and no name; give builtin, a file or folder, or a name on the Hub")
