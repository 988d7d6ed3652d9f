"""What accuracy costs: the fronts against every cost, the best under each budget, the precision ladders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bench.fronts import COSTS, ladder
from bench.pareto import front, losses
from bench.show.numbers import digits
from bench.verdict import rank
from bobrt.console import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bench.fronts import Step
    from bench.verdict import Ranking, Row
    from bobrt.result import Result

LEGEND = (
    "Fronts: `*` where no other engine is both as accurate and as cheap, for each cost; an engine on none "
    "is left out. Budgets: the tightest bound on a cost that an engine of the front keeps, that engine, "
    "and how many points of accuracy it is below the best of all. Ladders: beside fp32 on the same "
    "runtime, points lost, how many times as fast (in brackets where the two bars overlap: within noise), "
    "images/s of the best batch, and how many times smaller the file is."
)
TITLES = {"p50_ms": "p50 ms", "p99_ms": "p99 ms", "images_per_s": "images/s", "bytes": "file MB"}
TITLES |= {"joules_per_image": "J/image"}
MANY = 2


def tables(results: Sequence[Result]) -> list[tuple[str, Table]]:
    """Return a title and a table for the fronts and the budgets of each ranking, and for all ladders."""
    found = []
    for ranking in rank(list(results))[0]:
        if len(ranking.rows) >= MANY:
            where = f"{ranking.task}, {ranking.protocol}, on {ranking.system}"
            found += [(f"Fronts: {where}", _fronts(ranking)), (f"Budgets: {where}", _budgets(ranking))]
    steps = list(ladder(results))
    return [*found, ("Precision ladders", _ladders(steps))] if steps else found


def _figures(ranking: Ranking) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """Return the accuracies, more being better, and each cost that any row has; NaN where it was not."""
    sign = 1 if ranking.rows[0].accuracy.higher_is_better else -1
    score = np.array([sign * row.accuracy.value for row in ranking.rows])
    found = {}
    for name, cost in COSTS.items():
        values = [cost.of(row.result) for row in ranking.rows]
        if any(value is not None for value in values):
            found[name] = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    return score, found


def _fronts(ranking: Ranking) -> Table:
    score, costs = _figures(ranking)
    on = {name: front(score, cost, lower_costs=COSTS[name].lower_is_better) for name, cost in costs.items()}
    header = ["backbone", "runtime", "precision", "accuracy %", *(TITLES[name] for name in costs)]
    rows = []
    for i, row in enumerate(ranking.rows):
        if any(there[i] for there in on.values()):
            told = [_value(name, cost[i]) + (" *" if on[name][i] else "  ") for name, cost in costs.items()]
            rows.append([*_name(row), f"{100 * row.accuracy.value:.1f}", *told])
    return Table(header, rows, range(3, len(header)))


def _budgets(ranking: Ranking) -> Table:
    score, costs = _figures(ranking)
    rows = []
    for name, cost in costs.items():
        for loss in losses(score, cost, lower_costs=COSTS[name].lower_is_better):
            row = ranking.rows[loss.best]
            bound = "at most" if COSTS[name].lower_is_better else "at least"
            told = [f"{100 * row.accuracy.value:.1f}", f"{100 * loss.lost:.1f}"]
            rows.append([TITLES[name], bound, _value(name, loss.budget), *_name(row), *told])
    header = ["cost", "", "budget", "backbone", "runtime", "precision", "accuracy %", "points lost"]
    return Table(header, rows, (2, 6, 7))


def _ladders(steps: Sequence[Step]) -> Table:
    header = ["task", "protocol", "backbone", "runtime", "precision", "points lost", "times as fast"]
    header += ["images/s x", "times smaller"]
    return Table(header, [_step(step) for step in steps], range(5, 9))


def _step(step: Step) -> list[str]:
    cell = step.result.cell
    faster = _times(step.faster)
    lost = "" if step.lost is None else f"{100 * step.lost:+.1f}".replace("-0.0", "+0.0")
    told = [
        lost,
        faster if step.told or not faster else f"({faster})",
        _times(step.more),
        _times(step.smaller),
    ]
    return [cell.task, str(cell.protocol), cell.backbone, cell.runtime, str(cell.precision), *told]


def _name(row: Row) -> list[str]:
    cell = row.result.cell
    return [cell.backbone, cell.runtime, str(cell.precision)]


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _value(name: str, value: float) -> str:
    if np.isnan(value):
        return ""
    return f"{value / 1e6:.2f}" if name == "bytes" else digits(value)
