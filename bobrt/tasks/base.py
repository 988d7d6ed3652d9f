"""What every kind of task answers to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from bobrt.data import Split
    from bobrt.spec import TaskCard


class Score(NamedTuple):
    """A metric over a split."""

    value: float
    n: int
    ci95: tuple[float, float]
    extra: dict[str, float] = {}
    """Other figures of the same answers, by name."""


class Task(Protocol):
    """One kind of question; its class is called with the card and how images became the engine's input.

    The second is for what is answered in pixels: `resize.geometry` of an image's shape (`Split.shapes`)
    brings boxes from the engine's input to the image, `resize.resize_masks` masks from the image there.
    """

    card: TaskCard

    def decode(self, outputs: Mapping[str, NDArray[np.float32]]) -> Any:  # noqa: ANN401 - an array, or a list where images have boxes
        """Return one answer per image from the named outputs `[n, ...]` of as many images as there are."""
        ...

    def score(self, answers: Any, split: Split) -> Score:  # noqa: ANN401 - what `decode` returns
        """Return the task's metric over a split; of fewer answers than images, over the first ones."""
        ...

    def agreement(
        self, got: Mapping[str, NDArray[np.float32]], want: Mapping[str, NDArray[np.float32]]
    ) -> float:
        """Return the fraction of images on which two sets of outputs give the same answer."""
        ...
