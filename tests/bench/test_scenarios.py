"""The scenarios of a cell, on a machine whose time is simulated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from simulated import Engine, GpuEngine, Machine, linear, stage

from bench import scenarios, server
from bench.stage import opened
from bobrt.errors import BobrtError

if TYPE_CHECKING:
    from bench.measure import Timed


def rates(timed: dict[str, Timed]) -> dict[int, float]:
    """Return images per second by batch."""
    return {
        batch: batch * 1e9 / float(loop.times_ns.mean())
        for name, loop in timed.items()
        if (batch := int(name.partition("-")[2]))
    }


def climbed(engine: Engine, **changes: object) -> tuple[dict[str, Timed], scenarios.Curve]:
    where = stage(engine, **changes)
    return scenarios.climb(where, scenarios.latency(where))


def test_the_curve_is_climbed_until_it_is_flat() -> None:
    """Once two batches in a row gain less than 2 %, larger ones are not asked for."""
    engine = Engine(Machine(), linear(0.001, 0.001))  # 1: 500/s, 8: 889/s, 32: 970/s, 64: 985/s, 128: 992/s
    timed, curve = climbed(engine)
    assert list(rates(timed)) == [1, 2, 4, 8, 16, 32, 64, 128]
    assert (curve.ended, curve.batch) == ("flat", 128)
    flat = Engine(Machine(), linear(0.0, 0.001))
    timed, curve = climbed(flat)
    assert list(rates(timed)) == [1, 2, 4]
    assert (curve.ended, curve.batch, curve.streams, curve.threads) == ("flat", 4, 1, 1)
    assert max(flat.asked) == 4


def test_a_batch_that_is_slower_does_not_end_the_climb_alone() -> None:
    """One batch without a gain may be a kernel that does not fit it: the next is still tried."""

    def uneven(batch: int, _: int) -> float:
        return 0.01 + 0.001 * batch + (0.02 if batch == 4 else 0)

    timed, curve = climbed(Engine(Machine(), uneven), throughput_batches=(1, 2, 4, 8))
    assert rates(timed)[4] < rates(timed)[2] < rates(timed)[8]
    assert (curve.ended, curve.batch) == ("limit", 8)


def test_the_curve_ends_where_memory_does() -> None:
    """A batch that does not fit is the curve's end and not the cell's: what was timed before stands."""
    timed, curve = climbed(Engine(Machine(), linear(0.01, 0.0001, 16)))
    assert list(rates(timed)) == [1, 2, 4, 8, 16]
    assert (curve.ended, curve.batch) == ("memory", 32)
    assert curve.detail == "a batch of 32 does not fit in memory"
    timed, curve = climbed(Engine(Machine(), linear(0.01, 0.0001, 16)), throughput_batches=(64,))
    assert (timed, curve.ended, curve.batch) == ({}, "memory", 64)


def test_another_error_is_not_taken_for_the_end_of_memory() -> None:
    def raises(batch: int, _: int) -> float:
        if batch == 4:
            raise ValueError("no kernel for 4")
        return 0.01

    with pytest.raises(ValueError, match="no kernel for 4"):
        climbed(Engine(Machine(), raises))


def test_one_image_is_timed_once_for_both_scenarios() -> None:
    """A batch of one after another is what `latency` has timed already: the same times, not new ones."""
    where = stage(Engine(Machine(), linear(0.001, 0.001)), throughput_batches=(1, 2))
    alone = scenarios.latency(where)
    timed, _ = scenarios.climb(where, alone)
    assert timed["throughput-1"] is alone["latency-1"]


def test_a_batch_of_its_own_is_the_only_one() -> None:
    timed, curve = climbed(Engine(Machine(), linear(0.01, 0.001), fixed=4))
    assert list(rates(timed)) == [4]
    assert (curve.ended, curve.detail) == ("limit", "the engine's own batch is 4")


class BuiltForEight(Engine):
    """An engine whose profile ends at eight images."""

    def largest_batch(self) -> int:
        return 8


def test_no_batch_is_asked_that_the_engine_was_not_built_for() -> None:
    """A plan's ladder is for all runtimes; an engine's profile ends it, and the curve says so."""
    engine = BuiltForEight(Machine(), linear(0.01, 0.001))
    timed, curve = climbed(engine, throughput_batches=(1, 4, 8, 16, 64))
    assert list(rates(timed)) == [1, 4, 8]
    assert (curve.ended, curve.batch, curve.detail) == ("limit", 8, "the engine takes 8 images at most")
    assert max(engine.asked) == 8


def test_a_later_round_times_one_image_and_the_best_batch() -> None:
    where = stage(Engine(Machine(), linear(0.01, 0.001)))
    assert list(scenarios.again(where, 32)) == ["latency-1", "throughput-32"]
    assert list(scenarios.again(where, 1)) == ["latency-1", "throughput-1"]
    assert list(scenarios.again(where, None)) == ["latency-1"]


def test_a_device_with_a_clock_is_read_by_both() -> None:
    """End to end by the host, computing by the device; reading the device's clock is in neither."""
    where = stage(GpuEngine(Machine(), linear(0.01, 0.0)))
    loops = scenarios.latency(where)
    assert list(loops) == ["latency-1@e2e", "latency-1@gpu"]
    ours, own = (loop.times_ns for loop in loops.values())
    assert len(ours) == len(own)
    assert np.median(ours) == pytest.approx(10e6, rel=0.01)
    assert own == pytest.approx(ours * 0.8, abs=5_000)
    timed, _ = scenarios.climb(where, loops)
    assert "throughput-2@e2e" in timed


