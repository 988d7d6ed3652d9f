"""Reliability of probabilities: worked out by hand, and beside scikit-learn and torchmetrics."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.metrics import brier_score_loss, log_loss
from torch import from_numpy
from torchmetrics.functional.classification import multiclass_calibration_error
from torchmetrics.functional.classification.calibration_error import _ce_compute

from bobrt.errors import BobrtError
from bobrt.tasks.probabilities import log_sum_exp, softmax
from bobrt.tasks.reliability import (
    BINS,
    EDGES,
    Answers,
    answers,
    ece_interval,
    figures,
    fit_temperature,
    reliability,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


def drawn(n: int, classes: int, seed: int = 0, sharpness: float = 2.0) -> tuple[NDArray, NDArray]:
    """Return logits that know something of targets drawn from milder ones: overconfident answers."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes))
    targets = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return (sharpness * logits).astype(np.float32), targets


def certain(*rows: tuple[float, bool]) -> tuple[NDArray, NDArray]:
    """Return logits of two classes whose answers, class 0, have these confidences and are right or not."""
    logits = np.array([[math.log(confidence / (1 - confidence)), 0.0] for confidence, _ in rows])
    return logits, np.array([int(not right) for _, right in rows])


def test_every_figure_of_four_answers_by_hand() -> None:
    """Confidences 0.9, 0.8, 0.7 and 0.6; the second is wrong."""
    of = figures(answers(*certain((0.9, True), (0.8, False), (0.7, True), (0.6, True))))
    # Each confidence has a bin of its own in 15: |1 - 0.9|, |0 - 0.8|, |1 - 0.7|, |1 - 0.6|.
    assert of["ece"] == pytest.approx((0.1 + 0.8 + 0.3 + 0.4) / 4, abs=1e-12)
    assert of["ece_adaptive"] == pytest.approx((0.1 + 0.8 + 0.3 + 0.4) / 4, abs=1e-12)
    assert of["nll"] == pytest.approx(-math.log(0.9 * 0.2 * 0.7 * 0.6) / 4, abs=1e-12)
    # Both classes count: twice the squared gap.
    assert of["brier"] == pytest.approx(2 * (0.1**2 + 0.8**2 + 0.3**2 + 0.4**2) / 4, abs=1e-12)
    # Risk of the 1, 2, 3, 4 most confident: 0, 1/2, 1/3, 1/4. In the best order: 0, 0, 0, 1/4.
    assert of["aurc"] == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / 4, abs=1e-12)
    assert of["e_aurc"] == pytest.approx((1 / 2 + 1 / 3) / 4, abs=1e-12)
    assert of["risk_at_80"] == 1 / 4  # 80 % of four is 3.2 images: four of them


def test_answers_of_one_bin_are_averaged_before_they_are_compared() -> None:
    """Right and wrong of one confidence cancel: that is calibration."""
    of = figures(answers(*certain((0.75, True), (0.75, True), (0.75, True), (0.75, False))))
    assert of["ece"] == pytest.approx(0, abs=1e-12)


def test_an_edge_belongs_to_the_bin_below() -> None:
    """Bins are `(low, high]`: 9/15 shares one with what is less, not with what is more."""
    gaps = {}
    for other in (0.59, 0.61):
        confidence = np.array([max(EDGES[8], other), min(EDGES[8], other)])
        gaps[other] = figures(Answers(confidence, np.array([1.0, 0.0]), confidence, confidence))["ece"]
    assert gaps[0.59] == pytest.approx(abs(1 - 0.6 - 0.59) / 2)
    assert gaps[0.61] == pytest.approx((0.39 + 0.6) / 2)


def test_certainty_beyond_float32_is_in_the_last_bin() -> None:
    """A gap of 200 is a confidence of exactly 1, and its nll no infinity."""
    of = figures(answers(np.float32([[200, 0], [200, 0]]), np.array([0, 1])))
    assert (of["ece"], of["nll"], of["brier"]) == (0.5, 100.0, 1.0)


