"""A short run of the fuzzer, the same every time, and what longer ones found: see `tests/reliability/fuzz.py`."""

import json
import random
from collections.abc import Callable

import pytest

from tests.reliability.fuzz import Target, _npz, fault, fuzz, targets

INPUTS = 40
TARGETS = targets()


@pytest.mark.parametrize("name", TARGETS)
def test_a_mutated_file_is_read_or_refused(name: str, seen: Callable[..., None]) -> None:
    assert not list(fuzz(name, TARGETS[name], random.Random(0), INPUTS))
    seen(inputs=INPUTS, failures=0)


def test_the_fuzzer_finds_what_is_there() -> None:
    """A reader that raises anything but a `ValueError` of one line is found."""
    for error in (KeyError("x"), ValueError("two\nlines"), UnicodeDecodeError("utf-8", b"", 0, 1, "x"), MemoryError()):

        def read(*_: object, error: Exception = error) -> None:
            raise error

        assert fault(Target((b"",), read), b"")
    assert fault(Target((b"",), lambda *_: None), b"") is None


def test_what_it_found_stays_mended() -> None:
    results = json.loads(TARGETS["results"].seeds[0])
    found = [
        ("npz", _npz(1).replace(b"(1, 3072)", b"(1, 3072(")),  # a header that ends within a parenthesis
        ("npz", _npz(1).replace(b"PK\x01\x02", b"PK\x01\x02\xff\xff\xff")),
        ("results", b"[]"),
        ("results", b"9" * 5000),
        ("results", b"[" * 100_000),
        *[("results", json.dumps({k: v for k, v in results.items() if k != key}).encode()) for key in results],
        *[
            (
                "results",
                json.dumps(results | {"metrics": {k: v for k, v in results["metrics"].items() if k != key}}).encode(),
            )
            for key in results["metrics"]
        ],
    ]
    assert not [what for name, content in found if (what := fault(TARGETS[name], content))]
