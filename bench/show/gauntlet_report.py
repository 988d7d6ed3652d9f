"""What else each engine was asked, side by side: what a precision costs beside accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bobrt.console import Table
from bobrt.spec import Precision, State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bobrt.result import Answer, Result

LEGEND = (
    "Each question's headline in per cent, and in brackets the points lost to the same checkpoint in fp32 on "
    "the same runtime, or to fp32 PyTorch where there is no such row; a minus is a gain. Lower is better "
    "where the title says so. All other figures of a question are in the record."
)


def tables(results: list[Result]) -> list[tuple[str, Table]]:
    """Return a title and a table for each machine, task and protocol with answers."""
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for result in results:
        if result.state is State.COMPLETE and result.gauntlet:
            cell = result.cell
            groups.setdefault((result.system.id, cell.task, str(cell.protocol)), []).append(result)
    return [
        (f"The gauntlet: {task}, {protocol}, on {system}", _table(group))
        for (system, task, protocol), group in sorted(groups.items())
    ]


def _table(group: list[Result]) -> Table:
    asked = {answer.question: answer for result in group for answer in result.gauntlet}
    names = {name: _titled(answer) for name, answer in asked.items()}
    seeds = len({result.cell.seed for result in group}) > 1
    header = ["backbone", "runtime", "precision", *(["seed"] if seeds else []), "accuracy %", *names.values()]
    base = {_checkpoint(result): result for result in group if result.cell.precision is Precision.FP32}
    rows = []
    for result in sorted(group, key=lambda r: (*_checkpoint(r), r.cell.precision.place)):
        found = {answer.question: answer for answer in result.gauntlet}
        beside = base.get(_checkpoint(result))
        others = {a.question: a for a in beside.gauntlet} if beside and beside is not result else {}
        cell = result.cell
        row = [cell.backbone, cell.runtime, str(cell.precision), *([str(cell.seed)] if seeds else [])]
        row.append(f"{100 * result.accuracy.value:.1f}" if result.accuracy else "")
        rows.append([*row, *(_said(found.get(name), others.get(name)) for name in names)])
    return Table(header, rows, tuple(range(3, len(header))))


def _titled(answer: Answer) -> str:
    better = "" if answer.higher_is_better else ", lower"
    return f"{answer.question} ({answer.metric}{better})"


def _checkpoint(result: Result) -> tuple[str, str, int, str]:
    return result.cell.backbone, result.cell.weights, result.cell.seed, result.cell.runtime


def _said(answer: Answer | None, fp32: Answer | None) -> str:
    """Return a headline, and what it lost."""
    if answer is None:
        return ""
    if answer.value is None:
        return "-"
    lost = answer.drop
    if fp32 is not None and fp32.value is not None:
        lost = (fp32.value - answer.value) * (1 if answer.higher_is_better else -1)
    return f"{100 * answer.value:.1f}" + ("" if lost is None else f" ({_points(lost)})")


def _points(lost: float) -> str:
    # A loss too small to print is none, in whichever direction.
    return f"{100 * lost:+.1f}".replace("-0.0", "+0.0")


def reasons(results: Iterable[Result]) -> list[str]:
    """Return why questions could not be asked, each reason once."""
    return sorted({f"{a.question}: {a.reason}" for result in results for a in result.gauntlet if a.reason})
