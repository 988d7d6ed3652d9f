"""What was measured stands when it cannot be measured anew, for want of a disk, a GPU or a tool."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from support import TINY

from bench import campaign, store, supervise
from bench import plan as plans
from bench.campaign import Campaign
from bench.decide import Desk
from bench.show import report
from bobrt.artifacts import Workshop
from bobrt.console import Progress
from bobrt.spec import Precision, State
from engines import runtimes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support import Workspace

    from bench.plan import Question
    from bobrt.errors import ErrorKind
    from bobrt.result import Result

    Records = Callable[[Workspace], dict[str, Path]]

LOST = "the GPU failed: cuStreamSynchronize failed: GPU is lost"


def asked(desk: Desk, name: str) -> Question:
    """Return the question of the tiny plan with this runtime and precision."""
    return next(q for q in plans.questions(desk.plan) if str(q.cell) == f"test_resnet digits {name}")


def ran(desk: Desk, name: str) -> Result:
    with Progress() as progress:
        (result,) = Campaign(desk, progress).run([asked(desk, name)])
    return result


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """From now on every worker ends with an error of its GPU; it is gone, or it is still there."""

    def begin(*, gone: bool, kind: ErrorKind = "failed") -> None:
        def run(_: object, *, log: Path, **__: object) -> supervise.Ended:
            log.parent.mkdir(exist_ok=True)
            log.write_text("its last words\n")
            return supervise.Ended(0, LOST, "dmesg", kind)

        monkeypatch.setattr(campaign.supervise, "run", run)
        monkeypatch.setattr(campaign, "on_gpu", lambda _: True)
        monkeypatch.setattr(campaign, "gpu_is_lost", lambda: gone)

    return begin


def test_a_gpu_that_vanishes_in_the_second_round_leaves_the_first(
    workspace: Workspace, failing: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row says so and is counted as failed; with the GPU back, the run goes on with that round."""
    desk = Desk(plans.load(str(TINY), repeat=2), workspace.cache, workspace.results)
    path = desk.path(asked(desk, "ort-cpu fp32").cell)
    before = desk.before(asked(desk, "ort-cpu fp32"))
    assert before is not None
    failing(gone=True)
    result = ran(desk, "ort-cpu fp32")
    assert (result.state, result.latency) == (State.COMPLETE, before.latency)
    assert result.accuracy == before.accuracy
    assert "not-renewed" in result.caveats
    assert result.notes[-1] == f"in round 2: {LOST} (dmesg)"
    assert path.with_name(str(result.log)).read_text() == "its last words\n"
    assert report.failed([result]) == [result]
    assert ran(desk, "ort-cpu fp32").notes == result.notes
    monkeypatch.undo()
    again = desk.decide(asked(desk, "ort-cpu fp32"))
    assert (again.action, again.reason, again.rounds) == ("run", "1 of 2 rounds timed", 1)
    result = ran(desk, "ort-cpu fp32")
    assert [len(row.repeats_ms) for row in result.latency] == [2]
    assert result.latency[0].repeats_ms[0] == before.latency[0].repeats_ms[0]
    assert "not-renewed" not in result.caveats
    assert result.log is None
    assert not path.with_suffix(".log").exists()


def test_an_engine_that_fails_on_a_gpu_that_is_there_has_failed(
    workspace: Workspace, failing: Callable[..., None]
) -> None:
    """Its first round does not make it an engine to be shipped."""
    desk = Desk(plans.load(str(TINY), repeat=2), workspace.cache, workspace.results)
    failing(gone=False)
    result = ran(desk, "ort-cpu fp32")
    assert (result.state, result.reason) == (State.FAILED, f"in round 2: {LOST} (dmesg)")


def test_what_was_to_be_measured_again_is_so_when_the_gpu_is_back(
    workspace: Workspace, failing: Callable[..., None]
) -> None:
    """`--rerun` that fails with its GPU loses nothing, and the same command without it tries again."""
    plan = plans.load(str(TINY))
    failing(gone=True)
    result = ran(Desk(plan, workspace.cache, workspace.results, rerun=True), "ort-cpu fp32")
    assert (result.state, result.notes[-1]) == (State.COMPLETE, f"{LOST} (dmesg)")
    desk = Desk(plan, workspace.cache, workspace.results)
    decision = desk.decide(asked(desk, "ort-cpu fp32"))
    assert (decision.action, decision.again) == ("run", f"not measured anew before: {LOST} (dmesg)")


