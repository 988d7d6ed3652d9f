"""Images of none of a task's classes: how well an engine's outputs tell them from the task's own.

Every score is higher the more an image is an outlier.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bobrt.errors import unknown
from bobrt.tasks.neighbours import nearest
from bobrt.tasks.probabilities import by_rows, log_sum_exp, require_finite, softmax
from bobrt.tasks.roc import auroc_interval, mean_auroc

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

K = 50
"""The neighbour that is asked for: Sun et al. 2022 use it for CIFAR-10."""


class Outliers(NamedTuple):
    """How well outliers are told from a task's own images."""

    metrics: dict[str, float]
    """`auroc_NAME` and `fpr95_NAME` of each score."""
    headline: str
    """The score that `ci95` is about."""
    ci95: tuple[float, float]
    """Of the AUROC."""
    k: int
    """The neighbour whose distance was taken: fewer than 50 where the bank is smaller."""
    n: tuple[int, int]
    """Images of the task, and outliers."""


def outliers(
    inside: Mapping[str, NDArray[np.float32]],
    outside: Mapping[str, NDArray[np.float32]],
    bank: NDArray[np.float32],
    headline: str = "knn",
    k: int = K,
) -> Outliers:
    """Return how well each score tells the outliers from the task's own images.

    AUROC is the share of pairs in which the outlier has the higher score. FPR95 is the share of outliers
    that pass for the task's own at the threshold that lets 95 % of the task's own pass: the task's own images
    are the positives, as is usual (Hendrycks & Gimpel 2017; Liang et al. 2018).

    Args:
        inside: Outputs for the task's own test images: `features [n, d]`, and `logits` if there are any.
        outside: The same outputs for outliers.
        bank: `[m, d]` features of the training images.
        headline: The score to give an interval for: `knn`, or with logits `msp` or `energy`.
        k: The neighbour to take, or the last there is in a smaller bank.

    Raises:
        BobrtError: An output is NaN or infinity, or there is none.
        UsageError: The headline is a score that these outputs do not give.

    """
    k = min(k, len(bank))
    own, strange = scores(inside, bank, k), scores(outside, bank, k)
    if headline not in own:
        raise unknown("outlier score", headline, own)
    metrics: dict[str, float] = {}
    strangers = np.repeat([0, 1], [len(own["knn"]), len(strange["knn"])])[:, None]
    for name in own:
        both = np.concatenate([own[name], strange[name]])[:, None]
        metrics[f"auroc_{name}"] = mean_auroc(both, strangers).value
        metrics[f"fpr95_{name}"] = fpr95(own[name], strange[name])
    both = np.concatenate([own[headline], strange[headline]])[:, None]
    return Outliers(
        metrics, headline, auroc_interval(both, strangers), k, (len(own["knn"]), len(strange["knn"]))
    )


def scores(
    outputs: Mapping[str, NDArray[np.float32]], bank: NDArray[np.float32], k: int
) -> dict[str, NDArray[np.float64]]:
    """Return the scores `[n]` of images, by name.

    - `msp`: 1 - the largest probability (Hendrycks & Gimpel 2017).
    - `energy`: -logsumexp of the logits (Liu et al. 2020, at temperature 1).
    - `knn`: the distance of the L2-normalised features to the k-th nearest of the bank (Sun et al. 2022).
    """
    found = {}
    if "logits" in outputs:
        require_finite(outputs["logits"], "logits")
        found["msp"] = by_rows(_msp, outputs["logits"])
        found["energy"] = -by_rows(log_sum_exp, outputs["logits"])
    similarity = nearest(outputs["features"], bank, k).similarity[:, -1].astype(np.float64)
    # The distance of two points on the unit sphere; a similarity may be rounded to a little more than 1.
    found["knn"] = np.sqrt(np.maximum(2 - 2 * similarity, 0.0))
    return found


def fpr95(inside: NDArray[np.float64], outside: NDArray[np.float64]) -> float:
    """Return the share of outliers not above the threshold that 95 % of a task's own images are not above."""
    most = -(-19 * len(inside) // 20) - 1
    return float((outside <= np.partition(inside, most)[most]).mean())


def _msp(logits: NDArray[Any]) -> NDArray[np.float64]:
    most: NDArray[np.float64] = softmax(logits).max(axis=1)
    return 1 - most
