"""Rounds: every cell is timed several times, in processes of its own, and the record grows with each."""

from __future__ import annotations

import json
import re
import shutil
import signal
from itertools import accumulate, groupby, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
import pytest
from support import TINY, Ran, Workspace, write_plan

from bench import campaign, store
from bench import plan as plans
from bench import rounds as rounds_of
from bench.measure import Timed
from bench.reference import Level, drift_of
from bench.verdict import rank

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bobrt.result import Result

    Records = Callable[[Workspace], dict[str, Path]]

ORT = {"runtimes": ["ort-cpu"], "precisions": ["fp32", "int8"], "reference": False}
"""Changes of the tiny plan that leave its two cheapest cells."""
ASKED = {"ort-cpu fp32", "ort-cpu int8"}


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def rounds(space: Workspace, records: Records) -> dict[str, int]:
    """Return how many rounds each record of a measured cell holds."""
    found = {name: read(path) for name, path in records(space).items()}
    return {name: len(r["latency"][0]["repeats_ms"]) for name, r in found.items() if r["latency"]}


class Grown(NamedTuple):
    """The tiny run, two of whose cells were timed in two more rounds."""

    space: Workspace
    asked: tuple[str | Path, ...]
    before: dict[str, dict[str, Any]]
    dry: Ran
    ran: Ran


@pytest.fixture(scope="module")
def grown(
    tiny_run: tuple[Workspace, Ran], tmp_path_factory: pytest.TempPathFactory, records: Records
) -> Grown:
    """`--repeat 3`, asked dry and then for real; nobody may write into it."""
    folder = tmp_path_factory.mktemp("grown")
    space = Workspace(folder / "cache", folder / "results")
    for ours, made in zip(space, tiny_run[0], strict=True):
        shutil.copytree(made, ours)
    before = {name: read(path) for name, path in records(space).items()}
    asked = ("bench", "--plan", write_plan(folder / "plan.toml", **ORT), "--repeat", "3")
    return Grown(space, asked, before, space.here(*asked, "--dry-run", "--json"), space.here(*asked))


def test_what_one_round_says_against_a_row_stays(make_result: Callable[..., Result], tmp_path: Path) -> None:
    """A warm-up that was not steady once is still in the times; what only more rounds cure, they cure."""
    path, result = tmp_path / "r.json", make_result("a", caveats=["busy-machine"])
    times = np.random.default_rng(0).integers(1000, 1010, 300)
    said = []
    for number, steady in enumerate([False, True, True], start=1):
        earlier = store.read_samples(path, result) if number > 1 else {}
        timed = {"latency-1": Timed(times, 0.1, steady=steady)}
        result = rounds_of.add(path, result, earlier, timed, Level("reference", 1.0))
        said.append(result.caveats)
    assert said == [["busy-machine", "few-rounds", "never-steady"]] * 2 + [["busy-machine", "never-steady"]]
    assert store.read(path) == result.sealed()


def test_an_unstable_row_is_not_ranked(make_result: Callable[..., Result], tmp_path: Path) -> None:
    """Three rounds that lie more than ten per cent apart are no number to rank, and the reason says so."""
    result = make_result("a")
    noise = np.random.default_rng(0).normal(0, 1e3, (3, 200))
    levels = np.array([1e6, 1e6, 1.2e6])
    earlier = {"latency-1": [(levels[i] + noise[i]).astype(np.int64) for i in (0, 1)]}
    timed = {"latency-1": Timed((levels[2] + noise[2]).astype(np.int64), 0.1)}
    result = msgspec.structs.replace(result, drift=drift_of("reference", [1.0, 1.0]))
    result = rounds_of.add(tmp_path / "r.json", result, earlier, timed, Level("reference", 1.0))
    assert result.caveats == ["unstable"]
    rankings, (left_out,) = rank([result])
    assert rankings == []
    assert left_out.reason == "unstable: its bar goes from 1 to 1.2 ms, 0 % drift of the machine counted in"


