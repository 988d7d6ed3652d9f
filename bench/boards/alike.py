"""How alike two things rank backbones: Spearman's rho and Kendall's tau-b, with intervals."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bench.stats import Z

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LEAST = 4
"""Backbones two orders must have in common: the interval's error is over their number less three."""
_BLOCK = 16
"""Backbones that are compared with all others at a time."""


class Alike(NamedTuple):
    """Two settings, or two groups of them, and how alike they rank the backbones measured in both."""

    a: str
    b: str
    n: int
    """Backbones measured in both."""
    spearman: float | None
    spearman95: tuple[float, float] | None
    """Fisher's z, variance of Bonett & Wright (2000); None where the orders are the same or reversed."""
    kendall: float | None
    kendall95: tuple[float, float] | None
    """Fisher's z, variance of Fieller, Hartley & Pearson (1957); None for four backbones too."""
    reason: str
    """Why there is no coefficient; empty where there is."""


def alike(names: Sequence[str], values: Floats) -> list[Alike]:
    """Return every pair of columns.

    Args:
        names: Of the columns.
        values: `[backbones, columns]`, more is better in all; NaN where not measured. A pair is compared on
            the backbones that have both.

    """
    taus = kendall(values)
    pairs = [(i, j) for i in range(len(names)) for j in range(i + 1, len(names))]
    return [_pair(names, values, (i, j), float(taus[i, j])) for i, j in pairs]


def _pair(names: Sequence[str], values: Floats, pair: tuple[int, int], tau: float) -> Alike:
    a, b = names[pair[0]], names[pair[1]]
    both = values[:, pair]
    both = both[~np.isnan(both).any(axis=1)]
    n = len(both)
    if n < LEAST:
        return Alike(a, b, n, None, None, None, None, f"{n} backbones have both; {LEAST} are needed")
    if flat := [name for name, column in zip((a, b), both.T, strict=True) if (column == column[0]).all()]:
        return Alike(a, b, n, None, None, None, None, f"all {n} score the same in {flat[0]}")
    rho = spearman(both[:, 0], both[:, 1])
    return Alike(a, b, n, rho, spearman_interval(rho, n), tau, kendall_interval(tau, n), "")


def spearman(x: Floats, y: Floats) -> float:
    """Return Spearman's rho of two columns `[n]` without NaN, neither of them constant."""
    x, y = (ranks(column) - (len(column) + 1) / 2 for column in (x, y))
    rho = float(x @ y / math.sqrt(float(x @ x) * float(y @ y)))
    return max(-1.0, min(1.0, rho))


def ranks(values: Floats) -> Floats:
    """Return the ranks from 1 of `[n]` values without NaN, equal ones sharing their mean."""
    ordered = np.sort(values)
    shared: Floats = (np.searchsorted(ordered, values) + np.searchsorted(ordered, values, "right") + 1) / 2
    return shared


def kendall(values: Floats) -> Floats:
    """Return Kendall's tau-b of every pair of columns, `[columns, columns]`; NaN where it has none.

    Each pair of backbones says for each column which of them is ahead; a product over pairs of backbones
    counts for all columns at once how often they agree. A pair counts both ways round, which changes nothing.
    """
    size = values.shape[1]
    agree, apart = np.zeros((size, size)), np.zeros((size, size))
    for start in range(0, len(values), _BLOCK):
        block = values[start : start + _BLOCK]
        difference = (block[:, None] - values[None]).reshape(len(block) * len(values), size)
        # Single precision holds every count of a block.
        ahead = np.nan_to_num(np.sign(difference)).astype(np.float32)
        agree += ahead.T @ ahead
        apart += (ahead**2).T @ (~np.isnan(difference)).astype(np.float32)
    norm = np.sqrt(apart * apart.T)
    return np.where(norm > 0, agree / np.where(norm > 0, norm, 1.0), np.nan)


def spearman_interval(rho: float, n: int) -> tuple[float, float] | None:
    """Return the 95 % interval of rho from n backbones (Bonett & Wright 2000)."""
    return _fisher(rho, (1 + rho * rho / 2) / (n - 3)) if n >= LEAST else None


def kendall_interval(tau: float, n: int) -> tuple[float, float] | None:
    """Return the 95 % interval of tau from n backbones (Fieller, Hartley & Pearson 1957)."""
    return _fisher(tau, 0.437 / (n - 4)) if n > LEAST else None


def _fisher(coefficient: float, variance: float) -> tuple[float, float] | None:
    """Return the interval on the scale of atanh, which has no place for 1 and -1."""
    if abs(coefficient) >= 1.0:
        return None
    middle, half = math.atanh(coefficient), Z * math.sqrt(variance)
    return math.tanh(middle - half), math.tanh(middle + half)
