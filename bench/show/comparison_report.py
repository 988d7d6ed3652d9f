"""Show a comparison: a table for people, Markdown for a pull request, JSON for programs."""

from __future__ import annotations

import msgspec

from bench.compare import Change, Comparison, Gate, Ratio, Row, Verdict, label
from bench.show.numbers import digits
from bench.show.report import markdown_table
from bobrt import console
from bobrt.console import Table
from bobrt.result import SCHEMA

HEADER = ["verdict", "cell", "before ms", "after ms", "ratio", "ratio 95 %", "rounds", "accuracy", "reason"]
SPARE = ["rounds", "ratio 95 %", "before ms", "after ms"]


def as_table(comparison: Comparison, gate: Gate | None) -> None:
    """Print every cell, worst first, what else changed, and the answer in one sentence."""
    console.table(comparison_table(comparison))
    console.data("")
    if comparison.environment:
        console.data("Not as it was")
        for change in comparison.environment:
            console.data(f"  {_changed(change)}")
        console.data("")
    for line in [*_remarks(comparison), *([gate.sentence] if gate else [])]:
        console.data(line)
    console.data(sentence(comparison))


def as_json(comparison: Comparison, gate: Gate | None) -> None:
    """Print all of it, strict and versioned."""
    document = {"schema": SCHEMA, "sentence": sentence(comparison), "counts": comparison.counts}
    document |= {**msgspec.to_builtins(comparison), "gate": msgspec.to_builtins(gate)}
    console.data(msgspec.json.encode(document).decode())


def as_markdown(comparison: Comparison, gate: Gate | None) -> str:
    """Return the comparison as GitHub's Markdown: the answer, the table, and what else changed."""
    parts = [f"## bobrt compare: {_headline(comparison)}", sentence(comparison)]
    parts += [_prose(gate.sentence)] if gate else []
    parts += [_prose(line) for line in _remarks(comparison)]
    parts.append(markdown_table(comparison_table(comparison)))
    if comparison.environment:
        lines = [[change.name, change.before, change.after] for change in comparison.environment]
        parts += ["### Not as it was", markdown_table(Table(["name", "before", "after"], lines))]
    parts.append(
        "Ratio: time after over before, of the geometric means of the rounds' medians; Welch's t-test on "
        "their logarithms, Holm's correction over all cells at 5 %. `same`: the rounds cannot tell them "
        "apart; the interval says how large a difference could still hide."
    )
    return "\n\n".join(parts) + "\n"


FORMATS = {
    "table": as_table,
    "markdown": lambda comparison, gate: console.data(as_markdown(comparison, gate).rstrip("\n")),
    "json": as_json,
}


def comparison_table(comparison: Comparison) -> Table:
    """Return all cells as text, worst first."""
    labels = [label(row) for row in comparison.rows]
    rows = [_line(row, ambiguous=labels.count(label(row)) > 1) for row in comparison.rows]
    spare = [HEADER.index(name) for name in SPARE]
    return Table(HEADER, rows, (2, 3, 4, 5, 6), spare)


def sentence(comparison: Comparison) -> str:
    """Answer in one sentence: how many of what, and by how much altogether."""
    counts = ", ".join(f"{count} {verdict}" for verdict, count in comparison.counts.items())
    mean = comparison.geometric_mean
    if mean is None:
        return f"{counts}; no cell could be compared."
    return f"{counts}; geometric mean {mean.value:.3f}x the time (95 %: {_interval(mean)})."


def _headline(comparison: Comparison) -> str:
    """Return the worst that is known, in a few words."""
    counts = comparison.counts
    bad = [f"{counts[v]} {v}" for v in (Verdict.SLOWER, Verdict.GONE) if v in counts]
    if bad:
        return ", ".join(bad)
    if Verdict.UNCLEAR in counts:
        return f"unclear for {counts[Verdict.UNCLEAR]} of {len(comparison.rows)}"
    return f"nothing slower, {counts[Verdict.FASTER]} faster" if Verdict.FASTER in counts else "same"


def _remarks(comparison: Comparison) -> list[str]:
    """Return what a reader must know before believing the table."""
    lines = list(comparison.notes)
    if not comparison.same_system:
        before, after = (", ".join(systems) for systems in comparison.systems)
        lines.insert(0, f"The systems differ: {before} -> {after}; a difference may be the machine's.")
    if comparison.machine is not None:
        lines.append(f"The machine itself took {comparison.machine:.3f}x the time for one fixed network.")
    return lines


def _line(row: Row, *, ambiguous: bool) -> list[str]:
    name = label(row) + (f" {row.cell.weights[:13]} {row.cell.protocol}" if ambiguous else "")
    return [
        str(row.verdict),
        name,
        "" if row.before_ms is None else digits(row.before_ms),
        "" if row.after_ms is None else digits(row.after_ms),
        f"{row.ratio.value:.3f}x" if row.ratio else "",
        _interval(row.ratio) if row.ratio else "",
        f"{row.rounds[0]}, {row.rounds[1]}",
        _accuracy(*row.accuracy) if row.before_ms is not None and row.after_ms is not None else "",
        " ".join(row.reason.split()),
    ]


def _interval(ratio: Ratio) -> str:
    return f"{ratio.ci95[0]:.3f}-{ratio.ci95[1]:.3f}"


def _accuracy(before: float | None, after: float | None) -> str:
    """Return both in percent, with the digits it takes to see the difference; empty if there is none."""
    if before == after:
        return ""
    shown = ["", ""]
    for places in (1, 2, 4):
        shown = ["none" if v is None else f"{100 * v:.{places}f}" for v in (before, after)]
        if shown[0] != shown[1]:
            break
    return " -> ".join(shown)


def _changed(change: Change) -> str:
    return f"{change.name}: {change.before} -> {change.after}"


def _prose(text: str) -> str:
    """Return a line that Markdown takes for nothing else."""
    return text.replace("|", "\\|").replace("_", "\\_").replace("*", "\\*").replace("<", "&lt;")
