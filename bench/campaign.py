"""Run a plan: make what is missing, measure what has no result of today, lose nothing.

Re-issuing the same command is how a run is resumed; `bench.decide` says what is done.
"""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from bench import store, supervise
from bench.files import Failure, identity, make_all, teller
from bench.orders import Order
from bobrt.errors import MachineError, UnsupportedError
from bobrt.paths import lock, write_atomic
from bobrt.result import CellRecord, Result
from bobrt.spec import State
from bobrt.system import gpu_is_lost
from engines.runtimes import RUNTIMES, on_gpu, versions

if TYPE_CHECKING:
    from pathlib import Path

    from bench.decide import Decision, Desk
    from bench.plan import Question
    from bobrt.artifacts import Target
    from bobrt.console import Progress

_STATES = {"skipped": State.SKIPPED, "unsupported": State.UNSUPPORTED}


class Campaign:
    """The answering of a plan's questions, on this machine, into one results folder.

    Args:
        desk: Says what is done, and where files are.
        progress: Where to show it.

    """

    def __init__(self, desk: Desk, progress: Progress) -> None:
        self._desk = desk
        self._limits = desk.plan.limits
        self._progress = progress
        self._failures: dict[str, Failure] = {}
        self._standing: set[str] = set()
        """Keys of the cells that could not be measured anew, and have the record they had."""

    def run(self, questions: list[Question]) -> list[Result]:
        """Answer every question; each record is written as soon as it is there, and grows with each round.

        Every round goes in a shuffled order of its own, so that what the machine does over time is not
        one backbone's fate. The first leaves the cells of a checkpoint side by side: the first rows do
        not wait for the last training.

        Raises:
            MachineError: Nothing at all can be answered here, or the results cannot be written.

        """
        decisions = [self._desk.decide(question) for question in questions]
        _require_any(decisions)
        for again in dict.fromkeys(decision.again for decision in decisions if decision.again):
            self._progress.done(f"to do again: {again}")
        width = len(str(len(decisions)))
        order = _by_checkpoint(questions)
        label = {
            index: f"[{place:{width}}/{len(order)}] {questions[index].cell}"
            for place, index in enumerate(order, 1)
        }
        answered: dict[int, Result] = {}
        for index in order:
            decision = decisions[index]
            if decision.make and not any(_siblings(decisions[done], decision) for done in answered):
                wanted = _wanted([d for d in decisions if _siblings(d, decision)])
                self._failures |= make_all(self._desk.shop, wanted, self._limits, self._progress)
            answered[index] = self._answer(decision.question, label[index])
        for number in range(2, self._desk.plan.rounds + 1):
            for index in random.Random(number).sample(range(len(questions)), len(questions)):  # noqa: S311 - an order
                question, stands = questions[index], questions[index].cell.key in self._standing
                if answered[index].state is State.COMPLETE and not stands:
                    told = f"round {number}/{self._desk.plan.rounds} {label[index]}"
                    answered[index] = self._once_more(question, number, told)
        return [answered[index] for index in range(len(questions))]

    def _answer(self, question: Question, label: str) -> Result:
        """Return one cell's record, writing it if there is none of today."""
        path = self._desk.path(question.cell)
        waiting = partial(self._progress.update, label, "waiting", "another bobrt benches the same cell")
        with lock(str(path), waiting):
            # Decided anew: another run may have answered it while this one waited.
            decision = self._desk.decide(question)
            if decision.action == "done":
                result = store.read(path)
                why = f" ({decision.reason})" if decision.reason and result.state is State.COMPLETE else ""
                self._progress.done(f"{label}: already done{why}, {in_one_line(result)}")
                return result
            if decision.rounds:
                result = store.read(path)
                self._progress.done(f"{label}: {decision.reason}, {in_one_line(result)}")
                return result
            result = self._answered(decision, label)
        self._progress.done(f"{label}: {in_one_line(result)}")
        return result

    def _once_more(self, question: Question, number: int, label: str) -> Result:
        """Time a cell for the `number`-th time, unless it has been."""
        path = self._desk.path(question.cell)
        waiting = partial(self._progress.update, label, "waiting", "another bobrt benches the same cell")
        with lock(str(path), waiting):
            decision = self._desk.decide(question, rerun=False)
            if not 0 < decision.rounds < number:
                return store.read(path)
            result = self._measure(question, label, number)
        self._progress.done(f"{label}: {in_one_line(result)}")
        return result

    def _answered(self, decision: Decision, label: str) -> Result:
        question = decision.question
        failed = [key for key in self._desk.identities(question) if key in self._failures]
        if failed:
            failure = self._failures[failed[0]]
            if failure.ended.kind == UnsupportedError.kind:
                return self._ended(question, State.UNSUPPORTED, failure.ended.reason)
            no_fault = failure.ended.kind == "machine" or gpu_is_lost()
            return self._failed(question, failure.reason, failure.log, no_fault=no_fault)
        if decision.action in _STATES:
            return self._ended(question, _STATES[decision.action], decision.reason)
        return self._measure(question, label)

    def _measure(self, question: Question, label: str, number: int = 1) -> Result:
        """Run one round of one cell in its own process."""
        started = time.monotonic()
        order = self._desk.order(question, number)
        path = self._desk.path(question.cell)
        log = path.with_suffix(".log")
        log.unlink(missing_ok=True)
        ended = supervise.run(
            Order(cache=str(self._desk.shop.cache), cell=order, memory_gb=self._limits.memory_gb),
            limit_s=self._limits.cell_s,
            threads=order.threads,
            log=log,
            tell=teller(self._progress, label),
        )
        if ended.message:
            gpu, machine = on_gpu(RUNTIMES.get(question.cell.runtime)), ended.kind == "machine"
            if machine and not gpu:  # the disk: every cell would end so
                raise MachineError(ended.message, ended.hint)
            seconds = time.monotonic() - started
            if ended.kind == UnsupportedError.kind:
                log.unlink(missing_ok=True)
                return self._ended(question, State.UNSUPPORTED, ended.reason, seconds=seconds)
            reason = ended.reason if number == 1 else f"in round {number}: {ended.reason}"
            return self._failed(question, reason, log, seconds, no_fault=machine or (gpu and gpu_is_lost()))
        log.unlink(missing_ok=True)
        return store.read(path)

    def _failed(
        self, question: Question, reason: str, log: Path, seconds: float = 0.0, *, no_fault: bool
    ) -> Result:
        """Write that a cell failed; what was measured before stands where that is no fault of its engine."""
        path, before = self._desk.path(question.cell), self._desk.before(question)
        if not (no_fault and before and before.state is State.COMPLETE):
            return self._ended(question, State.FAILED, reason, log, seconds)
        result = msgspec.structs.replace(
            before,
            caveats=sorted({*before.caveats, "not-renewed"}),
            notes=[*(note for note in before.notes if note != reason), reason],
            log=_kept(path, log),
        )
        store.write(path, result)
        self._standing.add(question.cell.key)
        self._progress.done(f"{question.cell}: {reason}; what was measured before stands")
        return store.read(path)

    def _ended(
        self, question: Question, state: State, reason: str, log: Path | None = None, seconds: float = 0.0
    ) -> Result:
        """Write the record of a cell that was not measured."""
        path = self._desk.path(question.cell)
        result = Result(
            state=state,
            reason=reason,
            cell=CellRecord.of(question.cell),
            artifact=self._desk.describe(question),
            accuracy=None,
            parity=None,
            latency=[],
            throughput=[],
            memory=None,
            system=msgspec.structs.replace(
                self._desk.system, tools=versions(RUNTIMES.get(question.cell.runtime))
            ),
            caveats=[],
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(seconds, 3),
            limit=self._desk.limit,
            log=_kept(path, log) if log is not None else None,
        )
        store.write(path, result)
        return store.read(path)


