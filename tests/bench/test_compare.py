"""Two folders side by side: verdicts that hold up, refusals, the gate, and what is shown."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from scipy import stats
from support import Ran, run_here

from bench import store, welch
from bench.compare import Verdict, compare, gate
from bench.show.comparison_report import as_markdown, comparison_table, sentence
from bobrt.errors import ExitCode, NothingMatchedError
from bobrt.result import Artifact, Published
from bobrt.spec import Cell, State
from bobrt.speed import Drift, Timing
from bobrt.system import this_system

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bobrt.result import Result

    Make = Callable[..., Result]

STEADY = [1.0, 1.001, 0.999, 1.002, 0.998]
SLOW = [1.1, 1.101, 1.099, 1.102, 1.098]
NO_DRIVER = {"state": State.UNSUPPORTED, "reason": "no driver", "latency": []}
FAILED = {"state": State.FAILED, "reason": "it | broke", "latency": []}


@pytest.fixture
def timed(make_result: Make) -> Make:
    """Make a record whose rounds had these medians."""

    def make(backbone: str, repeats: Sequence[float], **changes: Any) -> Result:
        made = make_result(backbone, p50=float(np.median(repeats)) if len(repeats) else 1.0, **changes)
        rows = [msgspec.structs.replace(row, repeats_ms=[float(t) for t in repeats]) for row in made.latency]
        return msgspec.structs.replace(made, latency=rows)

    return make


def save(folder: Path, results: Sequence[Result]) -> Path:
    """Write records where a run would."""
    for result in results:
        cell = Cell(**{name: getattr(result.cell, name) for name in Cell.__struct_fields__})
        store.write(store.path_of(folder, result.system.id, cell, result.limit), result)
    return folder


@pytest.fixture
def side_by_side(tmp_path: Path) -> Callable[..., Ran]:
    """Write two folders and compare them by the command line."""

    def run(before: Sequence[Result], after: Sequence[Result], *flags: str) -> Ran:
        folders = save(tmp_path / "before", before), save(tmp_path / "after", after)
        return run_here("compare", *folders, *flags)

    return run


# -- the statistics ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p", "df", "t"),
    [(0.05, 1, 12.706), (0.05, 2, 4.303), (0.05, 8, 2.306), (0.01, 4, 4.604), (0.001, 30, 3.646)],
)
def test_the_t_distribution_is_that_of_the_printed_tables(p: float, df: float, t: float) -> None:
    """Table values to their last digit, both ways."""
    assert welch.t_quantile(p, df) == pytest.approx(t, abs=5e-4)
    assert welch.two_sided(t, df) == pytest.approx(p, rel=1e-3)


def test_the_t_distribution_is_scipys() -> None:
    """Over degrees of freedom that are no whole numbers, in the middle and far out."""
    for df in (1.0, 2.3, 4.0, 9.7, 120.0, 5000.0):
        for t in (0.0, 0.01, 0.7, 2.0, 12.0):
            assert welch.two_sided(t, df) == pytest.approx(2 * stats.t.sf(t, df), rel=1e-9)
        for p in (0.9, 0.05, 1e-4):
            assert welch.t_quantile(p, df) == pytest.approx(stats.t.isf(p / 2, df), rel=1e-9)


def test_welch_is_scipys() -> None:
    """The same probability and the same interval, with sizes and spreads that differ."""
    rng = np.random.default_rng(0)
    a, b = rng.lognormal(0, 0.01, 5), rng.lognormal(0.01, 0.04, 3)
    theirs = stats.ttest_ind(np.log(b), np.log(a), equal_var=False)
    ours = welch.welch(list(a), list(b))
    interval = theirs.confidence_interval(0.95)
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert ours.ci95 == pytest.approx((math.exp(interval.low), math.exp(interval.high)), rel=1e-9)


def test_holm_multiplies_by_what_is_left_and_never_goes_back() -> None:
    """The example of three: the smallest three times, the next twice; none below its forerunner."""
    assert welch.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert welch.holm([0.9, 0.8]) == [1.0, 1.0]
    assert welch.holm([]) == []


def test_a_difference_one_cell_alone_would_show_is_not_called_among_many(timed: Make) -> None:
    """The very same times: slower by themselves, same in a comparison of twenty cells."""
    after = [1.004, 1.005, 1.003, 1.006, 1.001]
    alone = compare([timed("a", STEADY)], [timed("a", after)])
    others = [timed(f"b{i}", STEADY) for i in range(19)]
    many = compare([timed("a", STEADY), *others], [timed("a", after), *others])
    (row,) = (row for row in many.rows if row.cell.backbone == "a")
    assert alone.rows[0].verdict is Verdict.SLOWER
    assert row.verdict is Verdict.SAME
    assert row.ratio is not None
    assert alone.rows[0].ratio is not None
    assert row.ratio.ci95 == alone.rows[0].ratio.ci95


@pytest.mark.parametrize("rounds", [3, 5])
def test_two_runs_of_one_system_are_the_same(timed: Make, rounds: int) -> None:
    """Fifteen cells, rounds that vary by 0.5 %: all same in at least 95 of 100 comparisons."""
    rng, same = np.random.default_rng(rounds), 0
    for _ in range(100):
        sides = [
            [timed(f"b{i}", rng.lognormal(0, 0.005, rounds)) for i in range(15)] for _ in ("before", "after")
        ]
        same += compare(*sides).counts == {"same": 15}
    assert same >= 95


def test_one_cell_three_percent_slower_is_found(timed: Make) -> None:
    """Among fifteen, with five rounds that vary by 0.5 %: in at least 90 of 100 comparisons."""
    rng, found = np.random.default_rng(1), 0
    for _ in range(100):
        before = [timed(f"b{i}", rng.lognormal(0, 0.005, 5)) for i in range(15)]
        after = [timed(f"b{i}", rng.lognormal(math.log(1.03) * (i == 7), 0.005, 5)) for i in range(15)]
        worst = compare(before, after).rows[0]
        found += worst.verdict is Verdict.SLOWER and worst.cell.backbone == "b7"
    assert found >= 90


# -- verdicts ------------------------------------------------------------------------------------


def test_every_verdict_worst_first_and_the_answer(timed: Make) -> None:
    """One cell for each; the sentence counts them."""
    names = ["slower", "faster", "same", "broken", "away", "few"]
    before = [timed(name, SLOW if name == "faster" else STEADY) for name in names]
    before.append(timed("new", [], **NO_DRIVER))
    times = {"slower": SLOW, "faster": STEADY, "same": STEADY, "few": [1.0, 1.0], "new": STEADY}
    after = [timed(name, repeats) for name, repeats in times.items()] + [timed("broken", [], **FAILED)]
    comparison = compare(before, after)
    assert [(row.verdict, row.cell.backbone) for row in comparison.rows] == [
        ("slower", "slower"),
        ("gone", "away"),
        ("gone", "broken"),
        ("unclear", "few"),
        ("same", "same"),
        ("faster", "faster"),
        ("new", "new"),
    ]
    reasons = {row.cell.backbone: row.reason for row in comparison.rows if row.reason}
    assert reasons == {
        "away": "not in the second folder",
        "broken": "failed in the second folder: it | broke",
        "few": "5 and 2 rounds recorded, and 3 are needed: bobrt bench --repeat 3",
        "new": "unsupported in the first folder: no driver",
    }
    assert sentence(comparison).startswith("1 slower, 2 gone, 1 unclear, 1 same, 1 faster, 1 new; geometric")
    ratios = [row.ratio.value for row in comparison.rows if row.ratio]
    assert ratios == pytest.approx([1.1, 1.0, 1 / 1.1], rel=1e-4)
    assert comparison.geometric_mean is not None
    assert comparison.geometric_mean.value == pytest.approx(math.prod(ratios) ** (1 / 3))


@pytest.mark.parametrize(
    ("after", "verdict"), [(1.0, Verdict.SAME), (1.01, Verdict.SLOWER), (0.99, Verdict.FASTER)]
)
def test_rounds_without_any_spread_are_decided_by_their_ratio(
    timed: Make, after: float, verdict: Verdict
) -> None:
    """A clock too coarse for the difference gives the same time again and again."""
    (row,) = compare([timed("a", [1.0] * 3)], [timed("a", [after] * 3)]).rows
    assert row.verdict is verdict
    assert row.ratio is not None
    assert row.ratio.ci95 == pytest.approx((after, after))


def test_a_limited_run_meets_only_one_of_the_same_limit(timed: Make) -> None:
    """The full cell and the limited one are two rows."""
    comparison = compare(
        [timed("a", STEADY), timed("a", STEADY, limit=10)], [timed("a", STEADY), timed("a", STEADY, limit=20)]
    )
    assert [(row.verdict, row.limit) for row in comparison.rows] == [
        ("gone", 10),
        ("same", None),
        ("new", 20),
    ]


def test_an_engine_of_a_fixed_batch_is_compared_at_its_own(timed: Make) -> None:
    """It has no row at batch 1."""
    (row,) = compare(
        [timed("a", STEADY, batch=8, cell={"batch": 8})], [timed("a", SLOW, batch=8, cell={"batch": 8})]
    ).rows
    assert row.verdict is Verdict.SLOWER


def test_an_accuracy_that_moved_is_shown_beside_the_speed(timed: Make) -> None:
    """With the digits it takes; empty where nothing moved."""
    other = Artifact(kind="onnx", path="m.onnx", sha256="1" * 64, bytes=1, build_s=1.0)
    before = [timed("a", STEADY, value=0.987), timed("b", STEADY, value=0.9), timed("c", STEADY, value=0.5)]
    after = [
        timed("a", STEADY, value=0.982, artifact=other),
        timed("b", STEADY, value=0.9),
        timed("c", STEADY, value=0.50001, artifact=other),
    ]
    comparison = compare(before, after)
    shown = [row[7] for row in comparison_table(comparison).rows]
    assert shown == ["98.7 -> 98.2", "", "50.0000 -> 50.0010"]
    assert [row.file_changed for row in comparison.rows] == [True, False, True]


def test_only_what_changed_of_the_environment_is_listed(timed: Make) -> None:
    """Versions, threads, windows and another file of weights, by name; and how the machine itself moved."""
    system = msgspec.structs.replace(this_system(), threads=2, tools={"onnxruntime": "1.24"})
    moved = msgspec.structs.replace(system, threads=4, tools={"onnxruntime": "1.25"})
    windows = Timing(warmup_s=1.0, min_s=1.0, min_n=1, throughput_batches=(1, 8))
    longer = msgspec.structs.replace(windows, min_s=2.0)
    drifts = [Drift(what="x", repeats_ms=[t, t, t], relative=0.0) for t in (1.0, 1.02)]
    files = [Published(file="model.safetensors", sha256=sha) for sha in ("aa", "bb")]
    comparison = compare(
        [timed(n, STEADY, system=system, timing=windows, drift=drifts[0], published=files[0]) for n in "ab"],
        [
            timed(n, STEADY, system=moved, timing=longer, drift=drifts[1], published=files[n == "b"])
            for n in "ab"
        ],
    )
    assert {(c.name, c.before, c.after) for c in comparison.environment} == {
        ("threads", "2", "4"),
        ("tools.onnxruntime", "1.24", "1.25"),
        ("timing.min_s", "1.0", "2.0"),
        ("weights of b", "aa", "bb"),
    }
    assert comparison.machine == pytest.approx(1.02)


def test_no_cell_in_common_or_none_timed_is_nothing_matched(timed: Make) -> None:
    """There is no table to show."""
    with pytest.raises(NothingMatchedError, match="no cell in common"):
        compare([timed("a", STEADY)], [timed("b", STEADY)])
    with pytest.raises(NothingMatchedError, match="no cell was timed in either"):
        compare([timed("a", [], **NO_DRIVER)], [timed("a", [], **NO_DRIVER)])


def test_markdown_is_ready_for_a_pull_request(timed: Make) -> None:
    """The verdict first; a bar or a line's end in a reason or a name breaks no table."""
    odd = {"state": State.FAILED, "reason": "a | b\nfailed", "latency": []}
    comparison = compare(
        [timed("x|y", STEADY), timed("b", STEADY)], [timed("x|y", [], **odd), timed("b", SLOW)]
    )
    text = as_markdown(comparison, gate(comparison, 0.03))
    assert text.startswith("## bobrt compare: 1 slower, 1 gone\n\n1 slower, 1 gone; geometric mean 1.100x")
    assert r"a \| b failed" in text
    table = re.findall(r"^\|.*$", text, re.MULTILINE)
    assert {len(re.split(r"(?<!\\)\|", line)) for line in table} == {11}


