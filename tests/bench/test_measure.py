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


WARM = 12
"""Calls of the shortest warm-up: three stretches of four."""


@pytest.mark.parametrize(
    ("cost", "warmup_s", "calls", "took"),
    [(1, 0.0, 12, 1.2e-8), (SECOND, 0.0, 12, 12.0), (SECOND, 30.0, 30, 30.0), (SECOND, 29.5, 30, 30.0)],
    ids=["by count", "by count, slow", "by time", "by time, begun call finished"],
)
def test_warm_up_lasts_three_stretches_and_its_seconds(
    cost: int, warmup_s: float, calls: int, took: float
) -> None:
    """Where times are steady the warm-up ends when its count and its time are reached; it says how long."""
    clock = Clock(cost)
    timed = measure.closed_loop(clock.infer, ["a"], Window(warmup_s, 1e-9, 1), clock)
    assert len(clock.asked) == calls + 1
    assert timed.warmup_s == pytest.approx(took)
    assert timed.steady


def test_warm_up_goes_on_until_the_times_are_steady() -> None:
    """An engine that is slow at first is waited for: none of its slow answers is timed."""
    clock = Clock(*[SECOND * (40 - i) // 10 for i in range(30)], *[SECOND] * 1000)
    timed = measure.closed_loop(clock.infer, ["a"], Window(24.0, 5.0, 1), clock)
    assert timed.steady
    assert timed.warmup_s > 75.0
    assert set(timed.times_ns.tolist()) == {SECOND}


def test_warm_up_that_is_never_steady_ends_and_says_so() -> None:
    """An engine that gets slower with every call is given up on after five times the warm-up's seconds."""
    clock = Clock(*[SECOND + i * SECOND // 10 for i in range(1000)])
    timed = measure.closed_loop(clock.infer, ["a"], Window(12.0, 1.0, 1), clock)
    assert not timed.steady
    assert 60.0 <= timed.warmup_s < 90.0


def test_sampling_ends_when_the_interval_is_narrow() -> None:
    """A constant engine needs no more than its minimum, and the loop says that the width was reached."""
    clock = Clock(SECOND // 100)
    timed = measure.closed_loop(clock.infer, ["a"], Window(0.0, 1.0, 50, 100.0, 0.01), clock)
    assert (timed.stopped, len(timed.times_ns)) == ("width", 100)


def test_sampling_goes_on_for_a_narrower_interval() -> None:
    """A noisy engine is asked for longer than its minimum when the interval is not narrow enough yet."""
    costs = np.random.default_rng(0).lognormal(16.0, 0.3, 20_000).astype(int).tolist()
    bounds = {"warmup_s": 0.0, "min_s": 1.0, "min_n": 50, "max_s": 1000.0}
    wide, narrow = (
        measure.closed_loop(clock.infer, ["a"], Window(**bounds, width=width), clock)
        for clock, width in ((Clock(*costs), 1.0), (Clock(*costs), 0.02))
    )
    assert (wide.stopped, narrow.stopped) == ("width", "width")
    assert len(narrow.times_ns) > 3 * len(wide.times_ns)


def test_sampling_ends_when_time_is_up() -> None:
    """A cap ends the loop before its count and its width are reached, and the loop says so."""
    clock = Clock(SECOND)
    timed = measure.closed_loop(clock.infer, ["a"], Window(0.0, 1.0, 1000, 20.0, 0.01), clock)
    assert (timed.stopped, len(timed.times_ns)) == ("time", 20)


def test_one_call_is_timed_whatever_the_cap() -> None:
    """A single call that takes longer than the cap is a sample all the same."""
    clock = Clock(SECOND)
    timed = measure.closed_loop(clock.infer, ["a"], Window(0.0, 1e-9, 100, 1e-9, 0.01), clock)
    assert (timed.stopped, timed.times_ns.tolist()) == ("time", [SECOND])


@pytest.mark.parametrize(
    ("times", "slower"),
    [
        ([10] * 12, False),
        (list(range(100, 130)), True),
        ([100] * 20 + [109] * 10, False),
        ([100] * 20 + [111] * 10, True),
        ([130] * 20 + [100] * 10, False),
        ([1, 2, 3], False),
    ],
    ids=["constant", "slower and slower", "nine per cent", "eleven per cent", "faster", "too few"],
)
def test_an_engine_that_becomes_slower_is_found_out(times: list[int], slower: bool) -> None:
    """The last third against the first third, over ten per cent."""
    assert measure.slows_down(np.array(times)) is slower


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
    clock = Clock(*[999] * WARM, 3, 1, 4, 1, 5)
    timed = measure.closed_loop(clock.infer, ["a"], Window(0.0, 1e-9, 5), clock)
    assert timed.times_ns.dtype == np.int64
    assert timed.times_ns.tolist() == [3, 1, 4, 1, 5]


def test_feeds_take_turns_through_warm_up_and_window() -> None:
    """No single image is the warm one: the feeds go round without starting over."""
    clock = Clock(1)
    measure.closed_loop(clock.infer, ["a", "b", "c"], Window(0.0, 1e-9, 7), clock)
    assert "".join(clock.asked) == "abcabcabcabcabcabca"


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
    assert clock.collecting == [before] * WARM + [False] * 3


def test_garbage_collector_is_back_after_an_error() -> None:
    """An engine that raises under the stopwatch leaves the process as it was, and its error is seen."""
    clock = Clock(1)

    def infer(feed: str) -> None:
        clock.infer(feed)
        if len(clock.asked) == WARM + 2:
            raise ValueError("fourteen")

    assert gc.isenabled()
    with pytest.raises(ValueError, match="fourteen"):
        measure.closed_loop(infer, ["a"], Window(0.0, 1e-9, 5), clock)
    assert gc.isenabled()


LOOP = Timed(np.arange(1), 0.25, stopped="time")


def test_latency_is_in_milliseconds_and_null_where_unsupported() -> None:
    """A hundred and one times support a median, its interval and p90, and no p99."""
    times = np.random.default_rng(0).permutation(np.arange(1, 102)) * 1_000_000
    row = measure.latency([times], 1, "wall", LOOP)
    assert (row.p50_ms, row.p90_ms, row.p99_ms, row.n) == (51.0, 91.0, None, 101)
    assert row.ci95_ms is not None
    assert row.ci95_ms[0] < row.p50_ms < row.ci95_ms[1]
    assert (row.scenario, row.batch, row.clock, row.warmup_s) == ("latency", 1, "wall", 0.25)
    assert (row.repeats_ms, row.spread_ms, row.stopped) == ([51.0], None, "time")


def test_latency_of_a_handful_has_no_interval() -> None:
    """Below forty samples the interval is null, not a guess."""
    times = np.random.default_rng(0).permutation(np.arange(1, 40))
    row = measure.latency([times], 1, "wall", LOOP)
    assert (row.ci95_ms, row.p90_ms) == (None, None)


def test_rounds_are_pooled_and_their_spread_is_that_of_their_medians() -> None:
    """Three rounds have one median over all calls, one each, and a spread; two have no spread."""
    rounds = [np.array([level] * 5) * 1_000_000 for level in (20, 30, 22)]
    row = measure.latency(rounds, 1, "wall", LOOP)
    assert (row.n, row.p50_ms, row.repeats_ms, row.spread_ms) == (15, 22.0, [20.0, 30.0, 22.0], (20.0, 30.0))
    assert measure.latency(rounds[:2], 1, "wall", LOOP).spread_ms is None


@pytest.mark.parametrize(
    "drift", [0.0, 0.1, 0.5, 1.16], ids=["still", "less than the rounds", "as much", "more"]
)
def test_the_bar_is_never_narrower_than_the_machine_moved(drift: float) -> None:
    """Rounds that agree better than the machine stood still do so by luck: they are moved apart."""
    rounds = [np.array([level] * 5) * 1_000_000 for level in (20, 30, 22)]
    row = measure.latency(rounds, 1, "wall", LOOP, drift=drift)
    assert row.spread_ms is not None
    low, high = row.spread_ms
    assert high / low == pytest.approx(max(1.5, 1 + drift))
    assert low * high == pytest.approx(600.0)
    assert row.p50_ms == 22.0


def test_throughput_is_all_images_over_all_the_time() -> None:
    """Eight images in 1 to 101 ms: the mean decides, and the interval is turned the right way round."""
    times = np.random.default_rng(0).permutation(np.arange(1, 102)) * 1_000_000
    row = measure.throughput([times], 8)
    assert row.images_per_s == pytest.approx(8 / 0.051)
    assert (row.batch, row.n) == (8, 101)
    assert row.ci95 is not None
    assert row.ci95[0] < row.images_per_s < row.ci95[1]
    assert row.repeats == [row.images_per_s]


def test_intervals_of_rounds_are_not_mixed() -> None:
    """Two rounds at two levels: each knows its own median well, and the bounds are the outer ones."""
    noise = np.random.default_rng(0).normal(0, 1e4, (2, 200))
    rounds = [(level + row).astype(np.int64) for level, row in zip((1e6, 2e6), noise, strict=True)]
    row = measure.latency(rounds, 1, "wall", LOOP)
    assert row.ci95_ms is not None
    assert 0.98 < row.ci95_ms[0] < 1.0
    assert 1.99 < row.ci95_ms[1] < 2.02
    assert measure.latency([rounds[0], rounds[1][:20]], 1, "wall", LOOP).ci95_ms is None
