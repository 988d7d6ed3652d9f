"""What stands behind one row of the page: record, file, versions, and its raw times as a histogram."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from bench import store
from bobrt.errors import BobrtError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bobrt.result import Result
    from bobrt.spec import Json
    from bobrt.speed import Latency

BINS = 32
TAIL = 99
"""Percentile where a histogram ends; what is beyond is counted."""


class Places(NamedTuple):
    """Where records and their raw times lie."""

    files: dict[tuple[str, str], Path]
    """By machine and file name, as the store files them."""
    roots: Sequence[Path]

    @classmethod
    def under(cls, folders: Sequence[Path]) -> Places:
        """Look for every record under the folders."""
        found = {}
        for folder in folders:
            for path in folder.rglob("*.json"):
                if len(path.parts) > 3:  # noqa: PLR2004 - machine, task and backbone are above it
                    found[path.parts[-4], path.name] = path
        return cls(found, folders)

    def record(self, result: Result) -> Path | None:
        """Return the path of a record, or None if it is not where the store files it."""
        cell = result.cell
        name = cell.key if result.limit is None else f"{cell.key}-limit{result.limit}"
        return self.files.get((result.system.id, f"{name}.json"))

    def told(self, path: Path) -> str:
        """Return a path as it is shown: from the results folder on."""
        root = next((root for root in self.roots if path.is_relative_to(root)), None)
        return str(path.relative_to(root) if root else path)


class Once:
    """What many rows name, each told once: rows carry its index."""

    def __init__(self) -> None:
        self.told: list[dict[str, Json]] = []
        self._places: dict[bytes, int] = {}

    def place(self, entry: Json) -> int:
        """Return the index of an entry, which JSON can hold."""
        key = msgspec.json.encode(entry)
        if key not in self._places:
            self._places[key] = len(self.told)
            self.told.append(msgspec.to_builtins(entry))
        return self._places[key]


def evidence(result: Result, places: Places, systems: Once) -> dict[str, Json]:
    """Return where a row's record and file are, with hashes, and how they were made; only what is known."""
    path = places.record(result)
    artifact = result.artifact
    known = {
        "record": places.told(path) if path else None,
        "seal": result.seal,
        "started": result.started,
        "seconds": number(result.seconds),
        "system": systems.place(result.system),
        "limit": result.limit,
        "kind": artifact.kind if artifact else None,
        "path": artifact.path if artifact else None,
        "sha256": artifact.sha256 if artifact else None,
        "bytes": artifact.bytes if artifact else None,
        "build_s": number(artifact.build_s if artifact else None),
        "precision_share": number(artifact.precision_share if artifact else None),
        "realised_share": number(artifact.realised_share if artifact else None),
        "agreement": number(result.parity.agreement if result.parity else None),
        "max_abs": number(result.parity.max_abs if result.parity else None),
        "input": result.input.size if result.input else None,
        "drift": number(result.drift.relative if result.drift else None),
        "rounds_ms": [number(value) for value in _rounds(result.one_image)],
        "samples": msgspec.to_builtins(result.samples) if result.samples else None,
        "notes": result.notes,
        "log": result.log,
    }
    return {key: value for key, value in known.items() if value not in (None, "", [])}


def _rounds(row: Latency | None) -> list[float]:
    return row.repeats_ms if row else []


def times(result: Result, places: Places) -> dict[str, Json]:
    """Return the histogram of one image's latency, or why there is none."""
    row, path = result.one_image, places.record(result)
    if row is None or result.samples is None:
        return {"histogram": None, "no_histogram": "the record names no raw times"}
    if path is None:
        return {"histogram": None, "no_histogram": "the record is not where the store files it"}
    try:
        rounds = store.read_samples(path, result).get(f"{row.scenario}-{row.batch}", [])
    except BobrtError as error:
        return {"histogram": None, "no_histogram": error.message}
    taken = np.concatenate([np.array([], dtype=np.int64), *rounds]) / 1e6
    if not len(taken):
        return {"histogram": None, "no_histogram": f"{result.samples.file} holds no times of one image"}
    return {"histogram": histogram(taken), "no_histogram": ""}


def histogram(times: NDArray[np.float64]) -> dict[str, Json]:
    """Count times in equal bins.

    Args:
        times: Milliseconds, `[n]`, at least one.

    Returns:
        `start` and `step` of the bins in ms, `counts`, and how many times are `beyond` the last bin, up to
        `longest`. The bins end at the 99th percentile: a few late calls would make one bar of the rest.

    """
    low, end = float(times.min()), float(np.percentile(times, TAIL))
    end = end if end > low else low + max(low, 1e-6) / 100
    counts, edges = np.histogram(times, bins=BINS, range=(low, end))
    return {
        "start": number(low),
        "step": number(float(edges[1] - edges[0])),
        "counts": counts.tolist(),
        "beyond": int(len(times) - counts.sum()),
        "longest": number(float(times.max())),
    }


def number(value: float | None) -> float | None:
    """Return a number with six significant digits; None for what is none, or not finite."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.6g}")