# -- the command -----------------------------------------------------------------------------------


def test_the_table_ends_with_the_answer(timed: Make, side_by_side: Callable[..., Ran]) -> None:
    """Exit code 0 without a gate, whatever became slower."""
    ran = side_by_side([timed("a", STEADY), timed("b", STEADY)], [timed("a", SLOW), timed("b", STEADY)])
    assert (ran.code, ran.err) == (ExitCode.OK, "")
    lines = ran.out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["verdict", "slower", "same"]
    assert lines[-1].startswith("1 slower, 1 same; geometric mean 1.049x the time (95 %: ")


@pytest.mark.parametrize(
    ("after", "typed", "code"),
    [
        (SLOW, "3%", ExitCode.FAILED),
        (SLOW, "9.5", ExitCode.FAILED),
        (SLOW, "0", ExitCode.FAILED),
        (SLOW, "11%", ExitCode.OK),
        (STEADY, "0", ExitCode.OK),
    ],
)
def test_the_gate_stops_what_is_slower_than_it_allows(
    timed: Make, side_by_side: Callable[..., Ran], after: list[float], typed: str, code: ExitCode
) -> None:
    """Exit code 1, the cell and its percentage in one line on stderr."""
    ran = side_by_side([timed("a", STEADY)], [timed("a", after)], "--fail-above", typed)
    said = f"gate of {typed.rstrip('%')} % failed: a digits ort-cpu fp32 is 10.0 % slower\n"
    assert (ran.code, ran.err) == (code, said if code else "")


