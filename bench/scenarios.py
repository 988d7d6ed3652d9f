"""What is asked of an open engine for its speed: the scenarios of a cell, one after another."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bench import measure, server
from bench.measure import HOST, Clock
from bobrt.errors import BobrtError
from bobrt.spec import Scenario
from bobrt.speed import Curve
from engines.runner import IMAGES, DeviceClock, answers, out_of_memory, require_images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from bench.measure import Timed
    from bobrt.speed import Server, Timing
    from engines.runner import Runner

    Feeds = Sequence[dict[str, NDArray[np.uint8]]]

WORTH = 1.02
"""A batch that gives less than so many times the images per second of the best before it gains nothing."""
PATIENCE = 2
"""So many batches in a row without a gain end the climb."""


class Stage(NamedTuple):
    """An open engine with what it is asked on."""

    runner: Runner
    images: NDArray[np.uint8]
    """`uint8 [n, side, side, 3]`: real images that take turns."""
    timing: Timing
    threads: int
    report: Callable[[str], None]
    clock: Clock = HOST

    @property
    def fixed(self) -> int | None:
        """The engine's own batch, if it has one."""
        return self.runner.inputs()[IMAGES].shape[0]

    def feeds(self, batch: int) -> Feeds:
        """Return batches that differ: together every image, in two batches at least."""
        count = max(2, len(self.images) // batch)
        starts = range(0, len(self.images), max(1, len(self.images) // count))
        return [{IMAGES: np.take(self.images, range(i, i + batch), axis=0, mode="wrap")} for i in starts]

    def loop(self, scenario: str, batch: int) -> dict[str, Timed]:
        """Time batches one after another: by the host's clock, and by the device's where it has one."""
        window = measure.Window(
            self.timing.warmup_s,
            self.timing.min_s,
            self.timing.min_n,
            float("inf") if self.timing.max_s is None else self.timing.max_s,
            float("inf") if self.timing.width is None else self.timing.width,
        )
        self.report(f"batch {batch}")
        device = self.runner.device_ns if isinstance(self.runner, DeviceClock) else None
        timed = measure.closed_loop(self.runner.infer, self.feeds(batch), window, self.clock.now, device)
        _require_finite(self.runner, self.images, batch)
        name = f"{scenario}-{batch}"
        if timed.device_ns is None:
            return {name: timed}
        own = timed._replace(times_ns=timed.device_ns, device_ns=None)
        return {f"{name}@e2e": timed, f"{name}@gpu": own}


class Opened(NamedTuple):
    """An entered runner, and how long it took to its first answer."""

    runner: Runner
    open_ms: float
    first_ms: float


@contextmanager
def opened(runner: Runner, images: NDArray[np.uint8], path: object) -> Iterator[Opened]:
    """Open an engine and ask it once: the cold start.

    Args:
        runner: Not yet entered; the runtime's library is loaded.
        images: At least one, `uint8 [n, side, side, 3]`.
        path: The file, for an error's text.

    Raises:
        BobrtError: The file does not take images alone.

    """
    began = time.perf_counter_ns()
    with runner:
        ready = time.perf_counter_ns()
        batch = require_images(runner.inputs(), path).shape[0] or 1
        first = {IMAGES: np.take(images, range(batch), axis=0, mode="wrap")}
        asked = time.perf_counter_ns()
        runner.infer(first)
        answered = time.perf_counter_ns()
        yield Opened(runner, (ready - began) / measure.NS_PER_MS, (answered - asked) / measure.NS_PER_MS)


def latency(stage: Stage) -> dict[str, Timed]:
    """Time one image after another, or one batch where the engine has a batch of its own."""
    return stage.loop(Scenario.LATENCY, stage.fixed or 1)


def climb(stage: Stage, alone: dict[str, Timed]) -> tuple[dict[str, Timed], Curve]:
    """Time larger and larger batches, until they gain nothing, do not fit, or the plan has no more.

    Args:
        stage: The engine and what it is asked on.
        alone: The loops of `latency`: what they timed is not timed again.

    """
    first = stage.fixed or 1
    batches = [first] if stage.fixed else sorted(stage.timing.throughput_batches)
    timed: dict[str, Timed] = {}
    best, idle, batch = 0.0, 0, first
    ended, detail = "limit", f"the plan's largest batch is {max(batches, default=first)}"
    if stage.fixed:
        detail = f"the engine's own batch is {first}"
    for batch in batches:
        try:
            loops = _as_throughput(alone) if batch == first else stage.loop(Scenario.THROUGHPUT, batch)
        except Exception as error:
            if not out_of_memory(error):
                raise
            ended, detail = "memory", f"a batch of {batch} does not fit in memory"
            break
        timed |= loops
        rate = batch * measure.NS / float(next(iter(loops.values())).times_ns.mean())
        idle = 0 if rate > WORTH * best else idle + 1
        best = max(best, rate)
        if idle == PATIENCE:
            ended, detail = "flat", f"{PATIENCE} batches in a row gained less than {WORTH - 1:.0%}"
            break
    return timed, Curve(ended=ended, batch=batch, detail=detail, threads=stage.threads)


def serve(stage: Stage, alone: dict[str, Timed]) -> Server:
    """Search the rate of single images that the plan's p99 bound lets pass."""
    if stage.timing.p99_ms is None or stage.timing.scenario_s is None:
        raise ValueError("the plan has no bound for the scenario server")
    return server.sustained(
        stage.runner.infer,
        stage.feeds(stage.fixed or 1),
        next(iter(alone.values())).times_ns,
        bound_ms=stage.timing.p99_ms,
        seconds=stage.timing.scenario_s,
        clock=stage.clock,
        report=stage.report,
    )


def again(stage: Stage, best: int | None) -> dict[str, Timed]:
    """Time what a later round times: one image after another, and the batch that gave the most."""
    alone = latency(stage)
    if best is None:
        return alone
    if best == (stage.fixed or 1):
        return alone | _as_throughput(alone)
    return alone | stage.loop(Scenario.THROUGHPUT, best)


def _as_throughput(alone: dict[str, Timed]) -> dict[str, Timed]:
    """Return the loops of `latency` as those of a batch of the same size, which they are."""
    return {name.replace(Scenario.LATENCY, Scenario.THROUGHPUT, 1): loop for name, loop in alone.items()}


def _require_finite(runner: Runner, images: NDArray[np.uint8], batch: int) -> None:
    """Raise if an answer to a timed image is no number: nobody ships the speed of a broken engine."""
    outputs = answers(runner, images, batch)
    if broken := [name for name, value in outputs.items() if not np.isfinite(value).all()]:
        raise BobrtError(
            f"the engine answers NaN or infinity in {', '.join(broken)} while it is timed",
            "choose another precision",
        )