def test_bins_of_equal_mass_hold_equally_many() -> None:
    """30 answers of one bin of equal width, two each in the adaptive ones."""
    confidences = np.linspace(0.935, 0.995, 30)
    rights = np.arange(30) % 2 == 0
    logits, targets = certain(*zip(confidences.tolist(), rights.tolist(), strict=True))
    pairs = (rights - confidences).reshape(15, 2).sum(axis=1)
    assert figures(answers(logits, targets))["ece_adaptive"] == pytest.approx(np.abs(pairs).sum() / 30)


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_as_scikit_learn_and_torchmetrics_have_it(classes: int) -> None:
    """NLL and Brier of scikit-learn, ECE of torchmetrics, on 6,000 answers: more than one block of rows."""
    logits, targets = drawn(6000, classes)
    of, probabilities = figures(answers(logits, targets)), softmax(logits)
    labels = np.arange(classes)
    assert of["nll"] == pytest.approx(log_loss(targets, probabilities, labels=labels), abs=1e-9)
    ours = brier_score_loss(targets, probabilities, labels=labels, scale_by_half=False)
    assert of["brier"] == pytest.approx(ours, abs=1e-9)
    theirs = multiclass_calibration_error(
        from_numpy(probabilities), from_numpy(targets), classes, n_bins=BINS
    )
    assert of["ece"] == pytest.approx(float(theirs), abs=1e-6)  # rounds confidences to float32
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    assert of["ece"] == pytest.approx(
        float(_ce_compute(from_numpy(confidence), from_numpy(right), BINS)), abs=1e-9
    )


def test_probabilities_do_not_overflow() -> None:
    """Logits of 1e4, as no fp16 engine could hold."""
    logits = np.array([[1e4, 0, -1e4], [-1e4, -1e4, -1e4]])
    np.testing.assert_allclose(softmax(logits), [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3]])
    np.testing.assert_allclose(log_sum_exp(logits), [1e4, -1e4 + math.log(3)])


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_images_and_of_classes_changes_nothing(seed: int) -> None:
    """Also where many confidences are equal, as an int8 engine's are."""
    logits, targets = drawn(500, 7, seed)
    logits = logits.round(0)
    logits[np.arange(500), logits.argmax(axis=1)] += 0.5  # one largest, but for equal ones of before
    rng = np.random.default_rng(seed)
    images, classes = rng.permutation(500), rng.permutation(7)
    single = (logits == logits.max(axis=1, keepdims=True)).sum(axis=1) == 1
    assert single.all()
    moved = logits[images][:, classes], np.argsort(classes)[targets[images]]
    want, got = reliability(logits, targets, logits, targets), reliability(*moved, *moved)
    assert got.metrics == pytest.approx(want.metrics, abs=1e-9)
    assert got.ece_ci95 == pytest.approx(want.ece_ci95, abs=1e-9)


def test_equal_confidences_cost_what_a_random_order_costs_on_average() -> None:
    """AURC over many shuffles of tied answers has the mean that is returned."""
    logits, targets = certain((0.9, True), *[(0.7, True)] * 3, *[(0.7, False)] * 2)
    wrong = np.array([False, False, False, True, True])
    rng = np.random.default_rng(0)
    risks = [np.mean(np.cumsum([False, *rng.permutation(wrong)]) / np.arange(1, 7)) for _ in range(20_000)]
    assert figures(answers(logits, targets))["aurc"] == pytest.approx(np.mean(risks), abs=2e-3)


def test_the_temperature_is_the_one_the_logits_were_drawn_at() -> None:
    """Logits twice too sharp have a temperature of about 2; NLL and ECE fall to what they can be."""
    logits, targets = drawn(8000, 10, seed=1)
    other, others = drawn(8000, 10, seed=2)
    found = reliability(logits, targets, other, others)
    assert found.metrics["temperature_fitted"] == 1
    assert found.metrics["temperature"] == pytest.approx(2, rel=0.05)
    assert found.metrics["nll_tempered"] < found.metrics["nll"] - 0.1
    assert found.metrics["ece_tempered"] < 0.02
    assert found.metrics["ece"] > 0.1


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sharpness", [0.05, 1.0, 30.0])
def test_a_temperature_never_makes_the_validation_nll_worse(seed: int, sharpness: float) -> None:
    """It is where a bounded search over log T ends too."""
    logits, targets = drawn(300, 5, seed, sharpness)
    temperature, fitted = fit_temperature(logits, targets)

    def nll(log_temperature: float) -> float:
        return figures(answers(logits, targets, math.exp(log_temperature)))["nll"]

    searched = minimize_scalar(nll, bounds=(math.log(0.01), math.log(100)), method="bounded")
    assert fitted
    assert nll(math.log(temperature)) <= min(nll(0.0), searched.fun) + 1e-12
    assert math.log(temperature) == pytest.approx(searched.x, abs=1e-4)


