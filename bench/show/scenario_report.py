"""Tables of the scenarios beside the ranking: batches, arrivals, LoadGen, and the road from files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bobrt.console import Table
from bobrt.spec import State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bobrt.result import Result
    from bobrt.speed import LoadGen

_HEADLINES = {
    "SingleStream": ("90.00 percentile latency (ns)", "ms p90", 1e-6),
    "Offline": ("Samples per second", "images/s", 1.0),
    "Server": ("Completed samples per second", "queries/s", 1.0),
}
WHO = ["backbone", "runtime", "precision"]


def tables(results: list[Result]) -> Iterator[tuple[str, Table]]:
    """Yield a title and a table for each scenario that was asked of any of the results."""
    done = [result for result in results if result.state is State.COMPLETE]
    if curved := [result for result in done if result.curve]:
        yield "Throughput by batch, images/s", _batches(curved)
    if served := [result for result in done if result.server]:
        yield "Server: arrivals whose p99 stays within the bound", _served(served)
    if loaded := [result for result in done if result.loadgen]:
        yield "MLPerf LoadGen (shorter than MLPerf's rules: no submission)", _loaded(loaded)
    if piped := [result for result in done if result.pipeline]:
        yield "Pipeline: image files to decoded answers", _piped(piped)


def _batches(results: list[Result]) -> Table:
    batches = sorted({row.batch for result in results for row in result.throughput})
    rows = []
    for result in results:
        rate = {row.batch: f"{row.images_per_s:.4g}" for row in result.throughput}
        ended = f"{result.curve.ended}: {result.curve.detail}" if result.curve else ""
        rows.append([*_who(result), *(rate.get(batch, "") for batch in batches), ended])
    return Table([*WHO, *map(str, batches), "ended"], rows, tuple(range(3, 3 + len(batches))))


def _served(results: list[Result]) -> Table:
    rows = [
        [
            *_who(result),
            f"{server.bound_ms:g}",
            "none" if server.rate is None else f"{server.rate:.4g}",
            "" if server.p99_ms is None else f"{server.p99_ms:.3g}",
            f"{server.capacity:.4g}",
            server.reason,
        ]
        for result in results
        if (server := result.server)
    ]
    return Table([*WHO, "bound ms", "queries/s", "p99 ms", "capacity", "reason"], rows, (3, 4, 5, 6))


def _loaded(results: list[Result]) -> Table:
    rows = [
        [
            *_who(result),
            run.scenario,
            run.mode,
            {True: "VALID", False: "INVALID", None: ""}[run.valid],
            "" if run.accuracy is None else f"{100 * run.accuracy:.1f}",
            _headline(run),
            run.reason.partition(" Recommendations:")[0].partition(" Early stopping Result:")[0],
        ]
        for result in results
        for run in result.loadgen
    ]
    return Table([*WHO, "scenario", "mode", "verdict", "accuracy %", "result", "reason"], rows, (6,))


def _headline(run: LoadGen) -> str:
    """Return the number a LoadGen scenario is about."""
    key, unit, scale = _HEADLINES[run.scenario]
    return f"{run.metrics[key] * scale:.4g} {unit}" if key in run.metrics else ""


def _piped(results: list[Result]) -> Table:
    rows = [
        [
            *_who(result),
            str(pipeline.batch),
            f"{pipeline.images_per_s:.4g}",
            f"{pipeline.engine_images_per_s:.4g}",
            ", ".join(f"{stage} {ms:.3g}" for stage, ms in pipeline.stage_ms.items()),
            pipeline.bound,
        ]
        for result in results
        if (pipeline := result.pipeline)
    ]
    return Table([*WHO, "batch", "images/s", "engine alone", "ms per image", "bound"], rows, (3, 4, 5))


def _who(result: Result) -> list[str]:
    return [result.cell.backbone, result.cell.runtime, str(result.cell.precision)]
