"""Order statistics and intervals, on samples whose answers are known."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import rankdata

from bench import stats

if TYPE_CHECKING:
    from collections.abc import Callable

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


def waits(rho: float, n: int, seed: int) -> NDArray[np.int64]:
    """Return AR(1) times with a floor and a long tail: every step adds an exponential wait."""
    noise = np.random.default_rng(seed).exponential(size=n + 200)
    return (1e6 * lfilter([1.0], [1.0, -rho], noise)[200:]).astype(np.int64)


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.6])
def test_interval_covers_the_median_of_series_whose_neighbours_resemble_each_other(rho: float) -> None:
    """Of 400 AR(1) series of 5,000 skewed times the interval holds the true median in 93 to 97 %."""
    held = 0
    for seed in range(400):
        low, high = stats.interval(series(rho, 5000, seed), np.median) or (0.0, 0.0)
        held += low <= np.exp(10.0) <= high
    assert 0.93 <= held / 400 <= 0.97


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.6])
def test_interval_covers_the_median_of_times_with_a_long_tail(rho: float) -> None:
    """The same for exponential waits; their median is that of a series 800 times as long."""
    truth = np.median(waits(rho, 4_000_000, 400))
    held = 0
    for seed in range(400):
        low, high = stats.interval(waits(rho, 5000, seed), np.median) or (0.0, 0.0)
        held += low <= truth <= high
    assert 0.93 <= held / 400 <= 0.97


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.6])
def test_interval_of_the_mean_covers_the_mean(rho: float) -> None:
    """The mean of the same times is known in closed form, exp(10 + 0.3 ** 2 / 2)."""
    held = 0
    for seed in range(400):
        low, high = stats.interval(series(rho, 5000, seed), np.mean) or (0.0, 0.0)
        held += low <= np.exp(10.0 + 0.045) <= high
    assert 0.93 <= held / 400 <= 0.97


def test_interval_is_null_where_the_sample_is_worth_too_little() -> None:
    """Two hundred times that resemble their neighbours by 0.9 are worth about 15: null, never narrow."""
    assert all(stats.interval(series(0.9, 200, seed), np.median) is None for seed in range(1000))


def test_interval_of_a_hundred_independent_times() -> None:
    """Over eight of ten such samples have an interval, and it holds the median as often as it says."""
    found = [stats.interval(series(0.0, 100, seed), np.median) for seed in range(1000)]
    given = [bounds for bounds in found if bounds]
    assert len(given) >= 850
    assert np.mean([low <= np.exp(10.0) <= high for low, high in given]) >= 0.94


@pytest.mark.parametrize(("n", "rho"), [(40, 0.6), (100, 0.6), (40, 0.9)])
def test_interval_is_never_narrow_for_want_of_samples(n: int, rho: float) -> None:
    """Few samples whose neighbours resemble each other pass for many in less than three of a hundred."""
    found = [stats.interval(series(rho, n, seed), np.median) for seed in range(1000)]
    assert sum(bounds is not None for bounds in found) < 30


def test_effective_is_n_over_the_autocorrelation_time() -> None:
    """Closed form: being below the median of a Gaussian AR(1) correlates by 2 / pi asin(rho^k) at lag k."""
    n = 20_000
    for rho in (0.0, 0.3, 0.6, 0.9):
        tau = 1 + 2 * sum(2 / np.pi * np.arcsin(rho**k) for k in range(1, 200))
        assert stats.effective(series(rho, n, 1)) == pytest.approx(n / tau, rel=0.15)
    assert stats.effective(np.full(100, 7)) == 100.0
    assert stats.effective(np.array([1, 9] * 50)) == 100.0


def test_interval_of_a_drift_is_null() -> None:
    """A series that rises, or swings once, has no median to be sure of; the same values mixed have."""
    rng = np.random.default_rng(0)
    rising = np.arange(1000)
    swinging = (1e6 + 1e5 * np.sin(np.linspace(0, 2 * np.pi, 1000)) + rng.normal(0, 1e4, 1000)).astype(
        np.int64
    )
    for times in (rising, swinging):
        assert stats.effective(times) < 10
        assert stats.interval(times, np.median) is None
        assert stats.interval(rng.permutation(times), np.median) is not None


@pytest.mark.parametrize("statistic", [np.median, np.mean])
def test_interval_of_a_constant_is_that_constant(
    statistic: Callable[[NDArray[np.int64], int], NDArray[np.float64]],
) -> None:
    """A clock too coarse to see any difference is no reason to fail."""
    assert stats.interval(np.full(200, 5), statistic) == (5.0, 5.0)


def test_interval_of_a_coarse_clock_is_of_its_ticks() -> None:
    """Three values only, the middle one in half of all cases: the median is known, and is that one."""
    times = np.random.default_rng(2).choice([100, 200, 300], 1000, p=[0.25, 0.5, 0.25])
    assert stats.interval(times, np.median) == (200.0, 200.0)


def test_interval_needs_sixty_samples() -> None:
    """Below sixty there is none, however independent they are."""
    times = np.random.default_rng(1).permutation(np.arange(100))
    assert stats.interval(times[:59], np.median) is None
    assert stats.interval(times, np.median) is not None


@pytest.mark.parametrize("statistic", [np.median, np.mean])
def test_interval_agrees_with_resamples_that_are_written_out(
    statistic: Callable[[NDArray[np.int64], int], NDArray[np.float64]],
) -> None:
    """Counting below a bound and summing blocks find what drawing every resample and reducing it finds."""
    times = series(0.3, 525, 7)
    worth = min(stats.effective(times), stats._worth(rankdata(times, method="min")))
    block = math.ceil(525 / worth * worth ** (1 / 3))
    count = -(-525 // block)
    assert block > 1
    assert block * count % 2, "an odd number, so that the median is one of them"
    starts = np.random.default_rng(0).integers(0, 525, (stats.RESAMPLES, count))
    drawn = times[(starts[:, :, None] + np.arange(block)) % 525].reshape(stats.RESAMPLES, -1)
    tail = stats._tail(worth, count)
    assert 0.01 < tail < 0.025
    expected = np.quantile(statistic(drawn, 1), [tail, 1 - tail], method="inverted_cdf")
    assert stats.interval(times, statistic) == pytest.approx(tuple(expected), rel=1e-12)


def test_interval_is_of_the_median_or_the_mean() -> None:
    """Another statistic is an error, not the interval of something else."""
    with pytest.raises(ValueError, match="median"):
        stats.interval(np.arange(100), np.max)


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
