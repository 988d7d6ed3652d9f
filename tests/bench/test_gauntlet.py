"""The gauntlet, end to end: one command adapts, exports, quantises and asks the file every question."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from support import Workspace, run_here, write_plan

from bench import gauntlet
from bench import plan as plans
from bench.show import gauntlet_report
from bobrt.data import Split
from bobrt.result import Answer, Report, Result
from bobrt.spec import Cell, Precision, Protocol
from bobrt.tasks import cards

if TYPE_CHECKING:
    from pathlib import Path

    from support import Ran


FROZEN = ["digits:probe", "digits:knn", "digits@10shot:lowshot"]
QUESTIONS = ["reliability", "corruptions", "lookalikes", "adversarial", "digits-8-9", "roxford5k"]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Path, Ran]:
    """Every question of one engine at two precisions, one of the other protocols'; two epochs where any."""
    root = tmp_path_factory.mktemp("gauntlet")
    space = Workspace(root / "cache", root / "results")
    home = {"XDG_CONFIG_HOME": str(root)}
    few = {"epochs": 30, "lr": 3e-3, "batch": 20}
    usual = {"runtimes": ["ort-cpu"], "reference": False, "lowshot": few}
    frozen = write_plan(
        root / "frozen.toml", tasks=FROZEN, precisions=["fp32"], gauntlet=["lookalikes"], **usual
    )
    plan = write_plan(
        root / "plan.toml", tasks=["digits-0-7"], precisions=["fp32", "int8"], gauntlet=QUESTIONS, **usual
    )
    first = space.here("bench", "--plan", frozen, env=home)
    assert first.code == 0, first.err
    ran = space.here("bench", "--plan", plan, env=home)
    return space, plan, ran._replace(out=space.here("report", "--json", env=home).out)


def results(ran: tuple[Workspace, Path, Ran]) -> dict[str, Result]:
    """Return the records by task, protocol and precision."""
    report = msgspec.json.decode(ran[2].out, type=Report)
    return {f"{r.cell.task} {r.cell.protocol} {r.cell.precision}": r for r in report.results}


def answers(result: Result) -> dict[str, Answer]:
    return {answer.question: answer for answer in result.gauntlet if not answer.reason}


@pytest.mark.heavy
def test_every_protocol_ends_in_an_engine_that_is_measured(ran: tuple[Workspace, Path, Ran]) -> None:
    """Each cell has an accuracy above guessing, a latency, and the drop against fp32 PyTorch."""
    assert ran[2].code == 0, ran[2].err
    found = results(ran)
    assert set(found) == {
        "digits probe fp32",
        "digits knn fp32",
        "digits@10shot lowshot fp32",
        "digits-0-7 finetune fp32",
        "digits-0-7 finetune int8",
    }
    for name, result in found.items():
        assert result.accuracy, name
        assert result.accuracy.value > 0.2, name
        assert result.accuracy.drop is not None, name
        assert result.latency, name
        assert result.parity, name
        if result.cell.precision is Precision.FP32:
            assert result.parity.max_abs < 1e-3, name
            assert abs(result.accuracy.drop) < 0.005, name


@pytest.mark.heavy
def test_each_engine_is_asked_what_it_can_answer(ran: tuple[Workspace, Path, Ran]) -> None:
    """Features alone answer lookalikes; held-out digits are asked of the engine that has not seen them."""
    found = results(ran)
    assert set(answers(found["digits knn fp32"])) == {"lookalikes"}
    assert set(answers(found["digits@10shot lowshot fp32"])) == {"lookalikes"}
    for precision in ("fp32", "int8"):
        asked = set(answers(found[f"digits-0-7 finetune {precision}"]))
        assert asked == {"reliability", "corruptions", "lookalikes", "adversarial", "digits-8-9"}


