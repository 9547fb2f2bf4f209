"""Learning-rate schedules: closed forms at every step."""

import math

import pytest

from delta_vae_lab.schedule import Schedule, learning_rate_factor

SCHEDULES: list[Schedule] = ["constant", "cosine", "inverse_sqrt"]


def factors(schedule: Schedule, warmup_steps: int, steps: int) -> list[float]:
    return [learning_rate_factor(step, schedule, warmup_steps, steps) for step in range(1, steps + 1)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warm_up_is_linear_and_ends_at_the_peak(schedule: Schedule) -> None:
    assert factors(schedule, 4, 20)[:4] == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup_steps", [0, 1, 5, 30])
def test_every_step_learns_and_none_more_than_the_peak(schedule: Schedule, warmup_steps: int) -> None:
    assert all(0 < factor <= 1 for factor in factors(schedule, warmup_steps, 20))


def test_constant_stays() -> None:
    assert factors("constant", 0, 5) == [1.0] * 5


def test_cosine_is_half_way_down_in_the_middle_and_0_after_the_last_step() -> None:
    assert learning_rate_factor(55, "cosine", warmup_steps=10, steps=99) == pytest.approx(0.5)
    assert learning_rate_factor(100, "cosine", warmup_steps=10, steps=99) == pytest.approx(0.0)
    assert learning_rate_factor(10**6, "cosine", warmup_steps=10, steps=99) == pytest.approx(0.0)


def test_inverse_sqrt_is_vaswanis_schedule_scaled_to_its_peak() -> None:
    def vaswani(step: int, warmup_steps: int) -> float:
        return 512**-0.5 * min(step**-0.5, step * warmup_steps**-1.5)

    expected = [vaswani(step, 40) / vaswani(40, 40) for step in range(1, 401)]
    assert factors("inverse_sqrt", 40, 400) == pytest.approx(expected)
    assert learning_rate_factor(9, "inverse_sqrt", warmup_steps=0, steps=9) == pytest.approx(1 / 3)


def test_the_mean_of_a_cosine_is_a_half() -> None:
    assert math.fsum(factors("cosine", 0, 999)) / 1000 == pytest.approx(0.5, abs=1e-3)
