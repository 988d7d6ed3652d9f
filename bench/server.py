"""The scenario `server`: images arrive when they arrive, and 99 of 100 answers are in time.

An open loop: each query is due at a time drawn beforehand (a Poisson process), whatever became of
the one before, and its latency runs from that time to its answer. A closed loop would wait politely
for a slow answer and never see the queue behind it ("coordinated omission").
"""

from __future__ import annotations

import math
from itertools import cycle
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from bench import stats
from bench.measure import HOST, Clock
from bobrt.speed import Server, Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

Feed = TypeVar("Feed")

LEAST = stats.SUPPORT[99]
"""Queries below which there is no p99: the floor of MLPerf's early stopping."""
NEAR = 1.05
"""The search ends when a sustained and an unsustained rate are this near to each other."""
RAREST = 1 / 64
"""Part of the capacity below which no rate is tried."""
NS = 1e9
NS_PER_MS = 1e6
DOZE_NS = 200_000
"""The last part of a wait is spun: a sleep ends late."""


def open_loop(
    infer: Callable[[Feed], object],
    feeds: Iterator[Feed],
    due_ns: NDArray[np.int64],
    bound_ms: float,
    clock: Clock,
) -> NDArray[np.int64]:
    """Answer every query in the order they are due, none before its time.

    Args:
        infer: Answers one query; returns when the answer is there.
        feeds: One input after another, without end.
        due_ns: `[n]`, when each query is due, in nanoseconds from the start.
        bound_ms: Once more than one in a hundred of all `n` is later than this, the rate is not
            sustained whatever follows, and the loop ends.
        clock: The host's, unless a test brings its own.

    Returns:
        Nanoseconds from due to answered, `[n]` or fewer if it ended early.

    """
    late, allowed, bound = 0, len(due_ns) // 100, bound_ms * NS_PER_MS
    latencies: list[int] = []
    began = clock.now()
    for due in due_ns:
        feed = next(feeds)
        while (wait := began + int(due) - clock.now()) > 0:
            if wait > DOZE_NS:
                clock.sleep((wait - DOZE_NS) / NS)
        infer(feed)
        latencies.append(clock.now() - began - int(due))
        late += latencies[-1] > bound
        if late > allowed:
            break
    return np.asarray(latencies, dtype=np.int64)


def sustained(  # noqa: PLR0913 - one argument per bound of the search
    infer: Callable[[Feed], object],
    feeds: Sequence[Feed],
    alone_ns: NDArray[np.int64],
    *,
    bound_ms: float,
    seconds: float,
    clock: Clock = HOST,
    report: Callable[[str], None] = lambda _: None,
) -> Server:
    """Search the highest rate of arrivals whose p99 stays within a bound.

    Halves the range between what was sustained and what was not. No rate above one query after
    another can be sustained, so the search starts below that.

    Args:
        infer: Answers one query.
        feeds: Real inputs, taken in turn.
        alone_ns: Times of queries that nobody waited for: what the engine can do at most.
        bound_ms: The bound of the p99, in milliseconds.
        seconds: Each rate is kept up for so long, and for 662 queries at least.
        clock: The host's, unless a test brings its own.
        report: Called with what is tried.

    """
    pool = cycle(feeds)
    capacity = NS / float(alone_ns.mean())
    found = _Found(bound_ms, capacity)
    alone = float(np.median(alone_ns)) / NS_PER_MS
    if alone > bound_ms:
        return found.none(f"a query takes {alone:.3g} ms with nobody waiting")
    high, low = capacity, 0.0
    while high > NEAR * max(low, RAREST * capacity):
        rate = (low + high) / 2
        report(f"{rate:.3g} queries/s")
        latencies = open_loop(infer, pool, _arrivals(rate, seconds), bound_ms, clock)
        if found.tried(rate, latencies):
            low = rate
        else:
            high = rate
    return found.best() if low else found.none(f"even {high:.3g} queries/s are too many")


class _Found:
    """What the rates tried so far have shown."""

    def __init__(self, bound_ms: float, capacity: float) -> None:
        self._bound_ms, self._capacity = bound_ms, capacity
        self._trials: list[Trial] = []

    def tried(self, rate: float, latencies: NDArray[np.int64]) -> bool:
        p50, p99 = stats.percentile(latencies, 50), stats.percentile(latencies, 99)
        met = p99 is not None and p99 <= self._bound_ms * NS_PER_MS
        self._trials.append(
            Trial(
                rate=rate,
                n=len(latencies),
                p50_ms=(p50 or 0.0) / NS_PER_MS,
                p99_ms=None if p99 is None else p99 / NS_PER_MS,
                met=met,
            )
        )
        return met

    def best(self) -> Server:
        best = max((trial for trial in self._trials if trial.met), key=lambda trial: trial.rate)
        beyond = min((t.rate for t in self._trials if not t.met), default=self._capacity)
        reason = f"p99 is within {self._bound_ms:g} ms at {best.rate:.4g} queries/s, not at {beyond:.4g}"
        return self._said(best.rate, best.p99_ms, reason)

    def none(self, why: str) -> Server:
        rarest = min(self._trials, key=lambda trial: trial.rate, default=None)
        p99_ms = rarest.p99_ms if rarest else None
        return self._said(None, p99_ms, f"no rate keeps p99 within {self._bound_ms:g} ms: {why}")

    def _said(self, rate: float | None, p99_ms: float | None, reason: str) -> Server:
        return Server(
            bound_ms=self._bound_ms,
            rate=rate,
            p99_ms=p99_ms,
            capacity=self._capacity,
            reason=reason,
            trials=self._trials,
        )


def _arrivals(rate: float, seconds: float) -> NDArray[np.int64]:
    """Return when each query is due, in nanoseconds: the same draws at every rate, only stretched."""
    count = max(LEAST, math.ceil(rate * seconds))
    gaps = np.random.default_rng(0).exponential(NS / rate, count)
    return np.cumsum(gaps).astype(np.int64)