def test_validation_without_an_error_tells_no_temperature() -> None:
    """The likelihood would rise without end; 1 is kept and said, and the test images are not made certain."""
    logits = np.array([[2.0, 0], [0, 1]])
    found = reliability(logits, np.array([0, 0]), logits, np.array([0, 1]))
    assert (found.metrics["temperature"], found.metrics["temperature_fitted"]) == (1.0, 0.0)
    assert found.metrics["nll_tempered"] == found.metrics["nll"]


@pytest.mark.parametrize(
    ("logits", "bound"),
    [
        ([[1e-4, 0], [1e-4, 0], [0, 0.5e-4]], 0.01),
        ([[1.0, 0], [1.0, 0], [-1.0, 0]], 100.0),
    ],
)
def test_a_temperature_outside_its_bounds_is_at_one(logits: list[list[float]], bound: float) -> None:
    """Two right and one wrong of almost no gap; and answers worse than guessing."""
    targets = np.array([0, 0, 0]) if bound < 1 else np.array([1, 1, 1])
    assert fit_temperature(np.array(logits), targets) == (bound, False)


def test_the_interval_is_the_same_each_time_and_holds_the_ece() -> None:
    """Seeded; more images narrow it."""
    few, many = answers(*drawn(300, 10)), answers(*drawn(9000, 10))
    low, high = ece_interval(few)
    assert ece_interval(few) == (low, high)
    assert low <= figures(few)["ece"] <= high
    narrow = ece_interval(many)
    assert narrow[1] - narrow[0] < (high - low) / 3


def test_calibrated_answers_have_an_interval_down_to_zero() -> None:
    """Their ECE is not 0 on 400 images but what `ece_floor` says; that of overconfident ones stands above."""
    honest, sharp = drawn(400, 10, sharpness=1), drawn(400, 10, sharpness=2)
    found, other = reliability(*honest, *honest), reliability(*sharp, *sharp)
    assert found.ece_ci95[0] == 0
    assert found.metrics["ece_floor"] == pytest.approx(found.metrics["ece"], rel=0.5)
    assert found.metrics["ece_floor"] > 0.02
    assert other.ece_ci95[0] > other.metrics["ece_floor"]


@pytest.mark.parametrize(("sharpness", "truth"), [(1.0, 0.0), (2.0, 0.2116)])
def test_the_interval_covers_the_truth(sharpness: float, truth: float) -> None:
    """Of calibrated answers and of overconfident ones (their ECE on three million), 450 images."""
    held = 0
    for seed in range(40):
        low, high = ece_interval(answers(*drawn(450, 10, seed, sharpness)))
        held += low <= truth <= high
    assert held >= 34


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_logit_that_is_no_number_is_an_error(value: float) -> None:
    """In test or in validation images: nothing is averaged over it."""
    logits, targets = drawn(20, 3)
    broken = logits.copy()
    broken[[3, 7], 1] = value
    with pytest.raises(BobrtError, match="the logits of 2 of 20 images are NaN or infinity") as caught:
        reliability(broken, targets, logits, targets)
    assert "other weights: --weights PATH" in caught.value.hint
    with pytest.raises(BobrtError, match="validation logits of 2 of 20"):
        reliability(logits, targets, broken, targets)


@pytest.mark.parametrize("target", [-1, 3])
def test_a_target_that_is_no_class_is_an_error(target: int) -> None:
    """-1 would be the last column."""
    logits, targets = drawn(20, 3)
    with pytest.raises(BobrtError, match="there are 3 classes"):
        answers(logits, np.where(np.arange(20) == 4, target, targets))


def test_no_images_are_an_error() -> None:
    """Not a mean of nothing."""
    with pytest.raises(BobrtError, match="there are no logits"):
        answers(np.zeros((0, 3)), np.zeros(0, np.int64))