@pytest.mark.heavy
def test_the_answers_are_those_of_the_engine(ran: tuple[Workspace, Path, Ran]) -> None:
    """fp32 agrees with PyTorch where that was asked too; each figure is where a sound engine's lies."""
    asked = answers(results(ran)["digits-0-7 finetune fp32"])
    reliability, attack = asked["reliability"], asked["adversarial"]
    assert reliability.reference == pytest.approx(reliability.value, abs=1e-4)
    assert reliability.n == 362
    assert asked["lookalikes"].reference == pytest.approx(asked["lookalikes"].value, abs=1e-3)
    assert attack.reference == pytest.approx(attack.value, abs=0.01)
    assert attack.value is not None
    assert attack.extra["pgd20-8"] <= attack.value < attack.extra["clean"]
    spoilt = asked["corruptions"]
    assert spoilt.n == 200
    assert spoilt.value is not None
    assert spoilt.ci95 is not None
    assert spoilt.ci95[0] < spoilt.value < spoilt.ci95[1]
    assert spoilt.extra["severity_5"] < spoilt.extra["severity_1"]
    assert spoilt.extra["answers"] == 200 * 75
    strange = asked["digits-8-9"]
    assert strange.n == 450
    assert strange.value is not None
    assert 0.6 < strange.value < 1.0
    assert strange.extra["k"] == 50.0


@pytest.mark.heavy
def test_what_was_asked_is_not_asked_again_and_what_is_new_is(ran: tuple[Workspace, Path, Ran]) -> None:
    space, plan, _ = ran
    home = {"XDG_CONFIG_HOME": str(plan.parent)}
    again = space.here("bench", "--plan", plan, "--dry-run", "--json", env=home)
    assert {cell["action"] for cell in json.loads(again.out)["plan"]} == {"done"}
    plain = space.here("bench", "--plan", plan, "--gauntlet", "reliability", "--dry-run", "--json", env=home)
    assert {cell["action"] for cell in json.loads(plain.out)["plan"]} == {"done"}
    record = next(
        path
        for path in space.results.rglob("*.json")
        if "digits-0-7" in str(path) and "samples" not in path.name
    )
    content = msgspec.json.decode(record.read_bytes(), type=Result)
    kept = record.read_bytes()
    fewer = msgspec.structs.replace(content, gauntlet=content.gauntlet[1:]).sealed()
    record.write_bytes(msgspec.json.encode(fewer))
    told = space.here("bench", "--plan", plan, "--dry-run", "--json", env=home)
    record.write_bytes(kept)
    run = [cell for cell in json.loads(told.out)["plan"] if cell["action"] == "run"]
    assert [cell["reason"] for cell in run] == ["not asked before: reliability"]


@pytest.mark.heavy
def test_the_report_sets_the_precisions_side_by_side(ran: tuple[Workspace, Path, Ran]) -> None:
    """The table of people, the page and the record tell one story."""
    space, plan, _ = ran
    told = space.here("report", env={"XDG_CONFIG_HOME": str(plan.parent)})
    assert "The gauntlet: digits-0-7, finetune" in told.out
    lines = told.out[told.out.index("The gauntlet: digits-0-7") :].splitlines()[1:4]
    assert lines[0].split()[:3] == ["backbone", "runtime", "precision"]
    assert "reliability (ece, lower)" in lines[0]
    asked = answers(results(ran)["digits-0-7 finetune int8"])
    fp32 = answers(results(ran)["digits-0-7 finetune fp32"])
    int8 = next(line for line in lines[1:] if " int8 " in line)
    lost = 100 * (fp32["digits-8-9"].value - asked["digits-8-9"].value)  # type: ignore[operator]
    assert f"{100 * asked['digits-8-9'].value:.1f} ({lost:+.1f})".replace("-0.0", "+0.0") in int8  # type: ignore[operator]
    page = (space.results / "report.md").read_text()
    assert "## The gauntlet: digits-0-7, finetune" in page
    assert gauntlet_report.LEGEND in page


@pytest.mark.heavy
def test_a_question_whose_images_are_absent_is_told_and_not_counted_as_asked(
    ran: tuple[Workspace, Path, Ran],
) -> None:
    """The reason stands in every record and once in the report; nothing is run again for it."""
    found = [answer for result in results(ran).values() for answer in result.gauntlet if answer.reason]
    assert len(found) == 2
    assert {(answer.question, answer.value, answer.n) for answer in found} == {("roxford5k", None, 0)}
    assert "the data of task roxford5k is not here" in found[0].reason
    space, plan, _ = ran
    told = space.here("report", env={"XDG_CONFIG_HOME": str(plan.parent)})
    assert told.out.count("Not asked: roxford5k: skipped:") == 1
    assert not gauntlet.has_images(cards.named("roxford5k"))
    assert gauntlet.has_images(cards.named("reliability"))
    assert gauntlet.has_images(cards.named("digits-8-9"))


