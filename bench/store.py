"""Where results live: one JSON file per cell, filed by machine, task and backbone, in the user's folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from bobrt.errors import UsageError
from bobrt.paths import sha256_of, write_atomic
from bobrt.result import SCHEMA, Result, Samples, to_json
from bobrt.spec import Precision, Record, seal_of
from bobrt.strict import parse_json, read_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bobrt.spec import Cell

SAMPLES = ".samples.json"
LOADGEN = ".loadgen"
"""Suffix of the folder beside a record that holds LoadGen's logs, a folder for each of its runs."""


class Loaded(NamedTuple):
    """What a results folder holds."""

    results: list[Result]
    problems: list[str]
    """One line for each file that could not be used."""


class _Times(Record, frozen=True, kw_only=True):
    schema: int = SCHEMA
    unit: str
    times: dict[str, list[int]]
    """All calls of a loop, round after round."""
    rounds: dict[str, list[int]] = {}
    """How many of them each round took."""


class _Version(Record, frozen=True, kw_only=True):
    schema: int


def path_of(root: Path, system_id: str, cell: Cell, limit: int | None) -> Path:
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
    text, name = read_text(path, "result"), f"result {path}"
    schema = parse_json(text, _Version, name).schema
    if schema != SCHEMA:
        raise UsageError(f"{name} has schema {schema}; this bobrt reads {SCHEMA}", "install a newer bobrt")
    result = parse_json(text, Result, name)
    if result.seal != seal_of(text):
        raise UsageError(f"{name} was edited: it is not what its seal was put on", "bench the cell again")
    samples = path.with_name(result.samples.file) if result.samples else None
    if result.samples and samples and samples.is_file() and sha256_of(samples) != result.samples.sha256:
        raise UsageError(f"{name} was edited: not its samples, {samples.name}", "bench the cell again")
    return result


def read_all(root: Path) -> Loaded:
    """Return every record under `root`; those that cannot be read are named, the rest is used."""
    results, problems = [], []
    for path in sorted(root.rglob("*.json")) if root.is_dir() else []:
        if path.name.endswith(SAMPLES) or path.name.startswith(".") or path.parent.parent.suffix == LOADGEN:
            continue
        try:
            results.append(read(path))
        except UsageError as error:
            problems.append(error.message)
    return Loaded(sorted(results, key=_order), problems)


def _order(result: Result) -> tuple[str, str, str, str, int, str]:
    """File a result by machine, task, backbone and runtime, low precisions last."""
    cell = result.cell
    return (
        result.system.id,
        cell.task,
        cell.backbone,
        cell.runtime,
        list(Precision).index(cell.precision),
        cell.key,
    )
