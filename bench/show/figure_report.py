"""The figures as files for a paper: SVG or PNG, named by what they show."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.show import figures, page_data, vega
from bobrt.paths import write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bench.store import Boards
    from bobrt.result import Result

NAME = "figures"
"""What the folder is called where nobody says, in the results folder."""
DRAW = {"svg": vega.svg, "png": vega.png}
TASK = ("task", "protocol", "system")


class Figure(NamedTuple):
    """A figure and what its file is called, without a suffix."""

    name: str
    spec: dict[str, Any]


def write(results: Sequence[Result], beside: Boards | None, folder: Path, kind: str) -> list[Path]:
    """Write every figure there is data for, and return their paths.

    Args:
        results: Records, each cell once.
        beside: Published tables, and what the results are measured against.
        folder: Where to; files of the same name are replaced.
        kind: A key of `DRAW`.

    Raises:
        MachineError: A file cannot be written.

    """
    paths = []
    for figure in drawn(page_data.page(results, beside, [])):
        paths.append(folder / f"{figure.name}.{kind}")
        write_atomic(paths[-1], DRAW[kind](figure.spec))
    return paths


def drawn(page: dict[str, Any]) -> Iterator[Figure]:
    """Yield the figures of a page's data."""
    families = page["families"]
    rows = [{**row, "family": row["hue"], "told": ""} for row in page["rows"]]
    ranked = [row for row in rows if None not in (row["rank"], row["score"], row["p50"])]
    for place in sorted({_place(row) for row in ranked}):
        those = [row for row in ranked if _place(row) == place]
        spec = figures.front(families, _what(those[0]))
        yield Figure(_name("front", *place), figures.filled(spec, those))
    steps = [
        {**s, "family": s["hue"], "told": ""} for s in page["steps"] if None not in {s["faster"], s["gained"]}
    ]
    if steps:
        yield Figure("precision", figures.filled(figures.ladder(families), steps))
    for place in sorted({_place(row) for row in rows if row["asked"]}):
        yield from _asked(page, place, [row for row in rows if _place(row) == place])
    for board in page["boards"]:
        yield from _of_board(board)


def _asked(page: dict[str, Any], place: tuple[str, ...], rows: list[dict[str, Any]]) -> Iterator[Figure]:
    """Yield a figure for each question of a gauntlet."""
    order = {name: i for i, name in enumerate(sorted({row["backbone"] for row in rows}))}
    for index, question in enumerate(page["questions"]):
        answers = [
            {**row, "score": score, "low": low, "high": high, "order": order[row["backbone"]]}
            for row in rows
            for asked, score, low, high in row["asked"]
            if asked == index and score is not None
        ]
        if answers:
            spec = figures.question(page["families"], f"{question['question']}, {_what(question)}")
            yield Figure(_name("gauntlet", question["question"], *place), figures.filled(spec, answers))


def _of_board(board: dict[str, Any]) -> Iterator[Figure]:
    """Yield the figures of a standing."""
    if board["places"]:
        cells = figures.cells(board["heat"])
        yield Figure(_name("z", board["title"]), figures.filled(figures.heat(), cells))
    if any(place["low"] is not None for place in board["places"]):
        yield Figure(_name("ranks", board["title"]), figures.filled(figures.ranks(), board["places"]))
    if board["agreement"]:
        cells = figures.cells(board["agreement"])
        yield Figure(_name("alike", board["title"]), figures.filled(figures.agreement(), cells))


def _place(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(row[word] for word in TASK)


def _what(asked: dict[str, Any]) -> str:
    return f"{asked['metric']}, {asked['unit']}" if asked["unit"] else str(asked["metric"])


def _name(*words: str) -> str:
    """Return words as a file's name: a backbone or a task may be called anything."""
    return re.sub(r"[^\w.@-]+", "-", "-".join(words)).strip("-.")
