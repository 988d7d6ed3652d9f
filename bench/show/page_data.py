"""What the HTML page shows, as plain data: every row with its evidence, the answers, the standings.

Nothing here knows of a browser. Numbers are finite or null; texts are as the records have them.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from bench import fronts, verdict
from bench.boards import alike
from bench.boards.standing import standing
from bench.caveats import CAVEATS
from bench.show import costs_report, figures, gauntlet_report, seeds_report, standing_report, systems_report
from bench.show.evidence import Once, Places, evidence, number, times
from bobrt.catalogue import BACKBONES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from bench.boards.board import Board
    from bench.boards.standing import Place, Standing
    from bench.store import Boards
    from bench.verdict import LeftOut, Ranking
    from bobrt.console import Table
    from bobrt.result import Answer, Result
    from bobrt.spec import Json

MOST = 2000
"""Rows of a page: more would not open in a second. The best of each ranking come first."""
WIDE = 40
"""Settings that stand side by side; more are shown by group."""
TALL = 60
"""Backbones of a figure."""
LONG = 500
"""Rows of a table beside a figure."""
UNKNOWN = "not in the catalogue"
"""Family of a backbone nobody described."""
OTHER = "other families"


class Shown(NamedTuple):
    """A cell of the page: its place in a ranking, or why it has none."""

    result: Result
    rank: int | None
    front: bool
    reason: str


def page(
    results: Sequence[Result],
    beside: Boards | None,
    folders: Sequence[Path],
    problems: Sequence[str] = (),
) -> dict[str, Json]:
    """Return all that the page shows.

    Args:
        results: Records of one folder or several, each cell once.
        beside: Published tables, and what the results are measured against.
        folders: Where the records lie, to find their raw times.
        problems: Files that could not be read, a line each.

    """
    rankings, left_out = verdict.rank(list(results))
    shown = _shown(rankings, left_out)
    kept = shown[:MOST]
    families = _families(results)
    places, systems, questions = Places.under(folders), Once(), Once()
    factors, asked = _task_factors(results), _question_factors(results)
    boards = [
        *(beside.published if beside else []),
        *standing_report.boards(results, beside.against if beside else None),
    ]
    seeds = [(title, table) for title, table, _ in seeds_report.tables(rankings)]
    across = [*seeds, *systems_report.tables(rankings)]
    return {
        "counts": {
            "cells": len(results),
            "shown": len(kept),
            "ranked": sum(len(ranking.rows) for ranking in rankings),
            "backbones": len({result.cell.backbone for result in results}),
            "tasks": len({(r.cell.task, r.cell.protocol) for r in results}),
            "systems": len({result.system.id for result in results}),
        },
        "newest": max((result.started for result in results), default=None),
        "answers": [_answer(ranking) for ranking in rankings],
        "unanswered": verdict.no_sentence(left_out),
        "bounded": _bounded(len(results), len(kept)),
        "problems": [*problems, *(beside.problems if beside else [])],
        "families": families,
        "precisions": {str(p): shape for p, shape in figures.SHAPES.items()},
        "palette": [*figures.PALETTE, figures.OTHERS],
        "rows": [
            {
                **_cell(entry, families),
                **_scores(entry.result, factors),
                **_costs(entry.result),
                "asked": [_asked(answer, questions, asked) for answer in entry.result.gauntlet],
                "evidence": evidence(entry.result, places, systems),
                **times(entry.result, places),
            }
            for entry in kept
        ],
        "questions": questions.told,
        "steps": [_step(step, families, factors) for step in fronts.ladder(results)][:MOST],
        "costs": [_table(title, table) for title, table in costs_report.tables(results)],
        "gauntlets": [_table(title, table) for title, table in gauntlet_report.tables(list(results))],
        "across": [_table(title, table) for title, table in across],
        "boards": [_board(board, results) for board in boards],
        "not_asked": gauntlet_report.reasons(results),
        "systems": systems.told,
        "caveats": {name: caveat._asdict() for name, caveat in CAVEATS.items()},
        "legends": {
            "standing": standing_report.LEGEND,
            "gauntlet": gauntlet_report.LEGEND,
            "costs": costs_report.LEGEND,
        },
    }


def _shown(rankings: Sequence[Ranking], left_out: Sequence[LeftOut]) -> list[Shown]:
    """Return every cell: the best of each ranking first, then the next of each; last those without a rank."""
    ranked = [
        (place, which, Shown(row.result, row.rank, row.front, ""))
        for which, ranking in enumerate(rankings)
        for place, row in enumerate(ranking.rows)
    ]
    if len(ranked) <= MOST:
        ranked.sort(key=lambda entry: (entry[1], entry[0]))
    else:
        ranked.sort(key=lambda entry: (entry[0], entry[1]))
    return [entry for _, _, entry in ranked] + [Shown(e.result, None, False, e.reason) for e in left_out]


def _bounded(cells: int, shown: int) -> str:
    if shown == cells:
        return ""
    return (
        f"This page holds {shown:,} of {cells:,} cells, the best of every ranking first. "
        "All of them: bobrt report --format csv."
    )


def _families(results: Iterable[Result]) -> list[str]:
    """Return families by how many backbones are of them; those beyond the palette are one."""
    backbones = sorted({result.cell.backbone for result in results})
    count = Counter(map(_family, backbones))
    names = sorted(count, key=lambda name: (name == UNKNOWN, -count[name], name))
    most = len(figures.PALETTE)
    return names if len(names) <= most else [*names[:most], OTHER]


def _family(backbone: str) -> str:
    entry = BACKBONES.find(backbone)
    return entry.family if entry else UNKNOWN


def _answer(ranking: Ranking) -> dict[str, Json]:
    words = {"task": ranking.task, "protocol": ranking.protocol, "system": ranking.system}
    return {**words, "text": verdict.sentence(ranking)}


def _factors(scores: Iterable[tuple[str, str, float]]) -> dict[tuple[str, str], float]:
    """Return the factor scores are shown by: 100 for what is a fraction throughout, else 1.

    Args:
        scores: What was asked, the metric, and the value.

    """
    factors: dict[tuple[str, str], float] = {}
    for asked, metric, value in scores:
        if math.isfinite(value):
            fraction = 0 <= value <= 1
            factors[asked, metric] = factors.get((asked, metric), 100.0) if fraction else 1.0
    return factors


def _task_factors(results: Iterable[Result]) -> dict[tuple[str, str], float]:
    return _factors((r.cell.task, r.accuracy.metric, r.accuracy.value) for r in results if r.accuracy)


def _question_factors(results: Iterable[Result]) -> dict[tuple[str, str], float]:
    answers = (answer for result in results for answer in result.gauntlet)
    return _factors((a.question, a.metric, a.value) for a in answers if a.value is not None)


def _unit(factor: float) -> str:
    return "%" if factor > 1 else ""


def _id(result: Result) -> str:
    limit = "" if result.limit is None else f"-limit{result.limit}"
    return f"{result.system.id}/{result.cell.key}{limit}"


def _cell(entry: Shown, families: list[str]) -> dict[str, Json]:
    """Return which cell a row is, and how it is ranked."""
    cell, family = entry.result.cell, _family(entry.result.cell.backbone)
    return {
        "id": _id(entry.result),
        **{name: str(getattr(cell, name)) for name in cell.__struct_fields__ if name != "key"},
        "system": entry.result.system.id,
        "family": family,
        "hue": family if family in families else OTHER,
        "state": entry.result.state,
        "rank": entry.rank,
        "front": entry.front,
        "reason": entry.reason,
        "caveats": entry.result.caveats,
    }


def _scores(result: Result, factors: dict[tuple[str, str], float]) -> dict[str, Json]:
    accuracy = result.accuracy
    if accuracy is None:
        return dict.fromkeys(("metric", "score", "low", "high", "drop", "n", "higher", "unit"))
    factor = factors.get((result.cell.task, accuracy.metric), 1.0)
    return {
        "metric": accuracy.metric,
        "score": number(factor * accuracy.value),
        "low": number(factor * accuracy.ci95[0]),
        "high": number(factor * accuracy.ci95[1]),
        "drop": None if accuracy.drop is None else number(factor * accuracy.drop),
        "n": accuracy.n,
        "higher": accuracy.higher_is_better,
        "unit": _unit(factor),
    }


def _costs(result: Result) -> dict[str, Json]:
    """Return speed and size, in the unit their names say."""
    row = result.one_image
    bar = (row.spread_ms or row.ci95_ms) if row else None
    return {
        "p50": number(row.p50_ms if row else None),
        "p50_low": number(bar[0] if bar else None),
        "p50_high": number(bar[1] if bar else None),
        "p90": number(row.p90_ms if row else None),
        "p99": number(row.p99_ms if row else None),
        "images_per_s": number(fronts.COSTS["images_per_s"].of(result)),
        "mb": number(result.artifact.bytes / 1e6 if result.artifact else None),
        "peak_mb": number(
            result.memory.peak_bytes / 1e6 if result.memory and result.memory.peak_bytes else None
        ),
        "mj_per_image": number(1000 * result.energy.joules_per_image if result.energy else None),
    }


def _asked(answer: Answer, questions: Once, factors: dict[tuple[str, str], float]) -> list[Json]:
    """Return one question's index, headline and interval."""
    names = ("question", "kind", "metric", "higher_is_better")
    factor = factors.get((answer.question, answer.metric), 1.0)
    question = {**{name: getattr(answer, name) for name in names}, "unit": _unit(factor)}
    told = [answer.value, *(answer.ci95 or (None, None))]
    return [questions.place(question), *(None if v is None else number(factor * v) for v in told)]


