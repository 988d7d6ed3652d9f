"""Run a plan: make what is missing, measure what has no result of today, lose nothing.

Re-issuing the same command is how a run is resumed; `bench.decide` says what is done.
"""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bench import store, supervise
from bench.cell import record_of
from bench.decide import Desk
from bench.files import Failure, identity, make_all, teller
from bench.orders import Order
from bobrt.errors import MachineError
from bobrt.paths import lock
from bobrt.result import Result
from bobrt.spec import State

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.decide import Decision
    from bench.plan import Plan, Question
    from bobrt.artifacts import Target
    from bobrt.console import Progress
    from bobrt.result import Artifact
    from bobrt.spec import Cell

_STATES = {"skipped": State.SKIPPED, "unsupported": State.UNSUPPORTED}


def run(
    plan: Plan, questions: list[Question], desk: Desk, progress: Progress, *, rerun: bool = False
) -> Iterator[Result]:
    """Answer every question; yield each record as soon as it is written.

    Args:
        plan: Windows and limits.
        questions: The cells.
        desk: Says what is done, and where files are.
        progress: Where to show it.
        rerun: Measure again what is done.

    Raises:
        MachineError: Nothing at all can be answered here, or the results cannot be written.

    """
    decisions = [desk.decide(question) for question in questions]
    _require_any(decisions)
    failures: dict[str, Failure] = {}
    for index, decision in enumerate(decisions):
        label = f"[{index + 1:{len(str(len(decisions)))}}/{len(decisions)}]"
        if decision.make and not any(d.make and _siblings(d, decision) for d in decisions[:index]):
            group = [d for d in decisions if _siblings(d, decision)]
            failures |= make_all(desk.shop, _wanted(group), plan.limits, progress)
        yield _answer(plan, decision.question, desk, failures, progress, label, rerun=rerun)


def in_one_line(result: Result) -> str:
    """Say how a cell ended."""
    if result.state is not State.COMPLETE:
        return f"{result.state}: {result.reason}"
    parts = []
    if result.accuracy:
        parts.append(f"{100 * result.accuracy.value:.1f} %")
    parts += [f"{row.p50_ms:.3g} ms" for row in result.latency]
    return " · ".join([*parts, f"{result.seconds:.1f} s", *result.caveats])


def _answer(  # noqa: PLR0913 - a run's whole context
    plan: Plan,
    question: Question,
    desk: Desk,
    failures: dict[str, Failure],
    progress: Progress,
    label: str,
    *,
    rerun: bool,
) -> Result:
    """Return one cell's record, writing it if there is none of today."""
    cell, label = question.cell, f"{label} {question.cell}"
    path = desk.path(cell)
    with lock(str(path), lambda: progress.update(label, "waiting", "another bobrt benches the same cell")):
        # Decided anew: another run may have answered it while this one waited.
        decision = desk.decide(question)
        if decision.action == "done" and not rerun:
            result = store.read(path)
            progress.done(f"{label}: already done, {in_one_line(result)}")
            return result
        failure = next((failures[key] for key in desk.identities(question) if key in failures), None)
        if failure:
            result = _ended(cell, State.FAILED, failure.reason, desk, None, failure.log)
        elif decision.action in _STATES:
            result = _ended(cell, _STATES[decision.action], decision.reason, desk, desk.describe(question))
        else:
            result = _measure(plan, question, desk, progress, label)
    progress.done(f"{label}: {in_one_line(result)}")
    return result


def _measure(plan: Plan, question: Question, desk: Desk, progress: Progress, label: str) -> Result:
    """Measure one cell in its own process."""
    started = time.monotonic()
    order = desk.order(question)
    path = desk.path(question.cell)
    log = path.with_suffix(".log")
    log.unlink(missing_ok=True)
    ended = supervise.run(
        Order(cache=str(desk.shop.cache), cell=order, memory_gb=plan.limits.memory_gb),
        limit_s=plan.limits.cell_s,
        threads=order.threads,
        log=log,
        tell=teller(progress, label),
    )
    if ended.message:
        if ended.kind == "machine":  # the disk, not the cell
            raise MachineError(ended.message, ended.hint)
        seconds = time.monotonic() - started
        return _ended(question.cell, State.FAILED, ended.message, desk, order.artifact, log, seconds)
    log.unlink(missing_ok=True)
    return store.read(path)


def _ended(  # noqa: PLR0913 - one argument per fact the caller knows
    cell: Cell,
    state: State,
    reason: str,
    desk: Desk,
    artifact: Artifact | None,
    log: Path | None = None,
    seconds: float = 0.0,
) -> Result:
    """Write the record of a cell that was not measured."""
    path = desk.path(cell)
    kept = path.with_suffix(".log")
    if log is not None and log != kept and log.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(log, kept)
    result = Result(
        state=state,
        reason=reason,
        cell=record_of(cell),
        artifact=artifact,
        accuracy=None,
        parity=None,
        latency=[],
        throughput=[],
        memory=None,
        system=desk.system,
        caveats=[],
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(seconds, 3),
        limit=desk.limit,
        log=kept.name if log is not None else None,
    )
    store.write(path, result)
    return store.read(path)


def _require_any(decisions: list[Decision]) -> None:
    """Raise if not one cell can be answered for want of a library or the hub: one line, not a column of them."""
    if all(d.action in _STATES and d.hint for d in decisions):
        raise MachineError(decisions[0].reason, decisions[0].hint)


def _wanted(decisions: list[Decision]) -> list[Target]:
    """Return each missing file once, sources first."""
    return list({identity(target): target for d in decisions for target in d.make}.values())


def _siblings(one: Decision, other: Decision) -> bool:
    """Tell whether two cells come from one checkpoint."""
    return bool(one.make and other.make) and one.make[-1].chain()[0] == other.make[-1].chain()[0]
