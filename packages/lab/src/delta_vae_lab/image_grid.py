"""Small images laid out as one picture that says what it shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from PIL import Image, ImageDraw, ImageFont

TILE = 64  # pixels: an image is enlarged, each of its pixels to a square, until its longer side has as many
MARGIN, BETWEEN_TILES, BETWEEN_BLOCKS = 12, 2, 14
TITLE, SMALL, LEADING = 14, 11, 5  # sizes of type, and the space below a line


@dataclass(frozen=True)
class Block:
    """Rows of images under a heading, which may be empty."""

    heading: str
    rows: Sequence[Sequence[Image.Image]]


def draw_grid(title: str, caption: str, blocks: Sequence[Block]) -> Image.Image:
    """Blocks of images of one size and mode, side by side under two lines of text, on white."""
    sample = blocks[0].rows[0][0]
    scale = math.ceil(TILE / max(sample.size))
    size = (sample.width * scale, sample.height * scale)
    across, down = (side + BETWEEN_TILES for side in size)
    widths = [
        max(across * max(map(len, block.rows)) - BETWEEN_TILES, _length(block.heading, SMALL)) for block in blocks
    ]
    heading = MARGIN + TITLE + LEADING + SMALL + 2 * LEADING
    tiles = heading + (SMALL + LEADING if any(block.heading for block in blocks) else 0)
    width = max(sum(widths) + BETWEEN_BLOCKS * (len(blocks) - 1), _length(title, TITLE), _length(caption, SMALL))
    height = tiles + down * max(len(block.rows) for block in blocks) - BETWEEN_TILES

    canvas = Image.new(sample.mode, (width + 2 * MARGIN, height + MARGIN), "white")
    pen = ImageDraw.Draw(canvas)
    pen.text((MARGIN, MARGIN), title, "black", _font(TITLE))
    pen.text((MARGIN, MARGIN + TITLE + LEADING), caption, "dimgrey", _font(SMALL))
    left = MARGIN
    for block, block_width in zip(blocks, widths, strict=True):
        pen.text((left, heading), block.heading, "dimgrey", _font(SMALL))
        for r, row in enumerate(block.rows):
            for c, image in enumerate(row):
                canvas.paste(image.resize(size, Image.Resampling.NEAREST), (left + c * across, tiles + r * down))
        left += block_width + BETWEEN_BLOCKS
    return canvas


def _font(size: int) -> ImageFont.FreeTypeFont:
    """The font of the figures, which comes with matplotlib."""
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)


def _length(text: str, size: int) -> int:
    return math.ceil(_font(size).getlength(text))
