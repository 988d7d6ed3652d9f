"""Make files in workers that are watched: one process for the stages that may share one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from bench import supervise
from bench.orders import Event, Order
from bobrt.errors import BobrtError, MachineError, UnsupportedError, UsageError
from bobrt.spec import digest
from bobrt.system import cores

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.plan import Limits
    from bobrt.artifacts import Artifact, Target, Workshop
    from bobrt.console import Progress

WORKERS = ("torch", "onnxruntime", "tensorrt")
"""Worker processes in the order their stages depend on each other."""

_ERRORS: dict[str, type[BobrtError]] = {
    error.kind: error for error in (UsageError, UnsupportedError, MachineError)
}


class Failure(NamedTuple):
    """Why a file could not be made."""

    target: Target
    ended: supervise.Ended
    log: Path

    @property
    def reason(self) -> str:
        """The failure in one line."""
        return f"making its {self.target.stage}: {self.ended.reason}"


def make(shop: Workshop, target: Target, limits: Limits, progress: Progress) -> Artifact:
    """Return the file `target` describes, making it and whatever it needs.

    Raises:
        BobrtError: A tool is missing or a stage failed; the message is its own.

    """
    artifact, why = shop.look(target)
    if artifact is not None:
        return artifact
    if again := again_for(why):
        progress.done(f"to do again: {again}")
    missing = [step for step in target.chain() if shop.find(step) is None]
    for step in missing:
        shop.require_tools(step.stage)
    for failure in make_all(shop, missing, limits, progress).values():
        raise _ERRORS.get(failure.ended.kind, BobrtError)(failure.ended.message, failure.ended.hint)
    artifact = shop.find(target)
    if artifact is None:
        raise BobrtError(f"the {target.stage} was made and is gone again", "run the same command again")
    return artifact


def make_all(shop: Workshop, targets: list[Target], limits: Limits, progress: Progress) -> dict[str, Failure]:
    """Make every target, sources first; after a failure go on with what does not need it.

    Returns:
        The failures, by the `identity` of the target that could not be made.

    """
    failures: dict[str, Failure] = {}
    for worker in WORKERS:
        rest = [target for target in targets if shop.stages[target.stage].worker == worker]
        while rest := [target for target in rest if not failures.keys() & identities(target)]:
            label = f"making {_whose(rest[0])}"
            # Named by the run too: two runs that fail at the same file keep a log each.
            log = shop.cache / "logs" / f"{identity(rest[0])}-{os.getpid()}.log"
            ended = supervise.run(
                Order(cache=str(shop.cache), targets=rest, memory_gb=limits.memory_gb),
                limit_s=limits.make_s,
                threads=cores(),
                log=log,
                tell=teller(progress, label),
            )
            if not ended.message:
                log.unlink(missing_ok=True)
                break
            broken = rest[ended.job]
            failures[identity(broken)] = Failure(broken, ended, log)
            progress.done(f"{label}: {broken.stage} failed: {ended.message}")
            rest = rest[ended.job + 1 :]
    return failures


def again_for(why: str) -> str:
    """Return a reason if it speaks of something that was there before; "no ... yet" does not."""
    return "" if why.startswith("no ") else why


def identity(target: Target) -> str:
    """Return a name for a target that depends on what is asked alone, before anything is made."""
    return digest(msgspec.to_builtins(target))


def identities(target: Target) -> set[str]:
    """Return the identities of a target and of everything it is made from."""
    return {identity(step) for step in target.chain()}


def teller(progress: Progress, label: str) -> Callable[[Event], None]:
    """Return a listener that shows a worker's events as progress."""

    def tell(event: Event) -> None:
        if event.kind == "waiting":
            progress.update(label, "waiting", event.detail)
        elif event.kind == "phase":
            progress.update(label, event.phase, event.detail)

    return tell


def _whose(target: Target) -> str:
    origin = target.chain()[0].options
    backbone = origin.get("backbone")
    return str(backbone["name"]) if isinstance(backbone, dict) else str(origin.get("path", target.stage))