def test_the_gate_stops_what_failed_and_nothing_else_that_is_gone(
    timed: Make, side_by_side: Callable[..., Ran]
) -> None:
    """A cell nobody asked for again is no failure; one that could not be judged is said."""
    before = [timed(name, STEADY) for name in ("a", "b", "c")]
    ran = side_by_side(before, [timed("c", [1.0])], "--fail-above", "3%")
    assert (ran.code, ran.err) == (ExitCode.OK, "warning: --fail-above cannot judge 1 unclear cells\n")
    ran = side_by_side(before, [timed("a", [], **FAILED), timed("c", STEADY)], "--fail-above", "3%")
    assert (ran.code, ran.err) == (ExitCode.FAILED, "gate of 3 % failed: a digits ort-cpu fp32 failed\n")


@pytest.mark.parametrize("typed", ["-1", "x", "", "nan", "inf", "3%%", "1e3", "3 percent"])
def test_a_gate_that_is_no_percentage_is_refused(tmp_path: Path, typed: str) -> None:
    """Before any folder is read."""
    ran = run_here("compare", tmp_path, tmp_path, "--fail-above", typed)
    assert (ran.code, ran.out) == (ExitCode.USAGE, "")
    assert f"--fail-above {typed!r} is no percentage from 0\n\nhint: --fail-above 3%" in ran.err


