"""Which engine to ship: within bounds, more than noise or not, and nothing without a reason."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from bench import store
from bench.pick import difference, misses, pick
from bench.show import pick_report
from bobrt import flags
from bobrt.errors import ExitCode, NothingMatchedError, UsageError
from bobrt.spec import Precision, Protocol, State
from bobrt.speed import Memory
from bobrt.tasks.classification import wilson

if TYPE_CHECKING:
    from collections.abc import Callable

    from support import Ran, Workspace

    from bobrt.result import Result

    Make = Callable[..., Result]

FOLDER = Path("results")


@pytest.fixture
def make(make_result: Make) -> Make:
    """Make a row with a p99 twice its p50, bars of 10 %, and an accuracy of so many in 1,000."""

    def made(name: str, right: int, p50: float, size: int = 1_000_000, **changes: Any) -> Result:
        found = make_result(name, right / 1000, p50, **changes)
        assert found.accuracy is not None
        assert found.artifact is not None
        latency = msgspec.structs.replace(found.latency[0], p99_ms=2 * p50)
        return msgspec.structs.replace(
            found,
            accuracy=msgspec.structs.replace(found.accuracy, n=1000, ci95=wilson(right, 1000)),
            artifact=msgspec.structs.replace(found.artifact, bytes=size),
            latency=[latency],
        )

    return made


@pytest.fixture
def three(make: Make) -> list[Result]:
    """One slow and best, one nearly as good and fast, one poor and fastest."""
    return [make("slow", 960, 8.0, 40_000_000), make("fast", 955, 2.0, 10_000_000), make("poor", 800, 0.5)]


def named(result: Result | None) -> str | None:
    return result.cell.backbone if result else None


def test_of_those_that_tie_for_the_best_the_fastest_is_shipped(three: list[Result]) -> None:
    """Five images of a thousand are within noise; a hundred and sixty are not."""
    found = pick(three, {}, {})
    assert (named(found.winner), named(found.runner_up)) == ("fast", "slow")
    assert (found.verified, found.left_out, found.feasible) == (3, 0, 3)
    assert found.unbounded is None


@pytest.mark.parametrize(
    ("bounds", "winner", "feasible"),
    [
        ({"max-p99": 3.0}, "poor", 1),
        ({"max-p99": 4.0}, "fast", 2),
        ({"max-p50": 0.5}, "poor", 1),
        ({"min-accuracy": 0.956}, "slow", 1),
        ({"max-bytes": 10_000_000}, "fast", 2),
        ({"max-bytes": 9_999_999}, "poor", 1),
        ({"min-images-per-s": 5000}, "poor", 1),
        ({"max-p99": 5.0, "min-accuracy": 0.9, "max-bytes": 20e6}, "fast", 1),
    ],
)
def test_bounds_are_kept_to_the_last_digit(
    three: list[Result], bounds: dict[str, float], winner: str, feasible: int
) -> None:
    found = pick(three, {}, bounds)
    assert (named(found.winner), found.feasible) == (winner, feasible)
    assert (named(found.unbounded) == "fast") == (winner != "fast")


def test_what_was_not_measured_keeps_no_bound(make: Make) -> None:
    """A p99 that the sample cannot support, or memory nobody looked at, is no promise."""
    row = make("a", 900, 1.0)
    short = msgspec.structs.replace(row, latency=[msgspec.structs.replace(row.latency[0], p99_ms=None)])
    (missed,) = misses(short, {"max-p99": 100.0, "max-p50": 1.0})
    assert (missed.flag, missed.value) == ("max-p99", None)
    assert misses(row, {"max-memory": 1e9})[0].value is None
    held = msgspec.structs.replace(row, memory=Memory(engine_bytes=1, peak_bytes=500, what="peak"))
    assert misses(held, {"max-memory": 500}) == []
    found = pick([short], {}, {"max-p99": 100.0})
    assert found.winner is None
    assert "its p99 was not measured" in " ".join(pick_report.lines(found, FOLDER, FOLDER))
    assert pick_report.relax(found) == ""


def test_the_nearest_miss_is_named_with_what_would_let_it_pass(three: list[Result]) -> None:
    """One bound missed by little comes before one missed by much, and before two."""
    found = pick(three, {}, {"max-p99": 3.9, "min-accuracy": 0.9})
    assert found.winner is None
    assert found.nearest is not None
    assert named(found.nearest.result) == "fast"
    (line,) = pick_report.lines(found, FOLDER, FOLDER)
    assert "None of 3 verified engines keeps every bound; the nearest is fast fp32 on ort-cpu: " in line
    assert "its p99 is 4 ms, 2.56 % beyond 3.9 ms" in line
    assert pick_report.relax(found) == "--max-p99 4ms"
    relaxed = flags.bounds({"max-p99": "4ms", "min-accuracy": "90%"})
    assert named(pick(three, {}, relaxed).winner) == "fast"


@pytest.mark.parametrize("p99", [1.23456, 0.0099951, 987654.0, 5.0])
def test_what_is_to_be_typed_really_lets_it_pass(make: Make, p99: float) -> None:
    """Rounded up, never down: the hint works as it stands."""
    row = make("a", 900, p99 / 2)
    found = pick([row], {}, {"max-p99": p99 / 10})
    flag, text = pick_report.relax(found).split()
    assert flag == "--max-p99"
    assert misses(row, flags.bounds({"max-p99": text})) == []


def test_only_verified_rows_are_picked(three: list[Result], make: Make) -> None:
    """Failed, limited and unstable ones are counted, and never shipped."""
    limited = msgspec.structs.replace(make("limited", 1000, 0.1), limit=10)
    failed = make("failed", 1000, 0.1, state=State.FAILED, reason="it crashed")
    found = pick([*three, limited, failed], {}, {})
    assert (named(found.winner), found.left_out) == ("fast", 2)
    assert "2 more are not: bobrt report says why" in "\n".join(pick_report.lines(found, FOLDER, FOLDER))
    with pytest.raises(
        NothingMatchedError, match="none of 2 rows is verified: failed: it crashed; limited to"
    ):
        pick([limited, failed], {}, {})


def test_one_machine_and_one_task_at_a_time(three: list[Result], make: Make) -> None:
    """Latencies of two machines are no ranking, nor of two tasks; rows without one do not count."""
    elsewhere = [
        msgspec.structs.replace(r, system=msgspec.structs.replace(r.system, id="other")) for r in three[:1]
    ]
    with pytest.raises(UsageError, match="the results are of 2 systems, and one is picked for: ") as caught:
        pick([*three, *elsewhere], {}, {})
    assert caught.value.hint.startswith("bobrt pick --system ")
    assert named(pick([*three, *elsewhere], {"system": "other"}, {}).winner) == "slow"

    flowers = make("b", 990, 0.1, cell={"task": "flowers102"})
    with pytest.raises(
        UsageError, match="the results are of 2 tasks, and one is picked for: digits, flowers102"
    ):
        pick([*three, flowers], {}, {})
    assert named(pick([*three, flowers], {"task": "flowers102"}, {}).winner) == "b"
    bare = msgspec.structs.replace(make("c", 1, 1.0, cell={"task": ""}), accuracy=None)
    assert named(pick([*three, bare], {}, {}).winner) == "fast"


def test_words_that_match_nothing_name_the_nearest(three: list[Result]) -> None:
    with pytest.raises(NothingMatchedError, match="no result is of precision fp16") as caught:
        pick(three, {"precision": "fp16"}, {})
    assert "did you mean fp32?" in caught.value.hint


def test_all_protocols_compete_unless_one_is_named(three: list[Result], make: Make) -> None:
    """They are scored on the same images."""
    probe = make("probed", 957, 1.0, cell={"protocol": Protocol.PROBE})
    assert named(pick([*three, probe], {}, {}).winner) == "probed"
    assert named(pick([*three, probe], {"protocol": "finetune"}, {}).winner) == "fast"
    assert (
        "probed fp32 on ort-cpu by probe"
        in pick_report.lines(pick([*three, probe], {}, {}), FOLDER, FOLDER)[0]
    )


@pytest.mark.parametrize(
    ("one", "other", "told"), [(955, 960, False), (800, 960, True), (960, 960, False), (1000, 960, True)]
)
def test_a_difference_is_more_than_noise_if_its_interval_leaves_out_nothing(
    make: Make, one: int, other: int, told: bool
) -> None:
    """Newcombe's interval, worked out again from its formula."""
    found = difference(make("a", one, 1.0), make("b", other, 1.0))
    assert found is not None
    (l1, u1), (l2, u2) = wilson(one, 1000), wilson(other, 1000)
    p1, p2 = one / 1000, other / 1000
    low = p1 - p2 - math.sqrt((p1 - l1) ** 2 + (u2 - p2) ** 2)
    high = p1 - p2 + math.sqrt((u1 - p1) ** 2 + (p2 - l2) ** 2)
    assert found.accuracy == pytest.approx(p1 - p2)
    assert found.accuracy_told is told is (low > 0 or high < 0)


