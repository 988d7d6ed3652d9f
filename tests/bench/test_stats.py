"""Order statistics and intervals, on samples whose answers are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.signal import lfilter

from bench import stats

if TYPE_CHECKING:
    from numpy.typing import NDArray


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


def series(rho: float, n: int, seed: int) -> NDArray[np.int64]:
    """Return times with a median of exp(10), skewed, each resembling the one before by `rho`: AR(1)."""
    noise = np.random.default_rng(seed).normal(size=n + 200)
    values = lfilter([np.sqrt(1 - rho**2)], [1.0, -rho], noise)[200:]
    return np.exp(10.0 + 0.3 * values).astype(np.int64)


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.6])
def test_interval_covers_the_median_of_series_whose_neighbours_resemble_each_other(rho: float) -> None:
    """Of 200 AR(1) series of 5,000 skewed times the interval holds the true median in 93 to 97 %."""
    held = 0
    for seed in range(200):
        low, high = stats.interval(series(rho, 5000, seed), np.median) or (0.0, 0.0)
        held += low <= np.exp(10.0) <= high
    assert 0.93 <= held / 200 <= 0.97


def test_interval_of_the_mean_covers_the_mean() -> None:
    """The mean of the same times is known in closed form, exp(10 + 0.3 ** 2 / 2)."""
    held = 0
    for seed in range(400):
        low, high = stats.interval(series(0.3, 5000, seed), np.mean) or (0.0, 0.0)
        held += low <= np.exp(10.0 + 0.045) <= high
    assert 0.93 <= held / 400 <= 0.97


def test_interval_is_null_where_the_sample_is_worth_too_little() -> None:
    """Two hundred times that resemble their neighbours by 0.9 are worth about ten: null, not narrow."""
    null = sum(stats.interval(series(0.9, 200, seed), np.median) is None for seed in range(1000))
    assert null >= 990


def test_effective_is_n_over_the_autocorrelation_time() -> None:
    """Closed form: being below the median of a Gaussian AR(1) correlates by 2 / pi asin(rho^k) at lag k."""
    n = 20_000
    for rho in (0.0, 0.3, 0.6, 0.9):
        tau = 1 + 2 * sum(2 / np.pi * np.arcsin(rho**k) for k in range(1, 200))
        assert stats.effective(series(rho, n, 1)) == pytest.approx(n / tau, rel=0.15)
    assert stats.effective(np.full(100, 7)) == 100.0
    assert stats.effective(np.array([1, 9] * 50)) == 100.0


def test_interval_of_a_drift_is_null() -> None:
    """A series that only ever rises has no median to be sure of; the same values mixed have."""
    rising = np.arange(1000)
    assert stats.interval(rising, np.median) is None
    assert stats.interval(np.random.default_rng(0).permutation(rising), np.median) is not None


def test_interval_of_a_constant_is_that_constant() -> None:
    """A clock too coarse to see any difference is no reason to fail."""
    assert stats.interval(np.full(200, 5), np.median) == (5.0, 5.0)


def test_interval_needs_sixty_samples() -> None:
    """Below sixty there is none, however independent they are."""
    times = np.random.default_rng(1).permutation(np.arange(100))
    assert stats.interval(times[:59], np.median) is None
    assert stats.interval(times, np.median) is not None


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
