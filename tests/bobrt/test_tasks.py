"""Answers are decoded and scored in numpy; the interval is the published formula's."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import numpy as np
import pytest

from bobrt.catalogue import TASKS
from bobrt.data import Split
from bobrt.errors import UsageError
from bobrt.spec import TaskCard, Transform
from bobrt.tasks import task_of
from bobrt.tasks.classification import wilson

CARD = TASKS.get("digits")
TRANSFORM = Transform(size=32)
TASK = task_of(CARD, TRANSFORM)


def logits(*rows: list[float]) -> dict[str, np.ndarray]:
    """Return the outputs of a graph for a batch."""
    return {"features": np.zeros((len(rows), 4), np.float32), "logits": np.array(rows, np.float32)}


def split(*targets: int) -> Split:
    """Return a split with these targets and no images to speak of."""
    return Split([str(i) for i in range(len(targets))], [], np.array(targets, np.int64))


def test_the_answer_is_the_largest_logit() -> None:
    """One class per image, from `logits` alone."""
    assert TASK.decode(logits([0.1, 3, 2], [9, -1, 0], [-3, -2, -1])).tolist() == [1, 0, 2]


def test_the_score_is_the_fraction_that_is_right() -> None:
    """Top-1, with n and its interval."""
    score = TASK.score(np.array([1, 2, 3, 4]), split(1, 2, 3, 9))
    assert (score.value, score.n) == (0.75, 4)
    assert score.ci95 == wilson(3, 4)


def test_a_limited_run_is_scored_over_what_was_asked() -> None:
    """Answers for the first images of a split are compared with those."""
    assert TASK.score(np.array([1, 2]), split(1, 2, 3, 4)).n == 2
    assert TASK.score(np.array([1, 2]), split(1, 2, 3, 4)).value == 1.0


@pytest.mark.parametrize(
    ("want", "agreement"),
    [([[0, 1], [1, 0], [0, 1]], 1.0), ([[0, 9], [2, 1], [3, 1]], 2 / 3), ([[1, 0], [0, 1], [1, 0]], 0.0)],
)
def test_agreement_is_the_same_answer_not_the_same_numbers(want: list[list[float]], agreement: float) -> None:
    """Two sets of outputs agree on an image when they name the same class."""
    got = logits([0.0, 0.5], [5.0, 4.0], [0.0, 0.1])
    assert TASK.agreement(got, logits(*want)) == pytest.approx(agreement)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        # z = 1.959964; for 0/n the interval is [0, z^2 / (n + z^2)], for n/n its mirror image.
        (0, 10, 0.0, 0.277533),
        (10, 10, 0.722467, 1.0),
        # (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n) with p = 0.8
        (8, 10, 0.490162, 0.943318),
        (1, 1, 0.206549, 1.0),
        (5, 10, 0.236593, 0.763407),
    ],
)
def test_the_interval_is_wilsons(right: int, n: int, low: float, high: float) -> None:
    """The constants come from the published formula, worked out by hand."""
    assert wilson(right, n) == pytest.approx((low, high), abs=1e-6)


@pytest.mark.parametrize(("right", "n"), [(0, 450), (17, 450), (225, 450), (441, 450), (450, 450)])
def test_the_interval_solves_the_equation_it_is_defined_by(right: int, n: int) -> None:
    """Its ends are the p with |right/n - p| = z sqrt(p(1-p)/n): where a score test just rejects."""
    z = 1.959963984540054
    for end in wilson(right, n):
        assert abs(right / n - end) == pytest.approx(z * np.sqrt(end * (1 - end) / n), abs=1e-9)


def test_the_interval_narrows_with_n_and_widens_with_confidence() -> None:
    """More images tell more; more certainty costs width."""

    def width(interval: tuple[float, float]) -> float:
        return interval[1] - interval[0]

    assert width(wilson(900, 1000)) < width(wilson(90, 100)) < width(wilson(90, 100, confidence=0.99))


def test_a_kind_nobody_wrote_is_an_error() -> None:
    """The kinds that exist are in the hint."""
    card = msgspec.structs.replace(CARD, kind="detection")
    assert isinstance(card, TaskCard)
    with pytest.raises(UsageError, match="unknown task kind 'detection'") as caught:
        task_of(card, TRANSFORM)
    assert "classification" in caught.value.hint


def test_scoring_needs_no_heavy_library() -> None:
    """A box without torch can score: numpy is enough."""
    code = (
        "import sys, bobrt.tasks, bobrt.data, bobrt.catalogue;"
        "print({'torch', 'timm', 'onnx', 'onnxruntime', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
