"""What a repository on the Hub holds of a run, or of one part of its model: the files, and what they say of loading."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors import SafetensorError, safe_open

from delta_vae import DeltaVaeConfig, DeltaVaeModel
from delta_vae.configuration_delta_vae import SHIM
from delta_vae_core.checksums import CHECKSUMS, manifest, verify, write_checksums
from delta_vae_core.verified import model_files
from delta_vae_lab.cards import read_results, render_card
from delta_vae_lab.modality import TEXT, Modality, modality_of
from delta_vae_lab.parts import Part, part_of
from delta_vae_lab.run_folder import RunFolder

CARD = "README.md"

# Beside the weights: configs, vocabularies and chat templates; never a pickle.
_MODEL_FILES = {".json", ".safetensors", ".txt", ".model", ".jinja"}
_SAMPLE_FILES = {".png", ".txt"}

# Of a part that is published alone: where its prior lies, if it needs one.
_PRIOR = "prior"
_OF_THE_WHOLE = {"config.json", "generation_config.json"}
# What one kind of model, or of part, has beside its weights and another has not.
_LEFT = {
    CHECKSUMS,
    f"{SHIM}.py",
    "config.yaml",
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
}

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


def repository_files(run: RunFolder, repo: str, revision: str | None = None, part: str | None = None) -> list[Upload]:
    """What is published of a finished run, or of the part of its model that has this name. The run stays as it is.

    The model's files at the top, where `from_pretrained` looks, with a shim for `trust_remote_code=True`; the card, in
    the words of the repository; results.json, config.yaml, figures/ (PNG) and samples/. Of a part the same, less the
    shim, and of figures and samples those that its card shows.
    """
    _check_finished(run)
    results = read_results(run.results_file)
    chosen = None if part is None else part_of(DeltaVaeConfig(**results["model"]), part, f"the model of {run.path}")
    figures, samples = _files(run.figures, {".png"}), _files(run.samples, _SAMPLE_FILES)
    if chosen is None:
        model = [Upload(f"{SHIM}.py", _SHIM_SOURCE.encode()), *_model_files(run.model, modality_of(results["metrics"]))]
    else:
        model = _part_files(run.model, chosen)
        figures = [file for file in figures if file.stem in chosen.figures]
        samples = [file for file in samples if file.stem in chosen.samples]
    return [
        Upload(CARD, str(render_card(run, repo, revision, part)).encode()),
        *model,
        Upload(CHECKSUMS, manifest({file.name: file.content for file in model if "/" not in file.name})),
        *(Upload(file.name, file) for file in (run.results_file, run.config_file) if file.is_file()),
        *(Upload(f"figures/{file.name}", file) for file in figures),
        *(Upload(f"samples/{file.name}", file) for file in samples),
    ]


def is_published_by_us(name: str) -> bool:
    """Whether a file of a repository is one that publishing something else there may leave without use."""
    return name.startswith(("figures/", "samples/", f"{_PRIOR}/")) or (
        "/" not in name and (name in _LEFT or name.endswith((".safetensors", ".safetensors.index.json")))
    )


def _check_finished(run: RunFolder) -> None:
    """Raise `ValueError` unless the folder holds results and whole weights."""
    if not run.path.is_dir():
        raise ValueError(f"{run.path}: no such run; give the folder that a recipe wrote, as runs/lm1b-small")
    if run.path.name == run.model.name and (run.path.parent / run.results_file.name).is_file():
        raise ValueError(f"{run.path}: is the model of a run; give the run's own folder, {run.path.parent}")
    for file in (run.results_file, run.model / "config.json"):
        if not file.is_file():
            raise ValueError(
                f"{run.path}: has no {file.relative_to(run.path)}; give the folder of a run that was trained to its end"
            )
    weights = _files(run.model, {".safetensors"})
    if not weights:
        raise ValueError(f"{run.model}: has no weights (*.safetensors); give the folder of a run trained to its end")
    verify(run.model)
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


def _part_files(folder: Path, part: Part) -> list[Upload]:
    """What `save_pretrained` writes of a part, and what it is of no use without: see `Part.reads`."""
    model = DeltaVaeModel.from_pretrained(folder)
    with TemporaryDirectory() as written:
        getattr(model, part.name).save_pretrained(written)
        if part.reads and model.prior is not None:
            model.prior.save_pretrained(prior := Path(written, _PRIOR))
            write_checksums(prior, model_files(prior))
        files = sorted(file for file in Path(written).rglob("*") if file.is_file())
        named = {file.relative_to(written).as_posix(): file for file in files}
        uploads = [Upload(name, file.read_bytes()) for name, file in named.items() if name != CHECKSUMS]
    if part.reads:
        beside = (file for file in _files(folder, _MODEL_FILES) if file.name not in _OF_THE_WHOLE)
        uploads += [Upload(file.name, file) for file in beside if ".safetensors" not in file.name]
    return uploads


def _with_auto_map(file: Path, classes: dict[str, str]) -> bytes:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    content["auto_map"] = {auto: f"{SHIM}.{name}" for auto, name in classes.items()}
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


def _files(folder: Path, suffixes: set[str]) -> list[Path]:
    """Sorted, so that the same run gives the same list."""
    found = (file for file in folder.glob("*") if file.is_file() and file.suffix in suffixes)
    return sorted(file for file in found if file.name != CHECKSUMS)  # of what is published there are new ones
