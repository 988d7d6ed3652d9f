"""Areas under ROC curves, and their interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bobrt.errors import BobrtError
from bobrt.tasks.probabilities import require_finite

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES = 1000


class Auroc(NamedTuple):
    """Areas under ROC curves."""

    value: float
    """The mean over labels."""
    labels: dict[int, float]
    """Of each label that has both positive and negative images."""
    left_out: list[int]
    """The labels that have not: no area is defined for them."""


def mean_auroc(scores: NDArray[Any], positive: NDArray[Any]) -> Auroc:
    """Return the mean area under the ROC curves of labels.

    An area is the share of pairs, a positive and a negative image, in which the positive one has the higher
    score; a pair of equal scores counts half (Hanley & McNeil 1982).

    Args:
        scores: `[n, labels]`, higher where a label is likelier.
        positive: `[n, labels]` of 0 and 1.

    Raises:
        BobrtError: A score is NaN or infinity, or no label has both positive and negative images.

    """
    columns = _columns(scores, positive)
    once = np.ones(len(scores))
    areas = {label: area(*column, once) for label, column in columns.items()}
    left_out = [label for label in range(scores.shape[1]) if label not in areas]
    return Auroc(sum(areas.values()) / len(areas), areas, left_out)


def auroc_interval(scores: NDArray[Any], positive: NDArray[Any]) -> tuple[float, float]:
    """Return the 95 % interval of the mean area by percentile bootstrap over images.

    Seeded: it is the same each time. A label whose positive or negative images were all not drawn is left
    out of that draw. Where every pair is in order the interval has no width.

    Args:
        scores: As `mean_auroc`.
        positive: As `mean_auroc`.

    Raises:
        BobrtError: As `mean_auroc`.

    """
    n, columns = len(scores), list(_columns(scores, positive).values())
    rng = np.random.default_rng(0)
    drawn = np.full((RESAMPLES, len(columns)), np.nan)
    for i in range(RESAMPLES):
        times = np.bincount(rng.integers(0, n, n), minlength=n).astype(np.float64)
        drawn[i] = [area(*column, times) for column in columns]
    drawn = drawn[~np.isnan(drawn).all(axis=1)]
    low, high = np.quantile(np.nanmean(drawn, axis=1), [0.025, 0.975])
    return float(low), float(high)


def area(level: NDArray[np.int64], positive: NDArray[np.bool_], times: NDArray[np.float64]) -> float:
    """Return the area under a ROC curve, or NaN if images of one sort are missing.

    Args:
        level: `[n]` ranks of the scores from 0; equal scores share one.
        positive: `[n]`.
        times: `[n]`, how often each image counts.

    """
    above = np.bincount(level, times * positive)
    below = np.bincount(level, times * ~positive)
    pairs = above.sum() * below.sum()
    return float((above * (np.cumsum(below) - below / 2)).sum() / pairs) if pairs else float("nan")


def _columns(
    scores: NDArray[Any], positive: NDArray[Any]
) -> dict[int, tuple[NDArray[np.int64], NDArray[np.bool_]]]:
    """Return every image's rank, and whether it is positive, for each label with images of both sorts."""
    require_finite(scores, "scores")
    shown = positive.astype(bool)
    both = np.flatnonzero(shown.any(axis=0) & ~shown.all(axis=0))
    if not len(both):
        raise BobrtError(
            f"none of {shown.shape[1]} labels has both positive and negative among {len(scores)} images",
            "raise --limit",
        )
    return {int(i): (np.unique(scores[:, i], return_inverse=True)[1], shown[:, i]) for i in both}
