"""What a figure shows is what it was given; it says of which data, seed and n, and leaves matplotlib's state alone."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import rcParams
from matplotlib.figure import Figure

from delta_vae_lab.figures import rate_by_position, rate_heat_map, save_figure, training_curves, write_figures
from delta_vae_lab.measurement import RateProfile
from delta_vae_lab.modality import EXAMPLES, IMAGES, TEXT

WHERE: dict[str, Any] = {"data": "cpython-language-reference", "seed": 7, "modality": TEXT}
LN_2 = math.log(2)
OF_IMAGES: dict[str, Any] = {"data": "digits", "seed": 7, "modality": IMAGES}


def rows() -> list[dict[str, Any]]:
    """20 steps of training, 10 or 40 tokens a sequence by turns, with 2 nats a token of distortion either way."""
    training = [
        {
            "step": step,
            "tokens_per_sequence": tokens,
            "distortion_nats": 2.0 * tokens,
            "rate_nats": 0.5 * tokens,
            "committed_rate_nats": 0.4 * tokens,
        }
        for step, tokens in zip(range(1, 21), (10.0, 40.0) * 10, strict=True)
    ]
    held_out = [
        {
            "step": step,
            "heldout_tokens": 3000,
            "heldout_sentences": 150,
            "heldout_distortion_nats": 20.0 * distortion,
            "heldout_rate_nats": 10.0,
            "heldout_committed_rate_nats": 8.0,
        }
        for step, distortion in ((10, 3.0), (20, 2.5))
    ]
    return training + held_out


@pytest.fixture
def profile() -> RateProfile:
    """Of 100 sequences, 4 of which reach step 6: less than the share that is drawn."""
    kl = torch.rand(6, 3, dtype=torch.float64) + 0.5
    return RateProfile(kl=kl, committed=kl - 0.3, sequences=torch.tensor([100, 100, 80, 60, 20, 4]))


def title(figure: Figure) -> str:
    return str(figure.get_suptitle())


def lines(figure: Figure, axis: int) -> list[tuple[list[float], list[float]]]:
    drawn = figure.axes[axis].get_lines()
    return [(np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist()) for line in drawn]


def test_training_curves_compare_batches_of_any_length() -> None:
    figure = training_curves(rows(), **WHERE)
    training, held_out = lines(figure, 0)
    assert training == (list(range(1, 21)), [2.0] * 20)
    assert held_out == ([10, 20], [3.0, 2.5])
    training, held_out, _ = lines(figure, 2)
    assert training[1] == pytest.approx([0.1] * 20)
    assert held_out[1] == pytest.approx([0.1] * 2)
    assert {axis.get_ylabel() for axis in figure.axes} == {"nats a token"}
    assert title(figure) == "cpython-language-reference, seed 7, held-out n = 150"


def test_training_curves_show_what_z_is_used_for_where_that_was_measured() -> None:
    """20 tokens a held-out sentence: 30 nats are 1.5 a token."""
    assert len(training_curves(rows(), **WHERE).axes) == 3
    used = {"heldout_shuffle_gap_nats": 30.0, "heldout_mutual_information_nats": 4.0}
    figure = training_curves([row | used if "heldout_tokens" in row else row for row in rows()], **WHERE)
    gap, information, _ = lines(figure, 3)
    assert gap == ([10, 20], [1.5, 1.5])
    assert information == ([10, 20], [0.2, 0.2])


def test_training_curves_of_images_are_in_bits_a_dimension() -> None:
    """Images of 64 dimensions: 128 ln 2 nats are 128 bits, 2 a dimension."""
    nats = {"distortion_nats": 128 * LN_2, "rate_nats": 16 * LN_2, "committed_rate_nats": 8 * LN_2}
    training = {"step": 1, "dimensions_per_image": 64.0} | nats
    held_out = {"step": 2, "heldout_images": 10, "heldout_dimensions": 640}
    held_out |= {f"heldout_{name}": 2 * value for name, value in nats.items()}
    figure = training_curves([training, held_out], **OF_IMAGES)
    for axis, expected in ((0, [2.0, 4.0]), (2, [0.125, 0.25])):
        drawn = lines(figure, axis)[:2]
        assert [x for x, _ in drawn] == [[1], [2]]
        assert [y for _, (y,) in drawn] == pytest.approx(expected)
    assert {axis.get_ylabel() for axis in figure.axes} == {"bits/dim"}
    assert title(figure) == "digits, seed 7, held-out n = 10"


def test_a_run_without_latents_has_a_distortion_alone() -> None:
    without = [{**row, "rate_nats": 0.0, "committed_rate_nats": 0.0} for row in rows() if "rate_nats" in row]
    figure = training_curves(without, **WHERE)
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["Distortion"]


def test_heat_maps_show_kl_floor_and_their_difference_as_far_as_sequences_reach(profile: RateProfile) -> None:
    figure = rate_heat_map(profile, **WHERE)
    images = [axis.get_images()[0] for axis in figure.axes[:3]]
    for image, values in zip(images, (profile.kl, profile.committed, profile.kl - profile.committed), strict=True):
        np.testing.assert_allclose(np.asarray(image.get_array()), values[:5].T)
    assert images[0].get_clim() == images[1].get_clim(), "KL and its committed share are compared by colour"
    assert sum(images[2].get_clim()) == 0, "white is no slack"
    assert title(figure) == "cpython-language-reference, seed 7, n = 100 held-out sequences"


def test_a_single_step_has_a_heat_map_and_no_course(tmp_path: Path) -> None:
    profile = RateProfile(kl=torch.rand(1, 4), committed=torch.zeros(1, 4), sequences=torch.tensor([300]))
    write_figures(tmp_path, [], profile, data="x", seed=0, modality=EXAMPLES)
    assert {path.stem for path in tmp_path.iterdir()} == {"rate_by_step_and_dimension"}
    figure = rate_heat_map(profile, data="x", seed=0, modality=EXAMPLES)
    low, high = figure.axes[2].get_xlim()
    assert [tick for tick in figure.axes[2].get_xticks() if low <= tick <= high] == [1]
    assert title(figure) == "x, seed 0, n = 300 held-out examples"


def test_rate_by_position_sums_over_dimensions(profile: RateProfile) -> None:
    figure = rate_by_position(profile, **WHERE)
    rate, committed = lines(figure, 0)
    assert rate[0] == committed[0] == [1, 2, 3, 4, 5]
    assert rate[1] == pytest.approx(profile.kl.sum(1)[:5].tolist())
    assert committed[1] == pytest.approx(profile.committed.sum(1)[:5].tolist())


def test_steps_of_images_are_their_rows_all_of_which_are_drawn() -> None:
    profile = RateProfile(kl=torch.rand(8, 2), committed=torch.rand(8, 2), sequences=torch.full((8,), 300))
    heat, position = rate_heat_map(profile, **OF_IMAGES), rate_by_position(profile, **OF_IMAGES)
    assert heat.axes[2].get_xlabel() == position.axes[0].get_xlabel() == "latent step t (row of the image)"
    assert title(heat) == title(position) == "digits, seed 7, n = 300 held-out images"
    assert lines(position, 0)[0][0] == list(range(1, 9))


def test_a_posterior_that_is_the_prior_can_be_drawn() -> None:
    nothing = RateProfile(kl=torch.zeros(4, 1), committed=torch.zeros(4, 1), sequences=torch.full((4,), 2))
    rate_heat_map(nothing, **WHERE).draw_without_rendering()


def test_png_and_svg_are_written_and_reproducible(tmp_path: Path, profile: RateProfile) -> None:
    settings = dict(rcParams)
    for folder in ("once", "again"):
        write_figures(tmp_path / folder, rows(), profile, **WHERE)
    assert dict(rcParams) == settings
    names = sorted(path.name for path in (tmp_path / "once").iterdir())
    stems = ("rate_by_position", "rate_by_step_and_dimension", "training")
    assert names == [f"{stem}.{ending}" for stem in stems for ending in ("png", "svg")]
    for name in names:
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert (tmp_path / "once" / "training.png").read_bytes().startswith(b"\x89PNG")


def test_only_what_there_are_numbers_for_is_drawn(tmp_path: Path) -> None:
    write_figures(tmp_path, [], None, **WHERE)
    assert not list(tmp_path.iterdir())


def test_no_figure_is_kept_in_global_state(tmp_path: Path, profile: RateProfile) -> None:
    import matplotlib.pyplot as plt

    save_figure(rate_by_position(profile, **WHERE), tmp_path, "figure")
    assert plt.get_fignums() == []
