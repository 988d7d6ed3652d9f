"""What engines cost, of one backbone over its tasks, and what each precision changes.

A cost is read from the record of the very file whose score stands beside it.
"""

from __future__ import annotations

import math
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bench.boards.board import Engines
from bench.verdict import why_unranked
from bobrt.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from bench.boards.board import Board
    from bobrt.result import Result
    from bobrt.speed import Latency

    Floats = NDArray[np.float64]


class Cost(NamedTuple):
    """Something an engine costs or yields, in a record."""

    name: str
    lower_is_better: bool
    of: Callable[[Result], float | None]
    """The value, or None where the record has none."""


class Step(NamedTuple):
    """What one precision changes for one backbone, beside fp32 on the same runtime."""

    result: Result
    base: Result
    lost: float | None
    """Score lost, whichever direction is better: a fraction as the metric; None without an accuracy."""
    faster: float | None
    """fp32's median latency of one image over this one's; None where either is missing."""
    told: bool
    """The two medians' bars do not overlap: the change of speed is more than noise."""
    more: float | None
    """Images/s of this one's best batch over those of fp32's."""
    smaller: float | None
    """Bytes of fp32's file over this one's."""


def _p50(result: Result) -> float | None:
    row = result.one_image
    return row.p50_ms if row else None


def _p99(result: Result) -> float | None:
    row = result.one_image
    return row.p99_ms if row else None


def _images_per_s(result: Result) -> float | None:
    return max((row.images_per_s for row in result.throughput), default=None)


def _bytes(result: Result) -> float | None:
    return float(result.artifact.bytes) if result.artifact else None


def _joules(result: Result) -> float | None:
    return result.energy.joules_per_image if result.energy else None


COSTS = {
    cost.name: cost
    for cost in (
        Cost("p50_ms", True, _p50),
        Cost("p99_ms", True, _p99),
        Cost("images_per_s", False, _images_per_s),
        Cost("bytes", True, _bytes),
        Cost("joules_per_image", True, _joules),
    )
}


def own(board: Board, results: Sequence[Result]) -> list[Result]:
    """Return the records of a board's engines that may be ranked: those whose speed stands."""
    return [r for r in results if Engines.of(r) == board.engines and not why_unranked(r)]


def costs(board: Board, results: Sequence[Result], name: str) -> Floats:
    """Return a cost of each of a board's backbones over its tasks: `[backbones]`.

    The geometric mean over tasks of the geometric mean over seeds, of the board's own engines; NaN for a
    backbone that lacks it in any of the tasks, as networks cost unequally from task to task.

    Args:
        board: Made from these results.
        results: Records of its engines, as `own` returns them.
        name: A key of `COSTS`.

    """
    logs: dict[tuple[str, str], dict[str, list[float]]] = {}
    tasks = set()
    for result in results:
        value = COSTS[name].of(result)
        if value:
            task = f"{result.cell.task} {result.cell.protocol}"
            tasks.add(task)
            by_task = logs.setdefault((result.cell.backbone, result.cell.weights), {})
            by_task.setdefault(task, []).append(math.log(value))
    found = np.full(len(board.backbones), np.nan)
    for b, origin in enumerate(board.origins):
        by_task = logs.get((origin.backbone, origin.weights), {})
        if tasks and by_task.keys() == tasks:
            found[b] = math.exp(fmean(fmean(by_task[task]) for task in sorted(tasks)))
    return found


def ladder(results: Sequence[Result]) -> Iterator[Step]:
    """Yield what each lower precision costs and gains beside fp32, cell by cell.

    Only rows that may be ranked; a cell without its fp32 row on the same runtime has no step.
    """
    ranked = [result for result in results if not why_unranked(result)]
    base = {_rung(result): result for result in ranked if result.cell.precision is Precision.FP32}
    for result in sorted(ranked, key=lambda r: (_rung(r), r.cell.precision.place)):
        below = base.get(_rung(result))
        if below is not None and result is not below and result.cell.precision is not Precision.FP32:
            yield _step(result, below)


def _rung(result: Result) -> tuple[str, str, str, str, str, str, str, int]:
    """Return all that two precisions of one engine have in common."""
    cell = result.cell
    place = (result.system.id, cell.task, str(cell.protocol), cell.backbone, cell.weights)
    return *place, cell.runtime, str(cell.batch), cell.seed


def _step(result: Result, base: Result) -> Step:
    lost = None
    if result.accuracy and base.accuracy:
        sign = 1 if base.accuracy.higher_is_better else -1
        lost = sign * (base.accuracy.value - result.accuracy.value)
    one, other = _bar(result.one_image), _bar(base.one_image)
    return Step(
        result=result,
        base=base,
        lost=lost,
        faster=_ratio(_p50(base), _p50(result)),
        told=bool(one and other and (one[1] < other[0] or other[1] < one[0])),
        more=_ratio(_images_per_s(result), _images_per_s(base)),
        smaller=_ratio(_bytes(base), _bytes(result)),
    )


def _bar(row: Latency | None) -> tuple[float, float] | None:
    """Return the error bar of a median, if it has one."""
    return (row.spread_ms or row.ci95_ms) if row else None


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None
