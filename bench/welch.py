"""Tell two small samples of times apart: Welch's t-test on their logarithms, Holm's correction over many.

Sources: Welch 1947 for the test and its degrees of freedom; Holm 1979 for the correction; the t
distribution through the incomplete beta function, Abramowitz & Stegun 26.7.1 and 26.5.8, whose continued
fraction is evaluated by the modified Lentz method (Press et al., Numerical Recipes, 3rd ed., 6.4).
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

ALPHA = 0.05
"""Chance of calling anything in a comparison different when nothing is; and of an interval to miss."""

_TERMS = 10_000
_EPSILON = 1e-15
_TINY = 1e-300
_NEWTON = 100


class Difference(NamedTuple):
    """The logarithm of a ratio, and how well it is known."""

    log: float
    error: float
    """Its standard error; 0 when every time of both samples is the same to the last bit."""
    df: float
    p: float
    """Two-sided probability of so large a difference when there is none."""

    @property
    def ratio(self) -> float:
        """Second sample over the first."""
        return math.exp(self.log)

    @property
    def ci95(self) -> tuple[float, float]:
        """95 % interval of the ratio."""
        margin = t_quantile(ALPHA, self.df) * self.error if self.error else 0.0
        return math.exp(self.log - margin), math.exp(self.log + margin)


def welch(before: Sequence[float], after: Sequence[float]) -> Difference:
    """Return how the second sample differs from the first.

    Args:
        before: Two or more positive numbers.
        after: The same.

    """
    a, b = np.log(np.asarray(before)), np.log(np.asarray(after))
    log = float(b.mean() - a.mean())
    parts = [0.0 if min(x) == max(x) else float(x.var(ddof=1)) / len(x) for x in (a, b)]
    error = math.sqrt(sum(parts))
    if error == 0.0:
        equal = before[0] == after[0]
        return Difference(0.0 if equal else log, 0.0, math.inf, float(equal))
    df = sum(parts) ** 2 / sum(part**2 / (len(x) - 1) for part, x in zip(parts, (a, b), strict=True))
    return Difference(log, error, df, two_sided(log / error, df))


def pooled(differences: Sequence[Difference]) -> Difference:
    """Return the mean of independent differences; its degrees of freedom are Satterthwaite's."""
    log = sum(d.log for d in differences) / len(differences)
    variances = [(d.error / len(differences)) ** 2 for d in differences]
    total = sum(variances)
    if total == 0.0:
        return Difference(log, 0.0, math.inf, float(log == 0.0))
    df = total**2 / sum(v**2 / d.df for v, d in zip(variances, differences, strict=True))
    return Difference(log, math.sqrt(total), df, two_sided(log / math.sqrt(total), df))


def holm(ps: Sequence[float]) -> list[float]:
    """Return each probability corrected for how many there are (Holm 1979), in the order given."""
    adjusted, floor = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        floor = max(floor, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = floor
    return adjusted


def two_sided(t: float, df: float) -> float:
    """Return the probability that a t of `df` degrees of freedom lies further from 0 than `t`."""
    return _beta(df / (df + t * t), df / 2, 0.5)


def t_quantile(p: float, df: float) -> float:
    """Return the t that is exceeded, on either side together, with probability `p`.

    Newton's method from the normal quantile: it lies below, and the tail is convex, so it never overshoots.
    """
    t = NormalDist().inv_cdf(1 - p / 2)
    scale = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(df * math.pi)
    for _ in range(_NEWTON):
        density = scale * (1 + t * t / df) ** (-(df + 1) / 2)
        step = (two_sided(t, df) - p) / (2 * density)
        t += step
        if abs(step) <= 1e-12 * t:
            break
    return t


def _beta(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b), for x from 0 to 1."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    log = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    if x < (a + 1) / (a + b + 2):  # where the fraction converges fast
        return math.exp(log) * _fraction(x, a, b) / a
    return 1 - math.exp(log) * _fraction(1 - x, b, a) / b


def _fraction(x: float, a: float, b: float) -> float:
    """Return the continued fraction of the incomplete beta function."""
    c, d = 1.0, 1 / _nonzero(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _nonzero(1 + term * d)
            c = _nonzero(1 + term / c)
            value *= c * d
        if abs(c * d - 1) < _EPSILON:
            break
    return value


def _nonzero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
