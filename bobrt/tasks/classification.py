"""Classification: one label per image, scored by top-1 accuracy."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

from bobrt.tasks.base import Score

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from bobrt.data import Split
    from bobrt.spec import TaskCard, Transform


class Classification:
    """The answer is the index of the largest of `logits`.

    Args:
        card: The task's card; `labels` gives the order of the logits.

    """

    def __init__(self, card: TaskCard, _: Transform) -> None:
        self.card = card

    def decode(self, outputs: Mapping[str, NDArray[np.float32]]) -> NDArray[np.int64]:
        """Return the class `[n]` of each image from `logits [n, classes]`."""
        answers: NDArray[np.int64] = outputs["logits"].argmax(axis=1)
        return answers

    def score(self, answers: NDArray[np.int64], split: Split) -> Score:
        """Return top-1 accuracy as a fraction, with its Wilson interval."""
        right = int((answers == split.targets[: len(answers)]).sum())
        n = len(answers)
        return Score(right / n, n, wilson(right, n))

    def agreement(
        self, got: Mapping[str, NDArray[np.float32]], want: Mapping[str, NDArray[np.float32]]
    ) -> float:
        """Return the fraction of images with the same top-1 class."""
        return float((self.decode(got) == self.decode(want)).mean())


def wilson(right: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion (Wilson 1927, equation 7).

    Args:
        right: Successes.
        n: Trials, at least one.
        confidence: Two-sided coverage.

    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = right / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)
