"""Show results: a table for people, Markdown for pages, JSON for programs. One function each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from bench import verdict
from bench.caveats import CAVEATS
from bench.show import (
    card_report,
    costs_report,
    csv_report,
    gauntlet_report,
    scenario_report,
    seeds_report,
    standing_report,
    systems_report,
)
from bench.show.numbers import digits, weights
from bench.store import read_boards
from bench.verdict import LeftOut, Ranking, Row, no_sentence, rank, sentence
from bobrt import console
from bobrt.console import Table
from bobrt.paths import write_atomic
from bobrt.result import Report, to_json
from bobrt.spec import Json, State

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.boards.board import Board
    from bench.store import Boards
    from bobrt.result import Artifact, Result
    from bobrt.speed import Latency, Server

MB = 1e6
MOST = 1000
"""Rows of a table on a terminal, the best of a ranking first."""

RANKED = ["rank", "front", "backbone", "runtime", "precision", "accuracy %", "accuracy 95 %", "drop"]
RANKED += ["p50 ms", "p50 bar", "p90 ms", "p99 ms", "images/s", "file MB", "peak MB", "caveats"]
SPARE = ["p99 ms", "peak MB", "p90 ms", "file MB", "p50 bar", "images/s", "accuracy 95 %", "front"]
AFTER = RANKED.index("precision") + 1
SERVED = "queries/s"
"""A column of its own where the scenario `server` was asked."""
LEFT_OUT = ["backbone", "runtime", "precision", "state", "file MB", "build s", "reason"]


class Show(Protocol):
    """What shows results: on stdout, in one format."""

    def __call__(self, results: list[Result], beside: Boards | None = None) -> None:
        """Show them, and the boards beside them."""
        ...


class _Standings(Report, frozen=True, kw_only=True):
    standings: list[dict[str, Json]]


def as_table(results: list[Result], beside: Boards | None = None) -> None:
    """Print the rankings, the standings, what is left out of them, and the answer in one sentence."""
    rankings, left_out = rank(results)
    for ranking in rankings:
        _print(_title(ranking), ranked_table(ranking._replace(rows=ranking.rows[:MOST])), len(ranking.rows))
    for title, table, count in seeds_report.tables(rankings, MOST):
        _print(title, table, count)
    for title, table in [*systems_report.tables(rankings), *gauntlet_report.tables(results)]:
        _print(title, table, len(table.rows))
    for board in _boards(results, beside):
        for title, table in standing_report.tables(board, results):
            _print(title, table, len(table.rows))
        for line in [*standing_report.notes(board), ""]:
            console.data(line)
    for line in gauntlet_report.reasons(results):
        console.data(f"Not asked: {line}")
    if left_out:
        _print("Not ranked", left_out_table(left_out[:MOST]), len(left_out))
    for line in _answers(rankings, left_out):
        console.data(line)


def _print(title: str, table: Table, count: int) -> None:
    """Print a table, or the first rows of one that nobody would read to its end."""
    console.data(title)
    console.table(table._replace(rows=table.rows[:MOST]))
    if count > MOST:
        more = count - MOST
        console.data(f"{more:,} more row{'s' if more > 1 else ''}: bobrt report --format csv")
    console.data("")


def _answers(rankings: list[Ranking], left_out: list[LeftOut]) -> list[str]:
    """Return the answer of each ranking, or why there is none."""
    found = [sentence(ranking) for ranking in rankings]
    return found or [line for line in [no_sentence(left_out)] if line]


def _boards(results: list[Result], beside: Boards | None) -> list[Board]:
    """Return the boards published beside the results, and those of the results."""
    return [
        *(beside.published if beside else []),
        *standing_report.boards(results, beside and beside.against),
    ]


def as_json(results: list[Result], beside: Boards | None = None) -> None:
    """Print every record, strict and versioned; and the standings, where there are any."""
    report = Report(results=results)
    if boards := _boards(results, beside):
        report = _Standings(results=results, standings=[standing_report.as_dict(board) for board in boards])
    console.data(to_json(report).decode().rstrip("\n"))


def as_markdown(results: list[Result], beside: Boards | None = None) -> str:
    """Return the report as Markdown: the answer, the tables, the caveats and how it was measured."""
    rankings, left_out = rank(results)
    parts = ["# bobrt report", *_answers(rankings, left_out)]
    for ranking in rankings:
        parts += [f"## {_title(ranking)}", markdown_table(ranked_table(ranking)), _footnote(ranking)]
    seeds = seeds_report.tables(rankings)
    for title, table, _ in seeds:
        parts += [f"## {title}", markdown_table(table)]
    parts += [seeds_report.LEGEND] if seeds else []
    systems = systems_report.tables(rankings)
    for title, table in systems:
        parts += [f"## {title}", markdown_table(table)]
    parts += [systems_report.LEGEND] if systems else []
    costs = costs_report.tables(results)
    for title, table in costs:
        parts += [f"## {title}", markdown_table(table)]
    parts += [costs_report.LEGEND] if costs else []
    for title, table in scenario_report.tables(results):
        parts += [f"## {title}", markdown_table(table)]
    asked = gauntlet_report.tables(results)
    for title, table in asked:
        parts += [f"## {title}", markdown_table(table)]
    parts += [gauntlet_report.LEGEND] if asked else []
    parts += _standings(results, _boards(results, beside))
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
    return "\n\n".join([*parts, *_machines(results)]) + "\n"


def _standings(results: list[Result], boards: list[Board]) -> list[str]:
    """Return the standings as parts of a page, and how to read them."""
    parts = []
    for board in boards:
        for title, table in standing_report.tables(board, results):
            parts += [f"## {title}", markdown_table(table)]
        parts.append("\n".join(f"- {line}" for line in standing_report.notes(board)))
    return [*parts, standing_report.LEGEND] if boards else []


def _machines(results: list[Result]) -> list[str]:
    """Return what the results were measured on and with, as parts of a page."""
    systems = {result.system.id: result.system for result in results}
    lines = []
    for system in systems.values():
        tools = ("bobrt", "torch", "timm", "onnx", "onnxruntime", "tensorrt", "tensorrt_rtx", "modelopt")
        versions = ", ".join(f"{tool} {value}" for tool in tools if (value := getattr(system, tool)))
        gpu = f", {system.gpu} (driver {system.driver})" if system.gpu else ", no GPU"
        lines.append(
            f"- `{system.id}`: {system.cpu}, {system.cores} cores{gpu}; {system.os}, "
            f"Python {system.python}; {versions}"
        )
    return ["## Machines", *lines] if lines else []


def as_card(results: list[Result], beside: Boards | None = None) -> str:
    """Return a model card for the hub: its metadata, then the report as Markdown.

    Raises:
        NothingMatchedError: No row may be ranked.
        MachineError: huggingface_hub is not installed.

    """
    return card_report.front_matter(results) + "\n" + as_markdown(results, beside)


def write_markdown(results: list[Result], path: Path) -> None:
    """Write the Markdown report of the folder it is to stand in."""
    write_atomic(path, as_markdown(results, read_boards(path.parent)).encode())


def _as_text(page: Callable[[list[Result], Boards | None], str]) -> Show:
    """Return what prints a page."""
    return lambda results, beside=None: console.data(page(results, beside).rstrip("\n"))


FORMATS: dict[str, Show] = {
    "table": as_table,
    "markdown": _as_text(as_markdown),
    "json": as_json,
    "csv": _as_text(lambda results, _: csv_report.text(results)),
    "card": _as_text(as_card),
}


def ranked_table(ranking: Ranking) -> Table:
    """Return one ranking as text."""
    rows = [_ranked(row) for row in ranking.rows]
    header, right = list(RANKED), [0, *range(5, 15)]
    # Columns of their own where rows differ in them.
    apart = {
        "batch": [str(row.result.cell.batch) for row in ranking.rows],
        "weights": [weights(row.result.cell.weights) for row in ranking.rows],
        "seed": [str(row.result.cell.seed) for row in ranking.rows],
    }
    apart["px"] = [str(row.result.input.size) if row.result.input else "" for row in ranking.rows]
    for name, told in apart.items():
        if len({*told}) > 1:
            header.insert(AFTER, name)
            right = [i + (i >= AFTER) for i in right]
            for line, value in zip(rows, told, strict=True):
                line.insert(AFTER, value)
    if any(row.result.server for row in ranking.rows):
        header.insert(-1, SERVED)
        right.append(len(header) - 2)
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
    """Return the cells that ended in failure, or could not be measured anew."""
    return [r for r in results if r.state is State.FAILED or "not-renewed" in r.caveats]
