"""Order statistics and intervals, on samples whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from bench import stats


@pytest.mark.parametrize(
    ("p", "n", "rank"),
    [
        (50, 1, 0),
        (50, 2, 0),
        (50, 5, 2),
        (50, 100, 49),
        (90, 64, 57),
        (90, 1000, 900),
        (99, 662, 655),
        (99, 5000, 4949),
    ],
)
def test_percentile_is_an_order_statistic(p: int, n: int, rank: int) -> None:
    """It is a value that was observed, at the rank trexec's definition gives, in any order of the sample."""
    samples = np.random.default_rng(n).permutation(np.arange(n) * 10)
    assert rank == max(n - 1 - int((1 - p / 100) * n), 0)
    assert stats.percentile(samples, p) == rank * 10


@pytest.mark.parametrize(("p", "floor"), [(50, 1), (90, 64), (99, 662)])
def test_percentile_is_null_below_its_floor(p: int, floor: int) -> None:
    """A sample too small for a percentile has none; one more and it has."""
    assert stats.percentile(np.arange(floor - 1), p) is None
    assert stats.percentile(np.arange(floor), p) is not None


def test_interval_holds_the_median_as_often_as_it_says() -> None:
    """Of 100 samples of skewed times with a known median, the interval covers it in at least 93."""
    held = 0
    for seed in range(100):
        times = np.random.default_rng(seed).lognormal(mean=10.0, sigma=0.3, size=200)
        low, high = stats.interval(times.astype(np.int64), np.median) or (0.0, 0.0)
        held += low <= np.exp(10.0) <= high
    assert 93 <= held < 100


def test_interval_is_wider_where_neighbours_resemble_each_other() -> None:
    """Slow drift is not averaged away: whole blocks are drawn, so the same values in order weigh less."""
    drift = (1e6 + 1e5 * np.sin(np.arange(400) / 60)).astype(np.int64)
    shuffled = np.random.default_rng(0).permutation(drift)
    in_order, mixed = stats.interval(drift, np.median), stats.interval(shuffled, np.median)
    assert in_order is not None
    assert mixed is not None
    assert in_order[1] - in_order[0] > 2 * (mixed[1] - mixed[0])


def test_interval_needs_forty_samples() -> None:
    """Two samples for each of twenty blocks, or nothing."""
    assert stats.interval(np.arange(39), np.median) is None
    assert stats.interval(np.arange(40), np.median) is not None


def test_interval_is_the_same_every_time_and_touches_no_global_state() -> None:
    """The same samples give the same bounds, whatever else draws random numbers."""
    times = np.random.default_rng(3).integers(1000, 2000, 100)
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - the global generator is what must not move
    first = stats.interval(times, np.median)
    np.random.default_rng().random(10)
    assert stats.interval(times, np.median) == first
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


def test_interval_of_the_mean_lies_around_the_mean() -> None:
    """The statistic is the caller's."""
    times = np.random.default_rng(4).integers(1000, 2000, 500)
    low, high = stats.interval(times, np.mean) or (0.0, 0.0)
    assert low < times.mean() < high
    assert high - low < 150
