"""The sections of a run config: what a text run and an image run share, and what is each one's own."""

# No `from __future__ import annotations`: OmegaConf reads the types of the fields.
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

from delta_vae_lab.schedule import Schedule


@dataclass
class PriorSection:
    """p(z). Settings of the other kinds are ignored, so that two runs can differ by `prior.kind` alone."""

    # lstm: trained with the model, commits nothing; none: the decoder without latents
    kind: Literal["ar1", "independent_delta", "standard_normal", "lstm", "none"] = "ar1"
    latent_dim: int = 8
    # ar1: exactly one of `alpha`, `alpha_low` + `alpha_high` (linear), `committed_bits` + `steps` (solved for alpha)
    alpha: list[float] | None = None
    alpha_low: float | None = None
    alpha_high: float | None = None
    committed_bits: float | None = None  # per sequence of `steps` tokens, or image of `steps` rows
    steps: int | None = None
    delta: float = 0.1  # independent_delta: nats a step and dimension
    hidden_size: int = 128  # lstm


@dataclass
class AuxiliaryPriorSection:
    """The prior fitted to posterior samples, through which no gradient reaches the model."""

    enabled: bool = True
    hidden_size: int = 128
    # A trained model of the same architecture, by folder or Hub name: all but this prior is its own and stays as it is.
    fit_to: str | None = None


@dataclass
class ObjectiveSection:
    """What is minimised. Reported rates stay raw."""

    name: Literal["negative_elbo", "beta", "free_bits"] = "negative_elbo"
    beta: float = 1.0  # beta
    floor_nats: float = 0.0  # free_bits
    per: Literal["step", "dimension"] = "dimension"  # free_bits
    annealing: Literal["none", "linear", "cyclical"] = "none"  # of the rate's weight, from 0 to 1 (or beta)
    annealing_steps: int = 0
    cycles: int = 4  # cyclical


@dataclass
class OptimizationSection:
    """AdamW and its schedule."""

    steps: int = 1000
    batch_size: int = 64  # sentences or images a step, over all processes and micro-steps
    accumulation: int = 1  # micro-steps a step
    learning_rate: float = 1e-3  # the peak
    auxiliary_learning_rate: float = 1e-3
    schedule: Schedule = "cosine"
    warmup_steps: int = 100
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01  # of matrices: not of norms, biases and embeddings
    # Of the model and of the auxiliary prior, each by itself; 0: no clipping. In nats a sentence 1 is exceeded at
    # practically every step, so that gradients are normalised: batches of short and of long sentences weigh alike.
    max_grad_norm: float = 1.0
    polyak_decay: float = 0.0  # 0: no averaging
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    activation_checkpointing: bool = False  # less memory for a third more computing; the step stays the same
    compile: bool = False


@dataclass
class EvaluationSection:
    """Held-out estimates; with `every` 0 only after training."""

    every: int = 0  # steps
    examples: int | None = None  # the first of the held-out split; null: all
    batch_size: int = 64
    importance_samples: int = 64
    importance_examples: int | None = 256  # null: all


@dataclass
class CheckpointSection:
    """With `every` 0 only after the last step."""

    every: int = 500  # steps
    keep: int = 2


@dataclass
class RunConfig:
    """What every run has. Architecture, objective and run are a text or an image run's sections."""

    prior: PriorSection = field(default_factory=PriorSection)
    auxiliary_prior: AuxiliaryPriorSection = field(default_factory=AuxiliaryPriorSection)
    objective: ObjectiveSection = field(default_factory=ObjectiveSection)
    optimization: OptimizationSection = field(default_factory=OptimizationSection)
    evaluation: EvaluationSection = field(default_factory=EvaluationSection)
    checkpoint: CheckpointSection = field(default_factory=CheckpointSection)
    log_every: int = 50  # steps
    seed: int = 0
    tracker: str = "tensorboard"  # trackio, wandb, any other that accelerate knows, or none


@dataclass
class TextEncoderSection:
    """q(z | x)."""

    hidden_size: int = 256
    num_layers: int = 4
    num_heads: int = 4
    direction: Literal["anticausal", "none"] = "anticausal"
    dropout: float = 0.0


@dataclass
class TextDecoderSection:
    """p(x | z)."""

    hidden_size: int = 256
    num_layers: int = 4
    num_heads: int = 4
    latent_attention: Literal["causal", "full"] = "causal"
    add_latents: bool = False
    dropout: float = 0.0


@dataclass
class TokenizerSection:
    """A tokenizer by name or path, or, without one, our byte-level BPE trained on the training split."""

    vocab_size: int = 4096
    name: str | None = None
    bos_token: str | None = None  # of a named tokenizer that lacks it; so the others
    eos_token: str | None = None
    pad_token: str | None = None


@dataclass
class TextDataSection:
    """`builtin`, a path, or a data set on the Hub by its name, where the other keys matter too."""

    name: str = "builtin"
    config: str | None = None
    revision: str | None = None
    column: str = "text"
    streaming: bool = False


@dataclass
class TextRunConfig(RunConfig):
    """A run on sentences, `recipes/lm1b.py`."""

    encoder: TextEncoderSection = field(default_factory=TextEncoderSection)
    decoder: TextDecoderSection = field(default_factory=TextDecoderSection)
    positions: Literal["rotary", "learned"] = "rotary"
    max_length: int = 128  # tokens, EOS included
    tokenizer: TokenizerSection = field(default_factory=TokenizerSection)
    data: TextDataSection = field(default_factory=TextDataSection)


@dataclass
class ImageEncoderSection:
    """q(z | x)."""

    hidden_size: int = 128
    num_layers: int = 8
    attention_layers: int = 2
    num_heads: int = 4
    kernel_size: int = 3
    activation: Literal["relu", "elu"] = "relu"
    direction: Literal["anticausal", "none"] = "anticausal"
    dropout: float = 0.0


@dataclass
class ImageDecoderSection:
    """p(x | z)."""

    hidden_size: int = 128
    num_layers: int = 8
    attention_layers: int = 2
    num_heads: int = 4
    kernel_size: int = 3
    activation: Literal["relu", "elu"] = "relu"
    likelihood: Literal["mixture", "categorical"] = "mixture"
    components: int = 10  # mixture
    latent_attention: Literal["causal", "full"] = "causal"
    add_latents: bool = False
    dropout: float = 0.0


@dataclass
class ImageDataSection:
    """`builtin`, a path, or a data set on the Hub by its name, where `config` and `revision` matter too."""

    name: str = "builtin"
    config: str | None = None
    revision: str | None = None
    column: str | None = None  # of the images; null: the only one that holds images
    size: int | None = None  # null: the images' own; else they are resized and cropped to size x size
    levels: int | None = None  # null: the data's own; else quantised to as many
    horizontal_flips: bool = False  # of half the training images
    skip_unreadable: bool = False  # leave out, and count, images that cannot be read


@dataclass
class ImageRunConfig(RunConfig):
    """A run on images, `recipes/cifar10.py` and `recipes/imagenet32.py`."""

    encoder: ImageEncoderSection = field(default_factory=ImageEncoderSection)
    decoder: ImageDecoderSection = field(default_factory=ImageDecoderSection)
    data: ImageDataSection = field(default_factory=ImageDataSection)


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """{"section.key": value} of every leaf."""
    flat: dict[str, Any] = {}
    for entry in fields(config):
        value = getattr(config, entry.name)
        flat |= flatten(value, f"{prefix}{entry.name}.") if is_dataclass(value) else {prefix + entry.name: value}
    return flat
