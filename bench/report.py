"""Show results: a table for people, Markdown for pages, JSON for programs. One function each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import gauntlet_report, scenario_report, verdict
from bench.caveats import CAVEATS
from bench.verdict import LeftOut, Ranking, Row, no_sentence, rank, sentence
from bobrt import console
from bobrt.console import Table
from bobrt.paths import write_atomic
from bobrt.result import Report, to_json
from bobrt.spec import State

if TYPE_CHECKING:
    from pathlib import Path

    from bobrt.result import Artifact, Result
    from bobrt.speed import Latency, Server

MB = 1e6


RANKED = ["rank", "front", "backbone", "runtime", "precision", "accuracy %", "accuracy 95 %", "drop"]
RANKED += ["p50 ms", "p50 bar", "p90 ms", "p99 ms", "images/s", "file MB", "peak MB", "caveats"]
SPARE = ["p99 ms", "peak MB", "p90 ms", "file MB", "p50 bar", "images/s", "accuracy 95 %", "front"]
SERVED = "queries/s"
"""A column of its own where the scenario `server` was asked."""
LEFT_OUT = ["backbone", "runtime", "precision", "state", "file MB", "build s", "reason"]


def as_table(results: list[Result]) -> None:
    """Print the rankings, what is left out of them, and the answer in one sentence."""
    rankings, left_out = rank(results)
    for ranking in rankings:
        console.data(_title(ranking))
        console.table(ranked_table(ranking))
        console.data("")
    for title, table in gauntlet_report.tables(results):
        console.data(title)
        console.table(table)
        console.data("")
    for line in gauntlet_report.reasons(results):
        console.data(f"Not asked: {line}")
    if left_out:
        console.data("Not ranked")
        console.table(left_out_table(left_out))
        console.data("")
    for line in _answers(rankings, left_out):
        console.data(line)


def _answers(rankings: list[Ranking], left_out: list[LeftOut]) -> list[str]:
    """Return the answer of each ranking, or why there is none."""
    found = [sentence(ranking) for ranking in rankings]
    return found or [line for line in [no_sentence(left_out)] if line]


def as_json(results: list[Result]) -> None:
    """Print every record, strict and versioned."""
    console.data(to_json(Report(results=results)).decode().rstrip("\n"))


def as_markdown(results: list[Result]) -> str:
    """Return the report as Markdown: the answer, the tables, the caveats and how it was measured."""
    rankings, left_out = rank(results)
    parts = ["# bobrt report", *_answers(rankings, left_out)]
    for ranking in rankings:
        parts += [f"## {_title(ranking)}", markdown_table(ranked_table(ranking)), _footnote(ranking)]
    for title, table in scenario_report.tables(results):
        parts += [f"## {title}", markdown_table(table)]
    asked = gauntlet_report.tables(results)
    for title, table in asked:
        parts += [f"## {title}", markdown_table(table)]
    parts += [gauntlet_report.LEGEND] if asked else []
    if reasons := gauntlet_report.reasons(results):
        parts += ["## Not asked", "\n".join(f"- {line}" for line in reasons)]
    if left_out:
        parts += ["## Not ranked", markdown_table(left_out_table(left_out))]
    named = sorted({name for result in results for name in result.caveats})
    if named:
        parts.append("## Caveats")
        parts.append(
            "\n".join(
                f"- **{n}**: {CAVEATS[n].text}. Remedy: {CAVEATS[n].remedy}." for n in named if n in CAVEATS
            )
        )
    systems = {result.system.id: result.system for result in results}
    parts.append("## Machines")
    for system in systems.values():
        tools = ("bobrt", "torch", "timm", "onnx", "onnxruntime", "tensorrt", "tensorrt_rtx", "modelopt")
        versions = ", ".join(f"{tool} {value}" for tool in tools if (value := getattr(system, tool)))
        gpu = f", {system.gpu} (driver {system.driver})" if system.gpu else ", no GPU"
        parts.append(
            f"- `{system.id}`: {system.cpu}, {system.cores} cores{gpu}; {system.os}, "
            f"Python {system.python}; {versions}"
        )
    return "\n\n".join(parts) + "\n"


def write_markdown(results: list[Result], path: Path) -> None:
    """Write the Markdown report."""
    write_atomic(path, as_markdown(results).encode())


FORMATS = {
    "table": as_table,
    "markdown": lambda results: console.data(as_markdown(results).rstrip("\n")),
    "json": as_json,
}


def ranked_table(ranking: Ranking) -> Table:
    """Return one ranking as text."""
    rows = [_ranked(row) for row in ranking.rows]
    header, right = list(RANKED), [0, *range(5, 15)]
    if any(row.result.server for row in ranking.rows):
        header.insert(-1, SERVED)
        right.append(len(RANKED) - 1)
        for line, row in zip(rows, ranking.rows, strict=True):
            line.insert(-1, _rate(row.result.server))
    return Table(header, rows, tuple(right), [header.index(name) for name in SPARE])


def left_out_table(left_out: list[LeftOut]) -> Table:
    """Return the cells without a rank as text."""
    rows = [
        [
            entry.result.cell.backbone,
            entry.result.cell.runtime,
            str(entry.result.cell.precision),
            str(entry.result.state),
            _size(entry.result.artifact),
            f"{entry.result.artifact.build_s:.2f}" if entry.result.artifact else "",
            entry.reason.removeprefix(f"{entry.result.state}: "),
        ]
        for entry in left_out
    ]
    return Table(LEFT_OUT, rows, (4, 5))


def _ranked(row: Row) -> list[str]:
    result, accuracy, latency = row.result, row.accuracy, row.latency
    rates = [rate.images_per_s for rate in result.throughput]
    peak = result.memory.peak_bytes if result.memory else None
    return [
        str(row.rank),
        "*" if row.front else "",
        result.cell.backbone,
        result.cell.runtime,
        str(result.cell.precision),
        f"{100 * accuracy.value:.1f}",
        f"{100 * accuracy.ci95[0]:.1f}-{100 * accuracy.ci95[1]:.1f}",
        "" if accuracy.drop is None else f"{100 * accuracy.drop:+.1f}",
        digits(latency.p50_ms),
        _bar(latency),
        "" if latency.p90_ms is None else digits(latency.p90_ms),
        "" if latency.p99_ms is None else digits(latency.p99_ms),
        digits(max(rates)) if rates else "",
        _size(result.artifact),
        "" if peak is None else f"{peak / MB:.1f}",
        " ".join(result.caveats),
    ]


def _rate(server: Server | None) -> str:
    """Return the rate a p99 bound lets pass; `none` where it lets nothing pass."""
    if server is None:
        return ""
    return "none" if server.rate is None else digits(server.rate)


def _bar(latency: Latency) -> str:
    """Return the error bar of the median: the spread of its rounds, or the interval of the only one."""
    bar = latency.spread_ms or latency.ci95_ms
    return "" if bar is None else f"{digits(bar[0])}-{digits(bar[1])}"


def digits(value: float) -> str:
    """Return a number with three significant digits and no exponent."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.3g}")
    whole = len(str(int(abs(rounded)))) if abs(rounded) >= 1 else 0
    if whole == 0:
        return f"{rounded:.{2 - _exponent(rounded)}f}"
    return f"{rounded:.{max(0, 3 - whole)}f}"


