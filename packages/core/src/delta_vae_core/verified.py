"""The base of every model: what it saves has checksums, and what is loaded from a folder that has them is verified."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

from transformers import PreTrainedModel

from delta_vae_core.checksums import CHECKSUMS, verify, write_checksums

# What `save_pretrained` writes of a model; a tokenizer and an image processor beside it are others' to save.
_MODEL_FILES = ("config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index*.json")
# What it passes on to `push_to_hub`.
_HUB_OPTIONS = ("commit_message", "create_pr", "private", "token", "revision", "max_shard_size")


class VerifiedPreTrainedModel(PreTrainedModel):
    """A `PreTrainedModel` that saves checksums.json beside its weights, and refuses a folder that is not as that says.

    Saving again into a folder writes them anew. A folder without them loads as it is.
    """

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, *args: Any, **kwargs: Any
    ) -> Self:
        name = pretrained_model_name_or_path
        if name is not None and Path(name).is_dir():
            cls.check_folder(Path(name, kwargs.get("subfolder") or ""), kwargs.get("variant"))
        loaded: Self = super().from_pretrained(name, *args, **kwargs)
        return loaded

    @classmethod
    def check_folder(cls, folder: Path, variant: str | None) -> None:  # noqa: ARG003 - a subclass may look further
        """Raise `ValueError`, naming the file, where there is damage."""
        verify(folder)

    def save_pretrained(  # type: ignore[override]  # theirs names every option; here they are passed on
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: dict[str, Any] | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        folder = Path(save_directory)
        options = {name: kwargs[name] for name in _HUB_OPTIONS if name in kwargs}
        repo = kwargs.pop("repo_id", folder.name)
        if is_main_process:  # none of before may be there if this ends half-way, nor weights that would be read first
            for name in (CHECKSUMS, *weight_files(kwargs.get("variant"))):
                (folder / name).unlink(missing_ok=True)
        super().save_pretrained(save_directory, is_main_process, state_dict, **kwargs)
        if is_main_process:
            write_checksums(folder, model_files(folder))
            if push_to_hub:  # which saves into a folder of its own, so that what is sent has its checksums too
                self.push_to_hub(repo, **options)


def weight_files(variant: str | None) -> tuple[str, str]:
    """The names of the weights and of the index of their shards; where both are there, the first is read."""
    suffix = f".{variant}" if variant else ""
    return f"model{suffix}.safetensors", f"model.safetensors.index{suffix}.json"


def model_files(folder: Path) -> list[str]:
    """The names of the files that `save_pretrained` of a model has written there."""
    return sorted(file.name for pattern in _MODEL_FILES for file in folder.glob(pattern))


def verify_local(path: str | os.PathLike[str], subfolder: str | None, names: list[str]) -> None:
    """`verify` these files where `path` is a folder and not the name of a model on the Hub."""
    if Path(path).is_dir():
        verify(Path(path, subfolder or ""), names)
