"""Reading run configs: YAML presets, `section.key=value` overrides, and one-line errors."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from delta_vae_core import FORMAT_KEY, VERSION_KEY, reading, stamp
from delta_vae_lab.sections import ObjectiveSection, PriorSection, RunConfig

Config = TypeVar("Config", bound=RunConfig)


def load_config(
    kind: type[Config], source: str | Path, overrides: Sequence[str] = (), presets: Path | None = None
) -> Config:
    """The config of a YAML file, or of the file in `presets` that has this name, with `section.key=value` overrides."""
    path = _find(source, presets)
    with _one_line(path, kind):
        content = OmegaConf.create(path.read_text())
        if not OmegaConf.is_dict(content) or list(content.values()) == [None]:
            raise ValueError(f"{path}: must be a mapping of sections")
    assert isinstance(content, DictConfig)
    with reading(str(path), content.pop(VERSION_KEY, None), content.pop(FORMAT_KEY, None)):
        return _merged(kind, path, content, overrides)


def _merged(kind: type[Config], path: Path, content: DictConfig, overrides: Sequence[str]) -> Config:
    with _one_line(path, kind):
        config = OmegaConf.merge(OmegaConf.structured(kind), _restore_no(content))
    for override in overrides:
        if "=" not in override:
            raise ValueError(f"{override!r}: an override must read section.key=value")
        with _one_line(override, kind):
            config = OmegaConf.merge(config, _restore_no(OmegaConf.from_dotlist([override])))
    with _one_line(path, kind):
        run: Config = OmegaConf.to_object(config)  # type: ignore[assignment]
    check_config(run)
    return run


def save_config(config: RunConfig, path: Path) -> None:
    """Write the version and every key, defaults included, as YAML that `load_config` reads."""
    path.write_text(OmegaConf.to_yaml(OmegaConf.create(stamp())) + OmegaConf.to_yaml(OmegaConf.structured(config)))


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """{"section.key": value} of every leaf."""
    flat: dict[str, Any] = {}
    for entry in fields(config):
        value = getattr(config, entry.name)
        flat |= flatten(value, f"{prefix}{entry.name}.") if is_dataclass(value) else {prefix + entry.name: value}
    return flat


def result_changes(old: RunConfig, new: RunConfig) -> list[str]:
    """The keys that differ and change what a step computes, so that one run cannot go on as the other."""
    cadence: tuple[str, ...] = ("evaluation.", "checkpoint.", "log_every", "tracker")
    cadence += ("optimization.activation_checkpointing",)  # computes the same anew
    if new.optimization.schedule != "cosine":  # a cosine's every learning rate depends on the number of steps
        cadence += ("optimization.steps",)
    before, after = flatten(old), flatten(new)
    return [key for key in after if before[key] != after[key] and not key.startswith(cadence)]


def check_config(config: RunConfig) -> None:
    """Raise a one-line `ValueError` (value, rule, remedy) for the first rule that a value breaks."""
    values = flatten(config)
    for key, value in values.items():
        holds, rule = _RULES.get(key, _ANY)
        if value is not None and not holds(value):
            raise ValueError(f"{key}={value!r}: {rule}")
    settings = config.optimization
    if settings.batch_size % settings.accumulation:
        raise ValueError(
            f"optimization.batch_size={settings.batch_size}: must be divisible by "
            f"optimization.accumulation={settings.accumulation}; change either"
        )
    _check_objective(config.objective)
    if config.prior.kind == "ar1":
        _check_alpha(config.prior)


def _check_objective(objective: ObjectiveSection) -> None:
    for key, neutral, name in (("beta", 1.0, "beta"), ("floor_nats", 0.0, "free_bits")):
        value = getattr(objective, key)
        if value != neutral and objective.name != name:
            raise ValueError(f"objective.{key}={value}: does nothing with {objective.name}; set objective.name={name}")
    if objective.annealing == "none":
        return
    if objective.annealing_steps < 1:
        raise ValueError(
            f"objective.annealing_steps={objective.annealing_steps}: must be at least 1 with "
            f"objective.annealing={objective.annealing}"
        )
    if objective.name == "free_bits":
        raise ValueError(
            f"objective.annealing={objective.annealing}: weighs the rate, where free_bits has a floor; "
            "set objective.annealing=none or another objective.name"
        )


def _check_alpha(prior: PriorSection) -> None:
    ways = {
        "alpha": prior.alpha is not None,
        "alpha_low + alpha_high": prior.alpha_low is not None or prior.alpha_high is not None,
        "committed_bits + steps": prior.committed_bits is not None or prior.steps is not None,
    }
    given = [way for way, is_given in ways.items() if is_given]
    if len(given) != 1:
        raise ValueError(
            f"prior: an ar1 prior takes exactly one of {', '.join(ways)}, got {' and '.join(given) or 'none'}; "
            "set the keys of the others to null"
        )
    half = [key for pair in (("alpha_low", "alpha_high"), ("committed_bits", "steps")) for key in _lone(prior, pair)]
    if half:
        raise ValueError(f"prior.{half[0]} is missing: {given[0]} go together")
    if prior.alpha is not None and len(prior.alpha) != prior.latent_dim:
        raise ValueError(
            f"prior.alpha={prior.alpha}: has {len(prior.alpha)} values for prior.latent_dim={prior.latent_dim}; "
            "give one a dimension"
        )


def _lone(prior: PriorSection, pair: tuple[str, str]) -> list[str]:
    """The missing half of a pair that is half given."""
    missing = [key for key in pair if getattr(prior, key) is None]
    return missing if len(missing) == 1 else []


Rule = tuple[Callable[[Any], bool], str]


def _at_least(low: int, remedy: str = "") -> Rule:
    return (lambda value: low <= value < math.inf), f"must be at least {low} and finite{remedy}"


def _fraction(value: float) -> bool:
    return 0 <= value < 1


_ANY: Rule = (lambda value: not isinstance(value, float) or math.isfinite(value), "must be finite")
_POSITIVE: Rule = (lambda value: 0 < value < math.inf, "must be greater than 0 and finite")
_RULES: dict[str, Rule] = {
    "prior.latent_dim": _at_least(1, "; prior.kind=none is the decoder without latents"),
    "prior.hidden_size": _at_least(1),
    "max_length": _at_least(2),
    "encoder.dropout": (_fraction, "must be in [0, 1)"),
    "decoder.dropout": (_fraction, "must be in [0, 1)"),
    "tokenizer.vocab_size": _at_least(259),  # 256 bytes, BOS, EOS and padding
    "data.size": _at_least(1),
    "data.levels": (lambda value: 2 <= value <= 256, "must be 2 to 256"),
    "objective.beta": _at_least(0),
    "objective.floor_nats": _at_least(0),
    "objective.cycles": _at_least(1),
    "optimization.steps": _at_least(1),
    "optimization.batch_size": _at_least(1),
    "optimization.accumulation": _at_least(1),
    "optimization.learning_rate": _POSITIVE,
    "optimization.auxiliary_learning_rate": _POSITIVE,
    "optimization.warmup_steps": _at_least(0),
    "optimization.betas": (lambda value: all(map(_fraction, value)), "must both be in [0, 1)"),
    "optimization.weight_decay": _at_least(0),
    "optimization.max_grad_norm": _at_least(0),
    "optimization.polyak_decay": (_fraction, "must be in [0, 1), 0 for no averaging"),
    "evaluation.every": _at_least(0),
    "evaluation.examples": _at_least(2),
    "evaluation.batch_size": _at_least(1),
    "evaluation.importance_samples": _at_least(1),
    "evaluation.importance_examples": _at_least(2),
    "checkpoint.every": _at_least(0),
    "checkpoint.keep": _at_least(1),
    "log_every": _at_least(1),
}


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
def _one_line(source: str | Path, kind: type[RunConfig]) -> Iterator[None]:
    """Turn what OmegaConf raises into a `ValueError` that says where it came from."""
    try:
        yield
    except ConfigKeyError as error:
        raise ValueError(f"{source}: {_unknown_key(str(error.full_key), kind)}") from None
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if error.full_key else ""
        raise ValueError(f"{source}: {key}{str(error).splitlines()[0]}") from None
    except (yaml.YAMLError, TypeError) as error:
        raise ValueError(f"{source}: {' '.join(str(error).split())}") from None


def _unknown_key(key: str, kind: type[RunConfig]) -> str:
    section, _, name = key.rpartition(".")
    known = list(flatten(kind()))
    here = [other for other in known if other.startswith(f"{section}.")] or [entry.name for entry in fields(kind)]
    elsewhere = [other for other in known if other.rpartition(".")[2] == name]
    close = difflib.get_close_matches(key, here, n=1) or elsewhere or difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown key {key!r}; {hint}{section or 'a config'} has: {', '.join(o.rpartition('.')[2] for o in here)}"