def _step(step: fronts.Step, families: list[str], factors: dict[tuple[str, str], float]) -> dict[str, Json]:
    result = step.result
    metric = result.accuracy.metric if result.accuracy else ""
    factor = factors.get((result.cell.task, metric), 1.0)
    family = _family(result.cell.backbone)
    cell = {name: getattr(result.cell, name) for name in ("backbone", "task", "protocol", "runtime")}
    return {
        "id": _id(result),
        **cell,
        "precision": str(result.cell.precision),
        "system": result.system.id,
        "family": family,
        "hue": family if family in families else OTHER,
        "faster": number(step.faster),
        "gained": None if step.lost is None else number(0.0 - factor * step.lost),
        "told_apart": step.told,
        "more": number(step.more),
        "smaller": number(step.smaller),
    }


def _table(title: str, table: Table) -> dict[str, Json]:
    """Return a table of the command line's report; `of` says how many rows it had there."""
    rows = table.rows[:LONG]
    return {
        "title": title,
        "header": table.header,
        "rows": rows,
        "right": list(table.right),
        "of": len(table.rows),
    }


def _board(board: Board, results: Sequence[Result]) -> dict[str, Json]:
    """Return one standing: its sentence, figures and tables."""
    found = standing(board)
    columns = [i for i, s in enumerate(board.settings) if s.name in found.settings]
    by_group = len(columns) > WIDE
    names = found.groups if by_group else [board.settings[i].name for i in columns]
    values = found.by_group if by_group else found.z[:, columns]
    return {
        "title": board.title,
        "source": board.source,
        "engines": board.engines._asdict() if board.engines else None,
        "sentence": standing_report.sentence(board, found),
        "notes": standing_report.notes(board)[1:],
        "places": [_place(place, order) for order, place in enumerate(found.places[:TALL])],
        "placed": len(found.places),
        "by_group": by_group,
        "heat": _heat(board, found, names, values),
        "agreement": _agreement(names, values),
        "tables": [_table(title, table) for title, table in standing_report.tables(board, results)],
    }


