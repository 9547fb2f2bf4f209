"""Memory that is freed is there for the next step, without the system's help."""

import os
import subprocess
import sys

import pytest

PAGES = 8192
CODE = f"""
import resource
from delta_vae_lab.memory import keep_freed_memory
assert keep_freed_memory()
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = bytearray({PAGES} * 4096)
    block[::4096] = bytes({PAGES}).replace(b"\\0", b"1")
    del block
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults_of_the_third_block() -> int:
    """Pages that the system had to provide for a block of the same size as one that was freed just before."""
    return int(subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(
    not hasattr(os, "confstr") or "glibc" not in (os.confstr("CS_GNU_LIBC_VERSION") or ""), reason="needs glibc"
)
def test_a_block_that_was_freed_needs_no_new_pages() -> None:
    assert faults_of_the_third_block() < PAGES / 20