def _kept(path: Path, log: Path) -> str:
    """Return the name of a log beside the record at `path`, having put it there."""
    kept = path.with_suffix(".log")
    if log != kept:
        write_atomic(kept, log.read_bytes())
    return kept.name


def in_one_line(result: Result) -> str:
    """Say how a cell ended."""
    if result.state is not State.COMPLETE:
        return f"{result.state}: {result.reason}"
    parts = [f"{100 * result.accuracy.value:.1f} %"] if result.accuracy else []
    parts += [f"{row.p50_ms:.3g} ms" for row in result.latency]
    return " · ".join([*parts, f"{result.seconds:.1f} s", *result.caveats])


def _require_any(decisions: list[Decision]) -> None:
    """Raise if no cell can be answered, and some for want of a library or the hub: one line, not a column."""
    wanting = [decision for decision in decisions if decision.hint]
    if wanting and all(decision.action in _STATES for decision in decisions):
        raise MachineError(wanting[0].reason, wanting[0].hint)


def _wanted(decisions: list[Decision]) -> list[Target]:
    """Return each missing file once, sources first."""
    return list({identity(target): target for d in decisions for target in d.make}.values())


def _by_checkpoint(questions: list[Question]) -> list[int]:
    """Return the order of the first round: checkpoints shuffled, and the cells of each among themselves."""
    found: dict[tuple[object, ...], list[int]] = {}
    for index, question in enumerate(questions):
        cell = question.cell
        found.setdefault((cell.backbone, cell.weights, cell.task, cell.protocol, cell.seed), []).append(index)
    chance = random.Random(1)  # noqa: S311 - an order
    groups = chance.sample(list(found.values()), len(found))
    return [index for group in groups for index in chance.sample(group, len(group))]


def _siblings(one: Decision, other: Decision) -> bool:
    """Tell whether two cells that need files come from one checkpoint."""
    return bool(one.make and other.make) and one.make[-1].chain()[0] == other.make[-1].chain()[0]