def test_two_machines_are_refused_unless_forced(timed: Make, side_by_side: Callable[..., Ran]) -> None:
    """The output of a forced one says so."""
    other = msgspec.structs.replace(this_system(), id="other-machine")
    sides = [timed("a", STEADY)], [timed("a", SLOW, system=other)]
    ran = side_by_side(*sides)
    assert (ran.code, ran.out) == (ExitCode.USAGE, "")
    assert re.search(r"^error: .* on other-machine: their .*\n\nhint: bobrt compare .* --force$", ran.err)
    forced = side_by_side(*sides, "--force")
    assert forced.code == ExitCode.OK
    assert f"The systems differ: {this_system().id} -> other-machine" in forced.out
    assert f"id: {this_system().id} -> other-machine" in forced.out


def test_a_folder_of_two_machines_is_refused_unless_forced(
    timed: Make, side_by_side: Callable[..., Ran]
) -> None:
    """Forced, the newest record of each cell counts, and that is said."""
    other = msgspec.structs.replace(this_system(), id="other-machine")
    before = [timed("a", SLOW, system=other, started="2019-01-01T00:00:00+00:00"), timed("a", STEADY)]
    ran = side_by_side(before, [timed("a", STEADY)])
    assert ran.code == ExitCode.USAGE
    assert "before holds results of 2 systems: " in ran.err
    forced = side_by_side(before, [timed("a", STEADY)], "--force")
    assert "the first folder has 2 records of 1 cells; the newest count" in forced.out
    assert "1 same; geometric mean 1.000x" in forced.out


