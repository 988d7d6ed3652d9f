"""Scores in files: tables that others published, and what a results folder measures its own against."""

from __future__ import annotations

import csv
import math
from typing import TYPE_CHECKING

import numpy as np

from bench.boards.board import Board, Origin, Reference, Setting, places
from bobrt.errors import UsageError
from bobrt.spec import Frozen
from bobrt.strict import read_text, read_toml

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCORES = "scores.toml"
"""What a published table is called in its folder; the numbers are in a CSV file beside it."""

STANDING = "standing.toml"
"""What a results folder's pool and weights are in."""


def reference(root: Path) -> Reference:
    """Return what a results folder says in its `standing.toml`; all backbones alike where it says nothing."""
    path = root / STANDING
    return read_toml(path, Reference, "reference") if path.is_file() else Reference()


class _Column(Frozen, frozen=True, kw_only=True):
    name: str
    group: str
    metric: str
    higher_is_better: bool = True
    random: float | None = None
    perfect: float | None = None


class _Scores(Frozen, frozen=True, kw_only=True):
    title: str
    source: str
    table: str
    """The CSV file: a column `backbone`, one for each setting, and `seed` if there are several."""
    pool: list[str] = []
    """Empty for all."""
    weights: dict[str, float] = {}
    notes: list[str] = []
    setting: list[_Column]
    catalogue: dict[str, str] = {}
    """What a row is called in the catalogue."""


def from_scores(path: Path) -> Board:
    """Read a published table.

    Args:
        path: Its `scores.toml`, which says where the numbers are from and what the columns are; an empty
            cell of the CSV file beside it is one that was not measured.

    Raises:
        UsageError: A file is missing or damaged; file, line and key are named.

    """
    told = read_toml(path, _Scores, "scores")
    table = path.parent / told.table
    settings = [
        Setting(s.name, s.group, s.metric, s.higher_is_better, s.random, s.perfect) for s in told.setting
    ]
    found: dict[tuple[str, int], list[float]] = {}
    for line, row in _rows(table, ["backbone", *(setting.name for setting in settings)]):
        where = f"scores {table}, line {line}"
        key = row["backbone"], int(_number(row.get("seed", "").strip() or "0", where))
        if key in found:
            raise UsageError(f"{where}: {key[0]!r} stands there twice", "keep one line of it")
        found[key] = [_number(row[setting.name], where) for setting in settings]
    names = list(dict.fromkeys(name for name, _ in found))
    if absent := [name for name in told.pool if name not in names]:
        raise UsageError(f"scores {path}: {absent[0]!r} of the pool is not in {told.table}", "name its rows")
    rows, seeds = places(names), places(sorted({seed for _, seed in found}))
    scores = np.full((len(names), len(settings), len(seeds)), np.nan)
    for (name, seed), values in found.items():
        scores[rows[name], :, seeds[seed]] = values
    return Board(
        title=told.title,
        backbones=names,
        settings=settings,
        scores=scores,
        pool=np.array([not told.pool or name in told.pool for name in names], dtype=bool),
        origins=[Origin(told.catalogue.get(name, ""), "pretrained") for name in names],
        weights=dict(told.weights),
        source=told.source,
        notes=list(told.notes),
    )


def _rows(path: Path, wanted: list[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield each line of a CSV file with its number, all wanted columns filled in."""
    reader = csv.DictReader(read_text(path, "scores").splitlines())
    if missing := [name for name in wanted if name not in (reader.fieldnames or [])]:
        raise UsageError(
            f"scores {path} have no column {missing[0]!r}", "name each setting in the first line"
        )
    for row in reader:
        if None in row or None in row.values():
            raise UsageError(f"scores {path}, line {reader.line_num}: not as many cells as columns")
        yield reader.line_num, row


def _number(text: str, where: str) -> float:
    try:
        value = float(text) if text.strip() else math.nan
    except ValueError:
        raise UsageError(
            f"{where}: {text!r} is no number", "leave a cell empty that was not measured"
        ) from None
    if math.isinf(value):
        raise UsageError(f"{where}: {text!r} is no score", "leave a cell empty that was not measured")
    return value
