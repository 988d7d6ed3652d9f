"""Where results live: one JSON file per cell, filed by machine, task and backbone, in the user's folder."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from bench import records
from bench.boards.board import Reference
from bench.boards.score_files import SCORES, from_scores, reference
from bobrt.errors import UsageError
from bobrt.paths import sha256_of, write_atomic
from bobrt.result import SCHEMA, CellRecord, Result, Samples, to_json
from bobrt.spec import Record
from bobrt.strict import parse_json, read_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bench.boards.board import Board
    from bobrt.spec import Cell

SAMPLES = ".samples.json"
LOADGEN = ".loadgen"
"""Suffix of the folder beside a record that holds LoadGen's logs, a folder for each of its runs."""


class Loaded(NamedTuple):
    """What a results folder holds."""

    results: list[Result]
    problems: list[str]
    """One line for each file that could not be used."""


class Boards(NamedTuple):
    """The published tables a folder holds, and what its own results are measured against."""

    published: list[Board]
    against: Reference
    problems: list[str]
    """One line for each file that could not be read."""


class _Times(Record, frozen=True, kw_only=True):
    schema: int = SCHEMA
    unit: str
    times: dict[str, list[int]]
    """All calls of a loop, round after round."""
    rounds: dict[str, list[int]] = {}
    """How many of them each round took."""


def path_of(root: Path, system_id: str, cell: Cell | CellRecord, limit: int | None) -> Path:
    """Return where a cell's record lives; a limited run never takes the place of a full one."""
    name = cell.key if limit is None else f"{cell.key}-limit{limit}"
    return root / system_id / _folder(cell.task or "no-task") / _folder(cell.backbone) / f"{name}.json"


def _folder(name: str) -> str:
    """Return a name as one folder: a model file from elsewhere may call itself anything."""
    return name.replace("/", "_").strip(".") or "_"


def write(path: Path, result: Result) -> None:
    """Write a record, atomically: it is there whole or not at all."""
    write_atomic(path, to_json(result.sealed()))


def write_samples(path: Path, rounds: Mapping[str, Sequence[NDArray[np.int64]]]) -> Samples:
    """Write the raw times of every round beside the record at `path`; they come first, the record last.

    Each round's file has a name of its own: until the record names the new one, the old one is whole.
    """
    count = max((len(loops) for loops in rounds.values()), default=1)
    beside = path.with_name(path.stem + (f".{count}" if count > 1 else "") + SAMPLES)
    content = _Times(
        unit="ns",
        times={name: [int(t) for times in loops for t in times] for name, loops in rounds.items()},
        rounds={name: [len(times) for times in loops] for name, loops in rounds.items()},
    )
    write_atomic(beside, msgspec.json.encode(content) + b"\n")
    return Samples(file=beside.name, sha256=sha256_of(beside))


def read_samples(path: Path, result: Result) -> dict[str, list[NDArray[np.int64]]]:
    """Return the raw times of the record at `path`, one array per round, in nanoseconds.

    Raises:
        UsageError: They are not there, or damaged.

    """
    if result.samples is None:
        return {}
    file = path.with_name(result.samples.file)
    if file.is_file():
        _require_samples(path, result)
    content = parse_json(read_text(file, "samples"), _Times, f"samples {file}")
    found = {}
    for name, times in content.times.items():
        ends = np.cumsum(content.rounds.get(name, [len(times)]))[:-1]
        found[name] = np.split(np.asarray(times, dtype=np.int64), ends)
    return found


def drop_old_samples(path: Path, result: Result) -> None:
    """Delete the raw times of earlier rounds, which the record at `path` no longer names."""
    for old in path.parent.glob(f"{path.stem}.*{SAMPLES.removeprefix('.')}"):
        if result.samples is None or old.name != result.samples.file:
            old.unlink(missing_ok=True)


def read(path: Path) -> Result:
    """Return one record; raise `UsageError` that names the file if it is damaged, edited or too new."""
    result = records.read(path)
    samples = path.with_name(result.samples.file) if result.samples else None
    if samples and samples.is_file():
        _require_samples(path, result)
    return result


def read_all(*roots: Path) -> Loaded:
    """Return every record under some folders; those that cannot be read are named, the rest is used.

    Of two records of one cell and machine the later one is used, and the other named. Raw times are not
    looked at: `read_samples` does, for whoever needs them.
    """
    found: dict[tuple[str, str, int | None], tuple[str, Result]] = {}
    problems = []
    with records.uncollected():
        for path, result in records.read_many(path for root in roots for path in _files(root)):
            if isinstance(result, UsageError):
                problems.append(result.message)
                continue
            key = result.system.id, result.cell.key, result.limit
            there = found.setdefault(key, (path, result))
            if there[1] is not result:
                early, late = sorted((there, (path, result)), key=lambda one: one[1].started)
                found[key] = late
                if late[1].seal != early[1].seal:
                    problems.append(f"{early[0]} is an earlier record of the cell in {late[0]}")
        results = sorted((result for _, result in found.values()), key=_order)
    return Loaded(results, problems)


def _files(root: Path) -> Iterator[str]:
    """Yield the paths of the records under a folder, in order."""
    for at, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.endswith(LOADGEN))
        for name in sorted([*files, *folders]):  # a folder with a record's name is one that cannot be read
            if name.endswith(".json") and not name.endswith(SAMPLES) and not name.startswith("."):
                yield f"{at}/{name}"


def _require_samples(path: Path, result: Result) -> None:
    """Raise `UsageError` if the raw times beside a record are not those it was written with."""
    if result.samples and sha256_of(samples := path.with_name(result.samples.file)) != result.samples.sha256:
        raise UsageError(f"result {path} was edited: not its samples, {samples.name}", "bench the cell again")


def read_boards(*roots: Path) -> Boards:
    """Return every published table of scores under some folders, and the first one's pool.

    What cannot be read is named.
    """
    boards, problems, against = [], [], Reference()
    try:
        against = reference(roots[0])
    except UsageError as error:
        problems.append(error.message)
    for path in (path for root in roots if root.is_dir() for path in sorted(root.rglob(SCORES))):
        try:
            boards.append(from_scores(path))
        except UsageError as error:
            problems.append(error.message)
    return Boards(boards, against, problems)


def _order(result: Result) -> tuple[str, str, str, str, int, str]:
    """File a result by machine, task, backbone and runtime, low precisions last."""
    cell = result.cell
    return (
        result.system.id,
        cell.task,
        cell.backbone,
        cell.runtime,
        cell.precision.place,
        cell.key,
    )
