"""The committed results: whole, honest to the default plan, and what the README shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from support import run_bobrt

from bench import plan, store
from bobrt.catalogue import backbone
from bobrt.spec import Precision, State

if TYPE_CHECKING:
    from bobrt.result import Result

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = ROOT / "bench" / "published" / "quick"


def _results() -> list[Result]:
    loaded = store.read_all(PUBLISHED)
    assert loaded.problems == []
    return loaded.results


def test_every_cell_of_the_default_plan_is_published() -> None:
    """One record for each question of the plan, none failed, none of an unclean source tree."""
    results = _results()

    assert {r.cell.key for r in results} == {q.cell.key for q in plan.questions(plan.load("quick"))}
    assert {r.state for r in results} == {State.COMPLETE, State.UNSUPPORTED}
    assert [r.cell.key for r in results if r.system.git_dirty] == []


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


def test_the_readme_shows_the_published_results() -> None:
    """The README's block is what the command above it prints, to the letter."""
    ran = run_bobrt("report", "--results", PUBLISHED)

    assert ran.code == 0
    assert ran.out in (ROOT / "README.md").read_text(encoding="utf-8")
