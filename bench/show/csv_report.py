"""Every cell as a line of CSV (RFC 4180), for spreadsheets and data frames."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from bench import fronts, verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bobrt.result import Result
    from bobrt.spec import Json

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""

CELL = ("backbone", "weights", "task", "protocol", "runtime", "precision", "batch", "seed", "key")


def text(results: Sequence[Result]) -> str:
    """Return one line for each result under a line of names; what is null is empty.

    Fractions are fractions, and times in the unit their name says, as in the records. A text that a
    spreadsheet would run as a formula begins with a quote.
    """
    rankings, left_out = verdict.rank(list(results))
    places = {id(row.result): (row.rank, row.front) for ranking in rankings for row in ranking.rows}
    reasons = {id(entry.result): entry.reason for entry in left_out}
    written = io.StringIO()
    lines = csv.writer(written)
    lines.writerow([*CELL, "system", "state", "rank", "front", "reason", *COLUMNS])
    for result in results:
        rank, front = places.get(id(result), (None, None))
        cell = [getattr(result.cell, name) for name in CELL]
        ranked = [result.system.id, result.state, rank, front, reasons.get(id(result), "")]
        lines.writerow(map(_shown, [*cell, *ranked, *(of(result) for of in COLUMNS.values())]))
    return written.getvalue()


def _shown(value: Json) -> Json:
    """Return a value as it stands in a line; numbers are no formulas."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return value
    shown = str(value)
    return f"'{shown}" if shown.startswith(FORMULA) else shown


def _of(part: str, *names: str) -> dict[str, Callable[[Result], Json]]:
    """Return columns that are keys of one part of a record, which may be missing."""

    def column(name: str) -> Callable[[Result], Json]:
        return lambda result: getattr(getattr(result, part), name, None)

    return {name: column(name) for name in names}


def _end(part: str, name: str, end: int) -> Callable[[Result], Json]:
    """Return a column that is one end of an interval."""

    def value(result: Result) -> Json:
        found = result.one_image if part == "latency" else getattr(result, part)
        both = getattr(found, name, None)
        return None if both is None else both[end]

    return value


def _one_image(name: str) -> Callable[[Result], Json]:
    return lambda result: getattr(result.one_image, name, None)


COLUMNS: dict[str, Callable[[Result], Json]] = {
    **_of("accuracy", "metric", "value"),
    "ci95_low": _end("accuracy", "ci95", 0),
    "ci95_high": _end("accuracy", "ci95", 1),
    **_of("accuracy", "n", "higher_is_better", "reference", "drop"),
    **{name: _one_image(name) for name in ("p50_ms", "p90_ms", "p99_ms")},
    "p50_ci95_low_ms": _end("latency", "ci95_ms", 0),
    "p50_ci95_high_ms": _end("latency", "ci95_ms", 1),
    "p50_spread_low_ms": _end("latency", "spread_ms", 0),
    "p50_spread_high_ms": _end("latency", "spread_ms", 1),
    "images_per_s": fronts.COSTS["images_per_s"].of,
    **_of("memory", "peak_bytes"),
    **_of("energy", "joules_per_image"),
    **_of("artifact", "kind", "path", "sha256", "bytes", "build_s", "precision_share", "realised_share"),
    "caveats": lambda result: " ".join(result.caveats),
    "limit": lambda result: result.limit,
    "started": lambda result: result.started,
    **_of(
        "system", "cpu", "gpu", "driver", "os", "python", "cuda", "tensorrt", "tensorrt_rtx", "onnxruntime"
    ),
    **_of("system", "onnx", "torch", "timm", "modelopt", "bobrt", "git_commit", "git_dirty", "threads"),
}
"""Columns beside the cell's words and its place, in their order."""
