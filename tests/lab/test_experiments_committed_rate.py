"""Figure 1 at its smallest: minima that were found stand beside the closed form, and are what is drawn."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.patches import Ellipse

from delta_vae_lab.experiments.figure_1 import SCALES, TITLE, figures, render, run
from delta_vae_lab.experiments.request import Request


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    assert "smoke" in SCALES
    request = Request(scale="smoke", seeds=(0, 1), output=Path())
    found = {"experiment": "figure-1", "scale": "smoke", "seeds": [0, 1]} | run(request)
    read: dict[str, Any] = json.loads(json.dumps(found, allow_nan=False))
    return read


def of(result: dict[str, Any], alpha: float, steps: int) -> dict[str, Any]:
    (found,) = (one for one in result["minima"] if (one["alpha"], one["steps"]) == (alpha, steps))
    return dict(found)


@pytest.mark.parametrize(("alpha", "nats"), [(0.5, 0.1438), (0.8, 0.5108), (0.95, 1.1640)])
def test_the_papers_values_of_two_steps_are_found_from_every_start(
    result: dict[str, Any], alpha: float, nats: float
) -> None:
    one = of(result, alpha, 2)
    assert one["paper_nats"] == nats
    assert one["found_nats"] == pytest.approx([nats] * 2, abs=5e-5), "a start of each of two seeds"
    assert one["committed_rate_nats"] == pytest.approx(nats, abs=5e-5)
    assert one["posterior_variance"] == pytest.approx([1 - alpha**2] * 2, abs=1e-5)
    assert one["prior_covariance"] == [[1, alpha], [alpha, 1]]


def test_minima_that_were_found_are_the_closed_form_and_what_the_prior_says(result: dict[str, Any]) -> None:
    assert {one["steps"] for one in result["minima"]} == {2, 7}
    for one in result["minima"]:
        assert one["found_nats"] == pytest.approx([one["committed_rate_nats"]] * 2, abs=1e-9)
        assert len(set(one["found_nats"])) == 2, "two searches, not one value"
        assert one["prior_kl_nats"] == pytest.approx(min(one["found_nats"]), abs=1e-5)


def test_the_image_models_commit_what_the_paper_prints(result: dict[str, Any]) -> None:
    bits = [(one["committed_rate_bits"], one["paper_bits"]) for one in result["image_models"]]
    assert bits == [(pytest.approx(79.447, abs=5e-4), 79.44), (pytest.approx(666.63, abs=5e-3), 666.6)]


def test_one_more_step_commits_less_than_half_a_bit_and_the_curves_rise(result: dict[str, Any]) -> None:
    curves = result["curves"]
    assert 0.45 < max(curves["one_more_step_bits"]) < curves["ceiling_bits"] == 0.5
    for one in curves["lengths"]:
        assert one["committed_rate_nats"][0] == 0
        assert (np.diff(one["committed_rate_nats"]) > 0).all()


def test_the_table_says_what_is_the_papers(result: dict[str, Any]) -> None:
    table = render(result)
    assert "2 random starts each, seeds 0, 1" in table
    rows = [line.split() for line in table.splitlines()]
    assert ["0.5", "2", *["0.1438"] * 5] in rows
    assert ["0.5", "7", *["0.7017"] * 4] in rows, "the paper's value of 7 steps is not known"
    assert "666.629 bits an image; the paper prints 666.6" in table


def test_figures_are_drawn_from_the_result_alone(result: dict[str, Any]) -> None:
    drawn = figures(result)
    assert set(drawn) == {"committed_rate", "prior_and_best_posterior"}
    for figure in drawn.values():
        figure.draw_without_rendering()
    assert "seeds 0, 1" in str(drawn["committed_rate"].get_suptitle())
    lines = {
        str(line.get_label()): np.asarray(line.get_ydata()) for line in drawn["committed_rate"].axes[0].get_lines()
    }
    np.testing.assert_array_equal(lines["n = 7"], result["curves"]["lengths"][1]["committed_rate_nats"][1:])


def test_contours_are_at_one_and_two_standard_deviations(result: dict[str, Any]) -> None:
    """x' C^-1 x = 1 and 4 along them; every other vertex of matplotlib's arcs only steers them."""
    for axis, alpha in zip(figures(result)["prior_and_best_posterior"].axes, (0.5, 0.8, 0.95), strict=True):
        covariances = [np.array([[1, alpha], [alpha, 1]])] * 2 + [(1 - alpha**2) * np.eye(2)] * 2
        ellipses = [patch for patch in axis.patches if isinstance(patch, Ellipse)]
        for ellipse, covariance, deviations in zip(ellipses, covariances, (1, 2, 1, 2), strict=True):
            (points,) = ellipse.get_patch_transform().transform_path(ellipse.get_path()).to_polygons()
            distance = np.einsum("ij,jk,ik->i", points[::2], np.linalg.inv(covariance), points[::2])
            np.testing.assert_allclose(distance, deviations**2, rtol=1e-4)
        assert axis.get_aspect() == 1


def test_the_title_is_one_line() -> None:
    assert TITLE.startswith("Figure 1")
    assert "\n" not in TITLE
