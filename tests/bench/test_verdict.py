"""Who may be ranked, who is ahead of whom, and who is on the front."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import msgspec
import pytest

from bench.verdict import bound_missed, rank, sentence
from bobrt.spec import Precision, State
from bobrt.speed import Server

if TYPE_CHECKING:
    from collections.abc import Callable

    from bobrt.result import Result

    Make = Callable[..., Result]


def by_name(results: list[Result]) -> dict[str, tuple[int, bool]]:
    """Return rank and front of every row of the one ranking."""
    (ranking,), left_out = rank(results)
    assert not left_out
    return {row.result.cell.backbone: (row.rank, row.front) for row in ranking.rows}


def test_rows_whose_intervals_overlap_are_tied(make_result: Make) -> None:
    """A row is behind only those whose whole interval lies above its own."""
    rows = [make_result("a", 0.95, half=0.02), make_result("b", 0.92, half=0.02)]
    rows += [make_result("c", 0.90, half=0.02), make_result("d", 0.80, half=0.02)]
    assert {name: place for name, (place, _) in by_name(rows).items()} == {"a": 1, "b": 1, "c": 2, "d": 4}


def test_intervals_that_touch_are_tied(make_result: Make) -> None:
    """Sharing one value is enough not to be told apart."""
    rows = [make_result("a", 0.75, half=0.125), make_result("b", 0.5, half=0.125)]
    assert [place for place, _ in by_name(rows).values()] == [1, 1]


def test_tied_rows_stand_in_the_order_of_their_latency(make_result: Make) -> None:
    """Among equals the faster one comes first, whatever order the records were read in."""
    rows = [make_result("slow", 0.91, 3.0), make_result("fast", 0.90, 1.0), make_result("mid", 0.92, 2.0)]
    assert list(by_name(rows)) == ["fast", "mid", "slow"]


def test_front_is_who_nobody_beats_in_both(make_result: Make) -> None:
    """On two hundred random fields, with ties, the front is what its definition says, pair by pair."""
    for seed in range(200):
        draw = random.Random(seed)  # noqa: S311 - a seeded field, no secret
        points = [(draw.randint(1, 6) / 10, float(draw.randint(1, 6))) for _ in range(draw.randint(1, 9))]
        rows = [make_result(str(i), value, p50) for i, (value, p50) in enumerate(points)]
        for name, (_, front) in by_name(rows).items():
            value, p50 = points[int(name)]
            beaten = any(v >= value and p <= p50 and (v, p) != (value, p50) for v, p in points)
            assert front == (not beaten), (seed, points, name)


def test_lower_is_better_turns_everything_round(make_result: Make) -> None:
    """For an error the small value ranks first and is on the front."""
    rows = [
        make_result("small", 0.1, 2.0, half=0.02, higher_is_better=False),
        make_result("large", 0.5, 2.0, half=0.02, higher_is_better=False),
        make_result("quick", 0.3, 1.0, half=0.02, higher_is_better=False),
    ]
    assert by_name(rows) == {"small": (1, True), "quick": (2, True), "large": (3, False)}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"accuracy": None}, "unverified: its accuracy was not measured"),
        ({"limit": 50}, "limited to 50 test images"),
        ({"batch": 4}, "its engine cannot answer one image at a time"),
        ({"latency": []}, "its engine cannot answer one image at a time"),
        ({"state": State.FAILED, "reason": "it crashed"}, "failed: it crashed"),
        ({"state": State.UNSUPPORTED, "reason": "no driver"}, "unsupported: no driver"),
        ({"state": State.SKIPPED, "reason": "no hub"}, "skipped: no hub"),
    ],
    ids=["unverified", "limited", "no batch 1", "no latency", "failed", "unsupported", "skipped"],
)
def test_what_was_not_verified_is_left_out_with_its_reason(
    make_result: Make, change: dict[str, object], reason: str
) -> None:
    """A latency without an accuracy of the same file over the whole split has no rank, and says why."""
    (ranking,), left_out = rank([make_result("good", 0.5), make_result("odd", 0.99, 0.001, **change)])
    assert [row.result.cell.backbone for row in ranking.rows] == ["good"]
    assert ranking.rows[0].front
    assert [(entry.result.cell.backbone, entry.reason) for entry in left_out] == [("odd", reason)]


def test_nothing_verified_gives_no_ranking(make_result: Make) -> None:
    """An empty ranking is not made up."""
    rankings, left_out = rank([make_result("a", accuracy=None)])
    assert rankings == []
    assert len(left_out) == 1


@pytest.mark.parametrize("what", ["machine", "task", "protocol"])
def test_unlike_things_are_never_compared(make_result: Make, what: str) -> None:
    """Another machine, task or protocol is another ranking, each with a first place of its own."""
    one = make_result("one", 0.9)
    if what == "machine":
        other = make_result("other", 0.1, system=msgspec.structs.replace(one.system, id="elsewhere"))
    else:
        other = make_result("other", 0.1, cell={what: "published" if what == "protocol" else "letters"})
    rankings, _ = rank([one, other])
    assert sorted((r.rows[0].result.cell.backbone, r.rows[0].rank, r.rows[0].front) for r in rankings) == [
        ("one", 1, True),
        ("other", 1, True),
    ]


def test_sentence_names_the_fastest_of_the_best_and_the_fastest_of_all(make_result: Make) -> None:
    """The question is answered in one sentence, with both numbers of each engine it names."""
    rows = [make_result("best", 0.95, 2.5), make_result("tied", 0.96, 4.0)]
    rows += [make_result("quick", 0.5, 0.0123, cell={"precision": Precision.INT8})]
    (ranking,), _ = rank(rows)
    assert sentence(ranking) == (
        "Of 3 verified engines for digits, best fp32 on ort-cpu is the fastest of those tied for the best "
        "accuracy: 95.0 % at 2.5 ms; the fastest of all is quick int8 on ort-cpu: 50.0 % at 0.0123 ms."
    )


def test_sentence_says_one_name_once(make_result: Make) -> None:
    """Where the fastest of the best is the fastest of all there is nothing to add."""
    (ranking,), _ = rank([make_result("only", 0.95, 2.5)])
    assert sentence(ranking).endswith("95.0 % at 2.5 ms.")
    assert "fastest of all" not in sentence(ranking)


def served(rate: float | None, bound: float = 5.0) -> Server:
    """Return what a server scenario found."""
    return Server(bound_ms=bound, rate=rate, p99_ms=None, capacity=1e3, reason="said so", trials=[])


def test_sentence_says_who_serves_the_most_of_the_best(make_result: Make) -> None:
    """The most accurate come first: a faster one of lower rank is not the answer."""
    rows = [make_result("best", 0.95, 2.5, server=served(310.4))]
    rows += [make_result("tied", 0.96, 4.0, server=served(412.0))]
    rows += [make_result("quick", 0.5, 0.01, server=served(9000.0)), make_result("late", server=served(None))]
    rankings, _ = rank(rows)
    assert sentence(rankings[0]).endswith(
        " With p99 within 5 ms, tied fp32 on ort-cpu serves the most: 412 queries/s."
    )
    assert not bound_missed(rankings)


def test_a_bound_no_engine_keeps_is_said_with_the_nearest(make_result: Make) -> None:
    """Nobody serves: the sentence names the nearest and its time, and the run has not got what it asked."""
    rows = [make_result("slow", 0.95, 20.0, server=served(None))]
    rows += [make_result("near", 0.9, 7.25, server=served(None))]
    rankings, _ = rank(rows)
    assert sentence(rankings[0]).endswith(
        " No engine keeps its p99 within 5 ms; the nearest is near fp32 on ort-cpu, "
        "which takes 7.25 ms with nobody waiting."
    )
    assert bound_missed(rankings)
    assert not bound_missed(rank([make_result("unasked")])[0])
