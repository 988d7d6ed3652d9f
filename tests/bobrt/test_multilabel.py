"""Several labels per image: mean AUROC beside scikit-learn and torchmetrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from torch import from_numpy
from torchmetrics.functional.classification import multilabel_auroc

from bobrt.catalogue import TASKS
from bobrt.data import Split
from bobrt.errors import BobrtError
from bobrt.spec import Transform
from bobrt.tasks.multilabel import Multilabel
from bobrt.tasks.roc import auroc_interval, mean_auroc

if TYPE_CHECKING:
    from numpy.typing import NDArray

CARD = msgspec.structs.replace(TASKS.get("digits"), kind="multilabel", metric="auroc")
TASK = Multilabel(CARD, Transform(size=32))


def drawn(n: int = 400, labels: int = 5) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return logits and the labels they know something of, the later the rarer."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(n, labels)) - np.arange(labels)
    targets = (rng.logistic(size=logits.shape) < logits).astype(np.int64)
    return logits.astype(np.float32).round(2), targets


def split(targets: NDArray[np.int64]) -> Split:
    """Return a split with these targets and no images to speak of."""
    return Split([str(i) for i in range(len(targets))], [], targets)


def test_the_score_is_the_mean_area_over_labels() -> None:
    """As scikit-learn and torchmetrics have it."""
    logits, targets = drawn()
    score = TASK.score(TASK.decode({"logits": logits}), split(targets))
    assert score.value == pytest.approx(roc_auc_score(targets, logits, average="macro"), abs=1e-9)
    theirs = multilabel_auroc(from_numpy(logits.astype(np.float64)).sigmoid(), from_numpy(targets), 5)
    assert score.value == pytest.approx(float(theirs), abs=1e-6)
    assert score.n == 400
    assert score.ci95[0] < score.value < score.ci95[1]
    assert score.ci95 == auroc_interval(logits, targets)


def test_a_label_without_both_sorts_of_images_is_left_out_and_counted() -> None:
    """It has no area: neither 0, nor 0.5, nor NaN."""
    logits, targets = drawn()
    targets[:, 1], targets[:, 3] = 0, 1
    found = mean_auroc(logits, targets)
    rest = [0, 2, 4]
    assert found.left_out == [1, 3]
    assert list(found.labels) == rest
    assert found.value == pytest.approx(roc_auc_score(targets[:, rest], logits[:, rest]), abs=1e-9)
    assert TASK.score(logits, split(targets)).extra == {"left_out": 2.0}


def test_a_rare_label_that_a_draw_misses_does_not_spoil_the_interval() -> None:
    """One positive image of 60: a third of the draws are without it."""
    logits, targets = drawn(60, 2)
    targets[:, 1] = np.arange(60) == 7
    assert np.isfinite(auroc_interval(logits, targets)).all()
    assert np.isfinite(auroc_interval(logits[:, 1:], targets[:, 1:])).all()


def test_no_label_with_both_sorts_is_an_error() -> None:
    """As with a --limit of one image."""
    logits, targets = drawn(1)
    with pytest.raises(BobrtError, match="none of 5 labels has both positive and negative among 1 images"):
        TASK.score(logits, split(targets))


def test_a_limited_run_is_scored_over_what_was_asked() -> None:
    """Answers for the first images of a split are compared with those."""
    logits, targets = drawn()
    assert TASK.score(logits[:100], split(targets)).value == mean_auroc(logits[:100], targets[:100]).value


def test_the_order_of_labels_changes_nothing() -> None:
    """Nor that of the images."""
    logits, targets = drawn()
    rng = np.random.default_rng(1)
    images, labels = rng.permutation(400), rng.permutation(5)
    got = mean_auroc(logits[images][:, labels], targets[images][:, labels])
    assert got.value == pytest.approx(mean_auroc(logits, targets).value, abs=1e-12)


def test_agreement_is_the_same_labels() -> None:
    """All of an image's: those whose logit is above 0."""
    got = {"logits": np.float32([[1, -1], [2, 3], [-1, -2]])}
    want = {"logits": np.float32([[9, -5], [2, -3], [-9, -9]])}
    assert TASK.agreement(got, want) == pytest.approx(2 / 3)
