"""What a repository on the Hub holds of a run: the files, and what they say of loading without the package imported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from delta_vae.configuration_delta_vae import SHIM
from delta_vae_lab.cards import read_results, render_card
from delta_vae_lab.modality import TEXT, Modality, modality_of
from delta_vae_lab.run_folder import RunFolder

CARD = "README.md"

# Beside the weights: configs, vocabularies and chat templates; never a pickle.
_MODEL_FILES = {".json", ".safetensors", ".txt", ".model", ".jinja"}
_SAMPLE_FILES = {".png", ".txt"}

_SHIM_SOURCE = '''"""Leads to the classes of the installed package: pip install delta-vae."""

from delta_vae import (
    DeltaVaeConfig,
    DeltaVaeForCausalLM,
    DeltaVaeForImageGeneration,
    DeltaVaeImageProcessor,
    DeltaVaeModel,
)
'''
_CLASSES = {"AutoConfig": "DeltaVaeConfig", "AutoModel": "DeltaVaeModel"}


@dataclass(frozen=True)
class Upload:
    """A file by its path in the repository: one of the run, or its content."""

    name: str
    content: Path | bytes

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


def repository_files(run: RunFolder, repo: str, revision: str | None = None) -> list[Upload]:
    """What is published of a finished run. Nothing is written.

    The model's files at the top, where `from_pretrained` looks, with a shim for `trust_remote_code=True`; the card, in
    the words of the repository; results.json, config.yaml, figures/ (PNG) and samples/.
    """
    _check_finished(run)
    kind = modality_of(read_results(run)["metrics"])
    return [
        Upload(CARD, str(render_card(run, repo, revision)).encode()),
        Upload(f"{SHIM}.py", _SHIM_SOURCE.encode()),
        *_model_files(run.model, kind),
        *(Upload(file.name, file) for file in (run.results_file, run.config_file) if file.is_file()),
        *(Upload(f"figures/{file.name}", file) for file in _files(run.figures, {".png"})),
        *(Upload(f"samples/{file.name}", file) for file in _files(run.samples, _SAMPLE_FILES)),
    ]


def is_published_by_us(name: str) -> bool:
    """Whether a file of a repository is one that publishing another run there may leave without use."""
    return name.startswith(("figures/", "samples/")) or (
        "/" not in name and name.endswith((".safetensors", ".safetensors.index.json"))
    )


def _check_finished(run: RunFolder) -> None:
    """Raise `ValueError` unless the folder holds results and whole weights."""
    if not run.path.is_dir():
        raise ValueError(f"{run.path}: no such run; give the folder that a recipe wrote, as runs/lm1b-small")
    for file in (run.results_file, run.model / "config.json"):
        if not file.is_file():
            raise ValueError(
                f"{run.path}: has no {file.relative_to(run.path)}; give the folder of a run that was trained to its end"
            )
    weights = _files(run.model, {".safetensors"})
    if not weights:
        raise ValueError(f"{run.model}: has no weights (*.safetensors); give the folder of a run trained to its end")
    for file in weights:
        try:
            with safe_open(file, framework="pt"):
                pass
        except SafetensorError as error:
            raise ValueError(f"{file}: damaged or truncated ({error}); go on with the run by --resume") from None


def _model_files(folder: Path, kind: Modality) -> Iterator[Upload]:
    """The model's files, its card aside; its configs name the classes of the shim."""
    classes = _CLASSES | ({"AutoModelForCausalLM": "DeltaVaeForCausalLM"} if kind is TEXT else {})
    remote = {"config.json": classes, "preprocessor_config.json": {"AutoImageProcessor": "DeltaVaeImageProcessor"}}
    for file in _files(folder, _MODEL_FILES):
        named = remote.get(file.name)
        yield Upload(file.name, file if named is None else _with_auto_map(file, named))


def _with_auto_map(file: Path, classes: dict[str, str]) -> bytes:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    content["auto_map"] = {auto: f"{SHIM}.{name}" for auto, name in classes.items()}
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


def _files(folder: Path, suffixes: set[str]) -> list[Path]:
    """Sorted, so that the same run gives the same list."""
    return sorted(file for file in folder.glob("*") if file.is_file() and file.suffix in suffixes)
