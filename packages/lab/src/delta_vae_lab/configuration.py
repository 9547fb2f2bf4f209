"""Reading run configs: YAML presets, `section.key=value` overrides, and one-line errors."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from delta_vae_core.versions import FORMAT_KEY, VERSION_KEY, reading, stamp
from delta_vae_lab.config_rules import check_config, what_it_takes
from delta_vae_lab.config_text import read_config_text, split_override
from delta_vae_lab.sections import RunConfig, flatten

Config = TypeVar("Config", bound=RunConfig)

__all__ = ["check_config", "flatten", "load_config", "result_changes", "save_config"]


def load_config(
    kind: type[Config], source: str | Path, overrides: Sequence[str] = (), presets: Path | None = None
) -> Config:
    """The config of a YAML file, or of the file in `presets` that has this name, with `section.key=value` overrides."""
    path = _find(source, presets)
    text = read_config_text(path)
    with _one_line(path, kind):
        content = OmegaConf.create(text)
        assert isinstance(content, DictConfig)
        version, written_format = content.pop(VERSION_KEY, None), content.pop(FORMAT_KEY, None)
    with reading(str(path), version, written_format):
        return _merged(kind, path, content, overrides)


def _merged(kind: type[Config], path: Path, content: DictConfig, overrides: Sequence[str]) -> Config:
    with _one_line(path, kind):
        _check_sections(content, kind)
        config = OmegaConf.merge(OmegaConf.structured(kind), _restore_no(content))
    for override in overrides:
        key, _ = split_override(override)
        _check_whole(key, override, kind)
        with _one_line(override, kind, key):
            config = OmegaConf.merge(config, _restore_no(OmegaConf.from_dotlist([override])))
    with _one_line(path, kind):
        run: Config = OmegaConf.to_object(config)  # type: ignore[assignment]
    check_config(run)
    return run


def save_config(config: RunConfig, path: Path) -> None:
    """Write the version and every key, defaults included, as YAML that `load_config` reads."""
    content = OmegaConf.to_yaml(OmegaConf.create(stamp())) + OmegaConf.to_yaml(OmegaConf.structured(config))
    path.write_text(content, encoding="utf-8")


def result_changes(old: RunConfig, new: RunConfig) -> list[str]:
    """The keys that differ and change what a step computes, so that one run cannot go on as the other."""
    cadence: tuple[str, ...] = ("evaluation.", "checkpoint.", "log_every", "tracker")
    cadence += ("optimization.activation_checkpointing",)  # computes the same anew
    if new.optimization.schedule != "cosine":  # a cosine's every learning rate depends on the number of steps
        cadence += ("optimization.steps",)
    before, after = flatten(old), flatten(new)
    return [key for key in after if before[key] != after[key] and not key.startswith(cadence)]


def _find(source: str | Path, presets: Path | None) -> Path:
    path = Path(source)
    if path.is_file():
        return path
    names = sorted(file.stem for file in presets.glob("*.yaml")) if presets else []
    if presets and str(source) in names:
        return presets / f"{source}.yaml"
    close = difflib.get_close_matches(str(source), names, n=1)
    remedy = f"did you mean {close[0]!r}?" if close else f"presets: {', '.join(names) or 'none'}"
    raise ValueError(f"config {str(source)!r}: is neither a file nor a preset; {remedy}")


def _restore_no(content: DictConfig | ListConfig) -> DictConfig | ListConfig:
    """YAML reads a bare `no` as false."""
    key = "optimization.mixed_precision"
    if OmegaConf.select(content, key) is False:
        OmegaConf.update(content, key, "no")
    return content


@contextmanager
def _one_line(source: str | Path, kind: type[RunConfig], key: str | None = None) -> Iterator[None]:
    """Turn what OmegaConf raises into a `ValueError` that says where it came from, and what the key takes."""
    try:
        yield
    except ConfigKeyError as error:
        raise ValueError(f"{source}: {_unknown_key(str(error.full_key), kind)}") from None
    except OmegaConfBaseException as error:
        place = error.full_key or key
        said = str(error).splitlines()[0].rstrip(".")
        named = f"{place}: " if error.full_key else ""
        raise ValueError(f"{source}: {named}{said}; {_remedy(str(place), kind)}") from None
    except yaml.YAMLError as error:  # a duplicate key
        raise ValueError(f"{source}: {' '.join(str(error).split())}; correct the YAML") from None
    except (TypeError, ValueError, RecursionError) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"{source}: {said}" + ("" if key is None else f"; {_remedy(key, kind)}")) from None


def _check_sections(content: DictConfig | ListConfig, kind: type[RunConfig]) -> None:
    """Refuse a value where a section belongs, which OmegaConf would not name."""
    given = OmegaConf.to_container(content)
    assert isinstance(given, dict)
    for name, value in given.items():
        section = str(name)
        taken = what_it_takes(kind, section) or ""
        if taken.startswith("a mapping") and value is not None and not isinstance(value, dict):
            raise ValueError(f"{section}: is {value!r}, where a section belongs; give {taken}")


def _remedy(key: str, kind: type[RunConfig]) -> str:
    """What a key takes, or what to do where that is not known."""
    taken = what_it_takes(kind, key)
    return f"give {taken}" if taken else "correct what it says"


def _check_whole(key: str, override: str, kind: type[RunConfig]) -> None:
    """Refuse a key below that of a value, as prior.alpha.0."""
    for value in flatten(kind()):
        if key.startswith(f"{value}."):
            taken = what_it_takes(kind, value)
            raise ValueError(f"{override}: {value} is one value, with no {key!r} in it; set all of it, {value}={taken}")


def _unknown_key(key: str, kind: type[RunConfig]) -> str:
    section, _, name = key.rpartition(".")
    known = list(flatten(kind()))
    here = [other for other in known if other.startswith(f"{section}.")] or [entry.name for entry in fields(kind)]
    elsewhere = [other for other in known if other.rpartition(".")[2] == name]
    close = difflib.get_close_matches(key, here, n=1) or elsewhere or difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown key {key!r}; {hint}{section or 'a config'} has: {', '.join(o.rpartition('.')[2] for o in here)}"
