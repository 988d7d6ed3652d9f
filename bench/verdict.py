"""Rank what was verified: accuracy and latency of the same file, side by side.

A row is ranked only if its accuracy and its latency were measured on one and the same
engine file over the whole test split. Ranks follow the intervals: a row is behind only
those whose whole interval lies above its own, so what the data cannot tell apart is tied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bench.caveats import CAVEATS
from bench.pareto import front
from bobrt.spec import State

if TYPE_CHECKING:
    from bobrt.result import Accuracy, Result
    from bobrt.speed import Latency


class Row(NamedTuple):
    """One ranked cell."""

    rank: int
    front: bool
    """On the Pareto front: no other row is both at least as accurate and at least as fast."""
    result: Result
    accuracy: Accuracy
    latency: Latency


class Ranking(NamedTuple):
    """The rows of one task, protocol and machine: the only rows that may be compared.

    Of the rows of one rank the fastest comes first.
    """

    system: str
    task: str
    protocol: str
    rows: list[Row]


class LeftOut(NamedTuple):
    """A cell that is not ranked, and why."""

    result: Result
    reason: str


def rank(results: list[Result]) -> tuple[list[Ranking], list[LeftOut]]:
    """Return the rankings, and every cell that is in none of them with its reason."""
    groups: dict[tuple[str, str, str], list[Result]] = {}
    left_out: list[LeftOut] = []
    for result in results:
        if reason := why_unranked(result):
            left_out.append(LeftOut(result, reason))
        else:
            key = (result.system.id, result.cell.task, str(result.cell.protocol))
            groups.setdefault(key, []).append(result)
    return [Ranking(*key, rows(group)) for key, group in sorted(groups.items())], left_out


def why_unranked(result: Result) -> str:
    """Return why a result cannot be ranked, or an empty string if it can."""
    if result.state is not State.COMPLETE:
        return f"{result.state}: {result.reason}"
    if result.accuracy is None:
        return "unverified: its accuracy was not measured"
    if result.limit is not None:
        return f"limited to {result.limit} test images"
    if result.one_image is None:
        return "its engine cannot answer one image at a time"
    if "unstable" in result.caveats:
        low, high = next(row.spread_ms for row in result.latency if row.spread_ms)
        drift = result.drift.relative if result.drift else None
        moved = "" if drift is None else f", {100 * drift:.0f} % drift of the machine counted in"
        return f"unstable: its bar goes from {low:.3g} to {high:.3g} ms{moved}"
    return ""


def sentence(ranking: Ranking) -> str:
    """Answer the question in one sentence: the fastest of the most accurate, and the fastest of all."""
    best = ranking.rows[0]
    fastest = min(ranking.rows, key=lambda row: row.latency.p50_ms)
    how = "" if ranking.protocol == "finetune" else f" by {ranking.protocol}"
    text = f"Of {len(ranking.rows)} verified engines for {ranking.task}{how}, {_said(best)} is the fastest "
    text += f"of those tied for the best accuracy: {_figures(best)}"
    text += "." if fastest is best else f"; the fastest of all is {_said(fastest)}: {_figures(fastest)}."
    return text + _served(ranking.rows)


def bound_missed(rankings: list[Ranking]) -> bool:
    """Tell whether a p99 bound was asked for and no ranked engine keeps it at any rate."""
    servers = [row.result.server for ranking in rankings for row in ranking.rows if row.result.server]
    return bool(servers) and all(server.rate is None for server in servers)


def _served(rows: list[Row]) -> str:
    """Say which of the most accurate engines answers the most arrivals in time; empty if it was not asked."""
    asked = [(row.result.server, row) for row in rows if row.result.server]
    if not asked:
        return ""
    bound = asked[0][0].bound_ms
    kept = [(server.rate, server, row) for server, row in asked if server.rate is not None]
    if not kept:
        nearest = min((row for _, row in asked), key=lambda row: row.latency.p50_ms)
        return (
            f" No engine keeps its p99 within {bound:g} ms; the nearest is {_said(nearest)}, "
            f"which takes {nearest.latency.p50_ms:.3g} ms with nobody waiting."
        )
    rate, server, row = max(
        [entry for entry in kept if entry[2].rank == 1] or kept, key=lambda entry: entry[0]
    )
    return f" With p99 within {server.bound_ms:g} ms, {_said(row)} serves the most: {rate:.3g} queries/s."


def no_sentence(left_out: list[LeftOut]) -> str:
    """Say that the machine was too unsteady for an answer; empty if rows are missing for other reasons."""
    unstable = sum("unstable" in entry.result.caveats for entry in left_out)
    if not unstable:
        return ""
    return f"No engine is ranked: {unstable} were timed and are unstable; {CAVEATS['unstable'].remedy}."


def rows(group: list[Result]) -> list[Row]:
    """Return results that may be ranked, by rank, those of one rank by latency."""
    measured = [
        (result, accuracy, latency)
        for result in group
        if (accuracy := result.accuracy) is not None and (latency := result.one_image) is not None
    ]
    if not measured:
        return []
    sign = 1 if measured[0][1].higher_is_better else -1
    accuracies = np.array([sign * accuracy.value for _, accuracy, _ in measured])
    # Of an interval, the end that is better and the one that is worse.
    worse, better = np.sort(sign * np.array([accuracy.ci95 for _, accuracy, _ in measured])).T
    above = len(measured) - np.searchsorted(np.sort(worse), better, side="right")
    p50 = np.array([latency.p50_ms for _, _, latency in measured])
    ranks, on = (1 + above).tolist(), front(accuracies, p50).tolist()
    return [Row(ranks[i], on[i], *measured[i]) for i in np.lexsort((p50, above)).tolist()]


def _said(row: Row) -> str:
    cell = row.result.cell
    seed = f", seed {cell.seed}," if cell.seed else ""
    return f"{cell.backbone} {cell.precision} on {cell.runtime}{seed}"


def _figures(row: Row) -> str:
    return f"{100 * row.accuracy.value:.1f} % at {row.latency.p50_ms:.3g} ms"
