"""Who is on a front, what a budget loses, and what a precision costs and gains."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from boards import made, published

from bench.boards.board import from_results
from bench.fronts import COSTS, costs, ladder, own
from bench.pareto import front, loss, losses
from bobrt.result import Artifact
from bobrt.spec import Precision, State
from bobrt.speed import Energy

if TYPE_CHECKING:
    from collections.abc import Callable

    from bobrt.result import Result

    Make = Callable[..., Result]

NAN = float("nan")


@pytest.mark.parametrize("seed", range(100))
def test_a_dominated_point_is_never_on_a_front(seed: int) -> None:
    """Pair by pair, ties and holes among them, in all four directions."""
    rng = np.random.default_rng(seed)
    score = rng.integers(0, 5, 12).astype(np.float64)
    cost = rng.integers(0, 5, 12).astype(np.float64)
    score[rng.random(12) < 0.1] = NAN
    cost[rng.random(12) < 0.1] = NAN
    for higher in (True, False):
        for lower in (True, False):
            on = front(score, cost, higher_is_better=higher, lower_costs=lower)
            gain, price = (score if higher else -score), (cost if lower else -cost)
            for i in range(12):
                beaten = (
                    (gain >= gain[i]) & (price <= price[i]) & ((gain > gain[i]) | (price < price[i]))
                ).any()
                assert on[i] == (not beaten and not math.isnan(gain[i]) and not math.isnan(price[i]))


def test_equal_points_are_both_on_it_and_nothing_is_on_it_without_a_number() -> None:
    """Null is not good, and not cheap."""
    assert front(np.array([0.9, 0.9, 0.8]), np.array([1.0, 1.0, 1.0])).tolist() == [True, True, False]
    assert front(np.array([NAN, 0.1]), np.array([0.5, NAN])).tolist() == [False, False]
    assert front(np.array([]), np.array([])).tolist() == []


def test_a_front_has_the_best_and_the_cheapest() -> None:
    """Whatever the points."""
    rng = np.random.default_rng(0)
    score, cost = rng.random(500), rng.random(500)
    on = front(score, cost)
    assert on[score.argmax()]
    assert on[cost.argmin()]
    assert (np.diff(score[on][np.argsort(cost[on])]) > 0).all()


def test_what_a_budget_loses() -> None:
    """The best that keeps to it, the cheapest of equally good ones, and None if nothing does."""
    score, cost = np.array([0.9, 0.8, 0.8, 0.5, NAN]), np.array([4.0, 3.0, 2.0, 1.0, 0.1])
    found = loss(score, cost, 3.5)
    assert found is not None
    assert (found.best, found.lost) == (2, pytest.approx(0.1))
    assert loss(score, cost, 0.5) is None
    assert (loss(score, cost, 9.0) or found).lost == 0.0
    rate = loss(score, cost, 2.5, lower_costs=False)
    assert rate is not None
    assert rate.best == 0
    error = loss(score, cost, 2.5, higher_is_better=False)
    assert error is not None
    assert (error.best, error.lost) == (3, 0.0)


def test_what_is_too_dear_to_have_a_cost_is_not_the_best() -> None:
    """A score whose cost nobody knows is no yardstick for a budget."""
    found = loss(np.array([0.9, 0.5]), np.array([NAN, 1.0]), 2.0)
    assert found is not None
    assert (found.best, found.lost) == (1, 0.0)


def test_losses_fall_along_the_front() -> None:
    """One entry for each cost of the front; with the largest budget nothing is lost."""
    rng = np.random.default_rng(1)
    score, cost = rng.random(60), rng.random(60)
    found = losses(score, cost)
    on = front(score, cost)

    assert [entry.budget for entry in found] == sorted(cost[on])
    assert [entry.lost for entry in found] == sorted((entry.lost for entry in found), reverse=True)
    assert found[-1].lost == 0.0
    assert {entry.best for entry in found} == set(np.flatnonzero(on))


def test_costs_are_read_from_the_record(make_result: Make) -> None:
    """Each under its name; None where the record has none."""
    energy = Energy(joules_per_image=0.2, what="rapl", images=10, seconds=1.0)
    result = make_result("a", 0.9, 2.0, energy=energy)
    latency = [msgspec.structs.replace(result.latency[0], p99_ms=5.0)]
    result = msgspec.structs.replace(result, latency=latency)

    assert {name: cost.of(result) for name, cost in COSTS.items()} == {
        "p50_ms": 2.0,
        "p99_ms": 5.0,
        "images_per_s": 4000.0,
        "bytes": 1_500_000.0,
        "joules_per_image": 0.2,
    }
    nothing = make_result("a", latency=[], throughput=[], artifact=None)
    assert {cost.of(nothing) for cost in COSTS.values()} == {None}
    assert COSTS["p99_ms"].of(make_result("a")) is None


def test_a_boards_costs_are_geometric_means_over_its_tasks(make_result: Make) -> None:
    """A backbone that was not timed in one of them has none; other engines do not count."""
    tasks = [{"task": "digits"}, {"task": "digits-0-7"}]
    rows = [make_result("a", 0.9, p50, cell=cell) for p50, cell in zip((1.0, 4.0), tasks, strict=True)]
    rows += [make_result("b", 0.9, 3.0, cell=tasks[0])]
    rows += [make_result("a", 0.9, 100.0, cell={**tasks[0], "precision": Precision.INT8})]
    rows += [make_result("b", 0.9, 3.0, cell=tasks[1], limit=10)]
    board = from_results(rows)[0]

    np.testing.assert_allclose(costs(board, own(board, rows), "p50_ms"), [2.0, NAN])
    assert np.isnan(costs(board, own(board, rows), "joules_per_image")).all()
    for other in (published(), made([[0.5], [0.4]])):
        assert np.isnan(costs(other, own(other, rows), "p50_ms")).tolist() == [True] * len(other.backbones)


def test_a_ladder_says_what_each_precision_costs_and_gains(make_result: Make) -> None:
    """Beside fp32 of the same cell: points lost, times faster and smaller, and whether speed is told."""
    small = Artifact(kind="onnx", path="m.onnx", sha256="0" * 64, bytes=500_000, build_s=1.0)
    int8 = {"precision": Precision.INT8}
    rows = [make_result("a", 0.95, 2.0), make_result("a", 0.93, 1.0, cell=int8, artifact=small)]
    rows += [make_result("a", 0.95, 1.9, cell={"precision": Precision.FP16})]
    rows += [make_result("b", 0.9, cell=int8)]
    fp16, eight = list(ladder(rows))

    assert (fp16.result.cell.precision, fp16.told, fp16.lost) == (Precision.FP16, False, 0.0)
    assert eight.result is rows[1]
    assert eight.base is rows[0]
    assert eight.lost == pytest.approx(0.02)
    assert (eight.faster, eight.told, eight.more, eight.smaller) == (2.0, True, 2.0, 3.0)


def test_a_ladder_has_only_what_may_be_ranked(make_result: Make) -> None:
    """Not a failed row, nor a step from a limited one; an error that rises is lost too."""
    int8 = {"precision": Precision.INT8}
    failed = make_result("a", cell=int8, state=State.FAILED, reason="no", accuracy=None)
    assert list(ladder([make_result("a"), failed])) == []
    assert list(ladder([make_result("a", limit=10), make_result("a", cell=int8)])) == []
    rows = [make_result("a", 0.1, higher_is_better=False)]
    rows += [make_result("a", 0.15, cell=int8, higher_is_better=False)]
    assert [step.lost for step in ladder(rows)] == [pytest.approx(0.05)]
