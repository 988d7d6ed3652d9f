"""The same training from several seeds: the mean of its engines, and how far it can be believed."""

from __future__ import annotations

import math
from functools import cache
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bench.show.numbers import weights
from bench.welch import t_quantile
from bobrt.console import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bench.verdict import Ranking
    from bobrt.result import Result
    from bobrt.spec import Batch, Precision

    Kind = tuple[str, str, str, Precision, Batch]
    """Backbone, weights, runtime, precision and batch: what engines of several seeds have in common."""

FEW = 2
LEGEND = (
    "Mean over engines trained from different seeds, in per cent, and half the width of its 95 % interval "
    "(Student's t over the seeds). All are asked the same images: how far others would move them is the "
    "interval of each engine's own row. Drop: points below the same checkpoint in fp32 PyTorch, seed by seed."
)


class Mean(NamedTuple):
    """The mean of a figure over seeds."""

    value: float
    half: float
    """Half the width of its 95 % interval: Student's t with n - 1 degrees of freedom."""
    low: float
    high: float
    n: int


def mean(values: Sequence[float]) -> Mean:
    """Return the mean of at least two values with its interval, and the lowest and highest of them."""
    half = _student(len(values) - 1) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Mean(fmean(values), half, min(values), max(values), len(values))


@cache
def _student(df: int) -> float:
    return t_quantile(0.05, df)


def tables(rankings: Iterable[Ranking], most: int | None = None) -> list[tuple[str, Table, int]]:
    """Return title, table and number of rows of each ranking that has engines of several seeds.

    Args:
        rankings: Any.
        most: Rows that are made of each table; None for all.

    """
    found = []
    for ranking in rankings:
        kinds: dict[Kind, list[Result]] = {}
        for row in ranking.rows:
            cell = row.result.cell
            kind = cell.backbone, cell.weights, cell.runtime, cell.precision, cell.batch
            kinds.setdefault(kind, []).append(row.result)
        several = [group for group in kinds.values() if len({result.cell.seed for result in group}) >= FEW]
        if several:
            title = f"Over seeds: {ranking.task}, {ranking.protocol}, on {ranking.system}"
            found.append((title, _table(sorted(several, key=_order)[:most]), len(several)))
    return found


def _order(group: list[Result]) -> tuple[str, str, str, int, str]:
    cell = group[0].cell
    return cell.backbone, cell.weights, cell.runtime, cell.precision.place, str(cell.batch)


def _table(groups: list[list[Result]]) -> Table:
    questions = list(dict.fromkeys(a.question for group in groups for r in group for a in r.gauntlet))
    header = ["backbone", "weights", "runtime", "precision", "batch", "seeds", "accuracy %", "lowest-highest"]
    header += ["drop", *questions]
    rows = [_row(group, questions) for group in groups]
    spare = [header.index(name) for name in ("weights", "batch") if len({*_column(rows, header, name)}) == 1]
    kept = [i for i in range(len(header)) if i not in spare]
    right = tuple(kept.index(i) for i in range(6, len(header)))
    return Table([header[i] for i in kept], [[row[i] for i in kept] for row in rows], right)


def _column(rows: list[list[str]], header: list[str], name: str) -> list[str]:
    return [row[header.index(name)] for row in rows]


def _row(group: list[Result], questions: list[str]) -> list[str]:
    cell = group[0].cell
    right = [result.accuracy for result in group if result.accuracy]
    found = mean([accuracy.value for accuracy in right])
    row = [cell.backbone, weights(cell.weights), cell.runtime, str(cell.precision), str(cell.batch)]
    row += [",".join(str(seed) for seed in sorted({r.cell.seed for r in group})), _said(found)]
    row += [f"{100 * found.low:.1f}-{100 * found.high:.1f}"]
    row += [_several([accuracy.drop for accuracy in right], sign="+")]
    answers = [{a.question: a.value for a in result.gauntlet} for result in group]
    return row + [_several([answer.get(name) for answer in answers]) for name in questions]


def _several(values: Sequence[float | None], sign: str = "") -> str:
    """Return the mean of those that are known; nothing of fewer than two."""
    known = [value for value in values if value is not None]
    return _said(mean(known), sign) if len(known) >= FEW else ""


def _said(found: Mean, sign: str = "") -> str:
    return f"{100 * found.value:{sign}.1f} ± {100 * found.half:.1f}"
