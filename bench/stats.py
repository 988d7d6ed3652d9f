"""Order statistics and intervals of a timing sample. Nothing is assumed normal or independent."""

from __future__ import annotations

import math
from bisect import bisect_left
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

SUPPORT = {50: 1, 90: 64, 99: 662}
"""Samples a percentile needs: the floors of MLPerf's early stopping for SingleStream."""

WORTH = 60
"""Independent samples an interval needs.

With fewer, for how long neighbours resemble each other is known too badly, and is taken for too short: its
relative error is about 2 / sqrt(worth), a quarter here. An interval from them would be too narrow too often.
"""

RESAMPLES = 1000
NORMAL = NormalDist()
Z = NORMAL.inv_cdf(0.975)


def percentile(samples: NDArray[np.int64], p: int) -> float | None:
    """Return the p-th percentile as an order statistic, or None if the sample cannot support it.

    The definition is trtexec's: no interpolation, so the value was really observed.
    """
    n = len(samples)
    if n < SUPPORT[p]:
        return None
    rank = max(n - 1 - int((1 - p / 100) * n), 0)
    return float(np.partition(samples, rank)[rank])


def effective(samples: NDArray[np.int64]) -> float:
    """Return how many independent samples would know the median as well as these do.

    That is n over the integrated autocorrelation time of lying below or above the median, which decides
    the median's variance; estimated by Geyer's initial positive sequence (Geyer 1992, section 3.3).

    Args:
        samples: `[n]`, in the order they were taken; one at least.

    Returns:
        From about 1, for a series that only drifts, to n; never more, and n where all are equal.

    """
    return _worth(np.sign(samples - np.median(samples)))


def interval(
    samples: NDArray[np.int64], statistic: Callable[[NDArray[np.int64], int], NDArray[np.float64]]
) -> tuple[float, float] | None:
    """Return the 95 % interval of the median or the mean by circular block bootstrap (Politis & Romano 1992).

    Neighbouring times resemble each other, so whole blocks of them are drawn, tau^(2/3) n^(1/3) long: the
    optimal length for an AR(1) series (Politis & White 2004, corrected by Patton, Politis & White 2009) times
    about 1.4, as too short costs more coverage than too long. Here tau is the longer autocorrelation time of
    two, that which `effective` has and that of the ranks, which finds weak resemblance sooner. The bounds are
    quantiles of the resampled statistic, taken further out for having few blocks (Student's t) and for tau
    being an estimate. Seeded: the same samples give the same interval.

    Args:
        samples: `[n]`, times in the order they were taken.
        statistic: `numpy.median` or `numpy.mean`.

    Returns:
        Lower and upper bound, or None where the samples are worth fewer than `WORTH` independent ones.

    Raises:
        ValueError: The statistic is another one.

    """
    if statistic not in {np.median, np.mean}:
        raise ValueError(f"no interval of {statistic}: numpy.median and numpy.mean have one")
    n = len(samples)
    if n < WORTH:
        return None
    order = np.argsort(samples, kind="stable")
    rank = np.empty(n, dtype=np.int64)
    rank[order] = np.arange(n)
    # Equal times have equal ranks here, or the order they came in would look like a drift.
    shared = np.searchsorted(samples[order], samples).astype(np.float64)
    worth = min(effective(samples), _worth(shared))
    if worth < WORTH:
        return None
    block = math.ceil(n / worth * worth ** (1 / 3))
    count = -(-n // block)
    starts = np.random.default_rng(0).integers(0, n, (RESAMPLES, count))
    tail = _tail(worth, count)
    if statistic is np.mean:
        means = np.sort(_sums(samples, block, starts) / (count * block))
        outer = int(tail * RESAMPLES)
        return float(means[outer]), float(means[-1 - outer])

    def reached(bound: int) -> int:
        """Count the resamples whose median is not above the sample of that rank."""
        below = _sums((rank <= bound).astype(np.int64), block, starts)
        return int(np.count_nonzero(2 * below >= count * block))

    # Only two quantiles of the medians are asked for, and counting finds them without sorting any resample.
    low, high = (bisect_left(range(n), q * RESAMPLES, key=reached) for q in (tail, 1 - tail))
    return float(samples[order[low]]), float(samples[order[high]])


def _worth(scores: NDArray[np.float64]) -> float:
    """Return n over the autocorrelation time of the scores, `[n]`: Geyer's initial positive sequence."""
    n = len(scores)
    centred = scores - scores.mean()
    variance = float(centred @ centred) / n
    if variance == 0.0:
        return float(n)
    size = 1 << (2 * n - 1).bit_length()
    spectrum = np.fft.rfft(centred, size)
    correlation = np.fft.irfft(spectrum * np.conj(spectrum), size)[:n] / (n * variance)
    pairs = correlation[: n - n % 2].reshape(-1, 2).sum(axis=1)
    end = int(np.argmax(pairs <= 0.0)) if (pairs <= 0.0).any() else len(pairs)
    return n / max(1.0, 2.0 * float(pairs[:end].sum()) - 1.0)


def _tail(worth: float, count: int) -> float:
    """Return the share left out at each end: below 2.5 %, as blocks are few and tau is an estimate."""
    freedom = count - 1
    student = math.sqrt(count / freedom) * (1 + (Z**2 + 1) / (4 * freedom))
    return NORMAL.cdf(-Z * student * math.sqrt(1 + 2 / math.sqrt(worth)))


def _sums(values: NDArray[np.int64], block: int, starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the sum of each resample, `[r]`, of the blocks that begin at `starts`, `[r, count]`."""
    n = len(values)
    totals = np.concatenate([[0], np.cumsum(np.concatenate([values, values[:block]]))])
    sums: NDArray[np.int64] = (totals[block : block + n] - totals[:n])[starts].sum(axis=1)
    return sums