@pytest.mark.parametrize(
    ("task", "protocol", "question", "can"),
    [
        ("digits", Protocol.FINETUNE, "reliability", True),
        ("digits", Protocol.KNN, "reliability", False),
        ("digits", Protocol.KNN, "lookalikes", True),
        ("cub200", Protocol.PUBLISHED, "lookalikes", False),
        ("chexpert", Protocol.FINETUNE, "corruptions", False),
    ],
)
def test_who_can_answer_what(task: str, protocol: Protocol, question: str, can: bool) -> None:
    cell = Cell(
        backbone="x",
        weights="random",
        task=task,
        protocol=protocol,
        runtime="ort-cpu",
        precision=Precision.FP32,
        batch="dynamic",
        seed=0,
    )
    assert gauntlet.can_answer(cards.named(question), cell) is can


def test_the_bundled_gauntlet_asks_five_backbones_everything() -> None:
    plan = plans.load("gauntlet")
    cells = [question.cell for question in plans.questions(plan)]
    assert len(cells) == 5 * 5 * 2
    assert {cell.protocol for cell in cells} == {*Protocol} - {Protocol.PUBLISHED}
    assert {cards.named(name).kind for name in plan.gauntlet} >= {
        "reliability",
        "corruption",
        "retrieval",
        "attack",
        "outliers",
    }


def wrong(*arguments: str) -> dict[str, Any]:
    """Return the error of a command that is a usage error."""
    ran = run_here("bench", *arguments, "--dry-run", "--json")
    assert ran.code == 2, ran.err
    return json.loads(ran.out)["error"]


def test_a_question_is_no_task_and_a_task_no_question() -> None:
    assert "is a question, of kind corruption" in wrong("--task", "corruptions")["message"]
    assert wrong("--task", "corruptions")["hint"] == "--gauntlet corruptions"
    assert "is a task of its own" in wrong("--gauntlet", "digits")["message"]
    assert "did you mean corruptions" in wrong("--gauntlet", "corruption")["hint"]
    assert "did you mean probe" in wrong("--task", "digits:prob")["hint"]


@pytest.mark.heavy
def test_an_attack_by_a_surrogate_is_a_question_of_its_own(ran: tuple[Workspace, Path, Ran]) -> None:
    """It needs that backbone's checkpoint and what is made on it, and is not answered by the engine's own."""
    space, plan, _ = ran
    told = space.here(
        *("bench", "--plan", plan, "--gauntlet", "adversarial", "--surrogate", "test_convnext2"),
        *("--precision", "fp32", "--dry-run", "--json"),
        env={"XDG_CONFIG_HOME": str(plan.parent)},
    )
    (cell,) = json.loads(told.out)["plan"]
    assert (cell["action"], cell["make"]) == ("run", ["checkpoint", "attack"])
    assert cell["reason"] == "not asked before: adversarial by test_convnext2"
    assert "did you mean test_convnext" in wrong("--surrogate", "test_convnxt")["hint"]


def test_any_of_several_right_classes_is_right() -> None:
    """ObjectNet's classes stand for several of ImageNet's."""
    split = Split(["a", "b", "c"], [], np.array([[1, 1, 0], [0, 0, 1], [0, 1, 0]]))
    logits = np.array([[0, 9, 0], [9, 0, 0], [0, 9, 0]], dtype=np.float32)
    assert gauntlet._right({"logits": logits}, split) == 2
    plain = split._replace(targets=np.array([1, 0, 0]))
    assert gauntlet._right({"logits": logits}, plain) == 2


@pytest.mark.parametrize(
    ("lost", "text"), [(0.0123, "+1.2"), (-0.0123, "-1.2"), (-0.0001, "+0.0"), (0.0, "+0.0")]
)
def test_points_lost_too_small_to_print_are_no_gain(lost: float, text: str) -> None:
    assert gauntlet_report._points(lost) == text
