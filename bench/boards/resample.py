"""How far an order over settings holds: settings drawn anew, seeds too, and each setting left out once."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from bench.welch import t_quantile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Groups = list[tuple[NDArray[np.int64], float]]
    """Columns and weight of each group."""

FEW = 2
"""Settings below which leaving one out, or drawing them anew, says nothing."""
DIGITS = 9
"""Scores that agree to so many decimals are equal: the order of a sum is no difference."""
_CHUNK = 100
"""Resamples at a time: more fall out of the processor's cache."""


def weighed(counts: Floats, values: Floats, groups: Groups) -> Floats:
    """Return the weighted mean over groups of the mean over settings.

    Args:
        counts: `[r, settings]`: how often each setting counts in each of r rounds.
        values: `[backbones, settings]`; NaN where there is none.
        groups: Columns and weight of each group.

    Returns:
        `[r, backbones]`; a group of which nothing is there is left out, NaN where all are.

    """
    here = (~np.isnan(values)).astype(np.float64)
    filled = np.nan_to_num(values)
    total = np.zeros((len(counts), len(values)))
    weight = np.zeros_like(total)
    for columns, heavy in groups:
        count = counts[:, columns] @ here[:, columns].T
        total += heavy * (counts[:, columns] @ filled[:, columns].T) / np.maximum(count, 1)
        weight += heavy * (count > 0)
    return np.where(weight > 0, total / np.where(weight > 0, weight, 1.0), np.nan)


def _spread(counts: Floats, errors: Floats, here: Floats, groups: Groups) -> Floats:
    """Return the standard error of `weighed` that comes from the seeds alone: `[r, backbones]`.

    A setting that counts twice is one measurement counted twice, so its error is, too.
    """
    total = np.zeros((len(counts), len(errors)))
    weight = np.zeros_like(total)
    for columns, heavy in groups:
        count = counts[:, columns] @ here[:, columns].T
        total += heavy**2 * (counts[:, columns] ** 2 @ errors[:, columns].T ** 2) / np.maximum(count, 1) ** 2
        weight += heavy * (count > 0)
    return np.sqrt(total) / np.where(weight > 0, weight, 1.0)


def resampled(
    z: Floats, error: Floats, groups: Groups, resamples: int
) -> tuple[list[tuple[float, float]], list[tuple[int, int]], list[bool]]:
    """Return intervals of z and of rank, and who is tied with the one above; empty with too few settings."""
    settings = z.shape[1]
    if settings < FEW:
        return [], [], [False] * len(z)
    rng = np.random.default_rng(0)
    here = (~np.isnan(z)).astype(np.float64)
    errors = np.nan_to_num(error) * here
    drawn = []
    for start in range(0, resamples, _CHUNK):
        size = min(_CHUNK, resamples - start)
        counts = rng.multinomial(settings, np.full(settings, 1 / settings), size).astype(np.float64)
        rounds = weighed(counts, z, groups)
        if errors.any():
            rounds += _spread(counts, errors, here, groups) * rng.standard_normal(rounds.shape)
        drawn.append(rounds)
    samples = np.concatenate(drawn)
    tail = expanded(settings)
    z95 = [(float(low), float(high)) for low, high in zip(*_outer(samples, tail), strict=True)]
    ranks95 = [(int(low), int(high)) for low, high in zip(*_outer(ranked_at(samples), tail), strict=True)]
    low, high = _outer((samples[:, :-1] - samples[:, 1:]).round(DIGITS), tail)
    return z95, ranks95, [False, *((low <= 0) & (high >= 0)).tolist()]


def expanded(n: int) -> float:
    """Return the share to leave out at each end of a percentile interval from n draws, for 95 %."""
    return NormalDist().cdf(-math.sqrt(n / (n - 1)) * t_quantile(0.05, n - 1))


def _outer(samples: Floats, tail: float) -> tuple[Floats, Floats]:
    """Return the lower and upper quantile of each column, among what is not NaN."""
    ordered = np.sort(samples, axis=0)  # NaN last
    count = (~np.isnan(samples)).sum(axis=0)
    low = np.floor(tail * count).astype(int)
    high = np.maximum(count - 1 - low, 0)
    return np.take_along_axis(ordered, low[None], axis=0)[0], np.take_along_axis(ordered, high[None], axis=0)[
        0
    ]


def ranked_at(samples: Floats) -> Floats:
    """Return 1 + how many of a row are above, `[r, backbones]`; NaN stays NaN."""
    turned = -samples.round(DIGITS)
    ordered = np.sort(turned, axis=1)
    places = [np.searchsorted(row, values) for row, values in zip(ordered, turned, strict=True)]
    return np.where(np.isnan(turned), np.nan, 1.0 + np.array(places))


def left_one_out(z: Floats, groups: Groups, names: list[str]) -> tuple[list[tuple[int, int]], list[str]]:
    """Return each one's best and worst rank without one setting, and which setting moves it most."""
    count = len(names)
    if count < FEW:
        return [], [""] * len(z)
    base = weighed(np.ones((1, count)), z, groups)
    rounds = weighed(1.0 - np.eye(count), z, groups)
    # A backbone that has nothing left without a setting does not move.
    rounds = np.where(np.isnan(rounds), base, rounds)
    ranks, shift = ranked_at(rounds), np.abs(rounds - base)
    moved = np.abs(ranks - ranked_at(base))
    # Of settings that move it by as many ranks, the one that moves its z more.
    most = np.argmax(moved + shift / (1.0 + shift.max()), axis=0)
    by = [names[s] if moved[s, b] else "" for b, s in enumerate(most)]
    return [(int(low), int(high)) for low, high in zip(ranks.min(axis=0), ranks.max(axis=0), strict=True)], by
