"""Order statistics and intervals of a timing sample. Nothing is assumed normal or independent."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

SUPPORT = {50: 1, 90: 64, 99: 662}
"""Samples a percentile needs: the floors of MLPerf's early stopping for SingleStream."""

MIN_BLOCKS = 20
RESAMPLES = 1000


def percentile(samples: NDArray[np.int64], p: int) -> float | None:
    """Return the p-th percentile as an order statistic, or None if the sample cannot support it.

    The definition is trtexec's: no interpolation, so the value was really observed.
    """
    n = len(samples)
    if n < SUPPORT[p]:
        return None
    rank = max(n - 1 - int((1 - p / 100) * n), 0)
    return float(np.partition(samples, rank)[rank])


def interval(
    samples: NDArray[np.int64], statistic: Callable[[NDArray[np.int64], int], NDArray[np.float64]]
) -> tuple[float, float] | None:
    """Return the 95 % interval of a statistic by circular block bootstrap (Politis & Romano 1992).

    Neighbouring times resemble each other, so whole blocks of about sqrt(n) neighbours are
    drawn. Seeded: the same samples give the same interval.

    Args:
        samples: Times in the order they were taken.
        statistic: Reduces an array along an axis, as `numpy.median` does.

    Returns:
        Lower and upper bound, or None with fewer than two samples for each of 20 blocks.

    """
    n = len(samples)
    if n < 2 * MIN_BLOCKS:
        return None
    block = min(math.isqrt(n - 1) + 1, n // MIN_BLOCKS)
    count = -(-n // block)
    starts = np.random.default_rng(0).integers(0, n, (RESAMPLES, count))
    offsets = np.arange(block)
    values = np.empty(RESAMPLES)
    for row in range(RESAMPLES):
        drawn = samples[((starts[row, :, None] + offsets) % n).ravel()[:n]]
        values[row] = statistic(drawn, 0)
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
