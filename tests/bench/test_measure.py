"""The stopwatch, on a clock of the test's own."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from bench import measure
from bench.measure import Timed, Window


class Clock:
    """Nanoseconds that pass only while the engine is asked."""

    def __init__(self, *costs: int) -> None:
        self.now = 1_000
        self.costs = costs
        self.asked: list[str] = []
        self.collecting: list[bool] = []

    def __call__(self) -> int:
        return self.now

    def infer(self, feed: str) -> None:
        self.now += self.costs[len(self.asked) % len(self.costs)]
        self.asked.append(feed)
        self.collecting.append(gc.isenabled())


SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("cost", "warmup_s", "calls", "took"),
    [(1, 0.0, 10, 1e-8), (SECOND, 0.0, 10, 10.0), (SECOND, 24.5, 25, 25.0), (SECOND, 25.0, 25, 25.0)],
    ids=["by count", "by count, slow", "by time", "by time, to the tick"],
)
def test_warm_up_lasts_ten_calls_and_its_seconds(cost: int, warmup_s: float, calls: int, took: float) -> None:
    """The warm-up ends when both its count and its time are reached, and says how long it took."""
    clock = Clock(cost)
    timed = measure.closed_loop(clock.infer, ["a"], Window(warmup_s, 1e-9, 1), clock)
    assert len(clock.asked) == calls + 1
    assert timed.warmup_s == pytest.approx(took)


@pytest.mark.parametrize(
    ("min_s", "min_n", "samples"),
    [(3.0, 5, 5), (7.5, 5, 8), (8.0, 5, 8), (0.001, 1, 1)],
    ids=["count is the later", "time is the later", "time, to the tick", "one call is enough"],
)
def test_window_ends_when_time_and_count_are_both_reached(min_s: float, min_n: int, samples: int) -> None:
    """Neither a fast engine's count nor a slow engine's time ends the window alone."""
    clock = Clock(SECOND)
    timed = measure.closed_loop(clock.infer, ["a"], Window(0.0, min_s, min_n), clock)
    assert len(timed.times_ns) == samples


def test_times_are_those_of_the_calls_in_their_order() -> None:
    """Each sample is exactly what its call cost; warm-up calls are in none of them."""
    clock = Clock(*[999] * 10, 3, 1, 4, 1, 5)
    timed = measure.closed_loop(clock.infer, ["a"], Window(0.0, 1e-9, 5), clock)
    assert timed.times_ns.dtype == np.int64
    assert timed.times_ns.tolist() == [3, 1, 4, 1, 5]


def test_feeds_take_turns_through_warm_up_and_window() -> None:
    """No single image is the warm one: the feeds go round without starting over."""
    clock = Clock(1)
    measure.closed_loop(clock.infer, ["a", "b", "c"], Window(0.0, 1e-9, 7), clock)
    assert "".join(clock.asked) == "abcabcabcabcabcab"


@pytest.mark.parametrize("before", [True, False])
def test_garbage_collector_rests_in_the_window_alone(before: bool) -> None:
    """It is off while calls are timed and afterwards as the caller had it."""
    clock = Clock(1)
    was = gc.isenabled()
    try:
        (gc.enable if before else gc.disable)()
        measure.closed_loop(clock.infer, ["a"], Window(0.0, 1e-9, 3), clock)
        assert gc.isenabled() == before
    finally:
        (gc.enable if was else gc.disable)()
    assert clock.collecting == [before] * 10 + [False] * 3


def test_garbage_collector_is_back_after_an_error() -> None:
    """An engine that raises under the stopwatch leaves the process as it was, and its error is seen."""
    clock = Clock(1)

    def infer(feed: str) -> None:
        clock.infer(feed)
        if len(clock.asked) == 12:
            raise ValueError("twelve")

    assert gc.isenabled()
    with pytest.raises(ValueError, match="twelve"):
        measure.closed_loop(infer, ["a"], Window(0.0, 1e-9, 5), clock)
    assert gc.isenabled()


def test_latency_is_in_milliseconds_and_null_where_unsupported() -> None:
    """Sixty-three times support a median and its interval, and no p90."""
    row = measure.latency(Timed(np.arange(1, 64) * 1_000_000, 0.25), 1, "wall")
    assert (row.p50_ms, row.p90_ms, row.p99_ms, row.n) == (32.0, None, None, 63)
    assert row.ci95_ms is not None
    assert row.ci95_ms[0] < row.p50_ms < row.ci95_ms[1]
    assert (row.scenario, row.batch, row.clock, row.warmup_s) == ("latency", 1, "wall", 0.25)


def test_latency_of_a_handful_has_no_interval() -> None:
    """Below forty samples the interval is null, not a guess."""
    assert measure.latency(Timed(np.arange(1, 40), 0.0), 1, "wall").ci95_ms is None


def test_throughput_is_all_images_over_all_the_time() -> None:
    """Eight images in 1, 2, 3, ... ms: the mean decides, and the interval is turned the right way round."""
    row = measure.throughput(Timed(np.arange(1, 102) * 1_000_000, 0.0), 8)
    assert row.images_per_s == pytest.approx(8 / 0.051)
    assert (row.batch, row.n) == (8, 101)
    assert row.ci95 is not None
    assert row.ci95[0] < row.images_per_s < row.ci95[1]