# -- the order --------------------------------------------------------------------------------


def test_the_first_round_leaves_the_cells_of_a_checkpoint_side_by_side() -> None:
    """Every cell once, checkpoints and the cells of each shuffled, and the same order every time."""
    changes = {"backbones": ("test_resnet", "test_vit", "test_convnext"), "seeds": (0, 1)}
    questions = plans.questions(plans.load(str(TINY), changes))
    order = campaign._by_checkpoint(questions)
    assert sorted(order) == list(range(len(questions))) == list(range(6 * 7))
    checkpoints = [(questions[index].cell.backbone, questions[index].cell.seed) for index in order]
    side_by_side = [key for key, _ in groupby(checkpoints)]
    assert len(side_by_side) == len(set(checkpoints)) == 6
    assert side_by_side != list(dict.fromkeys((q.cell.backbone, q.cell.seed) for q in questions))
    within = {tuple(index % 7 for index in order[start : start + 7]) for start in range(0, 6 * 7, 7)}
    assert len(within) > 1
    assert tuple(range(7)) not in within
    assert campaign._by_checkpoint(plans.questions(plans.load(str(TINY), changes))) == order


def test_a_resumed_run_goes_in_the_order_of_the_first(
    tiny_run: tuple[Workspace, Ran], workspace: Workspace, records: Records
) -> None:
    """Every cell is told at its place in that order; done cells and one to be measured alike."""

    def places(ran: Ran) -> list[str]:
        return [line.partition(":")[0] for line in ran.err.splitlines() if line.startswith("[")]

    first = places(tiny_run[1])
    assert [line[:5] for line in first] == [f"[{place}/7]" for place in range(1, 8)]
    questions = plans.questions(plans.load(str(TINY)))
    assert [line[6:] for line in first] == [
        str(questions[index].cell) for index in campaign._by_checkpoint(questions)
    ]
    records(workspace)["ort-cpu fp32"].unlink()
    assert places(workspace.here("bench", "--plan", TINY)) == first


def test_each_round_has_an_order_of_its_own(
    workspace: Workspace, plan: Callable[..., Path], plugin: dict[str, str]
) -> None:
    """Every cell is timed once a round, and the rounds do not follow each other in the same order."""
    path = plan(**ORT | {"runtimes": ["ort-cpu", "mylab/sound"]})
    ran = workspace.bobrt("bench", "--plan", path, "--repeat", "3", env=plugin)
    assert ran.code == 0, ran.err
    orders: dict[str, list[str]] = {}
    for line in ran.err.splitlines():
        if found := re.match(r"round (\d)/3 \[\d/4\] test_resnet digits ([^:]*): ", line):
            orders.setdefault(found[1], []).append(found[2])
    assert list(orders) == ["2", "3"]
    assert [set(order) for order in orders.values()] == [ASKED | {"mylab/sound fp32"}] * 2
    assert orders["2"] != orders["3"]


# -- what more rounds leave --------------------------------------------------------------------


def test_more_rounds_are_added_to_what_is_there(grown: Grown, records: Records) -> None:
    """`--repeat 3` times each cell twice more; what was asked once is kept, and no file is made."""
    ran, before = grown.ran, grown.before
    assert ran.code == 0, ran.err
    assert "· accuracy" not in ran.err
    assert "making" not in ran.err
    after = {name: read(path) for name, path in records(grown.space).items()}
    for name in ASKED:
        was, now = before[name], after[name]
        assert now["accuracy"] == was["accuracy"]
        assert now["parity"] == was["parity"]
        assert now["memory"] == was["memory"]
        row = now["latency"][0]
        assert row["repeats_ms"][0] == was["latency"][0]["p50_ms"]
        assert len(row["repeats_ms"]) == 3
        machine = now["drift"]["repeats_ms"]
        assert len(machine) == 3
        drift = (max(machine) - min(machine)) / sorted(machine)[1]
        assert now["drift"]["relative"] == pytest.approx(drift)
        low, high = min(row["repeats_ms"]), max(row["repeats_ms"])
        short = max(1.0, (1 + drift) / (high / low)) ** 0.5
        assert row["spread_ms"] == pytest.approx([low / short, high * short])
        assert row["n"] > was["latency"][0]["n"]
        assert len(now["throughput"][0]["repeats"]) == 3
        assert "few-rounds" in was["caveats"]
        assert "few-rounds" not in now["caveats"]
        assert ("unstable" in now["caveats"]) == (row["spread_ms"][1] > 1.1 * row["spread_ms"][0])
    assert {name: after[name] for name in after if name not in ASKED} == {
        name: before[name] for name in before if name not in ASKED
    }


