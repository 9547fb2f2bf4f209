"""What a user sees of an error: one line, unless asked for more."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from delta_vae_lab.training import NonFiniteError


@contextmanager
def one_line_errors(debug: bool = False) -> Iterator[None]:
    """Within, an error that a user can mend is printed as one line and ends the program with code 2.

    Those are `ValueError`, `OSError` (a full disk, no permission) and `NonFiniteError`; with `debug` they keep their
    traceback, as all others do.
    """
    try:
        yield
    except (ValueError, OSError, NonFiniteError) as error:
        if debug:
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