def test_answers_that_are_no_numbers_are_not_timed() -> None:
    engine = Engine(Machine(), linear(0.01, 0.0))
    engine.broken = True
    with pytest.raises(BobrtError, match="NaN or infinity in logits while it is timed"):
        scenarios.latency(stage(engine))


def test_cold_start_is_opening_and_the_first_answer() -> None:
    """Both are there, and the engine is asked no more than once."""
    engine = Engine(Machine(), linear(0.01, 0.0))
    with opened(engine, np.zeros((2, 4, 4, 3), np.uint8), "x.onnx") as first:
        assert engine.asked == [1]
        assert first.open_ms > 0
        assert first.first_ms > 0


@pytest.mark.parametrize(("batch", "count"), [(1, 8), (2, 4), (3, 2), (8, 2), (256, 2)])
def test_every_image_takes_its_turn_and_large_batches_are_few(batch: int, count: int) -> None:
    """Real inputs rotate; batches of 256 are not held once for each image."""
    where = stage(Engine(Machine(), linear(0.01, 0.0)))
    feeds = [feed["images"] for feed in where.feeds(batch)]
    assert [len(feed) for feed in feeds] == [batch] * len(feeds)
    assert count <= len(feeds) <= count + 1
    assert not np.array_equal(feeds[0], feeds[1])
    if batch * count >= len(where.images):
        assert {image.tobytes() for feed in feeds for image in feed} == {i.tobytes() for i in where.images}


def served(engine: Engine, **changes: object) -> scenarios.Server:
    where = stage(engine, **changes)
    return scenarios.serve(where, scenarios.timed(where).alone)


def test_server_finds_the_rate_queueing_theory_gives() -> None:
    """Service of 1 ms, an M/D/1 queue: the load at which 99 of 100 are answered within 5 ms."""
    found = served(Engine(Machine(), linear(0.001, 0.0)), p99_ms=5.0)
    assert found.rate is not None
    assert found.capacity == pytest.approx(1000, rel=0.01)
    assert found.rate / found.capacity == pytest.approx(_load_of(5.0), abs=0.04)
    assert found.p99_ms is not None
    assert found.p99_ms <= 5.0
    assert all(trial.n >= server.LEAST or not trial.met for trial in found.trials)
    assert "p99 is within 5 ms at" in found.reason


def _load_of(p99: float) -> float:
    """Return the load at which an M/D/1 queue of unit service answers 99 of 100 within `p99`."""
    rng = np.random.default_rng(1)
    gaps = rng.exponential(1.0, 400_000)
    best = 0.0
    for load in np.arange(0.5, 0.99, 0.01):
        # Lindley's recursion: wait = max(0, wait + service - gap), as a running maximum.
        steps = np.cumsum(1.0 - gaps / load)
        waits = steps - np.minimum.accumulate(np.minimum(steps, 0.0))
        if np.percentile(waits + 1.0, 99) <= p99:
            best = float(load)
    return best


def test_a_bound_below_one_answer_lets_nothing_pass() -> None:
    """No rate is tried where a query that nobody waits for is too slow already; it says so."""
    engine = Engine(Machine(), linear(0.02, 0.0))
    found = served(engine)
    assert (found.rate, found.trials) == (None, [])
    assert found.reason == "no rate keeps p99 within 15 ms: a query takes 20 ms with nobody waiting"


def test_a_bound_only_the_rarest_queries_would_meet_ends_with_what_was_tried() -> None:
    """Ten of a hundred answers are too slow, whoever waits: each rate is given up early."""

    def hiccups(_: int, calls: int) -> float:
        return 0.051 if calls % 10 == 0 else 0.001

    found = served(Engine(Machine(), hiccups))
    assert found.rate is None
    assert found.trials
    assert not any(trial.met for trial in found.trials)
    assert all(trial.n < server.LEAST for trial in found.trials)
    assert "queries/s are too many" in found.reason


def test_a_late_answer_delays_the_queries_behind_it() -> None:
    """Due every 10 ms, the first takes 35: the others are late by what they waited."""
    machine = Machine()
    costs = iter([0.035, 0.001, 0.001, 0.001, 0.001, 0.001])
    due = np.arange(0, 60, 10) * 1_000_000
    latencies = server.open_loop(
        lambda _: machine.spend(next(costs)), iter("abcdef"), due, 1000.0, machine.clock
    )
    assert (latencies / 1e6).round(1).tolist() == [35.0, 26.0, 17.0, 8.0, 1.0, 1.0]
