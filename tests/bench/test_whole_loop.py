"""The whole of the measuring on a simulated machine: rounds in turn, the machine's drift, the verdict.

Only time is simulated: the loops, the rounds, the records and the ranking are the real ones. How a
worker that hangs, dies or is interrupted ends is asked of real processes, in test_supervise and test_run.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from simulated import Engine, Machine, linear, stage

from bench import rounds, scenarios, store
from bench.reference import Level
from bench.verdict import rank

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bobrt.result import Result

    Make = Callable[..., Result]

REFERENCE_S = 0.001


def campaign(
    make_result: Make,
    folder: Path,
    machine: Machine,
    costs: dict[str, float],
    count: int = 3,
    **timing: object,
) -> dict[str, Result]:
    """Time every engine in each of the rounds, in a new order each, the reference beside it."""
    found: dict[str, Result] = {}
    for number in range(1, count + 1):
        for name in random.Random(number).sample(sorted(costs), len(costs)):  # noqa: S311 - an order
            where = stage(Engine(machine, linear(costs[name], 0.0)), **timing)
            path = folder / f"{name}.json"
            before = found.get(name)
            loops = scenarios.latency(where) if before is None else scenarios.again(where, None)
            level = REFERENCE_S * 1e3 * machine.slowness(machine.ns / 1e9)
            earlier = store.read_samples(path, before) if before else {}
            found[name] = rounds.add(
                path, before or make_result(name), earlier, loops, Level("reference", level)
            )
            machine.spend(2.0)  # the next process starts
    return {name: store.read(folder / f"{name}.json") for name in costs}


COSTS = {"a": 0.004, "b": 0.005, "c": 0.008}


def spread(result: Result) -> float:
    """Return the relative width of a row's bar."""
    bar = result.latency[0].spread_ms
    assert bar is not None
    return bar[1] / bar[0] - 1


def test_a_quiet_machine_ranks_every_engine_by_what_it_takes(make_result: Make, tmp_path: Path) -> None:
    """Medians are the engines' own, bars are narrow, and sampling ends because the interval is."""
    found = campaign(make_result, tmp_path, Machine(), COSTS)
    for name, cost in COSTS.items():
        row = found[name].latency[0]
        assert row.p50_ms == pytest.approx(cost * 1e3, rel=0.005)
        assert (row.stopped, found[name].caveats) == ("width", [])
        assert len(row.repeats_ms) == 3
        assert spread(found[name]) < 0.01
    (ranking,), left_out = rank(list(found.values()))
    assert [row.result.cell.backbone for row in ranking.rows] == ["a", "b", "c"]
    assert left_out == []


def test_a_machine_that_drifts_a_little_has_wider_bars(make_result: Make, tmp_path: Path) -> None:
    """Five percent from the first round to the last: in every bar, and every row is still ranked."""
    machine = Machine(lambda s: 1 + 0.05 * min(1.0, s / 40))
    found = campaign(make_result, tmp_path, machine, COSTS)
    for result in found.values():
        assert result.drift is not None
        assert result.drift.relative is not None
        assert 0.02 < result.drift.relative <= spread(result) + 1e-9 < 0.1
    assert len(rank(list(found.values()))[0][0].rows) == 3


def test_a_machine_that_drifts_a_lot_ranks_nothing(make_result: Make, tmp_path: Path) -> None:
    """A quarter slower at the end: every row is unstable, shown, and left out with its reason."""
    machine = Machine(lambda s: 1 + 0.25 * min(1.0, s / 40))
    found = campaign(make_result, tmp_path, machine, COSTS)
    assert all("unstable" in result.caveats for result in found.values())
    rankings, left_out = rank(list(found.values()))
    assert rankings == []
    assert all("unstable: its bar goes from" in entry.reason for entry in left_out)


def test_a_drift_the_row_did_not_see_widens_it_all_the_same(make_result: Make, tmp_path: Path) -> None:
    """Rounds that agree while the reference moved by 12 % agree by luck: the row is not ranked."""
    path, result = tmp_path / "a.json", make_result("a")
    for number, level in enumerate([1.0, 1.12, 1.0], start=1):
        where = stage(Engine(Machine(seed=number), linear(0.004, 0.0)))
        earlier = store.read_samples(path, result) if number > 1 else {}
        result = rounds.add(path, result, earlier, scenarios.latency(where), Level("reference", level))
    assert max(result.latency[0].repeats_ms) < 1.01 * min(result.latency[0].repeats_ms)
    assert spread(result) == pytest.approx(0.12)
    assert result.caveats == ["unstable"]


def test_an_engine_that_is_throttled_within_a_round_says_so(make_result: Make, tmp_path: Path) -> None:
    """Half as fast from the middle of the second round on: named, though the round's median may hide it."""
    machine = Machine(lambda s: 1.0 if s < 10.5 else 2.0)
    found = campaign(make_result, tmp_path, machine, {"a": 0.004}, warmup_s=0.1, min_s=6.0)
    assert {"slows-down", "unstable"} <= {*found["a"].caveats}


def test_noise_that_no_sample_cures_ends_at_the_cap(make_result: Make, tmp_path: Path) -> None:
    """A width that cannot be reached is given up after `max_s`, and the record says that time ran out."""
    machine = Machine()
    found = campaign(make_result, tmp_path, machine, {"a": 0.004}, count=1, width=1e-9, max_s=3.0)
    row = found["a"].latency[0]
    assert row.stopped == "time"
    assert row.n == pytest.approx(3.0 / 0.004, rel=0.02)
    assert found["a"].caveats == ["few-rounds"]


def test_a_cap_of_next_to_nothing_still_has_one_answer(make_result: Make, tmp_path: Path) -> None:
    """The call under way when time is up is kept; nothing can be said of it, and that is said."""
    found = campaign(make_result, tmp_path, Machine(), {"a": 0.004}, count=1, min_s=1e-9, max_s=1e-9, min_n=1)
    row = found["a"].latency[0]
    assert (row.n, row.ci95_ms, row.p90_ms, row.stopped) == (1, None, None, "time")
    assert found["a"].caveats == ["few-rounds", "few-samples"]


def test_a_cell_that_never_becomes_steady_is_timed_and_says_so(make_result: Make, tmp_path: Path) -> None:
    """Slower and slower for ever: the warm-up gives up after five times its seconds."""
    machine = Machine(lambda s: 1 + s / 5)
    found = campaign(make_result, tmp_path, machine, {"a": 0.004}, warmup_s=2.0)
    assert {"never-steady", "slows-down", "unstable"} <= {*found["a"].caveats}
    assert found["a"].latency[0].warmup_s >= 10.0
