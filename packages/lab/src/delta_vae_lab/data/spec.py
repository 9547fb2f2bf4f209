"""What names data: `builtin`, a path, or a data set on the Hub."""

LONGEST = 255  # bytes of a part of a path


def check_spec(spec: str) -> None:
    """Raise `ValueError` for what can be neither: an empty path would be the folder that a command is run in."""
    if not spec.strip() or not spec.isprintable() or any(len(part.encode()) > LONGEST for part in spec.split("/")):
        raise ValueError(f"data {spec!r}: is no path and no name; give builtin, a file or folder, or a name on the Hub")
