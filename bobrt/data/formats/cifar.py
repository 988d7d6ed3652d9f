"""CIFAR-10 and CIFAR-100 in the Python version: pickled batches of 32 x 32 pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bobrt.data import Listing, Split, pickles
from bobrt.data.formats.labelled import held_out, top
from bobrt.data.formats.listed import AGAIN
from bobrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SIDE = 32
PIXELS = 3 * SIDE * SIDE


def read_10(root: Path) -> Listing:
    """Return CIFAR-10: 45,000 train, 5,000 validation, of ours, and the 10,000 test images.

    Args:
        root: The folder with `data_batch_1` to `data_batch_5`, `test_batch` and `batches.meta`, or the one
            with `cifar-10-batches-py/`.

    Raises:
        UsageError: A file is missing, cut off, or something else.

    """
    base = top(root, "cifar-10-batches-py")
    classes = _classes(base / "batches.meta", "label_names")
    train = [f"data_batch_{number}" for number in range(1, 6)]
    return _listing(base, classes, train, "test_batch", "labels")


def read_100(root: Path) -> Listing:
    """Return CIFAR-100 by its fine classes: 45,000 train, 5,000 validation, of ours, and 10,000 test images.

    Args:
        root: The folder with `train`, `test` and `meta`, or the one with `cifar-100-python/`.

    Raises:
        UsageError: A file is missing, cut off, or something else.

    """
    base = top(root, "cifar-100-python")
    classes = _classes(base / "meta", "fine_label_names")
    return _listing(base, classes, ["train"], "test", "fine_labels")


def _listing(base: Path, classes: list[str], train: list[str], test: str, key: str) -> Listing:
    whole = _split(base, train, key, len(classes))
    return Listing(classes, {**held_out(whole), "test": _split(base, [test], key, len(classes))})


def _split(base: Path, batches: Sequence[str], key: str, classes: int) -> Split:
    ids: list[str] = []
    pixels, targets = [], []
    for name in batches:
        images, labels = _batch(base / name, key, classes)
        # The names in the files are not unique.
        ids += [f"{name}/{row:05}" for row in range(len(labels))]
        pixels.append(images)
        targets.append(labels)
    whole = np.concatenate(pixels).reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return Split(ids, list(np.ascontiguousarray(whole)), np.concatenate(targets))


def _batch(path: Path, key: str, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a batch's pixels, `uint8 [n, 3072]`, and its classes `[n]`."""
    content = _content(path)
    pixels, labels = content.get("data"), content.get(key)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (PIXELS,):
        raise UsageError(f"{path} has no 'data' of uint8 [n, {PIXELS}]", AGAIN)
    if not isinstance(labels, list) or len(labels) != len(pixels):
        raise UsageError(f"{path} has no {key!r} for its {len(pixels)} images", AGAIN)
    for row, label in enumerate(labels):
        if not isinstance(label, int) or not 0 <= label < classes:
            raise UsageError(f"{path}, image {row}: class {label!r} is not one of 0 to {classes - 1}", AGAIN)
    return pixels, np.array(labels, dtype=np.int64)


def _classes(path: Path, key: str) -> list[str]:
    names = _content(path).get(key)
    if not isinstance(names, list) or not names:
        raise UsageError(f"{path} has no {key!r}", AGAIN)
    return [str(name) for name in names]


def _content(path: Path) -> dict[str, Any]:
    content = pickles.load(path)
    if not isinstance(content, dict):
        raise UsageError(f"{path} is no batch of CIFAR: it holds a {type(content).__name__}", AGAIN)
    return content
