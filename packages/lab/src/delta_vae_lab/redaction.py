"""What must not be written down: tokens of the environment, and credentials in an address."""

from __future__ import annotations

import os
import re

HIDDEN = "***"
_SECRET_NAME = re.compile(r"(^|_)(TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
_SHORTEST = 8  # a shorter value of such a variable is no secret, and may be part of any word
_IN_ADDRESS = re.compile(r"(?<=://)[^/\s@'\"]+@")
_OF_A_SERVICE = re.compile(r"\b(hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,})")


def redacted(text: str) -> str:
    """The text without the values of the environment's secret variables, credentials in an address, and tokens."""
    secrets = {value for name, value in os.environ.items() if _SECRET_NAME.search(name) and len(value) >= _SHORTEST}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return _OF_A_SERVICE.sub(HIDDEN, _IN_ADDRESS.sub(f"{HIDDEN}@", text))
