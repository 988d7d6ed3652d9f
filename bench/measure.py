"""The stopwatch: one closed loop around one call, and nothing else inside it."""

from __future__ import annotations

import gc
import time
from itertools import cycle
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from bench import stats
from bobrt.result import Latency, Throughput

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

Feed = TypeVar("Feed")

WARMUP_RUNS = 10
NS = 1e9
NS_PER_MS = 1e6


class Window(NamedTuple):
    """How long to go on: both bounds must be met."""

    warmup_s: float
    min_s: float
    min_n: int


class Timed(NamedTuple):
    """What a loop saw."""

    times_ns: NDArray[np.int64]
    """`[n]`, in the order they were taken."""
    warmup_s: float
    """How long the warm-up really took."""


def closed_loop(
    infer: Callable[[Feed], object],
    feeds: Sequence[Feed],
    window: Window,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> Timed:
    """Call `infer` on one feed after another and time each call.

    Args:
        infer: The call to time; it returns when the answer is there.
        feeds: Real inputs, taken in turn so that no single one is special.
        window: Warm-up and measuring bounds.
        clock: Nanoseconds; the host's monotonic clock unless a test brings its own.

    """
    pool = cycle(feeds)
    began = clock()
    done = 0
    while done < WARMUP_RUNS or clock() - began < window.warmup_s * NS:
        infer(next(pool))
        done += 1
    warmed = (clock() - began) / NS
    times: list[int] = []
    keep = times.append
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        deadline = clock() + int(window.min_s * NS)
        stop = 0
        while stop < deadline or len(times) < window.min_n:
            feed = next(pool)
            start = clock()
            infer(feed)
            stop = clock()
            keep(stop - start)
    finally:
        if collecting:
            gc.enable()
    return Timed(np.asarray(times, dtype=np.int64), warmed)


def latency(timed: Timed, batch: int, clock: str) -> Latency:
    """Summarise a loop as the `latency` scenario: median first."""
    p50, p90, p99 = (stats.percentile(timed.times_ns, p) for p in (50, 90, 99))
    bounds = stats.interval(timed.times_ns, np.median)
    return Latency(
        scenario="latency",
        batch=batch,
        clock=clock,
        p50_ms=(p50 or 0.0) / NS_PER_MS,
        p90_ms=None if p90 is None else p90 / NS_PER_MS,
        p99_ms=None if p99 is None else p99 / NS_PER_MS,
        n=len(timed.times_ns),
        ci95_ms=None if bounds is None else (bounds[0] / NS_PER_MS, bounds[1] / NS_PER_MS),
        warmup_s=timed.warmup_s,
    )


def throughput(timed: Timed, batch: int) -> Throughput:
    """Summarise a loop over batches as images per second: all images over all the time."""
    bounds = stats.interval(timed.times_ns, np.mean)
    return Throughput(
        batch=batch,
        images_per_s=batch * NS / float(timed.times_ns.mean()),
        n=len(timed.times_ns),
        ci95=None if bounds is None else (batch * NS / bounds[1], batch * NS / bounds[0]),
    )
