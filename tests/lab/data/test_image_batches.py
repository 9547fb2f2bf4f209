"""Batches of images: each once an epoch, the same order and flips from any position and for any number of processes."""

import json
from collections import Counter
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from delta_vae_lab.data import ImageBatch, ImageBatches, heldout_image_batches

COUNT = 53


def images_of(count: int) -> npt.NDArray[np.uint8]:
    """Image i is i everywhere but in the last column, which is 255: (count, 3, 4, 2)."""
    images = np.empty((count, 3, 4, 2), dtype=np.uint8)
    images[..., 0] = np.arange(count)[:, None, None]
    images[..., 1] = 255
    return images


IMAGES = images_of(COUNT)


def batches_of(images: npt.NDArray[np.uint8] = IMAGES, **settings: Any) -> ImageBatches:
    return ImageBatches(images, **{"batch_size": 8, "seed": 5, **settings})


def indices(batch: ImageBatch) -> list[int]:
    return batch.pixel_values[:, 0, 0].amin(-1).tolist()


def flips(batch: ImageBatch) -> list[bool]:
    return (batch.pixel_values[:, 0, 0, 0] == 255).tolist()


def test_a_batch_is_levels_and_says_what_the_model_is_given() -> None:
    [batch] = heldout_image_batches(IMAGES[:3], batch_size=4)
    assert batch.pixel_values.dtype == torch.uint8
    assert batch.pixel_values.tolist() == IMAGES[:3].tolist()
    assert batch.inputs() == {"pixel_values": batch.pixel_values}
    assert batch.steps.tolist() == [[True] * 4] * 3  # one latent a row
    assert batch.units.tolist() == [24, 24, 24]
    assert batch.to("meta").pixel_values.device.type == batch.to("meta").steps.device.type == "meta"
    part = batch.part(slice(1, 3))
    assert (indices(part), part.rows) == ([1, 2], [1, 2])


def test_every_image_comes_once_an_epoch_but_for_the_rest_that_fills_no_batch() -> None:
    iterator = batches_of(horizontal_flips=True).iterate()
    missing = []
    for _ in range(4):
        seen = Counter(index for batch, _ in islice(iterator, 6) for index in indices(batch))
        assert set(seen.values()) == {1}
        assert len(seen) == 48
        missing.append(set(range(COUNT)) - set(seen))
    assert len(set.union(*missing)) > 5  # the rest is not always the same


def test_epochs_and_seeds_have_their_own_order() -> None:
    orders = {
        (seed, epoch): [
            indices(batch) for batch, _ in islice(batches_of(seed=seed).iterate(), 6 * epoch, 6 * epoch + 6)
        ]
        for seed in (5, 6)
        for epoch in (0, 1)
    }
    assert len({str(order) for order in orders.values()}) == 4


def test_flips_mirror_whole_images_about_half_of_them_and_others_each_epoch() -> None:
    plain, mirrored = (batches_of(horizontal_flips=flip).iterate() for flip in (False, True))
    flipped: list[list[bool]] = [[] for _ in range(20)]
    for step, ((batch, _), (mirror, _)) in enumerate(islice(zip(plain, mirrored, strict=True), 120)):
        assert not any(flips(batch))
        which = torch.tensor(flips(mirror))[:, None, None, None]
        assert torch.equal(mirror.pixel_values, torch.where(which, batch.pixel_values.flip(-1), batch.pixel_values))
        flipped[step // 6] += flips(mirror)
    share = np.mean(flipped)
    assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(960)  # four standard errors
    assert len({str(epoch) for epoch in flipped}) == 20


@pytest.mark.parametrize("stop", [1, 5, 6, 7, 15])
def test_a_position_resumes_exactly(stop: int) -> None:
    """Within an epoch, at its end and in a later one, after a round trip through JSON."""
    whole = list(islice(batches_of(horizontal_flips=True).iterate(), 20))
    position = json.loads(json.dumps(whole[stop - 1][1]))
    resumed = batches_of(horizontal_flips=True).iterate(position)
    for (batch, after), (expected, expected_after) in zip(islice(resumed, 20 - stop), whole[stop:], strict=True):
        assert torch.equal(batch.pixel_values, expected.pixel_values)
        assert after == expected_after


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_processes_share_out_the_global_batch_flips_and_all(world_size: int) -> None:
    whole = list(islice(batches_of(horizontal_flips=True).iterate(), 14))
    ranks = [batches_of(horizontal_flips=True, rank=rank, world_size=world_size) for rank in range(world_size)]
    # From the start, and from a position that another number of processes has written.
    for start, origin in ((0, None), (9, whole[8][1])):
        for (batch, after), *parts in zip(whole[start:], *(rank.iterate(origin) for rank in ranks), strict=False):
            assert sorted(row for part, _ in parts for row in part.rows) == batch.rows == list(range(8))
            for part, part_after in parts:
                assert torch.equal(part.pixel_values, batch.pixel_values[part.rows])
                assert part_after == after


@pytest.mark.parametrize("limit", [None, 7, 1000])
def test_heldout_images_come_exactly_once_in_order(limit: int | None) -> None:
    batches = list(heldout_image_batches(IMAGES, 10, limit))
    assert [row for batch in batches for row in batch.rows] == list(range(min(limit or COUNT, COUNT)))
    assert all(indices(batch) == batch.rows for batch in batches)


def test_what_is_given_is_not_written_to() -> None:
    images = images_of(8)
    images.flags.writeable = False
    for batch in (next(batches_of(images).iterate())[0], next(heldout_image_batches(images, 8))):
        batch.pixel_values.zero_()
    assert np.array_equal(images, IMAGES[:8])


def test_fewer_images_than_a_batch() -> None:
    with pytest.raises(ValueError, match="7 training images do not fill one batch of batch_size=8; use a smaller"):
        batches_of(images_of(7))
    assert batches_of(images_of(8)).batches_per_epoch == 1


def test_a_batch_size_that_the_processes_cannot_share() -> None:
    with pytest.raises(ValueError, match="batch_size=8 cannot be shared by 3 processes; use a multiple of 3"):
        batches_of(world_size=3)


@pytest.mark.parametrize(
    "change", [{"seed": 6}, {"batch_size": 4}, {"images": IMAGES[:50]}, {"horizontal_flips": True}]
)
def test_a_position_of_another_order_is_refused(change: dict[str, Any]) -> None:
    _, position = next(batches_of().iterate())
    with pytest.raises(
        ValueError, match=r"the position to resume from has (\w+)=\w+, this run has \1=\w+; resume with"
    ):
        batches_of(**change).iterate(position)
