"""What an image model draws: samples, decodings of one z, reconstructions and interpolations, as PNG grids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from delta_vae import DeltaVaeForImageGeneration, DeltaVaeImageProcessor, spherical_interpolation
from delta_vae_lab.data.image_splits import Levels
from delta_vae_lab.image_grid import Block, draw_grid
from delta_vae_lab.samples import sample_sources
from delta_vae_lab.subject import evaluating

COLUMNS = 8
STEPS = 7  # of an interpolation, its two ends included


def write_image_samples(
    folder: Path,
    model: DeltaVaeForImageGeneration,
    processor: DeltaVaeImageProcessor,
    heldout: Levels,
    *,
    data: str,
    generator: torch.Generator,
    count: int = 64,
) -> None:
    """Write every grid that the model can: FOLDER/samples_*.png, fixed_z.png, reconstructions.png, interpolations.png.

    `heldout` (N, C, H, W) are levels, of which the first are shown: `count` / 8 in the grid of fixed z and, each with
    the next, in that of interpolations, and `count` / 2 reconstructed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    painter = Painter(model, processor, generator)
    rows = max(1, count // COLUMNS)

    def write(name: str, what: str, blocks: Sequence[Block]) -> None:
        caption = f"trained on {data}; pixels drawn at temperature 1"
        draw_grid(what, caption, blocks).save(folder / f"{name}.png", optimize=True)

    with evaluating(model):
        for source, origin in sample_sources(model).items():
            write(f"samples_{source}", f"{count} samples, {origin}", painter.samples(source, count))
        if model.prior is not None:
            what = f"Held-out images, each beside {COLUMNS} decodings of one z"
            write("fixed_z", what, painter.fixed_z(heldout[:rows]))
            what = "Held-out images, each beside what is decoded from its posterior mean"
            write("reconstructions", what, painter.reconstructions(heldout[: rows * COLUMNS // 2]))
            if len(heldout) > 1:
                what = "From a held-out image to the next: the arc between their posterior means, decoded"
                write("interpolations", what, painter.interpolations(heldout[: rows + 1]))


@dataclass(frozen=True)
class Painter:
    """Grids from a model in evaluation mode, each decoded in one go. The generator decides latents and pixels."""

    model: DeltaVaeForImageGeneration
    processor: DeltaVaeImageProcessor
    generator: torch.Generator

    def samples(self, source: str, count: int, temperature: float = 1.0) -> list[Block]:
        """`count` images; a "decoder" has no z, else it is from the "prior" or the "auxiliary" prior."""
        latents = None
        if source != "decoder":
            latents = self.model.sample_latents(count, self.model.config.decoder.height, self.generator, source)
        drawn = self.model.sample(count, latents, temperature, self.generator)
        return [Block("", _rows(self.processor.postprocess(drawn), COLUMNS))]

    def fixed_z(self, images: Levels) -> list[Block]:
        """A row for each image: itself, and decodings of one z ~ q(z | x). What they share is what z tells."""
        z = self.model.encode(self._inputs(images)).sample(self.generator)
        decoded = self._decoded(z.repeat_interleave(COLUMNS, dim=0))
        return [
            Block("held-out x", _rows(self.processor.postprocess(images), 1)),
            Block("decodings of one z ~ q(z | x)", _rows(decoded, COLUMNS)),
        ]

    def reconstructions(self, images: Levels) -> list[Block]:
        """Pairs of an image and a decoding of its posterior mean, `COLUMNS` images a row."""
        decoded = self._decoded(self.model.encode(self._inputs(images)).mean)
        pairs = [list(pair) for pair in zip(self.processor.postprocess(images), decoded, strict=True)]
        across = min(COLUMNS // 2, len(pairs))
        return [Block("held out, decoded", pairs[place::across]) for place in range(across)]

    def interpolations(self, images: Levels, steps: int = STEPS) -> list[Block]:
        """A row for each image but the last: itself, the `steps` images decoded on the way, and the next."""
        means = self.model.encode(self._inputs(images)).mean
        ways = [spherical_interpolation(*ends, steps) for ends in pairwise(means)]
        decoded, shown = self._decoded(torch.cat(ways)), self.processor.postprocess(images)
        return [
            Block("from", _rows(shown[:-1], 1)),
            Block("decoded", _rows(decoded, steps)),
            Block("to", _rows(shown[1:], 1)),
        ]

    def _inputs(self, images: Levels) -> Tensor:
        return torch.tensor(images).to(self.model.device)

    def _decoded(self, latents: Tensor) -> list[Image.Image]:
        return self.processor.postprocess(self.model.decode(latents, generator=self.generator))


def _rows(images: Sequence[Image.Image], columns: int) -> list[Sequence[Image.Image]]:
    return [images[start : start + columns] for start in range(0, len(images), columns)]
