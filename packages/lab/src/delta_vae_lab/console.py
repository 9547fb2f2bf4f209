"""What a user sees of an error: one line, unless asked for more."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from delta_vae_lab.finiteness import NonFiniteError


@contextmanager
def one_line_errors(debug: bool = False) -> Iterator[None]:
    """Within, an error that a user can mend is printed as one line and ends the program with code 2.

    Those are `ValueError`, `OSError` (a full disk, no permission) and `NonFiniteError`; with `debug` they keep their
    traceback, as all others do. Of the processes of a machine only the first prints.
    """
    try:
        yield
    except (ValueError, OSError, NonFiniteError) as error:
        if debug:
            raise
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"error: {' '.join(str(error).split())} (--debug shows where)", file=sys.stderr)
        raise SystemExit(2) from None
