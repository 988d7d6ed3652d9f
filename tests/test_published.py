"""The committed results: whole, honest to the default plan, and what the README shows."""

from __future__ import annotations

import importlib
import json
import re
import shlex
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from support import run_bobrt

from bench import plan, store
from bobrt.catalogue import backbone
from bobrt.spec import Precision, Protocol, State

if TYPE_CHECKING:
    from bobrt.result import Result

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = ROOT / "bench" / "published"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _results(name: str = "quick") -> list[Result]:
    loaded = store.read_all(PUBLISHED / name)
    assert loaded.problems == []
    return loaded.results


@pytest.mark.parametrize("name", ["quick", "gauntlet"])
def test_every_cell_of_a_published_plan_is_there(name: str) -> None:
    """One record for each question of the plan, none failed, none of an unclean source tree."""
    results = _results(name)

    assert {r.cell.key for r in results} == {q.cell.key for q in plan.questions(plan.load(name))}
    assert {r.state for r in results} <= {State.COMPLETE, State.UNSUPPORTED}
    assert [r.cell.key for r in results if r.system.git_dirty] == []


def test_every_engine_answered_the_whole_gauntlet() -> None:
    """What int8 does to robustness, calibration and retrieval is there for each backbone, beside fp32."""
    results = _results("gauntlet")
    asked = {"reliability", "corruptions", "lookalikes", "adversarial"}
    tuned = [r for r in results if (r.cell.task, r.cell.protocol) == ("digits", Protocol.FINETUNE)]

    assert {r.state for r in results} == {State.COMPLETE}
    assert [answer.reason for r in results for answer in r.gauntlet if answer.reason] == []
    assert all({answer.question for answer in r.gauntlet} == asked for r in tuned)
    assert all(r.artifact and (r.artifact.precision_share or 0) >= 0.9 for r in tuned)
    found = {(r.cell.backbone, r.cell.precision) for r in tuned}
    assert found == set(product(plan.load("gauntlet").backbones, (Precision.FP32, Precision.INT8)))
    outliers = {r.cell.key for r in results for answer in r.gauntlet if answer.question == "digits-8-9"}
    assert outliers == {r.cell.key for r in results if r.cell.task == "digits-0-7"}


def test_every_fine_tune_learned_its_task() -> None:
    """At least 95 % on validation in fp32, for at least five backbones of at least four families."""
    learned = {
        r.cell.backbone: r.accuracy.extra["validation"]
        for r in _results()
        if r.accuracy and r.cell.precision is Precision.FP32
    }

    assert len(learned) >= 5
    assert len({backbone(name).family for name in learned}) >= 4
    assert [f"{name} {value:.3f}" for name, value in learned.items() if value < 0.95] == []


def test_engines_that_cannot_run_are_recorded_with_what_is_known() -> None:
    """Each TensorRT-RTX cell has its reason, the size of its engine, its build time and its target."""
    engines = [r for r in _results() if r.cell.runtime == "tensorrt-rtx"]

    assert len(engines) == 15
    assert all(r.state is State.UNSUPPORTED and "NVIDIA" in r.reason for r in engines)
    assert all(
        r.artifact and r.artifact.bytes and r.artifact.build_s > 0 and r.artifact.target for r in engines
    )


@pytest.mark.parametrize(
    "command", re.findall(r"^    bobrt ((?:report|pick) --results bench/published/.*)$", README, re.MULTILINE)
)
def test_the_readme_shows_what_its_commands_print(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block after such a command is what it prints, or a part of it, to the letter."""
    monkeypatch.chdir(ROOT)
    after = README.partition(f"    bobrt {command}\n")[2].partition("\n    bobrt ")[0].partition("\n## ")[0]
    blocks = re.findall(r"^```\n(.*?)^```", after, re.MULTILINE | re.DOTALL)
    ran = run_bobrt(*shlex.split(command))

    assert ran.code == 0, ran.err
    assert blocks
    assert [block for block in blocks if block not in ran.out] == []


def test_the_readme_shows_a_command_of_each_kind() -> None:
    """The answer, the default plan whole, and the gauntlet."""
    for words in ("pick --results bench/published/", "report --results bench/published/gauntlet"):
        assert f"    bobrt {words}" in README
    assert run_bobrt("report", "--results", PUBLISHED / "quick").out in README


def test_the_support_matrix_is_what_its_records_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is made of them, each is of an architecture of the catalogue, and the goals are kept."""
    monkeypatch.syspath_prepend(ROOT / "tests" / "benchmarks")
    matrix = importlib.import_module("matrix")
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(matrix.RECORDS.glob("*.json"))]

    assert matrix.TABLE.read_text(encoding="utf-8") == matrix.table(records)
    assert {record["architecture"] for record in records} <= matrix.architectures().keys()
    counted = [record for record in records if not matrix._too_large(record)]
    assert len(counted) >= 60
    for precision, goal in matrix.GOALS.items():
        assert sum(matrix._holds(r, precision) for r in counted) >= goal / 100 * len(counted), precision


def test_eight_bits_for_tensorrt_lose_less_than_a_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each int8 file that an engine of the default plan is built from, with half of its work in int8."""
    monkeypatch.syspath_prepend(ROOT / "tests" / "benchmarks")
    benchmark = importlib.import_module("eight_bits")
    run = msgspec.json.decode(benchmark.RESULT.read_bytes(), type=benchmark.Run)
    rows = [row for row in run.rows if row.precision is Precision.INT8]

    assert run.system.git_dirty is False
    assert [row.backbone for row in rows] == list(plan.load("quick").backbones)
    assert [row.backbone for row in rows if row.drop > 1.0 or row.share < 0.5] == []
