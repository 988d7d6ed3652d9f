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

FEWEST = 60
"""Independent samples an interval needs: with fewer, how much neighbours resemble each other cannot be told.

Of samples of 200 calls that resemble their neighbours by 0.9, worth about ten, 99 in 100 are found too small.
"""

MIN_BLOCKS = 20
RESAMPLES = 1000
MANY = 20_000
"""Samples from which fewer resamples do: the bounds are then close together."""
FEWER = 400


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

    That is n over the integrated autocorrelation time of being below the median, which decides the
    median's variance; estimated by Geyer's initial positive sequence (Geyer 1992, section 3.3).

    Args:
        samples: `[n]`, in the order they were taken.

    """
    n = len(samples)
    below = (samples < np.median(samples)).astype(np.float64)
    below -= below.mean()
    variance = float(below @ below) / n
    if variance == 0.0:
        return float(n)
    size = 1 << (2 * n - 1).bit_length()
    spectrum = np.fft.rfft(below, size)
    correlation = np.fft.irfft(spectrum * np.conj(spectrum), size)[:n] / (n * variance)
    pairs = correlation[: n - n % 2].reshape(-1, 2).sum(axis=1)
    end = int(np.argmax(pairs <= 0.0)) if (pairs <= 0.0).any() else len(pairs)
    return n / max(1.0, 2.0 * float(pairs[:end].sum()) - 1.0)


def interval(
    samples: NDArray[np.int64], statistic: Callable[[NDArray[np.int64], int], NDArray[np.float64]]
) -> tuple[float, float] | None:
    """Return the 95 % interval of a statistic by circular block bootstrap (Politis & Romano 1992).

    Neighbouring times resemble each other, so whole blocks of about sqrt(n) neighbours are
    drawn, and longer ones where they resemble each other for longer. Seeded: the same samples
    give the same interval.

    Args:
        samples: Times in the order they were taken.
        statistic: Reduces an array along an axis, as `numpy.median` does.

    Returns:
        Lower and upper bound, or None if the sample is worth fewer than 60 independent ones.

    """
    n = len(samples)
    if n < FEWEST or (worth := effective(samples)) < FEWEST:
        return None
    block = max(min(math.isqrt(n - 1) + 1, n // MIN_BLOCKS), math.ceil(2 * n / worth))
    count = -(-n // block)
    resamples = RESAMPLES if n < MANY else FEWER
    starts = np.random.default_rng(0).integers(0, n, (resamples, count))
    ring = np.concatenate([samples, samples[:block]])
    offsets = np.arange(block)
    values = np.empty(resamples)
    for row in range(resamples):
        values[row] = statistic(ring[(starts[row, :, None] + offsets).ravel()[:n]], 0)
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
