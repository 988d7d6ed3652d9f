"""Results of several machines, side by side: a column for each, and never one ranking across them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.show.numbers import weights
from bobrt.console import Table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.verdict import Ranking
    from bobrt.result import Result

MANY = 2
LEGEND = (
    "Median latency of one image in milliseconds, and in brackets the accuracy in per cent where it is not "
    "that of the first machine. A machine is hardware and driver; `Machines` says which."
)


def tables(rankings: Iterable[Ranking]) -> list[tuple[str, Table]]:
    """Return a title and a table for each task and protocol that several machines answered."""
    groups: dict[tuple[str, str], list[Ranking]] = {}
    for ranking in rankings:
        groups.setdefault((ranking.task, ranking.protocol), []).append(ranking)
    return [
        (f"Side by side: {task}, {protocol}", _table(group))
        for (task, protocol), group in sorted(groups.items())
        if len(group) >= MANY
    ]


def _table(group: list[Ranking]) -> Table:
    systems = sorted(ranking.system for ranking in group)
    rows: dict[tuple[str, ...], dict[str, Result]] = {}
    for result in sorted((row.result for ranking in group for row in ranking.rows), key=_order):
        cell = result.cell
        name = (
            cell.backbone,
            cell.weights,
            cell.runtime,
            str(cell.precision),
            str(cell.batch),
            str(cell.seed),
        )
        rows.setdefault(name, {})[result.system.id] = result
    header = ["backbone", "weights", "runtime", "precision", "batch", "seed", *systems]
    lines = [[n, weights(w), *rest, *_row(there, systems)] for (n, w, *rest), there in rows.items()]
    # Of what all rows have in common, nothing need be said.
    spare = {i for i in (1, 4, 5) if len({line[i] for line in lines}) == 1}
    kept = [i for i in range(len(header)) if i not in spare]
    first = len(kept) - len(systems)
    return Table(
        [header[i] for i in kept], [[line[i] for i in kept] for line in lines], range(first, len(kept))
    )


def _order(result: Result) -> tuple[str, str, int, str, str, int]:
    cell = result.cell
    return cell.backbone, cell.runtime, cell.precision.place, cell.weights, str(cell.batch), cell.seed


def _row(there: dict[str, Result], systems: list[str]) -> list[str]:
    first = next((there[name].accuracy for name in systems if name in there), None)
    return [_said(there.get(name), first.value if first else None) for name in systems]


def _said(result: Result | None, first: float | None) -> str:
    latency = result.one_image if result else None
    if result is None or result.accuracy is None or latency is None:
        return ""
    differs = first is not None and result.accuracy.value != first
    return f"{latency.p50_ms:.3g}" + (f" ({100 * result.accuracy.value:.1f} %)" if differs else "")
