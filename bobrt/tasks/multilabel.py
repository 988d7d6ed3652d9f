"""Several labels per image, each for itself: scored by the mean area under their ROC curves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bobrt.tasks.base import Score
from bobrt.tasks.roc import auroc_interval, mean_auroc

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from bobrt.data import Split
    from bobrt.spec import TaskCard, Transform


class Multilabel:
    """The answer is a score for each label; a label is given where its logit is above 0.

    Args:
        card: The task's card; `labels` gives the order of the logits.

    """

    def __init__(self, card: TaskCard, _: Transform) -> None:
        self.card = card

    def decode(self, outputs: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the scores `[n, labels]` of each image: `logits`, whose order is all that is scored."""
        return outputs["logits"]

    def score(self, answers: NDArray[np.float32], split: Split) -> Score:
        """Return the mean AUROC over labels with positive and negative images, and its bootstrap interval.

        How many labels had not both is in `extra`, as `left_out`.
        """
        targets = split.targets[: len(answers)]
        found = mean_auroc(answers, targets)
        left_out = {"left_out": float(len(found.left_out))}
        return Score(found.value, len(answers), auroc_interval(answers, targets), left_out)

    def agreement(
        self, got: Mapping[str, NDArray[np.float32]], want: Mapping[str, NDArray[np.float32]]
    ) -> float:
        """Return the fraction of images that are given the same labels."""
        same = (self.decode(got) > 0) == (self.decode(want) > 0)
        return float(same.all(axis=1).mean())
