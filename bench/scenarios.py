"""What is asked of an open engine for its speed: the scenarios of a cell, one after another."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench import energy, loadgen, measure, pipeline, server
from bobrt.data import feed
from bobrt.data.resize import resize
from bobrt.spec import Scenario
from bobrt.speed import Curve
from engines.runner import Bounded, out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from bench.energy import Counter
    from bench.measure import Timed
    from bench.stage import Stage
    from bobrt.data import Split
    from bobrt.spec import Transform
    from bobrt.speed import Energy, LoadGen, Pipeline, Server
    from bobrt.tasks import Task


WORTH = 1.02
"""A batch that gives less than so many times the images per second of the best before it gains nothing."""
FILES = 256
"""Files that take turns in `pipeline`, at most."""
EASED = 0.8
"""LoadGen's Server is asked for so much of the rate our own found: on the edge a verdict is a coin's."""
PATIENCE = 2
"""So many batches in a row without a gain end the climb."""


def latency(stage: Stage) -> dict[str, Timed]:
    """Time one image after another, or one batch where the engine has a batch of its own."""
    return stage.loop(Scenario.LATENCY, stage.fixed or 1, stage.window)


def climb(stage: Stage, alone: dict[str, Timed]) -> tuple[dict[str, Timed], Curve]:
    """Time larger and larger batches, until they gain nothing, do not fit, or the plan has no more.

    Args:
        stage: The engine and what it is asked on.
        alone: The loops of `latency`: what they timed is not timed again.

    """
    first = stage.fixed or 1
    batches = [first] if stage.fixed else sorted(stage.timing.throughput_batches)
    # Enough to tell batches apart; the best one has the whole window in every later round.
    brief = stage.window._replace(width=float("inf"))
    timed: dict[str, Timed] = {}
    best, idle, batch = 0.0, 0, first
    ended, detail = "limit", f"the plan's largest batch is {max(batches, default=first)}"
    if stage.fixed:
        detail = f"the engine's own batch is {first}"
    elif isinstance(stage.runner, Bounded) and max(batches) > (most := stage.runner.largest_batch()):
        batches = [batch for batch in batches if batch <= most]
        detail = f"the engine takes {most} images at most"
    for batch in batches:
        try:
            loops = _as_throughput(alone) if batch == first else stage.loop(Scenario.THROUGHPUT, batch, brief)
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


class Timings(NamedTuple):
    """What the loops of the first round gave."""

    loops: dict[str, Timed]
    curve: Curve | None

    @property
    def alone(self) -> NDArray[np.int64]:
        """Nanoseconds of one image after another."""
        return next(iter(self.loops.values())).times_ns

    @property
    def best(self) -> tuple[int, float]:
        """The batch that gave the most images per second, and how many."""
        rates = {
            int(name.partition("-")[2].partition("@")[0]): loop.times_ns.mean()
            for name, loop in self.loops.items()
            if not name.endswith("@gpu")
        }
        batch = max(rates, key=lambda batch: batch / float(rates[batch]))
        return batch, batch * measure.NS / float(rates[batch])


def timed(stage: Stage) -> Timings:
    """Time one image after another, and batches if the plan asks for them."""
    alone = latency(stage)
    if Scenario.THROUGHPUT not in stage.timing.scenarios:
        return Timings(alone, None)
    many, curve = climb(stage, alone)
    return Timings(alone | many, curve)


def energy_of(stage: Stage, timings: Timings, counter: Counter | None) -> Energy | None:
    """Return what an image takes of the machine's energy in the best batch; None without a counter."""
    batch, _ = timings.best
    return energy.measure(counter, stage.runner.infer, stage.feeds(batch), batch, stage.timing.min_s)


class Road(NamedTuple):
    """What lies before and after an engine."""

    split: Callable[[], Split]
    """The images and targets to ask for."""
    transform: Transform
    task: Task | None
    logs: Path
    """Where LoadGen's logs go."""


class More(NamedTuple):
    """What the scenarios beside latency and throughput gave; they are asked in the first round alone."""

    server: Server | None
    pipeline: Pipeline | None
    loadgen: list[LoadGen]


def more(stage: Stage, timings: Timings, road: Road) -> More:
    """Ask the scenarios a plan names beside latency and throughput."""
    asked = stage.timing.scenarios
    served = serve(stage, timings.alone) if Scenario.SERVER in asked else None
    driven = _drive(stage, timings, road) if Scenario.PIPELINE in asked else None
    return More(served, driven, _loaded(stage, timings, road, served) if Scenario.LOADGEN in asked else [])


def serve(stage: Stage, alone_ns: NDArray[np.int64]) -> Server:
    """Search the rate of single images that the plan's p99 bound lets pass."""
    if stage.timing.p99_ms is None or stage.timing.scenario_s is None:
        raise ValueError("the plan has no bound for the scenario server")
    return server.sustained(
        stage.runner.infer,
        stage.feeds(stage.fixed or 1),
        alone_ns,
        bound_ms=stage.timing.p99_ms,
        seconds=stage.timing.scenario_s,
        clock=stage.clock,
        report=stage.report,
    )


def _drive(stage: Stage, timings: Timings, road: Road) -> Pipeline:
    """Go the whole road, from files written for it, at the batch that gave the most."""
    stage.report("from files to answers")
    with tempfile.TemporaryDirectory() as folder:
        files = pipeline.write_files(road.split().images[:FILES], Path(folder))
        return pipeline.run(
            stage.runner,
            files,
            road.transform,
            road.task.decode if road.task else dict,
            timings.best[0],
            stage.timing.scenario_s or 1.0,
            feed.spare(stage.threads),
        )


def _loaded(stage: Stage, timings: Timings, road: Road, served: Server | None) -> list[LoadGen]:
    """Let LoadGen ask again what our own loops have: one after another, batches, and arrivals."""
    split, task = road.split(), road.task

    def score(outputs: dict[str, NDArray[np.float32]]) -> float:
        if task is None:
            raise ValueError("no task, no score")
        return task.score(task.decode(outputs), split).value

    rate = served.rate if served else None
    asked = loadgen.Asked(
        min_s=stage.timing.scenario_s or 1.0,
        batch=timings.best[0],
        server_qps=None if rate is None else EASED * rate,
        server_bound_ms=stage.timing.p99_ms or 0.0,
    )
    images = resize(split.images, road.transform)
    return loadgen.run(stage.runner, images, score if task else None, road.logs, asked, report=stage.report)


def again(stage: Stage, best: int | None) -> dict[str, Timed]:
    """Time what a later round times: one image after another, and the batch that gave the most."""
    alone = latency(stage)
    if best is None:
        return alone
    if best == (stage.fixed or 1):
        return alone | _as_throughput(alone)
    return alone | stage.loop(Scenario.THROUGHPUT, best, stage.window)


def _as_throughput(alone: dict[str, Timed]) -> dict[str, Timed]:
    """Return the loops of `latency` as those of a batch of the same size, which they are."""
    return {name.replace(Scenario.LATENCY, Scenario.THROUGHPUT, 1): loop for name, loop in alone.items()}
