"""The base of every config: unknown keys are refused, and every error is one line."""

# No `from __future__ import annotations` in a config module: it would turn the type checks of `strict` off.
import difflib
import functools
from collections.abc import Iterable
from typing import Any, TypeVar, cast

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig

from delta_vae_core.versions import FORMAT_KEY, VERSION_KEY, reading, stamp

Config = TypeVar("Config", bound=type[PreTrainedConfig])

# What transformers itself writes into, or passes along with, a config beyond its declared fields.
_TRANSFORMERS_KEYS = {
    "attn_implementation",
    "auto_map",
    "experts_implementation",
    "model_type",
    "name_or_path",
    "num_labels",
    "output_attentions",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}
_STAMP_KEYS = {VERSION_KEY, FORMAT_KEY}


class StrictConfig(PreTrainedConfig):
    """A `PreTrainedConfig` that refuses keys it does not know. Decorate every subclass with `checked`."""

    def __post_init__(self, **kwargs: Any) -> None:
        unknown = [key for key in kwargs if key not in _TRANSFORMERS_KEYS | _STAMP_KEYS and not key.startswith("_")]
        if unknown:
            raise ValueError(f"{type(self).__name__}: {_unknown_key(unknown[0], self.__dataclass_fields__)}")
        super().__post_init__(**{key: value for key, value in kwargs.items() if key not in _STAMP_KEYS})

    def to_diff_dict(self) -> dict[str, Any]:
        """config.json: its version, every key of ours, of transformers' what is not its default; nested likewise."""
        diff: dict[str, Any] = super().to_diff_dict() | stamp()
        for name in self.sub_configs:
            part = getattr(self, name, None)
            if isinstance(part, PreTrainedConfig):
                diff[name] = part.to_diff_dict() | {"model_type": part.model_type}
                for key in ("transformers_version", *_STAMP_KEYS):
                    diff[name].pop(key, None)
        return diff


def checked(cls: Config) -> Config:
    """Class decorator: types and `validate_*` rules are checked on construction, and a breach is one `ValueError`."""
    cls = cast(Config, strict(cls))
    init = cls.__init__

    @functools.wraps(init)
    def __init__(self: PreTrainedConfig, *args: Any, **kwargs: Any) -> None:
        with reading(cls.__name__, kwargs.get(VERSION_KEY), kwargs.get(FORMAT_KEY)):
            try:
                init(self, *args, **kwargs)
            except StrictDataclassError as error:
                reason = error.__cause__ or error
                remedy = "; give a value of that type" if isinstance(reason, TypeError) else ""
                raise ValueError(f"{cls.__name__}: {' '.join(str(reason).split())}{remedy}") from None

    cls.__init__ = __init__  # type: ignore[method-assign]
    return cls


def require(value: object, name: str, rule: bool, remedy: str) -> None:
    """Raise `ValueError("name=value: remedy")` unless the rule holds."""
    if not rule:
        raise ValueError(f"{name}={value!r}: {remedy}")


def _unknown_key(key: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    ours = ", ".join(sorted(set(known) - set(PreTrainedConfig.__dataclass_fields__)))
    return f"unknown key {key!r}; " + (f"did you mean {close[0]!r}?" if close else f"known keys: {ours}")
