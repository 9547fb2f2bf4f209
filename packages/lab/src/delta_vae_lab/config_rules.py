"""The rules that the values of a run config must keep, and what each key takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from delta_vae_lab.sections import ObjectiveSection, PriorSection, RunConfig, flatten


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
    _check_tokenizer(values)
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


def _check_tokenizer(values: Mapping[str, Any]) -> None:
    for role in ("bos_token", "eos_token", "pad_token"):
        token = values.get(f"tokenizer.{role}")
        if token is not None and values["tokenizer.name"] is None:
            raise ValueError(
                f"tokenizer.{role}={token!r}: is of a named tokenizer, and ours has its own; "
                "set tokenizer.name too, or leave it out"
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


def _between(low: int, high: int, remedy: str = "") -> Rule:
    return (lambda value: low <= value <= high), f"must be at least {low} and finite, at most {high:,}{remedy}"


def _fraction(value: float) -> bool:
    return 0 <= value < 1


def _stationary(value: float) -> bool:
    return -1 < value < 1


_ANY: Rule = (lambda value: not isinstance(value, float) or math.isfinite(value), "must be finite")
_POSITIVE: Rule = (lambda value: 0 < value < math.inf, "must be greater than 0 and finite")
_NAMED: Rule = (lambda value: bool(value.strip()) and value.isprintable(), "must be a name; give one, or leave it out")
_WIDTH = _between(1, 65_536)  # what is meant is smaller by far, and more than that fills any memory
_DEPTH = _between(1, 1000)
_ALPHA: Rule = (_stationary, "must be inside (-1, 1), or the process is not stationary")
_RULES: dict[str, Rule] = {
    "prior.latent_dim": _between(1, 65_536, "; prior.kind=none is the decoder without latents"),
    "prior.alpha": (lambda value: all(map(_stationary, value)), "each must be inside (-1, 1), or it is not stationary"),
    "prior.alpha_low": _ALPHA,
    "prior.alpha_high": _ALPHA,
    "prior.committed_bits": _at_least(0),
    "prior.steps": _between(2, 10**9),
    "prior.delta": _POSITIVE,
    "prior.hidden_size": _WIDTH,
    "auxiliary_prior.hidden_size": _WIDTH,
    "auxiliary_prior.fit_to": _NAMED,
    "max_length": _between(2, 10**6),
    **{
        f"{part}.{key}": rule
        for part in ("encoder", "decoder")
        for key, rule in (
            ("hidden_size", _WIDTH),
            ("num_layers", _DEPTH),
            ("attention_layers", _between(0, 1000)),
            ("num_heads", _DEPTH),
            ("kernel_size", _between(3, 255)),
            ("components", _DEPTH),
            ("dropout", (_fraction, "must be in [0, 1)")),
        )
    },
    "tokenizer.vocab_size": _between(259, 10**7),  # 256 bytes, BOS, EOS and padding
    "tokenizer.name": _NAMED,
    "data.name": (lambda value: bool(value.strip()), "must be a name; give one, or leave it out"),
    "data.column": _NAMED,
    "data.size": _between(1, 16_384),
    "data.levels": (lambda value: 2 <= value <= 256, "must be 2 to 256"),
    "objective.beta": _at_least(0),
    "objective.floor_nats": _at_least(0),
    "objective.annealing_steps": _at_least(0),
    "objective.cycles": _at_least(1),
    "optimization.steps": _between(1, 99_999_999),  # eight digits, as the checkpoints are called
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
    "seed": (lambda value: -(2**63) <= value < 2**63, "must have 64 bits, from -2**63 to 2**63 - 1"),
    "tracker": _NAMED,
}


def what_it_takes(kind: type[RunConfig], key: str) -> str | None:
    """What may be given for a key, in words; None where there is no such key."""
    section, owner = None, kind
    *sections, name = key.partition("[")[0].split(".")
    for section in sections:
        owner = get_type_hints(owner).get(section)  # type: ignore[assignment]  # a section, or looked at below
        if not is_dataclass(owner):
            return None
    hint = get_type_hints(owner).get(name)
    return None if hint is None else _described(hint)


def _described(hint: Any) -> str:
    if is_dataclass(hint):
        return f"a mapping of {', '.join(entry.name for entry in fields(hint))}"
    arguments = get_args(hint)
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if get_origin(hint) in (Union, UnionType):
        return " or ".join("null" if part is NoneType else _described(part) for part in arguments)
    if get_origin(hint) is list:
        return "a list of numbers, as [0.5,0.9]"
    if get_origin(hint) is tuple:
        return "two numbers, as [0.9,0.99]"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[hint]