def _place(place: Place, order: int) -> dict[str, Json]:
    ranks, without = place.ranks95, place.ranks_without
    return {
        "backbone": place.backbone,
        "rank": place.rank,
        "low": ranks[0] if ranks else None,
        "high": ranks[1] if ranks else None,
        "low_without": without[0] if without else None,
        "high_without": without[1] if without else None,
        "order": order,
    }


def _heat(
    board: Board, found: Standing, names: Sequence[str], values: NDArray[np.float64]
) -> dict[str, Json]:
    rows = {name: place for place, name in enumerate(board.backbones)}
    placed = [place.backbone for place in found.places[:TALL]]
    return {
        "rows": placed,
        "columns": list(names),
        "values": [[number(float(z)) for z in values[rows[name]]] for name in placed],
    }


def _agreement(names: Sequence[str], values: NDArray[np.float64]) -> dict[str, Json]:
    """Return Spearman's rho of every two settings, both ways round; null where two cannot be compared."""
    order = {name: place for place, name in enumerate(names)}
    rhos: list[list[float | None]] = [[None] * len(names) for _ in names]
    for pair in alike.alike(list(names), values):
        a, b = order[pair.a], order[pair.b]
        rhos[a][b] = rhos[b][a] = number(pair.spearman)
    there = any(rho is not None for line in rhos for rho in line)
    return {"rows": list(names), "columns": list(names), "values": rhos} if there else {}
