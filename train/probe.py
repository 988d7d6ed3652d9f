"""The linear probe: multinomial logistic regression on features that are already there.

Convex, so there is one best answer for each strength of regularisation and nothing to tune but that
strength. It is selected on validation; the test images are never seen here, and the validation images never
trained on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from bobrt.errors import UsageError
from bobrt.tasks.probabilities import require_classes, require_finite
from bobrt.tasks.roc import mean_auroc

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Loss = Callable[[NDArray[np.float32], NDArray[np.int64]], tuple[float, NDArray[np.float32]]]

CS = tuple(10.0 ** (step / 2) for step in range(-7, 5))
"""From strong regularisation to weak: 3e-4 to 100, two a decade."""
PATIENCE = 2
"""Values in a row that better neither the best score nor the least loss; then no weaker one is tried."""
ITERATIONS = 300
TOLERANCE = 3e-8
"""The last step's gain, in nats per image: a few times what float32 tells apart."""
ROWS = 8192
"""Images at a time: logits of more need not be held."""
FLOOR = 1e-3
"""A column that hardly moves is stretched to at most a thousand times as much as the one that moves most."""


class Candidate(NamedTuple):
    """One strength of regularisation."""

    c: float
    score: float
    """On validation: accuracy, or mean AUROC where an image has several labels."""
    loss: float
    """On validation, in nats per image."""
    iterations: int
    converged: bool


class Probe(NamedTuple):
    """A linear classifier of features as the backbone gives them: `features @ weight.T + bias`."""

    weight: NDArray[np.float32]
    """`[classes, d]`."""
    bias: NDArray[np.float32]
    """`[classes]`."""
    c: float
    candidates: list[Candidate]
    """In the order they were tried, the chosen among them."""


class Basis(NamedTuple):
    """A linear view of the features, in which they are standardised and their columns do not correlate."""

    mean: NDArray[np.float32]
    """`[d]`."""
    axes: NDArray[np.float32]
    """`[d, d]`: features are seen as `(features - mean) @ axes`."""
    variance: NDArray[np.float64]
    """`[d]`, of the columns that are seen."""


def fit(
    features: NDArray[np.float32],
    targets: NDArray[np.int64],
    validation: NDArray[np.float32],
    validation_targets: NDArray[np.int64],
    classes: int,
) -> Probe:
    """Return the probe with the best validation score.

    Minimises `mean loss + |weight|^2 / (2 C n)` over features standardised by the training images' mean and
    standard deviation, the bias not regularised (scikit-learn's objective, divided by C n), from each C to
    the next weaker one. Of equal scores the one with the least validation loss is chosen. The standardisation
    is then folded into the map. Every backbone is given the same values of C and the same rule to stop. The
    validation images are only watched: nothing is fitted again with them. Beside the features one copy of
    them is held, in float32.

    Args:
        features: `[n, d]` of training images.
        targets: `[n]` classes, or `[n, labels]` of 0 and 1: a logistic regression for each label then.
        validation: `[m, d]`.
        validation_targets: As `targets`.
        classes: Classes or labels.

    Raises:
        BobrtError: A feature is NaN or infinity, or a target no class, or there are no images.

    """
    _check(features, targets, classes, "training")
    _check(validation, validation_targets, classes, "validation")
    rows, basis = _seen(features)
    loss: Loss = _softmax if targets.ndim == 1 else _sigmoid
    point = np.zeros((classes, features.shape[1] + 1))
    candidates: list[Candidate] = []
    points = []
    for c in CS:
        point, iterations, converged = _solve(point, rows, targets, basis.variance, 1 / (c * len(rows)), loss)
        weight, bias = _folded(point, basis)
        logits = validation.astype(np.float32) @ weight.T + bias
        score = _score(logits, validation_targets)
        nats = loss(logits, validation_targets)[0] / len(logits)
        candidates.append(Candidate(c, score, nats, iterations, converged))
        points.append(point)
        if _stale(candidates):
            break
    chosen = max(range(len(candidates)), key=lambda i: (candidates[i].score, -candidates[i].loss))
    return Probe(*_folded(points[chosen], basis), candidates[chosen].c, candidates)


