"""The 1,797 handwritten digits bundled with scikit-learn: real images, no download."""

from __future__ import annotations

from functools import cache

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from bobrt.data import Listing, Split

SPLIT_SEED = 0


def read() -> Listing:
    """Return `train`, `validation` and `test`: fixed, stratified by class and disjoint."""
    images, targets = _digits()
    splits = {
        name: Split([f"digits/{row:04d}" for row in rows], [images[row] for row in rows], targets[rows])
        for name, rows in _rows(targets).items()
    }
    return Listing([str(digit) for digit in range(10)], splits)


@cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    bunch = load_digits()
    # Stored as 0..16; a camera gives 0..255 in three channels.
    grey = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1), bunch.target.astype(np.int64)


def _rows(targets: np.ndarray) -> dict[str, np.ndarray]:
    rest, test = train_test_split(
        np.arange(len(targets)), test_size=450, stratify=targets, random_state=SPLIT_SEED
    )
    train, validation = train_test_split(rest, test_size=269, stratify=targets[rest], random_state=SPLIT_SEED)
    return {"train": np.sort(train), "validation": np.sort(validation), "test": np.sort(test)}
