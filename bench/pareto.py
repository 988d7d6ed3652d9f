"""A score beside a cost: the Pareto front, and what of the best score is lost under a budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


class Loss(NamedTuple):
    """The best score under a budget, beside the best of all."""

    budget: float
    best: int
    """Index of the best under the budget."""
    lost: float
    """How much worse than the best of all it scores, 0 or more, in the score's unit."""


def front(
    score: Floats, cost: Floats, *, higher_is_better: bool = True, lower_costs: bool = True
) -> NDArray[np.bool_]:
    """Return which points are on the Pareto front, `[n]`.

    A point is on it unless another is at least as good in both and better in one: of equal points both
    are. One with a NaN is never on it, nor does it keep another off.

    Args:
        score: `[n]`.
        cost: `[n]`.
        higher_is_better: Of the score.
        lower_costs: Whether less of the cost is better; not so for images/s.

    """
    score, cost = (score if higher_is_better else -score), (cost if lower_costs else -cost)
    there = np.isfinite(score) & np.isfinite(cost)
    on = np.zeros(len(score), dtype=bool)
    if not there.any():
        return on
    level, place = np.unique(cost[there], return_inverse=True)
    best = np.full(len(level), -np.inf)
    np.maximum.at(best, place, score[there])
    cheaper = np.maximum.accumulate(np.concatenate([[-np.inf], best[:-1]]))
    on[there] = (score[there] == best[place]) & (score[there] > cheaper[place])
    return on


def loss(
    score: Floats, cost: Floats, budget: float, *, higher_is_better: bool = True, lower_costs: bool = True
) -> Loss | None:
    """Return how much of the best score is lost by keeping to a budget; None if nothing keeps to it.

    Args:
        score: `[n]`; NaN is passed over, as is a NaN among the costs.
        cost: `[n]`.
        budget: The most of the cost, or the least of it where more is better.
        higher_is_better: Of the score.
        lower_costs: Whether less of the cost is better.

    """
    score = np.where(np.isfinite(score), score if higher_is_better else -score, -np.inf)
    with np.errstate(invalid="ignore"):
        kept = cost <= budget if lower_costs else cost >= budget
    within = np.where(kept, score, -np.inf)
    if not np.isfinite(within).any():
        return None
    # Of equally good ones the cheapest.
    cheap = np.where(within == within.max(), cost if lower_costs else -cost, np.inf)
    best = int(np.argmin(cheap))
    whole = score[np.isfinite(cost)].max()
    return Loss(budget, best, float(whole - within[best]))


def losses(
    score: Floats, cost: Floats, *, higher_is_better: bool = True, lower_costs: bool = True
) -> list[Loss]:
    """Return what is lost under each budget that is just kept by a point of the front, the tightest first."""
    on = front(score, cost, higher_is_better=higher_is_better, lower_costs=lower_costs)
    budgets = sorted({float(value) for value in cost[on]}, reverse=not lower_costs)
    found = (
        loss(score, cost, budget, higher_is_better=higher_is_better, lower_costs=lower_costs)
        for budget in budgets
    )
    return [entry for entry in found if entry is not None]
