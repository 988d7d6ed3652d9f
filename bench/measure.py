"""The stopwatch: one closed loop around one call, and nothing else inside it."""

from __future__ import annotations

import gc
import time
from itertools import cycle
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

import numpy as np

from bench import stats
from bobrt.garbage import uncollected
from bobrt.speed import Latency, Throughput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

Feed = TypeVar("Feed")
Stopped = Literal["width", "time"]

STEADY = 0.02
"""The last three stretches of a warm-up have medians this near to each other, relatively, when it is over."""
STRETCHES = 3
STRETCH_RUNS = 4
WARMUP_CAP = 5
"""A warm-up that is not steady is given up after so many times its seconds."""
LOOK_AGAIN = 1.3
"""Growth of the sample between two looks at its interval."""
SPREAD_ROUNDS = 3
"""Rounds below which the distance between the outer two says nothing."""
SLOWER = 1.1
"""Where a change within a row is no longer an error bar but another number."""
NS = 1e9
NS_PER_MS = 1e6


class Clock(NamedTuple):
    """What time it is, and how to let it pass."""

    now: Callable[[], int]
    """Nanoseconds, only ever more."""
    sleep: Callable[[float], None]
    """Seconds."""


HOST = Clock(time.perf_counter_ns, time.sleep)


class Window(NamedTuple):
    """How long to go on: at least this long, then until the interval is narrow or time is up."""

    warmup_s: float
    min_s: float
    min_n: int
    max_s: float = float("inf")
    """Ends the loop whatever it has reached."""
    width: float = float("inf")
    """Relative width of the median's 95 % interval that is asked for."""


class Timed(NamedTuple):
    """What a loop saw."""

    times_ns: NDArray[np.int64]
    """`[n]`, in the order they were taken."""
    warmup_s: float
    """How long the warm-up really took."""
    steady: bool = True
    """Whether the warm-up ended because the times were steady."""
    stopped: Stopped = "width"
    device_ns: NDArray[np.int64] | None = None
    """`[n]`, the same calls by the device's own clock, where it has one."""


def closed_loop(
    infer: Callable[[Feed], object],
    feeds: Sequence[Feed],
    window: Window,
    clock: Callable[[], int] = HOST.now,
    device: Callable[[], int] | None = None,
) -> Timed:
    """Call `infer` on one feed after another and time each call.

    Args:
        infer: The call to time; it returns when the answer is there.
        feeds: Real inputs, taken in turn so that no single one is special.
        window: Warm-up and measuring bounds.
        clock: Nanoseconds; the host's monotonic clock unless a test brings its own.
        device: Nanoseconds the last call kept the device busy, by the device's clock; read
            between two calls, so that reading it is in neither time.

    """
    pool = cycle(feeds)
    warmed, steady = _warm_up(infer, pool, window, clock)
    times: list[int] = []
    own: list[int] = []
    gc.collect()
    with uncollected():
        began = clock()
        cap = began + window.max_s * NS
        least, count = began + window.min_s * NS, window.min_n
        while True:
            _sample(infer, pool, times, clock, (least, count, cap), device and (own, device))
            if clock() >= cap:
                stopped: Stopped = "width" if _narrow(times, window) else "time"
                break
            if _narrow(times, window):
                stopped = "width"
                break
            least, count = began + (clock() - began) * LOOK_AGAIN, len(times) + 1
    device_ns = np.asarray(own, dtype=np.int64) if device else None
    return Timed(np.asarray(times, dtype=np.int64), warmed, steady, stopped, device_ns)


def _sample(  # noqa: PLR0913, PLR0917 - the inner loop: what it touches is handed in
    infer: Callable[[Feed], object],
    pool: Iterator[Feed],
    times: list[int],
    clock: Callable[[], int],
    bounds: tuple[float, int, float],
    device: tuple[list[int], Callable[[], int]] | None = None,
) -> None:
    """Add times until both lower bounds are met, or the cap is; one at least."""
    least, count, cap = bounds
    keep = times.append
    stop = clock()
    while (stop < least or len(times) < count) and (stop < cap or not times):
        feed = next(pool)
        start = clock()
        infer(feed)
        stop = clock()
        keep(stop - start)
        if device:
            device[0].append(device[1]())


