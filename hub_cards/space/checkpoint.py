"""A published checkpoint: loaded as its config says, given a sentence or an image, and decoded from any z."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from delta_vae import DeltaVaeConfig, DeltaVaeForCausalLM, DeltaVaeForImageGeneration, DeltaVaeImageProcessor

PRIOR_DRAWS = 4096  # a prior need not know its own standard deviation: it is that of so many draws
DRAWN_TOKENS = 32  # of a sentence whose z is drawn
REMEMBERED = 256  # decodings


@dataclass(frozen=True)
class Rates:
    """Of one x, in nats: by step (T,) and in all. `auxiliary`: against the auxiliary prior, at one draw of z."""

    by_step: list[float]
    committed_by_step: list[float]
    rate: float
    committed: float
    auxiliary: float | None


@dataclass(frozen=True)
class Scene:
    """What is edited: z (T, D), on the CPU, and where it comes from.

    With an encoded x: the standard deviations of q(z|x) (T, D), its rates and, of a sentence, the token of each step.
    """

    latents: Tensor
    origin: str
    posterior_scale: Tensor | None = None
    rates: Rates | None = None
    tokens: list[str] | None = None
    picture: Image.Image | None = None


@dataclass(frozen=True)
class Move:
    """z at `step` and `dimension`, counted from 0, goes up by `amount` standard deviations; at no step named, at all.

    `unit`: whose standard deviations, "posterior" or "prior".
    """

    step: int | None
    dimension: int
    amount: float
    unit: str


class Checkpoint(ABC):
    """What text and images have in common. A decoding depends on z, the seed and the temperature alone."""

    kind: ClassVar[str]
    temperature: ClassVar[float]  # at which decodings are shown unless told otherwise

    def __init__(self, name: str, model: Any, steps: int) -> None:
        if not model.config.latent_dim:
            raise ValueError("a decoder without latents has no z to edit; give a model with latents")
        self.name, self.model, self.steps = name, model, steps
        self.latent_dim: int = model.config.latent_dim
        self.sources = ["prior"] if model.auxiliary_prior is None else ["auxiliary", "prior"]
        draws = model.prior.sample(PRIOR_DRAWS, steps, _seeded(0), model.device)
        self.prior_scale = draws.flatten(0, 1).std(0).cpu()  # (D,)
        self._remembered = functools.lru_cache(maxsize=REMEMBERED)(self._decoded)

    def draw(self, source: str, seed: int) -> Scene:
        """A z of the "auxiliary" prior or the "prior"."""
        latents = self.model.sample_latents(1, self.steps, _seeded(seed), source)[0].cpu()
        return Scene(latents, f"drawn from the {source + ' prior' if source == 'auxiliary' else source}, seed {seed}")

    def decode(self, latents: Tensor, seed: int, temperature: float) -> Any:
        """z (T, D) -> a sentence, or levels (C, H, W); the same noise whatever z is, and none at temperature 0."""
        if not (math.isfinite(temperature) and temperature >= 0):
            raise ValueError(f"temperature={temperature}: give a number of at least 0 (0: the most probable)")
        return self._remembered(tuple(map(tuple, latents.tolist())), seed, temperature)

    def move(self, scene: Scene, move: Move) -> Tensor:
        """The moved z (T, D)."""
        steps, dimensions = scene.latents.shape
        if not 0 <= move.dimension < dimensions:
            raise ValueError(f"dimension {move.dimension + 1}: this model has 1 to {dimensions}")
        if move.step is not None and not 0 <= move.step < steps:
            raise ValueError(f"step {move.step + 1}: this z has 1 to {steps}")
        where = slice(None) if move.step is None else move.step
        moved = scene.latents.clone()
        moved[where, move.dimension] += move.amount * self.scale(scene, move.unit)[where, move.dimension]
        return moved

    def scale(self, scene: Scene, unit: str) -> Tensor:
        """Standard deviations (T, D) of the "posterior" or the "prior"."""
        if unit == "prior":
            return self.prior_scale.expand_as(scene.latents)
        if scene.posterior_scale is None:
            raise ValueError("this z was drawn, so it has no posterior: choose standard deviations of the prior")
        return scene.posterior_scale

    def _encoded(self, origin: str, tokens: list[str] | None, picture: Image.Image | None, **inputs: Tensor) -> Scene:
        """The scene of one x: its posterior mean."""
        with torch.no_grad():
            output = self.model(**inputs, generator=_seeded(0))
            auxiliary = output.auxiliary_rate
            rates = Rates(
                output.kl[0].sum(1).tolist(),
                self._committed(output.mask, output.committed_rate).tolist(),
                float(output.rate),
                float(output.committed_rate),
                None if auxiliary is None else float(auxiliary),
            )
        posterior = output.posterior
        return Scene(posterior.mean[0].cpu(), origin, posterior.scale[0].cpu(), rates, tokens, picture)

    def _committed(self, mask: Tensor, total: Tensor) -> Tensor:
        """By step, (T,): the KL of the posterior that attains the floor, which is that of statistics 0."""
        if not bool(total):
            return torch.zeros(mask.shape[1])
        statistics = torch.zeros(*mask.shape, 2 * self.latent_dim, device=mask.device)
        committed: Tensor = self.model.prior.kl(self.model.prior.posterior(statistics, mask), mask)[0].sum(1)
        return committed

    def _batch(self, latents: tuple[tuple[float, ...], ...]) -> Tensor:
        return torch.tensor([latents], device=self.model.device)

    @abstractmethod
    def _decoded(self, latents: tuple[tuple[float, ...], ...], seed: int, temperature: float) -> Any:
        """What `decode` remembers."""


class TextCheckpoint(Checkpoint):
    """Sentences, by default decoded greedily."""

    kind = "text"
    temperature = 0.0

    def __init__(self, name: str, model: DeltaVaeForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer, self.longest = tokenizer, int(model.config.decoder.max_positions)
        super().__init__(name, model, min(DRAWN_TOKENS, self.longest))

    def encode(self, sentence: str | None) -> Scene:
        """The scene of a sentence."""
        sentence = " ".join((sentence or "").split())
        if not sentence:
            raise ValueError("the sentence is empty: type one")
        ids = self.tokenizer(sentence, return_tensors="pt").input_ids.to(self.model.device)
        if ids.shape[1] - 1 > self.longest:
            raise ValueError(
                f"the sentence has {ids.shape[1] - 1} tokens, its end included, and the model reads at most "
                f"{self.longest}: shorten it"
            )
        return self._encoded("the posterior mean of the sentence", self._tokens(ids[0, 1:]), None, input_ids=ids)

    def _tokens(self, ids: Tensor) -> list[str]:
        eos = self.model.config.decoder.eos_token_id
        return ["⟨end⟩" if token == eos else _printable(self.tokenizer.decode([token])) for token in ids.tolist()]

    def _decoded(self, latents: tuple[tuple[float, ...], ...], seed: int, temperature: float) -> str:
        sampling = {"do_sample": True, "temperature": temperature} if temperature else {}
        ids = self.model.decode(self._batch(latents), generator=_seeded(seed), **sampling)[0]
        return " ".join(_printable(self.tokenizer.decode(ids, skip_special_tokens=True)).split())


class ImageCheckpoint(Checkpoint):
    """Images, by default drawn at temperature 1."""

    kind = "images"
    temperature = 1.0

    def __init__(self, name: str, model: DeltaVaeForImageGeneration, processor: DeltaVaeImageProcessor) -> None:
        self.processor = processor
        size = (processor.height, processor.width, processor.channels)
        self.eight_bit = DeltaVaeImageProcessor(*size, resize=True)
        super().__init__(name, model, int(model.config.decoder.height))

    def encode(self, image: Image.Image | None) -> Scene:
        """The scene of a picture of 8 bits a channel, scaled and cropped to the model's size."""
        if image is None:
            raise ValueError("there is no image: upload one")
        wanted = (self.processor.width, self.processor.height)
        pixels = self.eight_bit(image)["pixel_values"]
        # As `postprocess` shows them, backwards: 255 is the brightest of however many values the data have.
        values = (pixels * ((self.processor.input_levels - 1) / 255)).round().to(torch.uint8)
        levels = self.processor.quantize(values)
        origin = "the posterior mean of the image"
        if image.size != wanted:
            origin += f", resized from {image.width} x {image.height} to {wanted[0]} x {wanted[1]} pixels"
        return self._encoded(origin, None, self.picture(levels[0]), pixel_values=levels.to(self.model.device))

    def picture(self, levels: Tensor) -> Image.Image:
        """Levels (C, H, W) as an image."""
        return self.processor.postprocess(levels)[0]

    def _decoded(self, latents: tuple[tuple[float, ...], ...], seed: int, temperature: float) -> Tensor:
        generator = _seeded(seed)
        return self.model.decode(self._batch(latents), temperature=temperature, generator=generator, progress=False)[0]