def test_later_rounds_are_not_added_to_a_record_that_was_to_be_made_anew(
    workspace: Workspace, failing: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU is gone in the first of two rounds and back in the second: the old round stands alone."""
    desk = Desk(plans.load(str(TINY), repeat=2), workspace.cache, workspace.results, rerun=True)
    before = desk.before(asked(desk, "ort-cpu fp32"))
    assert before is not None
    really = campaign.supervise.run
    failing(gone=True)
    fails = campaign.supervise.run

    def run(*told: Any, **more: Any) -> supervise.Ended:
        monkeypatch.setattr(campaign.supervise, "run", really)
        return fails(*told, **more)

    monkeypatch.setattr(campaign.supervise, "run", run)
    result = ran(desk, "ort-cpu fp32")
    assert (result.latency, "not-renewed" in result.caveats) == (before.latency, True)


def test_a_gpu_that_vanishes_while_a_file_is_made_leaves_the_record(
    workspace: Workspace, failing: Callable[..., None]
) -> None:
    """Its engine is gone and cannot be built again without a GPU: what was measured of it stands."""
    shutil.rmtree(workspace.cache / "int8-onnxruntime")
    desk = Desk(plans.load(str(TINY)), workspace.cache, workspace.results)
    failing(gone=False)
    before = desk.before(asked(desk, "ort-cpu int8"))
    assert before is not None
    failing(gone=True)
    result = ran(desk, "ort-cpu int8")
    assert (result.state, result.latency) == (State.COMPLETE, before.latency)
    assert result.notes[-1] == f"making its int8-onnxruntime: {LOST} (dmesg)"
    failing(gone=False)
    assert ran(desk, "ort-cpu int8").state is State.FAILED


def test_a_cell_that_no_gpu_answers_fails_alone(workspace: Workspace, failing: Callable[..., None]) -> None:
    """CUDA's refusal is this machine's fault, and not the end of the cells that need no GPU."""
    failing(gone=True, kind="machine")
    desk = Desk(plans.load(str(TINY)), workspace.cache, workspace.results, rerun=True)
    with Progress() as progress:
        results = Campaign(desk, progress).run(plans.questions(desk.plan))
    complete = [result for result in results if result.state is State.COMPLETE]
    assert len(complete) > 1
    assert all("not-renewed" in result.caveats for result in complete)


def test_a_hidden_gpu_takes_no_record_of_tf32_away(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tf32 of PyTorch, with `CUDA_VISIBLE_DEVICES=`: what a GPU answered stands, and nothing is made."""
    changes = {"runtimes": ("torch",), "precisions": ("tf32",)}
    desk = Desk(plans.load(str(TINY), changes), workspace.cache, workspace.results)
    question = asked(desk, "torch tf32")
    monkeypatch.setattr(runtimes, "no_gpu_for_torch", lambda: "")
    assert desk.decide(question)[1:4] == ("run", "no result yet", [])
    fp32 = desk.before(asked(desk, "torch fp32"))
    assert fp32 is not None
    monkeypatch.setattr(runtimes, "no_gpu_for_torch", lambda: "it is hidden")
    why = "tf32 is arithmetic of a GPU: it is hidden"
    assert desk.decide(question)[1:4] == ("unsupported", why, [])
    assert (ran(desk, "torch tf32").reason, desk.decide(question).action) == (why, "done")
    cell = msgspec.structs.replace(fp32.cell, precision=Precision.TF32)
    store.write(desk.path(question.cell), msgspec.structs.replace(fp32, cell=cell))
    assert desk.decide(question)[1:4] == ("done", why, [])
    assert ran(desk, "torch tf32").state is State.COMPLETE


def test_a_tool_that_is_missing_now_takes_no_record_away(
    workspace: Workspace,
    records: Records,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A cell whose file cannot be made here any more stays as it was measured, and says so."""
    monkeypatch.setattr(Workshop, "absent", lambda _, stage: ["a-tool"] if stage.startswith("int8") else [])
    shutil.rmtree(workspace.cache / "int8-onnxruntime")
    desk = Desk(plans.load(str(TINY)), workspace.cache, workspace.results)
    path = records(workspace)["ort-cpu int8"]
    before = path.read_bytes()
    why = "making its int8-onnxruntime needs a-tool, not installed here"
    assert desk.decide(asked(desk, "ort-cpu int8"))[1:4] == ("done", why, [])
    assert ran(desk, "ort-cpu int8").state is State.COMPLETE
    assert f"already done ({why})" in capsys.readouterr().err
    assert path.read_bytes() == before
    path.unlink()
    assert desk.decide(asked(desk, "ort-cpu int8"))[1:3] == ("unsupported", why)


def test_nothing_is_made_at_a_precision_the_gpu_lacks(
    space: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fp8 on Ampere: the reason names both sides, no file is made on the way to it, and then it is done."""
    monkeypatch.setattr(runtimes, "compute_capability", lambda: (8, 6))
    changes = {"runtimes": ("tensorrt-rtx",), "precisions": ("fp8",)}
    desk = Desk(plans.load(str(TINY), changes), space.cache, space.results)
    decision = desk.decide(asked(desk, "tensorrt-rtx fp8"))
    why = "fp8 needs a GPU of compute capability 8.9, and this one has 8.6"
    assert decision[1:4] == ("unsupported", why, [])
    result = ran(desk, "tensorrt-rtx fp8")
    assert (result.state, result.reason, result.artifact) == (State.UNSUPPORTED, why, None)
    assert not space.cache.exists()
    assert desk.decide(asked(desk, "tensorrt-rtx fp8"))[1:4] == ("done", why, [])
    monkeypatch.setattr(runtimes, "compute_capability", lambda: (8, 9))
    assert desk.decide(asked(desk, "tensorrt-rtx fp8")).make


def test_what_a_runtime_turns_out_not_to_take_is_unsupported(
    workspace: Workspace, failing: Callable[..., None]
) -> None:
    """A kernel that is missing shows when the file is made, or opened; it is no failure of a run."""
    desk = Desk(plans.load(str(TINY)), workspace.cache, workspace.results, rerun=True)
    failing(gone=False, kind="unsupported")

    opened = ran(desk, "ort-cpu fp32")
    shutil.rmtree(workspace.cache / "int8-onnxruntime")
    made = ran(desk, "ort-cpu int8")

    for result in (opened, made):
        assert (result.state, result.reason, result.log) == (State.UNSUPPORTED, f"{LOST} (dmesg)", None)
    assert report.failed([opened, made]) == []
    assert not desk.path(opened.cell).with_suffix(".log").exists()