def _warm_up(
    infer: Callable[[Feed], object], pool: Iterator[Feed], window: Window, clock: Callable[[], int]
) -> tuple[float, bool]:
    """Run until the time is over and three stretches in a row are alike, or five times the time is over."""
    began = clock()
    medians: list[float] = []
    while True:
        stretch: list[int] = []
        _sample(
            infer,
            pool,
            stretch,
            clock,
            (clock() + window.warmup_s / STRETCHES * NS, STRETCH_RUNS, float("inf")),
        )
        medians = [*medians[1 - STRETCHES :], float(np.median(stretch))]
        took = (clock() - began) / NS
        if len(medians) < STRETCHES or took < window.warmup_s:
            continue
        steady = max(medians) <= (1 + STEADY) * min(medians)
        if steady or took >= WARMUP_CAP * window.warmup_s:
            return took, steady


def _narrow(times: list[int], window: Window) -> bool:
    """Tell whether the interval of the median is as narrow as was asked for."""
    if window.width == float("inf"):
        return True
    sample = np.asarray(times, dtype=np.int64)
    bounds = stats.interval(sample, np.median)
    return bounds is not None and bounds[1] - bounds[0] <= window.width * float(np.median(sample))


def latency(
    rounds: Sequence[NDArray[np.int64]], batch: int, clock: str, last: Timed, drift: float = 0.0
) -> Latency:
    """Summarise the times of every round as the `latency` scenario: median first.

    Args:
        rounds: Nanoseconds of each call, one array per round.
        batch: Images per call.
        clock: What was read.
        last: The loop of the last round.
        drift: How far the machine itself moved between the rounds, relatively. Rounds that agree
            better than that do so by luck: the spread is never narrower.

    """
    pooled = np.concatenate(rounds)
    p50, p90, p99 = (stats.percentile(pooled, p) for p in (50, 90, 99))
    bounds = _bounds(rounds, np.median)
    medians = [(stats.percentile(times, 50) or 0.0) / NS_PER_MS for times in rounds]
    return Latency(
        scenario="latency",
        batch=batch,
        clock=clock,
        p50_ms=(p50 or 0.0) / NS_PER_MS,
        p90_ms=None if p90 is None else p90 / NS_PER_MS,
        p99_ms=None if p99 is None else p99 / NS_PER_MS,
        n=len(pooled),
        ci95_ms=None if bounds is None else (bounds[0] / NS_PER_MS, bounds[1] / NS_PER_MS),
        warmup_s=last.warmup_s,
        repeats_ms=medians,
        spread_ms=_spread(medians, drift),
        stopped=last.stopped,
    )


def _bounds(
    rounds: Sequence[NDArray[np.int64]], statistic: Callable[[NDArray[np.int64], int], NDArray[np.float64]]
) -> tuple[float, float] | None:
    """Return the outer bounds of the rounds' own intervals; None if one of them has none."""
    found = [bounds for times in rounds if (bounds := stats.interval(times, statistic))]
    if len(found) < len(rounds):
        return None
    return min(low for low, _ in found), max(high for _, high in found)


def _spread(medians: list[float], drift: float) -> tuple[float, float] | None:
    """Return the outer medians, moved apart until they are as far from each other as the machine drifted."""
    if len(medians) < SPREAD_ROUNDS:
        return None
    low, high = min(medians), max(medians)
    short = max(1.0, (1 + drift) / (high / low))
    return low / short**0.5, high * short**0.5


def throughput(rounds: Sequence[NDArray[np.int64]], batch: int) -> Throughput:
    """Summarise loops over batches as images per second: all images over all the time."""
    pooled = np.concatenate(rounds)
    bounds = _bounds(rounds, np.mean)
    return Throughput(
        batch=batch,
        images_per_s=batch * NS / float(pooled.mean()),
        n=len(pooled),
        ci95=None if bounds is None else (batch * NS / bounds[1], batch * NS / bounds[0]),
        repeats=[batch * NS / float(times.mean()) for times in rounds],
    )


def slows_down(times_ns: NDArray[np.int64]) -> bool:
    """Tell whether the last third of a round answers over 10 % slower than its first third."""
    third = len(times_ns) // 3
    if third < STRETCH_RUNS:
        return False
    first, last = np.median(times_ns[:third]), np.median(times_ns[-third:])
    return bool(last > SLOWER * first)
