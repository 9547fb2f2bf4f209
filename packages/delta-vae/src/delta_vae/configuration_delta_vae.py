"""`DeltaVaeConfig`: a prior, an encoder, a decoder and, where there is one, an auxiliary prior."""

# Like every config module: no `from __future__ import annotations`.
from importlib.metadata import entry_points
from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from delta_vae_core import StrictConfig, checked
from delta_vae_decoders import TextDecoderConfig
from delta_vae_encoders import TextEncoderConfig
from delta_vae_priors import AR1PriorConfig, AuxiliaryPriorConfig

# The file of a published checkpoint that leads `trust_remote_code=True` to this package. It is not saved with a model.
SHIM = "modeling_delta_vae_shim"

# Entry points by which a package of components names each model_type, and the module whose import registers it.
COMPONENTS = "delta_vae.components"


@checked
class DeltaVaeConfig(StrictConfig):
    """Nests the configs of the parts: objects, or dicts with their `model_type`.

    Parts left out are the text model's defaults with the decoder's `latent_dim`; a decoder of another kind needs its
    encoder named. A decoder with `latent_dim` 0 has neither prior nor encoder: it is the baseline without latents.
    """

    model_type = "delta_vae"
    sub_configs = {  # noqa: RUF012 - the form transformers reads
        "prior": AutoConfig,
        "encoder": AutoConfig,
        "decoder": AutoConfig,
        "auxiliary_prior": AutoConfig,
    }
    prior: PreTrainedConfig | dict | None = None
    encoder: PreTrainedConfig | dict | None = None
    decoder: PreTrainedConfig | dict | None = None
    auxiliary_prior: PreTrainedConfig | dict | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        self.prior = _resolve("prior", self.prior, AR1PriorConfig)
        self.encoder = _resolve("encoder", self.encoder, TextEncoderConfig)
        self.decoder = _resolve("decoder", self.decoder, TextDecoderConfig)
        self.auxiliary_prior = _resolve("auxiliary_prior", self.auxiliary_prior, AuxiliaryPriorConfig)
        if self.decoder is None:
            self.decoder = TextDecoderConfig(latent_dim=(self.prior or AR1PriorConfig()).latent_dim)
        if self.latent_dim:
            if self.prior is None:
                self.prior = AR1PriorConfig(latent_dim=self.latent_dim)
            if self.encoder is None and not hasattr(self.decoder, "vocab_size"):
                raise ValueError(f"encoder=None: a {self.decoder.model_type} has no default encoder; give encoder=...")
            if self.encoder is None:
                self.encoder = TextEncoderConfig(latent_dim=self.latent_dim, **_text_sizes(self.decoder))
        super().__post_init__(**kwargs)

    @classmethod
    def register_for_auto_class(cls, auto_class: str | type = "AutoConfig") -> None:
        """For a class of one's own; those of this package are installed, not copied beside what is saved."""
        if not is_installed(cls):
            super().register_for_auto_class(auto_class)

    def to_diff_dict(self) -> dict[str, Any]:
        """config.json, which names no shim."""
        return without_shim(super().to_diff_dict())

    @property
    def latent_dim(self) -> int:
        """D, or 0 where there are no latents."""
        return int(self.decoder.latent_dim)

    def validate_parts(self) -> None:
        for name in ("prior", "encoder", "auxiliary_prior"):
            part = getattr(self, name)
            if part is None:
                continue
            if not self.latent_dim:
                raise ValueError(f"{name} given with decoder.latent_dim=0: leave it out, or give the decoder latents")
            if part.latent_dim != self.latent_dim:
                raise ValueError(
                    f"{name}.latent_dim={part.latent_dim} and decoder.latent_dim={self.latent_dim}: give all one value"
                )
        read, written = _reads(self.encoder), _reads(self.decoder)
        if read and written and read != written:
            raise ValueError(
                f"encoder.model_type={self.encoder.model_type!r} reads {read} and "
                f"decoder.model_type={self.decoder.model_type!r} writes {written}: give both the same"
            )
        for size in ("vocab_size", "max_positions", "height", "width", "channels", "levels"):
            ours, theirs = getattr(self.encoder, size, None), getattr(self.decoder, size, None)
            if ours is not None and theirs is not None and ours != theirs:
                raise ValueError(f"encoder.{size}={ours} and decoder.{size}={theirs}: give both one value")


def is_installed(cls: type) -> bool:
    """Whether a class is of this package."""
    return cls.__module__.partition(".")[0] == __name__.partition(".")[0]


def without_shim(values: dict[str, Any]) -> dict[str, Any]:
    """A config without what a published checkpoint says of loading through the shim."""
    own = {auto: name for auto, name in values.get("auto_map", {}).items() if SHIM not in str(name)}
    return {key: value for key, value in values.items() if key != "auto_map"} | ({"auto_map": own} if own else {})


def _resolve(name: str, part: Any, default: type[PreTrainedConfig]) -> Any:
    """A nested config from what a user, or a config.json, gives."""
    if not isinstance(part, dict):
        return part
    kind, options = part.get("model_type", default.model_type), {k: v for k, v in part.items() if k != "model_type"}
    if kind == default.model_type:
        return default(**options)
    if kind not in CONFIG_MAPPING:
        for component in entry_points(group=COMPONENTS, name=kind):
            component.load()
    if kind not in CONFIG_MAPPING:
        raise ValueError(
            f"{name}.model_type={kind!r} is not registered: import the package that registers it first, "
            "or install it, if it is not"
        )
    return AutoConfig.for_model(kind, **options)


def _reads(part: Any) -> str | None:
    """What an encoder or a decoder is for, as far as its config tells."""
    if hasattr(part, "vocab_size"):
        return "text"
    return "images" if hasattr(part, "image_shape") else None


def _text_sizes(decoder: Any) -> dict[str, Any]:
    """What an encoder that was not described takes over from its text decoder."""
    names = ("vocab_size", "hidden_size", "num_layers", "num_heads", "feed_forward_size", "positions", "max_positions")
    return {name: getattr(decoder, name) for name in names if hasattr(decoder, name)}