def test_an_empty_folder_and_nothing_in_common_have_exit_code_4(
    timed: Make, side_by_side: Callable[..., Ran], tmp_path: Path
) -> None:
    """The folder is named."""
    ran = side_by_side([timed("a", STEADY)], [])
    assert (ran.code, ran.out) == (ExitCode.NOTHING_MATCHED, "")
    assert ran.err.startswith(f"error: no results in {tmp_path / 'after'}\n\nhint: ")
    ran = side_by_side([timed("a", STEADY)], [timed("b", STEADY)])
    assert ran.code == ExitCode.NOTHING_MATCHED
    assert ran.err.startswith("error: the two folders have no cell in common\n")


def test_a_record_of_a_newer_bobrt_is_named_and_left_out(
    timed: Make, side_by_side: Callable[..., Ran], tmp_path: Path
) -> None:
    """The rest is compared."""
    newer = tmp_path / "before" / "newer.json"
    newer.parent.mkdir()
    newer.write_text('{"schema": 2}')
    ran = side_by_side([timed("a", STEADY)], [timed("a", STEADY)])
    assert ran.code == ExitCode.OK
    assert ran.err == f"warning: result {newer} has schema 2; this bobrt reads 1; left out\n"
    assert "1 same" in ran.out


def test_json_is_strict_and_versioned(timed: Make, side_by_side: Callable[..., Ran]) -> None:
    """Everything the table has, in one document without NaN, also when the gate fails."""
    before, after = [timed("a", STEADY), timed("b", STEADY)], [timed("a", SLOW), timed("b", [1.0])]
    ran = side_by_side(before, after, "--json", "--fail-above", "3%")
    content = json.loads(ran.out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert (ran.code, content["schema"]) == (ExitCode.FAILED, 1)
    assert content["counts"] == {"slower": 1, "unclear": 1}
    assert [row["cell"]["backbone"] for row in content["rows"]] == ["a", "b"]
    assert content["rows"][0]["ratio"]["value"] == pytest.approx(1.1, rel=1e-4)
    assert content["rows"][1]["ratio"] is None
    assert content["gate"]["reasons"] == ["a digits ort-cpu fp32 is 10.0 % slower"]