def test_newcombe_s_own_example() -> None:
    """56 of 70 beside 48 of 80: 0.2 with 0.0524 to 0.3339 (Newcombe 1998, table II, case a, method 10)."""
    (l1, u1), (l2, u2) = wilson(56, 70), wilson(48, 80)
    low = 0.2 - math.hypot(0.8 - l1, u2 - 0.6)
    high = 0.2 + math.hypot(u1 - 0.8, 0.6 - l2)
    assert (low, high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_of_an_error_rate_less_is_better(make_result: Make) -> None:
    """The direction is the metric's: the least error wins, and a bound on it is a most."""
    low, high = (
        make_result(name, v, 1.0, higher_is_better=False) for name, v in (("low", 0.1), ("high", 0.4))
    )
    assert named(pick([low, high], {}, {}).winner) == "low"
    assert named(pick([low, high], {}, {"min-accuracy": 0.2}).winner) == "low"
    found = difference(low, high)
    assert found is not None
    assert found.accuracy == pytest.approx(0.3)
    assert found.accuracy_told


@pytest.mark.parametrize(
    ("slower", "bars", "told"),
    [(1.05, (0.9, 1.1), False), (1.5, (0.9, 1.1), True), (1.5, None, None)],
)
def test_a_speed_is_more_than_noise_if_the_bars_part(
    make: Make, slower: float, bars: tuple[float, float] | None, told: bool | None
) -> None:
    """Without a bar nothing is told, and that is said."""

    def row(name: str, p50: float) -> Result:
        found = make(name, 900, p50)
        bar = (bars[0] * p50, bars[1] * p50) if bars else None
        return msgspec.structs.replace(
            found, latency=[msgspec.structs.replace(found.latency[0], ci95_ms=bar, spread_ms=None)]
        )

    found = difference(row("a", slower), row("b", 1.0))
    assert found is not None
    assert (found.slower, found.slower_told) == (pytest.approx(slower), told)
    lines = pick_report.lines(pick([row("a", slower), row("b", 1.0)], {}, {}), FOLDER, FOLDER)
    assert ("(no error bar to tell by)" in lines[0]) == (told is None)


def test_the_answer_is_one_sentence_with_its_evidence(three: list[Result], tmp_path: Path) -> None:
    """Who, how good, how fast, who is next, what the bounds cost, and where to look."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "m.onnx").write_bytes(b"engine")
    found = pick(three, {}, {"max-p99": 1.0})
    ship, counted, evidence, file = pick_report.lines(found, tmp_path / "results", tmp_path / "cache")
    assert ship.startswith(
        "Ship poor fp32 on ort-cpu: 80.0 % (77.4 to 82.4) top1, p50 0.5 ms, p99 1 ms, 1 MB."
    )
    assert "No other engine keeps these bounds." in ship
    assert (
        "Without bounds it would be fast fp32 on ort-cpu: 15.5 points more accurate (more than noise) and "
        "4 times as slow (more than noise)." in ship
    )
    assert counted == "Of 3 verified engines, 1 within the bounds."
    winner = three[2]
    assert evidence == f"evidence: {store.path_of(tmp_path / 'results', winner.system.id, winner.cell, None)}"
    assert file == f"file: {tmp_path / 'cache' / 'm.onnx'}, sha256 {'0' * 64}"
    assert "not in this machine's cache" in pick_report.lines(found, tmp_path, tmp_path)[-1]


def test_caveats_of_the_winner_are_said(make: Make, tmp_path: Path) -> None:
    row = make("a", 900, 1.0, caveats=["few-rounds"])
    assert "The row carries: few-rounds." in pick_report.lines(pick([row], {}, {}), tmp_path, tmp_path)


def test_no_order_of_the_records_changes_the_answer(three: list[Result], make: Make) -> None:
    rows = [*three, make("twin", 955, 2.5), make("other", 953, 2.2)]
    answers = {named(pick(order, {}, {}).winner) for order in (rows, rows[::-1], rows[2:] + rows[:2])}
    assert answers == {"fast"}


@pytest.mark.parametrize(
    ("flag", "text", "value"),
    [
        ("max-p99", "5ms", 5.0),
        ("max-p99", "5", 5.0),
        ("max-p50", "0.005 s", 5.0),
        ("max-p50", "800us", 0.8),
        ("max-bytes", "20MB", 20e6),
        ("max-bytes", "20MiB", 20 * 2**20),
        ("max-memory", "1.5gb", 1.5e9),
        ("min-accuracy", "95%", 0.95),
        ("min-accuracy", ".95", 0.95),
        ("min-images-per-s", "1000/s", 1000.0),
        ("min-images-per-s", "1e3", 1000.0),
    ],
)
def test_bounds_have_the_units_people_type(flag: str, text: str, value: float) -> None:
    assert flags.bounds({flag: text}) == {flag: pytest.approx(value)}


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("max-p99", "fast"),
        ("max-p99", "5 parsecs"),
        ("max-p99", "0"),
        ("max-p99", "-5ms"),
        ("max-p99", "nan"),
        ("max-p99", "inf"),
        ("max-p99", ""),
        ("min-accuracy", "95"),
        ("min-accuracy", "5ms"),
        ("max-bytes", "5ms"),
    ],
)
def test_a_bound_that_is_none_is_a_usage_error(flag: str, text: str) -> None:
    with pytest.raises(UsageError, match=f"--{flag} .* is no bound") as caught:
        flags.bounds({flag: text})
    assert caught.value.hint.startswith(f"--{flag} ")


def test_the_verb_answers_and_says_by_its_exit_code(tiny_run: tuple[Workspace, Ran]) -> None:
    """On records of a real run: an answer with a file that is there, JSON of it, 4 where nothing fits."""
    space, _ = tiny_run
    ran = space.here("pick", "--task", "digits", "--runtime", "ort-cpu")
    assert ran.code == ExitCode.OK, ran.err
    assert ran.out.startswith("Ship test_resnet ")
    assert f"file: {space.cache}" in ran.out
    told = json.loads(space.here("pick", "--precision", "int8", "--max-bytes", "50MB", "--json").out)["pick"]
    assert (told["winner"]["cell"]["precision"], told["bounds"]) == ("int8", {"max-bytes": 50e6})
    assert told["nearest"] is None
    ran = space.here("pick", "--max-p50", "1us")
    assert ran.code == ExitCode.NOTHING_MATCHED
    assert ran.out.startswith("None of ")
    assert "hint: relax --max-p50 " in ran.err
    ran = space.here("pick", "--min-accuracy", "110%")
    assert ran.code == ExitCode.USAGE


def test_an_empty_folder_says_what_to_run(here: Callable[..., Ran]) -> None:
    ran = here("pick")
    assert ran.code == ExitCode.NOTHING_MATCHED
    assert "no results in " in ran.err
    assert "hint: bobrt bench" in ran.err


def test_int8_beside_fp32_of_one_checkpoint(make: Make) -> None:
    """The same machine code path decides among precisions of one backbone."""
    rows = [make("a", 950, 2.0), make("a", 948, 1.0, cell={"precision": Precision.INT8})]
    found = pick(rows, {}, {})
    assert found.winner is not None
    assert found.winner.cell.precision is Precision.INT8
