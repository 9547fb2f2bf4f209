"""A grid shows every image, enlarged and unaltered, where its block puts it."""

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from delta_vae_lab.image_grid import BETWEEN_TILES, TILE, Block, draw_grid

Picture = npt.NDArray[np.uint8]


def pictures(count: int, shape: tuple[int, ...]) -> list[Picture]:
    return list(np.random.default_rng(0).integers(0, 255, (count, *shape), dtype=np.uint8))


def position(canvas: Picture, image: Picture, scale: int) -> tuple[int, int] | None:
    """Left and top of the image's one copy, each of its pixels a square of `scale`."""
    tile = image.repeat(scale, axis=0).repeat(scale, axis=1)
    height, width = tile.shape[:2]
    for y, x in np.argwhere((canvas == tile[0, 0]).reshape(*canvas.shape[:2], -1).all(-1)):
        if np.array_equal(canvas[y : y + height, x : x + width], tile):
            return int(x), int(y)
    return None


@pytest.mark.parametrize(("shape", "mode", "scale"), [((8, 8), "L", 8), ((5, 3, 3), "RGB", 13), ((70, 9), "L", 1)])
def test_images_stand_in_rows_under_their_block(shape: tuple[int, ...], mode: str, scale: int) -> None:
    images = pictures(5, shape)
    tiles = [Image.fromarray(image) for image in images]
    blocks = [Block("left", [tiles[:2], tiles[2:3]]), Block("", [[tiles[3]], [tiles[4]]])]
    picture = draw_grid("A title", "a caption", blocks)
    assert picture.mode == mode
    canvas = np.asarray(picture)
    (x0, y0), *others = [position(canvas, image, scale) or (-1, -1) for image in images]
    across, down = shape[1] * scale + BETWEEN_TILES, shape[0] * scale + BETWEEN_TILES
    assert max(across, down) - BETWEEN_TILES >= TILE
    assert others[:2] == [(x0 + across, y0), (x0, y0 + down)]
    (x3, y3), last = others[2:]
    assert x3 > x0 + 2 * across
    assert y3 == y0
    assert last == (x3, y0 + down)


def test_a_title_is_never_cut_off() -> None:
    tile = Image.fromarray(pictures(1, (8, 8))[0])
    narrow = draw_grid("short", "", [Block("", [[tile]])])
    wide = draw_grid("a title that is wider than the one image below it" * 2, "", [Block("", [[tile]])])
    ink = np.argwhere(np.asarray(wide)[:40] < 128)
    assert wide.width > narrow.width
    assert ink[:, 1].max() < wide.width - 5
    assert wide.height == narrow.height
