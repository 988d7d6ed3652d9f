"""Where results live: one JSON file per cell, filed by machine, task and backbone, in the user's folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from bobrt.errors import UsageError
from bobrt.paths import sha256_of, write_atomic
from bobrt.result import SCHEMA, Record, Result, Samples, to_json
from bobrt.spec import Precision, seal_of
from bobrt.strict import parse_json, read_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from bobrt.spec import Cell

SAMPLES = ".samples.json"


class Loaded(NamedTuple):
    """What a results folder holds."""

    results: list[Result]
    problems: list[str]
    """One line for each file that could not be used."""


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


def write_samples(path: Path, times_ns: Mapping[str, NDArray[np.int64]]) -> Samples:
    """Write the raw times beside the record at `path`; they come first, the record last."""
    beside = path.with_name(path.stem + SAMPLES)
    content = {"schema": SCHEMA, "unit": "ns", "times": {name: t.tolist() for name, t in times_ns.items()}}
    write_atomic(beside, msgspec.json.encode(content) + b"\n")
    return Samples(file=beside.name, sha256=sha256_of(beside))


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
        if path.name.endswith(SAMPLES) or path.name.startswith("."):
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
