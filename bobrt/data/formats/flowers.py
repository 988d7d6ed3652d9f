"""Oxford Flowers-102: `jpg/`, `imagelabels.mat` with a class per image, `setid.mat` with the splits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bobrt.data import Listing
from bobrt.data.formats import matlab
from bobrt.data.formats.labelled import of_lists, top
from bobrt.data.formats.listed import AGAIN
from bobrt.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from bobrt.data import Split

CLASSES = 102
SPLITS = {"train": "trnid", "validation": "valid", "test": "tstid"}


def read(root: Path) -> Listing:
    """Return the official splits: 1,020 train, 1,020 validation and 6,149 test images.

    The classes have numbers, 1 to 102: the files bring no names.

    Args:
        root: The folder with `jpg/` and the two `.mat` files.

    Raises:
        UsageError: A file is missing or something else, a class is out of range, or an image is not there.

    """
    base = top(root, "flowers-102")
    labels = _numbers(base / "imagelabels.mat", "labels")
    for image, label in enumerate(labels.tolist(), start=1):
        if not 1 <= label <= CLASSES:
            raise UsageError(
                f"{base / 'imagelabels.mat'}, image {image}: class {label} is not one of 1 to {CLASSES}",
                AGAIN,
            )
    splits = {name: _split(base, labels, key) for name, key in SPLITS.items()}
    return Listing([str(number) for number in range(1, CLASSES + 1)], splits)


def _split(base: Path, labels: NDArray[np.int64], key: str) -> Split:
    path = base / "setid.mat"
    found = []
    for place, image in enumerate(_numbers(path, key).tolist(), start=1):
        where = f"{path}, {key} {place}"
        if not 1 <= image <= len(labels):
            raise UsageError(f"{where}: image {image} is not one of 1 to {len(labels)}", AGAIN)
        found.append((f"jpg/image_{image:05}.jpg", int(labels[image - 1]) - 1, where))
    return of_lists(base, found)


def _numbers(path: Path, key: str) -> NDArray[np.int64]:
    found = matlab.row(path, key)
    if found.dtype.kind not in "iu":
        raise UsageError(f"{path}: {key!r} is {found.dtype}, not whole numbers", AGAIN)
    return found.astype(np.int64)
