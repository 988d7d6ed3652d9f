"""Two results folders, cell by cell: what became faster or slower, and what the data cannot tell.

A cell's sample is the median of each of its rounds, and each round is a process of its own. Both samples
go through Welch's t-test on logarithms, and all tests of a comparison through Holm's correction: two runs
of one system are all `same` in at least 95 of 100 comparisons.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from bench import welch
from bobrt.errors import NothingMatchedError, UsageError
from bobrt.result import CellRecord, Result, System
from bobrt.spec import Cell, Record, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from bobrt.speed import Latency

FEWEST = 3
"""Rounds each side needs for a verdict."""

Key = tuple[str, int | None]


class Verdict(StrEnum):
    """What became of a cell, worst first."""

    SLOWER = "slower"
    GONE = "gone"
    UNCLEAR = "unclear"
    SAME = "same"
    FASTER = "faster"
    NEW = "new"


class Ratio(Record, frozen=True, kw_only=True):
    """Time after over time before."""

    value: float
    ci95: tuple[float, float]
    """Welch's interval; not corrected for how many cells there are."""
    p: float
    """Chance of so large a difference when there is none; of a cell, after Holm's correction."""


class Row(Record, frozen=True, kw_only=True):
    """One cell in both folders."""

    verdict: Verdict
    reason: str
    """Why it is gone, new or unclear."""
    cell: CellRecord
    limit: int | None
    before_ms: float | None
    """Median of all calls."""
    after_ms: float | None
    rounds: tuple[int, int]
    ratio: Ratio | None
    """Of the rounds' geometric means; null where they are too few."""
    accuracy: tuple[float | None, float | None]
    """Before and after, fractions of 1."""
    file_changed: bool
    """The measured file is another one."""
    failed: bool
    """It failed in the second folder."""


class Change(Record, frozen=True, kw_only=True):
    """Something of the environment that is not as it was."""

    name: str
    before: str
    after: str


class Comparison(Record, frozen=True, kw_only=True):
    """All cells, worst first, and what else changed."""

    systems: tuple[list[str], list[str]]
    rows: list[Row]
    geometric_mean: Ratio | None
    """Of the ratios of all cells that have one."""
    machine: float | None
    """Time of the reference network after over before: how the machine itself moved."""
    environment: list[Change]
    notes: list[str]

    @property
    def counts(self) -> dict[str, int]:
        """How many cells each verdict has, worst first, without those nobody has."""
        found = {str(verdict): sum(row.verdict is verdict for row in self.rows) for verdict in Verdict}
        return {verdict: count for verdict, count in found.items() if count}

    @property
    def same_system(self) -> bool:
        """Whether all was measured on one and the same machine."""
        return len({*self.systems[0], *self.systems[1]}) == 1


class Gate(Record, frozen=True, kw_only=True):
    """Whether a comparison passes."""

    fail_above: float
    """Fraction by which a cell may become slower."""
    reasons: list[str]
    """One for each cell that does not pass."""
    unclear: int
    """Cells that could not be judged, and so do not stop it."""

    @property
    def sentence(self) -> str:
        """The outcome in one line."""
        limit = f"gate of {100 * self.fail_above:g} %"
        return f"{limit} failed: {'; '.join(self.reasons)}" if self.reasons else f"{limit} passed"


class _Pair(NamedTuple):
    before: Result | None
    after: Result | None


def require_one_system(before: Sequence[Result], after: Sequence[Result], folders: tuple[Path, Path]) -> None:
    """Raise `UsageError` unless both folders hold results of one and the same machine."""
    force = f"bobrt compare {folders[0]} {folders[1]} --force"
    both = [_systems(before), _systems(after)]
    for folder, systems in zip(folders, both, strict=True):
        if len(systems) > 1:
            message = f"{folder} holds results of {len(systems)} systems: {', '.join(systems)}"
            raise UsageError(message, f"name one of its folders, as {folder / systems[0]}; or {force}")
    if both[0] != both[1]:
        message = f"{folders[0]} was measured on {both[0][0]}, {folders[1]} on {both[1][0]}"
        raise UsageError(f"{message}: their times are not comparable", force)


