"""How far a converted file is from the fp32 file it was made of, on the task's own images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bobrt.data.feed import at_a_time
from bobrt.data.resize import resize
from bobrt.spec import Precision
from bobrt.system import cores
from bobrt.tasks import cards, scores
from engines.ort_cpu import OrtCpuRunner
from engines.runner import answers

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from bobrt.data import Split
    from bobrt.spec import FileCard

BATCH = 16
HARM_IMAGES = 64


class Judge:
    """Compares with one fp32 file; asks ONNX Runtime's CPU provider, whatever runtime a file is for.

    Args:
        fp32: The file all others are compared with.
        card: Its card: it answers a task that has validation images.
        images: `uint8 [n, side, side, 3]`, those that calibrated.
        precision: What the other files are at.

    """

    def __init__(self, fp32: Path, card: FileCard, images: NDArray[np.uint8], precision: Precision) -> None:
        self._card = card
        self._task = cards.resolved(card.task)
        self._resized: dict[str, NDArray[np.uint8]] = {}
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
        sign = 1 if self._task.higher_is_better else -1
        return 100 * sign * (self._score - self._scored(file, self._precision))

    def _scored(self, file: Path, precision: Precision) -> float:
        def ask(name: str, split: Split) -> dict[str, NDArray[np.float32]]:
            if name not in self._resized:
                self._resized[name] = resize(split.images, self._card.transform)
            outputs = self._answers(file, self._resized[name], precision)
            return {key: np.nan_to_num(value) for key, value in outputs.items()}  # no number is no class

        return scores.on_validation(self._task, self._card.protocol, self._card.transform, ask)

    @staticmethod
    def _answers(
        file: Path, images: NDArray[np.uint8], precision: Precision
    ) -> dict[str, NDArray[np.float32]]:
        with OrtCpuRunner(file, cores(), plain=precision is Precision.FP8) as runner:
            return answers(runner, images, at_a_time(BATCH, images.shape[1]))