@pytest.mark.parametrize("name", sorted(ASKED))
def test_raw_times_of_every_round_give_the_numbers(grown: Grown, records: Records, name: str) -> None:
    """One file beside the record holds each call of each round, and no file of an earlier round is left."""
    path = records(grown.space)[name]
    record = read(path)
    assert [p.name for p in path.parent.glob(f"{path.stem}*.samples.json")] == [record["samples"]["file"]]
    content = read(path.with_name(record["samples"]["file"]))
    times, counts = content["times"]["latency-1"], content["rounds"]["latency-1"]
    assert len(counts) == 3
    assert sum(counts) == len(times) == record["latency"][0]["n"]
    ends = [0, *accumulate(counts)]
    parts = [sorted(times[start:end]) for start, end in pairwise(ends)]
    medians = [part[len(part) - 1 - len(part) // 2] / 1e6 for part in parts]
    assert record["latency"][0]["repeats_ms"] == medians


def test_done_rounds_are_not_done_again(grown: Grown, records: Records) -> None:
    """The same command finds everything done; fewer rounds than there are want nothing; a dry run says so."""
    dry = json.loads(grown.dry.out)["plan"]
    assert {entry["reason"] for entry in dry if entry["action"] == "run"} == {"1 of 3 rounds timed"}
    assert not [entry for entry in dry if entry["make"] or entry["again"]]
    before = {path: path.read_bytes() for path in records(grown.space).values()}
    for args in (grown.asked, grown.asked[:3]):
        ran = grown.space.here(*args)
        assert ran.code == 0
        assert ran.err.count("already done") == 2 == len(ran.err.splitlines())
    assert {path: path.read_bytes() for path in records(grown.space).values()} == before


def test_rerun_starts_the_rounds_anew(
    grown: Grown, workspace: Workspace, records: Records, plan: Callable[..., Path]
) -> None:
    """`--rerun` with two rounds leaves two, whatever was there, and asks for accuracy once."""
    shutil.copytree(grown.space.results, workspace.results, dirs_exist_ok=True)
    assert rounds(workspace, records)["ort-cpu fp32"] == 3
    asked = ("bench", "--plan", plan(**ORT | {"precisions": ["fp32"]}), "--rerun")
    ran = workspace.here(*asked, "--repeat", "2")
    assert ran.code == 0, ran.err
    counts = rounds(workspace, records)
    assert (counts["ort-cpu fp32"], counts["torch fp32"], counts["ort-cpu int8"]) == (2, 1, 3)
    assert ran.err.count("ort-cpu fp32 · accuracy") == 1


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill -9"])
def test_an_interrupted_round_is_the_only_one_that_is_lost(
    workspace: Workspace,
    records: Records,
    plan: Callable[..., Path],
    start: Callable[..., Any],
    how: signal.Signals,
) -> None:
    """Rounds that ended are in the records; the same command does the rest and no more."""
    path = plan(**ORT)
    run = start(workspace, "bench", "--plan", path, "--repeat", "3")
    run.until("round 3/3")
    run.process.send_signal(how)
    assert run.ended() in {130, -signal.SIGKILL}
    kept = rounds(workspace, records)
    assert {kept["ort-cpu fp32"], kept["ort-cpu int8"]} <= {2, 3}
    ran = workspace.here("bench", "--plan", path, "--repeat", "3")
    assert ran.code == 0, ran.err
    now = rounds(workspace, records)
    assert now == kept | {"ort-cpu fp32": 3, "ort-cpu int8": 3}
    assert "round 2/3" not in ran.err
    assert len(re.findall(r"^round 3/3 ", ran.err, re.MULTILINE)) == list(kept.values()).count(2)


def test_a_cell_that_fails_in_a_later_round_has_failed(
    workspace: Workspace, plan: Callable[..., Path], plugin: dict[str, str], records: Records
) -> None:
    """An engine that hangs the second time is no engine to ship: the record says in which round, and why."""
    changes: dict[str, Any] = {"runtimes": ["mylab/hangs"], "precisions": ["fp32"], "reference": False}
    path = plan(**changes, limits={"cell_s": 4})
    ran = workspace.bobrt("bench", "--plan", path, env={**plugin, "MYLAB_WELL": "1"})
    assert ran.code == 0, ran.err
    ran = workspace.bobrt("bench", "--plan", path, "--repeat", "2", env=plugin)
    assert ran.code == 1
    record = read(records(workspace)["mylab/hangs fp32"])
    assert record["state"] == "failed"
    assert record["reason"] == "in round 2: gave up after its time limit of 4 s, while starting"
    assert record["log"]


def test_rounds_cannot_be_added_to_times_that_are_gone(
    workspace: Workspace, records: Records, plan: Callable[..., Path]
) -> None:
    """Without its raw times a record cannot grow: the cell is measured anew, and the reason is said."""
    path = records(workspace)["ort-cpu fp32"]
    path.with_name(read(path)["samples"]["file"]).unlink()
    asked = plan(**ORT | {"precisions": ["fp32"]})
    ran = workspace.here("bench", "--plan", asked, "--repeat", "2")
    assert ran.code == 0, ran.err
    assert "to do again: the raw times of its earlier rounds are gone" in ran.err
    assert rounds(workspace, records)["ort-cpu fp32"] == 2


def test_min_time_is_another_window(
    workspace: Workspace, records: Records, plan: Callable[..., Path]
) -> None:
    """`--min-time` replaces the plan's, moves a cap that is too low, and what was timed is timed anew."""
    path = plan(**ORT | {"precisions": ["fp32"]})
    ran = workspace.here("bench", "--plan", path, "--min-time", "1.5")
    assert ran.code == 0, ran.err
    record = read(records(workspace)["ort-cpu fp32"])
    assert (record["timing"]["min_s"], record["timing"]["max_s"]) == (1.5, 1.5)
    assert (
        sum(
            read(records(workspace)["ort-cpu fp32"].with_name(record["samples"]["file"]))["times"][
                "latency-1"
            ]
        )
        > 1e9
    )


@pytest.mark.parametrize(
    ("timing", "words"),
    [
        ({"max_s": 0}, "key 'timing.max_s': Expected `float` > 0.0"),
        ({"min_s": 3, "max_s": 2}, "key 'max_s': a loop is to last at least 3 s and at most 2 s"),
        ({"width": 0}, "key 'timing.width': Expected `float` > 0.0"),
    ],
)
def test_windows_that_cannot_be(
    space: Workspace, plan: Callable[..., Path], timing: dict[str, float], words: str
) -> None:
    """A cap of zero, or below the least time, is a plan that is wrong: one line with file, line and key."""
    ran = space.here("bench", "--plan", plan(timing=timing))
    assert ran.code == 2
    assert words in ran.err


@pytest.mark.parametrize("flag", [("--repeat", "0"), ("--repeat", "x"), ("--min-time", "0")])
def test_flags_that_cannot_be(space: Workspace, flag: tuple[str, str]) -> None:
    """No rounds, or no time, is a usage error that names the flag."""
    ran = space.here("bench", "--plan", TINY, *flag)
    assert ran.code == 2
    assert flag[0] in ran.err
