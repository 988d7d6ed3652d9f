"""What logits say of the classes: probabilities, in float64 and without overflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bobrt.errors import BobrtError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

ROWS = 4096
"""Images that are brought to float64 at a time: 50,000 of 10,000 classes would be 4 GB at once."""


def by_rows(function: Callable[..., NDArray[np.float64]], *arrays: NDArray[Any]) -> NDArray[np.float64]:
    """Return what a function makes of arrays `[n, ...]`, asked for a few thousand rows at a time."""
    parts = [function(*(array[i : i + ROWS] for array in arrays)) for i in range(0, len(arrays[0]), ROWS)]
    return np.concatenate(parts)


def log_sum_exp(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Return `log(sum(exp(logits)))` of each row, `[n]`."""
    logits = logits.astype(np.float64)
    top = logits.max(axis=1)
    total: NDArray[np.float64] = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return total


def softmax(logits: NDArray[Any], temperature: float = 1.0) -> NDArray[np.float64]:
    """Return the probabilities `[n, classes]` that logits `[n, classes]` stand for at a temperature."""
    logits = logits.astype(np.float64)
    odds = np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature)
    probabilities: NDArray[np.float64] = odds / odds.sum(axis=1, keepdims=True)
    return probabilities


def require_finite(values: NDArray[Any], what: str) -> None:
    """Raise if anything computed from these rows `[n, ...]` would be no number.

    Raises:
        BobrtError: There is no row, or a row holds NaN or infinity.

    """
    if not len(values):
        raise BobrtError(f"there are no {what}: nothing can be said of no images", "raise --limit")
    broken = sum(
        int((~np.isfinite(values[i : i + ROWS].reshape(len(values[i : i + ROWS]), -1))).any(axis=1).sum())
        for i in range(0, len(values), ROWS)
    )
    if broken:
        raise BobrtError(
            f"the {what} of {broken} of {len(values)} images are NaN or infinity",
            "choose another precision, or where it is fp32 already, other weights: --weights PATH",
        )


def require_classes(targets: NDArray[np.int64], classes: int) -> None:
    """Raise if a target names no column of the logits: a negative one would silently name another.

    Raises:
        BobrtError: A target is none of `0 ... classes - 1`.

    """
    if targets.min() < 0 or targets.max() >= classes:
        raise BobrtError(
            f"targets go from {targets.min()} to {targets.max()}, and there are {classes} classes",
            "ask the engine of a task only the images of that task",
        )
