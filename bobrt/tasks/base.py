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
    """One kind of question."""

    card: TaskCard

    def decode(self, outputs: Mapping[str, NDArray[np.float32]]) -> NDArray[Any]:
        """Return one answer per image from the named outputs of a batch."""
        ...

    def score(self, answers: NDArray[Any], split: Split) -> Score:
        """Return the task's metric over a whole split."""
        ...

    def agreement(
        self, got: Mapping[str, NDArray[np.float32]], want: Mapping[str, NDArray[np.float32]]
    ) -> float:
        """Return the fraction of images on which two sets of outputs give the same answer."""
        ...