def compare(before: Sequence[Result], after: Sequence[Result]) -> Comparison:
    """Return what became of each cell.

    Args:
        before: The records of the base.
        after: The records of the head.

    Raises:
        NothingMatchedError: No cell is in both, or none is complete in either.

    """
    old, new = _newest(before), _newest(after)
    pairs = {key: _Pair(old.get(key), new.get(key)) for key in {**old, **new}}
    matched = [(p.before, p.after) for p in pairs.values() if p.before and p.after]
    if not matched:
        raise NothingMatchedError("the two folders have no cell in common", "bobrt bench --dry-run")
    measured = {key: pair for key, pair in pairs.items() if _speed(pair.before) or _speed(pair.after)}
    if not measured:
        raise NothingMatchedError("no cell was timed in either folder", "bobrt bench")
    differences = {
        key: welch.welch(a.repeats_ms, b.repeats_ms)
        for key, pair in measured.items()
        if (a := _speed(pair.before)) and (b := _speed(pair.after)) and not _unclear(a, b)
    }
    adjusted = dict(zip(differences, welch.holm([d.p for d in differences.values()]), strict=True))
    rows = [_row(key, pair, differences.get(key), adjusted.get(key)) for key, pair in measured.items()]
    return Comparison(
        systems=(_systems(before), _systems(after)),
        rows=sorted(rows, key=_worst_first),
        geometric_mean=_ratio(welch.pooled(list(differences.values()))) if differences else None,
        machine=_machine(matched),
        environment=_environment(matched),
        notes=_notes((len(before), len(old)), (len(after), len(new)), len(pairs) - len(measured)),
    )


def gate(comparison: Comparison, fail_above: float) -> Gate:
    """Return whether a comparison passes.

    Args:
        comparison: All cells.
        fail_above: Fraction by which a cell may become slower.

    """
    reasons = []
    for row in comparison.rows:
        if row.verdict is Verdict.GONE and row.failed:
            reasons.append(f"{label(row)} failed")
        elif row.verdict is Verdict.SLOWER and row.ratio and row.ratio.value > 1 + fail_above:
            reasons.append(f"{label(row)} is {100 * (row.ratio.value - 1):.1f} % slower")
    unclear = sum(row.verdict is Verdict.UNCLEAR for row in comparison.rows)
    return Gate(fail_above=fail_above, reasons=reasons, unclear=unclear)


def label(row: Row) -> str:
    """Return the words that tell a cell from its neighbours."""
    text = str(Cell(**{name: getattr(row.cell, name) for name in Cell.__struct_fields__}))
    return text if row.limit is None else f"{text} limit {row.limit}"


def _row(key: Key, pair: _Pair, difference: welch.Difference | None, p: float | None) -> Row:
    a, b = _speed(pair.before), _speed(pair.after)
    ratio = _ratio(difference, p) if difference else None
    verdict, reason = _verdict(pair, ratio)
    shas = [r.artifact.sha256 if r and r.artifact else None for r in pair]
    accuracies = [r.accuracy.value if r and r.accuracy else None for r in pair]
    return Row(
        verdict=verdict,
        reason=reason,
        cell=next(r.cell for r in pair if r),
        limit=key[1],
        before_ms=a.p50_ms if a else None,
        after_ms=b.p50_ms if b else None,
        rounds=(len(a.repeats_ms) if a else 0, len(b.repeats_ms) if b else 0),
        ratio=ratio,
        accuracy=(accuracies[0], accuracies[1]),
        file_changed=None not in shas and shas[0] != shas[1],
        failed=pair.after is not None and pair.after.state is State.FAILED,
    )


def _verdict(pair: _Pair, ratio: Ratio | None) -> tuple[Verdict, str]:
    """Return a cell's verdict and the reason of one that is no measurement."""
    a, b = _speed(pair.before), _speed(pair.after)
    if not b:
        return Verdict.GONE, _why_not_timed(pair.after, "the second folder")
    if not a:
        return Verdict.NEW, _why_not_timed(pair.before, "the first folder")
    if ratio is None:
        return Verdict.UNCLEAR, _unclear(a, b)
    if ratio.p > welch.ALPHA:
        return Verdict.SAME, ""
    return (Verdict.SLOWER if ratio.value > 1 else Verdict.FASTER), ""