def load(name: str, revision: str | None = None) -> TextCheckpoint | ImageCheckpoint:
    """The model of a name on the Hub, or of a folder. No code of its repository is run, and no pickle is read."""
    if not name:
        raise ValueError("MODEL is not set: give this Space the variable MODEL=user/my-model, in its settings")
    where = f"MODEL={name}" + (f", REVISION={revision}" if revision else "")
    try:
        config, _ = PreTrainedConfig.get_config_dict(name, revision=revision)
    except (OSError, ValueError):
        raise ValueError(
            f"{where}: no config.json could be read there; give a folder that save_pretrained wrote, or the name of a "
            "model on the Hub that this Space may read (a private one needs the secret HF_TOKEN)"
        ) from None
    if config.get("model_type") != DeltaVaeConfig.model_type:
        raise ValueError(
            f"{where}: a model of type {config.get('model_type')!r}; give one of type {DeltaVaeConfig.model_type!r}"
        )
    try:
        return _load(name, revision)
    except (OSError, RuntimeError, ValueError) as error:
        first, *_ = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"{where}: {first}") from error


def _load(name: str, revision: str | None) -> TextCheckpoint | ImageCheckpoint:
    config = DeltaVaeConfig.from_pretrained(name, revision=revision)
    options: dict[str, Any] = {"revision": revision, "use_safetensors": True}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if hasattr(config.decoder, "image_shape"):
        processor = DeltaVaeImageProcessor.from_pretrained(name, revision=revision)
        images: Any = DeltaVaeForImageGeneration.from_pretrained(name, **options)
        return ImageCheckpoint(name, images.to(device), processor)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
    except (OSError, ValueError):
        raise ValueError("no tokenizer could be read beside the weights; publish it with them") from None
    text: Any = DeltaVaeForCausalLM.from_pretrained(name, **options)
    return TextCheckpoint(name, text.to(device), tokenizer)


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _printable(text: Any) -> str:
    return "".join(character if character.isprintable() else "\ufffd" for character in str(text))
