"""A split as one npz file: images of any sizes, no pickle, the same bytes whenever it is written."""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from bobrt.data import Split
from bobrt.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_DAMAGED = (OSError, EOFError, ValueError, TypeError, KeyError, zipfile.BadZipFile, zlib.error)
"""What numpy raises for a file that is cut off, is no archive, or asks for pickle."""


def pack(split: Split) -> bytes:
    """Return a split as an npz archive.

    `ids [n]`, `targets int64 [n]`, `shapes int64 [n, 3]` and, image after image, `pixels uint8`.

    Raises:
        UsageError: Its targets are boxes or masks, which have no place in it yet.

    """
    if split.targets.dtype == object:
        raise UsageError("boxes and masks cannot be packed into a bundle", "bench the backbone by its name")
    file = io.BytesIO()
    np.savez_compressed(
        file,
        ids=np.array(split.ids, dtype=np.str_),
        targets=split.targets.astype("<i8"),
        shapes=np.array([image.shape for image in split.images], dtype=np.int64).reshape(-1, 3),
        pixels=np.concatenate([np.zeros(0, np.uint8), *(image.ravel() for image in split.images)]),
    )
    return file.getvalue()


def unpack(path: Path) -> Split:
    """Return the split that `pack` made; raise `UsageError` naming the file if it is none."""
    found = arrays(path)
    try:
        ids, targets, shapes, pixels = (found[name] for name in ("ids", "targets", "shapes", "pixels"))
    except KeyError as error:
        raise UsageError(f"{path} is damaged: it holds no {error.args[0]}") from None
    sizes = shapes.prod(axis=-1)
    kinds = [ids.dtype.kind, *(array.dtype.str for array in (targets, shapes, pixels))]
    sound = kinds == ["U", "<i8", "<i8", "|u1"] and shapes.shape == (len(ids), 3)
    if not sound or targets.shape != ids.shape or (shapes < 1).any() or pixels.shape != (sizes.sum(),):
        raise UsageError(f"{path} is damaged: its ids, targets, shapes and pixels do not fit each other")
    ends = np.cumsum(sizes)
    images = [
        pixels[end - size : end].reshape(shape) for end, size, shape in zip(ends, sizes, shapes, strict=True)
    ]
    return Split(ids.tolist(), images, targets)


def arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return every array of an npz file; raise `UsageError` naming it if it is damaged or asks for pickle."""
    try:
        # numpy leaves a file of its own open that turns out to be damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            return {name: kept[name] for name in kept.files}
    except FileNotFoundError:
        raise UsageError(f"{path} is missing") from None
    except (*_DAMAGED, AttributeError) as error:  # a lone .npy is an array, which has no files
        raise UsageError(f"{path} is damaged: {' '.join(str(error).split())}") from None