def _solve(  # noqa: PLR0913, PLR0917 - what a minimum is of
    point: NDArray[np.float64],
    rows: NDArray[np.float32],
    targets: NDArray[np.int64],
    variance: NDArray[np.float64],
    decay: float,
    loss: Loss,
) -> tuple[NDArray[np.float64], int, bool]:
    """Return the minimum, from a point, the iterations, and whether it was reached.

    A point is `[classes, d + 1]`, the bias last. L-BFGS walks in coordinates along which the objective curves
    about alike: columns do not correlate, so each is divided by the square root of its own curvature, the
    loss's (about a quarter of a fair guess's) times the column's variance, and the regularisation's. That
    is a third of the iterations that it takes without.
    """
    guess = 0.25 / len(point)
    scale = 1 / np.sqrt(guess * np.append(variance, 1.0) + np.append(np.full(len(variance), decay), 0.0))

    def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        value, slope = _objective(flat.reshape(point.shape) * scale, rows, targets, decay, loss)
        return value, (slope * scale).ravel()

    options = {"maxiter": ITERATIONS, "gtol": 0.0, "ftol": TOLERANCE}
    found = minimize(objective, (point / scale).ravel(), jac=True, method="L-BFGS-B", options=options)
    # A line search that finds nothing lower (2) is at the end of float32; only 1 is out of iterations.
    return found.x.reshape(point.shape) * scale, int(found.nit), found.status != 1


def _objective(
    point: NDArray[np.float64],
    rows: NDArray[np.float32],
    targets: NDArray[np.int64],
    decay: float,
    loss: Loss,
) -> tuple[float, NDArray[np.float64]]:
    """Return the regularised mean loss at a point, and its gradient.

    The products are in float32, sums over images in float64.
    """
    weight, bias = point[:, :-1], point[:, -1]
    small, offset = weight.astype(np.float32), bias.astype(np.float32)
    total, slope = 0.0, np.zeros_like(point)
    for i in range(0, len(rows), ROWS):
        part = rows[i : i + ROWS]
        value, residual = loss(part @ small.T + offset, targets[i : i + ROWS])
        total += value
        slope[:, :-1] += residual.T @ part
        slope[:, -1] += residual.sum(axis=0)
    slope /= len(rows)
    slope[:, :-1] += decay * weight
    return total / len(rows) + decay / 2 * float((weight**2).sum()), slope


def _softmax(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> tuple[float, NDArray[np.float32]]:
    """Return the summed cross-entropy of logits `[n, classes]`, overwritten, and its slope along them."""
    images = np.arange(len(logits))
    logits -= logits.max(axis=1, keepdims=True)
    own = logits[images, targets].sum(dtype=np.float64)
    odds = np.exp(logits, out=logits)
    total = odds.sum(axis=1, keepdims=True)
    odds /= total
    odds[images, targets] -= 1
    return float(np.log(total).sum(dtype=np.float64) - own), odds


def _sigmoid(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> tuple[float, NDArray[np.float32]]:
    """Return the cross-entropy summed over images and labels, and its slope along logits `[n, labels]`."""
    given = targets.astype(np.float32)
    value = np.logaddexp(np.float32(0), logits) - given * logits
    return float(value.sum(dtype=np.float64)), expit(logits) - given


def _seen(features: NDArray[np.float32]) -> tuple[NDArray[np.float32], Basis]:
    """Return features in the basis of their own principal axes, standardised.

    A column that hardly moves, or not at all, is not blown up: its deviation counts as `FLOOR` of the
    largest. A rotation changes no |weight|, so the regularisation is that of the standardised columns.
    """
    mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
    covariance = np.zeros((len(mean), len(mean)))
    for i in range(0, len(features), ROWS):
        part = features[i : i + ROWS] - mean
        covariance += part.T @ part / len(features)
    std = np.sqrt(covariance.diagonal())
    std = np.maximum(std, FLOOR * std.max()) if std.max() > 0 else np.ones_like(std)
    variance, directions = np.linalg.eigh(covariance / np.outer(std, std))
    axes = (directions / std[:, None]).astype(np.float32)
    rows = np.empty(features.shape, np.float32)
    for i in range(0, len(features), ROWS):
        rows[i : i + ROWS] = (features[i : i + ROWS] - mean) @ axes
    return rows, Basis(mean, axes, np.maximum(variance, 0))


def _folded(point: NDArray[np.float64], basis: Basis) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return weight and bias for features as they come, of a point in the basis."""
    weight = point[:, :-1] @ basis.axes.T
    return weight.astype(np.float32), (point[:, -1] - weight @ basis.mean).astype(np.float32)


def _score(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> float:
    """Return the accuracy, or the mean AUROC of several labels."""
    if targets.ndim > 1:
        return mean_auroc(logits, targets).value
    return float((logits.argmax(axis=1) == targets).mean())


def _stale(tried: list[Candidate]) -> bool:
    """Return whether the last few bettered neither the best score nor the least loss before them."""
    before, after = tried[:-PATIENCE], tried[-PATIENCE:]
    return bool(before) and not any(
        one.score > max(other.score for other in before) or one.loss < min(other.loss for other in before)
        for one in after
    )


def _check(features: NDArray[Any], targets: NDArray[np.int64], classes: int, split: str) -> None:
    require_finite(features, f"{split} features")
    if targets.ndim == 1:
        require_classes(targets, classes)
    if len(features) != len(targets):
        raise UsageError(
            f"{len(features)} {split} features, {len(targets)} targets", "cache the features anew"
        )
