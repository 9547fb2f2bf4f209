"""The state of an installation, as `delta-vae doctor` tells it: versions, devices, the cache and the Hub.

Nothing is imported at the top that may be what is broken.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from warnings import catch_warnings, simplefilter

LAB = "delta-vae-lab"
SHOWN = ("torch", "transformers", "accelerate", "huggingface-hub")  # of what is needed; the rest if it is wrong


@dataclass(frozen=True)
class Finding:
    """One line of the report. `problem` says what is wrong and how it is mended; None: nothing is."""

    name: str
    value: str
    problem: str | None = None


def examine() -> list[Finding]:
    """Everything that is looked at, in the order of the report."""
    return [
        Finding("python", f"{platform.python_version()} on {platform.platform(terse=True)}"),
        *packages(metadata.requires(LAB) or []),
        *devices(),
        *hub(),
    ]


def packages(requirements: Sequence[str], version: Callable[[str], str] = metadata.version) -> Iterator[Finding]:
    """Our packages, which go in step, and what they need, each against its requirement such as `torch>=2.11`.

    What an extra needs may be missing; if it is there it must be new enough.
    """
    yield Finding(LAB, version(LAB))
    for line in requirements:
        requirement, _, extra = (part.strip() for part in line.partition("; extra == "))
        name, operator, needed = _parsed(requirement)
        try:
            installed = version(name)
        except metadata.PackageNotFoundError:
            if extra:
                continue
            yield Finding(name, "missing", f'is not installed: pip install "{requirement}"')
            continue
        problem = None
        if operator == "==" and installed != needed:
            problem = f'is not in step with {LAB} {version(LAB)}: pip install "{requirement}"'
        elif operator == ">=" and _numbers(installed) < _numbers(needed):
            problem = f'is older than {needed}, the oldest supported: pip install --upgrade "{requirement}"'
        if problem is not None or name in SHOWN or name.startswith("delta-vae"):
            yield Finding(name, installed, problem)


def devices() -> Iterator[Finding]:
    """GPUs that torch can use, and whether they compute in bfloat16."""
    try:
        import torch  # noqa: PLC0415
    except (ImportError, OSError) as error:
        yield Finding("devices", "unknown", f"torch cannot be imported ({_one_line(error)}): install it anew")
        return
    with catch_warnings():
        simplefilter("ignore")  # of a driver that is too old, which the finding says
        found = torch.cuda.is_available()
    if found:
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        yield Finding("CUDA", f"{torch.version.cuda}, {', '.join(names)}")
        yield Finding(
            "bfloat16", "yes" if torch.cuda.is_bf16_supported() else "no: train with mixed_precision no or fp16"
        )
        return
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in {"", "-1"}
    if shutil.which("nvidia-smi") is None or hidden:
        yield Finding("CUDA", "no" if not hidden else "hidden by CUDA_VISIBLE_DEVICES")
    else:
        built = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built for the CPU alone"
        remedy = "update the driver" if torch.version.cuda else "install a CUDA build, see pytorch.org"
        yield Finding("CUDA", "no", f"nvidia-smi is there, but torch sees no GPU and {built}: {remedy}")
    if torch.backends.mps.is_available():
        yield Finding("MPS", "yes")


def hub() -> Iterator[Finding]:
    """Whether downloads can be kept, and whether there is a token; never the token itself."""
    try:
        from huggingface_hub import constants, get_token  # noqa: PLC0415
    except ImportError as error:
        yield Finding("Hub", "unknown", f"huggingface_hub cannot be imported ({_one_line(error)}): install it anew")
        return
    cache = Path(constants.HF_HUB_CACHE)
    yield Finding("cache", str(cache), unwritable(cache))
    yield Finding("Hub token", "set" if get_token() else "not set; needed to publish, and for private models")
    if constants.HF_HUB_OFFLINE:
        yield Finding("Hub", "offline, by HF_HUB_OFFLINE")


def unwritable(folder: Path) -> str | None:
    """Why nothing can be written there, or None; nothing stays behind."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            return None
    except OSError as error:
        return (
            f"cannot be written to ({error.strerror} at {there}): correct its rights, or set HF_HOME to another folder"
        )


def render(findings: Sequence[Finding]) -> str:
    """The findings as aligned lines, and below them what is wrong."""
    width = max(len(finding.name) for finding in findings)
    lines = [f"{finding.name:<{width}}  {finding.value}" for finding in findings]
    wrong = [f"Wrong: {finding.name} {finding.problem}" for finding in findings if finding.problem is not None]
    return "\n".join([*lines, "", *(wrong or ["All is well."])])


def run_doctor(as_json: bool = False) -> int:
    """Print what was found; 1 if something is wrong, else 0."""
    findings = examine()
    wrong = any(finding.problem is not None for finding in findings)
    content = {"well": not wrong, "findings": [asdict(finding) for finding in findings]}
    print(json.dumps(content, indent=2) if as_json else render(findings))
    return int(wrong)


def _parsed(requirement: str) -> tuple[str, str, str]:
    """`torch>=2.11` as its three parts; the operators are those that our pyproject.toml has."""
    match = re.fullmatch(r"([\w.-]+?)\s*(>=|==)\s*([\w.]+)", requirement)
    assert match is not None, requirement
    return match[1], match[2], match[3]


def _numbers(version: str) -> tuple[int, ...]:
    """The release of a version, as 2.11.0 of 2.11.0+cu128; zeros at its end mean nothing."""
    numbers = [int(part) for part in re.match(r"\d+(?:\.\d+)*", version)[0].split(".")]  # type: ignore[index]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