def _exponent(value: float) -> int:
    return int(f"{value:e}".rpartition("e")[2])


def _size(artifact: Artifact | None) -> str:
    return f"{artifact.bytes / MB:.2f}" if artifact else ""


def _title(ranking: Ranking) -> str:
    return f"{ranking.task}, {ranking.protocol}, on {ranking.system}"


def _footnote(ranking: Ranking) -> str:
    timing = next((row.result.timing for row in ranking.rows if row.result.timing), None)
    n = max(row.accuracy.n for row in ranking.rows)
    rounds = min(max(len(row.latency.repeats_ms), 1) for row in ranking.rows)
    windows = (
        f" Timed for at least {timing.min_s:g} s after {timing.warmup_s:g} s of warm-up" if timing else ""
    )
    windows += f", in {rounds} rounds." if windows and rounds > 1 else "." if windows else ""
    return (
        "Rank: 1 + the rows whose whole accuracy interval lies above; tied rows are ordered by latency. "
        f"Front `*`: no other row is both as accurate and as fast. Accuracy: {n} test images, Wilson "
        "interval. Drop: points below the same checkpoint in fp32 PyTorch. Latency: wall clock, batch 1, "
        "median; its bar is the lowest and highest median of three or more rounds, each in a process of its "
        "own, never narrower than the machine's drift; else the block-bootstrap interval. "
        "Images/s: the best batch. "
        f"Speed is that of the very file whose accuracy stands beside it.{windows}"
    )


def markdown_table(table: Table) -> str:
    """Return a table in GitHub's Markdown; a bar or a line's end inside a cell is no border."""
    rule = ["---:" if i in table.right else "---" for i in range(len(table.header))]
    lines = [table.header, rule, *table.rows]
    escaped = [[" ".join(cell.split()).replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in escaped)


def bound_missed(results: list[Result]) -> bool:
    """Tell whether a p99 bound was asked for and no ranked engine keeps it."""
    return verdict.bound_missed(rank(results)[0])


def failed(results: list[Result]) -> list[Result]:
    """Return the cells that ended in failure."""
    return [result for result in results if result.state is State.FAILED]
