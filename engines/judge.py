"""How far a converted file is from the fp32 file it was made of, on the task's own images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bobrt import data
from bobrt.data.feed import at_a_time
from bobrt.data.resize import resize
from bobrt.spec import Precision
from bobrt.system import cores
from bobrt.tasks import cards, task_of
from engines.ort_cpu import OrtCpuRunner
from engines.runner import answers

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from bobrt.spec import FileCard

BATCH = 16
HARM_IMAGES = 64


class Judge:
    """Compares with one fp32 file; asks ONNX Runtime's CPU provider, whatever runtime a file is for.

    Args:
        fp32: The file all others are compared with.
        card: Its card: it answers a task.
        images: `uint8 [n, side, side, 3]`, those that calibrated.
        precision: What the other files are at.

    """

    def __init__(self, fp32: Path, card: FileCard, images: NDArray[np.uint8], precision: Precision) -> None:
        self._task = task_of(cards.resolved(card.task), card.transform)
        self._split = data.load(self._task.card, "validation")
        self._validation = resize(self._split.images, card.transform)
        self._images = images[:: max(1, len(images) // HARM_IMAGES)]
        self._precision = precision
        self._want = self._answers(fp32, self._images, Precision.FP32)
        self._score = self._scored(fp32, Precision.FP32)

    def harm(self, file: Path) -> float:
        """Return the mean absolute difference of all outputs, over calibration images."""
        got = self._answers(file, self._images, self._precision)
        return float(np.mean([np.abs(got[name] - want).mean() for name, want in self._want.items()]))

    def drop(self, file: Path) -> float:
        """Return the points of the task's metric that the file loses on validation."""
        sign = 1 if self._task.card.higher_is_better else -1
        return 100 * sign * (self._score - self._scored(file, self._precision))

    def _scored(self, file: Path, precision: Precision) -> float:
        outputs = self._answers(file, self._validation, precision)
        return self._task.score(self._task.decode(outputs), self._split).value

    @staticmethod
    def _answers(
        file: Path, images: NDArray[np.uint8], precision: Precision
    ) -> dict[str, NDArray[np.float32]]:
        with OrtCpuRunner(file, cores(), plain=precision is Precision.FP8) as runner:
            return answers(runner, images, at_a_time(BATCH, images.shape[1]))
