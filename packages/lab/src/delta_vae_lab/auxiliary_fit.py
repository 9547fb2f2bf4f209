"""A new auxiliary prior for a model that is trained already, and that it leaves as it is."""

from __future__ import annotations

from typing import TypeVar

from delta_vae import DeltaVaeConfig, DeltaVaeModel

Model = TypeVar("Model", bound=DeltaVaeModel)

# What changes no output of a trained model, or is no part of its architecture.
_IGNORED = ("dropout", "transformers_version", "dtype")


def fit_to(kind: type[Model], source: str, config: DeltaVaeConfig) -> Model:
    """A model of `config` with the weights of `source`, all frozen but the auxiliary prior's, which are new.

    `source`: the folder that a model was saved in, or its name on the Hub. Dropout is off, so that the posteriors
    fitted are those of use.
    """
    if config.auxiliary_prior is None:
        raise ValueError(f"auxiliary_prior.fit_to={source}: needs latents and auxiliary_prior.enabled=true")
    try:
        trained = kind.from_pretrained(source)
    except OSError:
        raise ValueError(
            f"auxiliary_prior.fit_to={source}: neither the folder of a model nor the name of one on the Hub that was "
            "reached; give the model/ of a run"
        ) from None
    for part in ("prior", "encoder", "decoder"):
        theirs, ours = (_architecture(getattr(c, part)) for c in (trained.config, config))
        if theirs != ours:
            names = sorted(name for name in theirs | ours if theirs.get(name) != ours.get(name))
            raise ValueError(
                f"auxiliary_prior.fit_to={source}: its {part} differs in {', '.join(names)}; "
                "start from the config.yaml of its run"
            )
    config.encoder.dropout = config.decoder.dropout = 0.0
    model = kind(config)
    for part in ("prior", "encoder", "decoder"):
        new, kept = getattr(model, part), getattr(trained, part)
        new.load_state_dict(kept.state_dict())
        new.requires_grad_(False)
    return model


def _architecture(part: object) -> dict[str, object]:
    return {} if part is None else {k: v for k, v in part.to_dict().items() if k not in _IGNORED}  # type: ignore[attr-defined]