def _unclear(a: Latency, b: Latency) -> str:
    """Return why two latencies cannot be told apart whatever they are, or an empty string if they can."""
    if (a.clock, a.batch) != (b.clock, b.batch):
        return f"timed by clock {a.clock} at batch {a.batch}, then by clock {b.clock} at batch {b.batch}"
    rounds = len(a.repeats_ms), len(b.repeats_ms)
    if min(rounds) < FEWEST:
        many = f"{rounds[0]} and {rounds[1]} rounds"
        return f"{many} recorded, and {FEWEST} are needed: bobrt bench --repeat {FEWEST}"
    if min(*a.repeats_ms, *b.repeats_ms) <= 0:
        return "a round's median is 0 ms"
    return ""


def _why_not_timed(result: Result | None, folder: str) -> str:
    if result is None:
        return f"not in {folder}"
    if result.state is not State.COMPLETE:
        return f"{result.state} in {folder}: {result.reason}"
    return f"not timed in {folder}"


def _speed(result: Result | None) -> Latency | None:
    """Return the latency a complete cell is compared by: one image at a time, or its engine's own batch."""
    if result is None or result.state is not State.COMPLETE:
        return None
    rows = {row.batch: row for row in reversed(result.latency)}
    own = result.cell.batch
    return rows.get(1) or (None if own == "dynamic" else rows.get(own))


def _ratio(difference: welch.Difference, p: float | None = None) -> Ratio:
    p = difference.p if p is None else p
    return Ratio(value=difference.ratio, ci95=difference.ci95, p=p)


def _newest(results: Iterable[Result]) -> dict[Key, Result]:
    """Return each cell's newest record: a folder may hold more than one, of several machines."""
    ordered = sorted(results, key=lambda result: result.started)
    return {(result.cell.key, result.limit): result for result in ordered}


def _systems(results: Iterable[Result]) -> list[str]:
    return sorted({result.system.id for result in results})


def _worst_first(row: Row) -> tuple[int, float, str]:
    return list(Verdict).index(row.verdict), -(row.ratio.value if row.ratio else 0.0), label(row)


def _machine(matched: Iterable[tuple[Result, Result]]) -> float | None:
    """Return how the reference network's time moved, or None if it was not timed on both sides."""
    moved = [
        welch.welch(a.drift.repeats_ms, b.drift.repeats_ms)
        for a, b in matched
        if a.drift and b.drift and a.drift.what == b.drift.what
        if min(len(a.drift.repeats_ms), len(b.drift.repeats_ms)) >= FEWEST
    ]
    return welch.pooled(moved).ratio if moved else None


def _environment(matched: Iterable[tuple[Result, Result]]) -> list[Change]:
    """Return everything that is not the same for a cell that is on both sides, each change once."""
    found = {}
    for before, after in matched:
        a, b = _surroundings(before), _surroundings(after)
        for name in {**a, **b}:
            change = name, a.get(name, "none"), b.get(name, "none")
            if change[1] != change[2]:
                found[change] = Change(name=name, before=change[1], after=change[2])
    return list(found.values())


def _surroundings(result: Result) -> dict[str, str]:
    """Return where, with what and for how long a cell was measured, as text by name."""
    fields: dict[str, object] = {
        name: getattr(result.system, name) for name in System.__struct_fields__ if name != "tools"
    }
    fields |= {f"tools.{name}": version for name, version in result.system.tools.items()}
    if result.timing:
        names = result.timing.__struct_fields__
        fields |= {f"timing.{name}": getattr(result.timing, name) for name in names}
    if result.published:
        # The publisher may have put another file under the same name.
        fields[f"weights of {result.cell.backbone}"] = result.published.sha256
    return {name: _text(value) for name, value in fields.items()}


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def _notes(before: tuple[int, int], after: tuple[int, int], untimed: int) -> list[str]:
    """Say what is not in the rows.

    Args:
        before: Records of the first folder, and its cells.
        after: The same of the second.
        untimed: Cells complete in neither.

    """
    notes = []
    for name, (records, cells) in (("first", before), ("second", after)):
        if records > cells:
            notes.append(f"the {name} folder has {records} records of {cells} cells; the newest count")
    if untimed:
        notes.append(f"{untimed} cells were timed in neither folder")
    return notes
