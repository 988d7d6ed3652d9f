"""From images of any size to the engine's input: the one resize of training's eval and of bench."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bobrt.spec import Transform

THIN = 8
"""Of an image that is longer than so many times its other side, the middle is taken: resized, the whole would
be gigabytes, of which the cut keeps less."""
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class Geometry(NamedTuple):
    """Where the pixels of an image are in the engine's input: `(pixel - middle) * scale - cut`."""

    middle: tuple[int, int]
    """Left and upper side of what is taken of an image that is too thin; 0 and 0 of others."""
    taken: tuple[int, int]
    """Width and height of that."""
    resized: tuple[int, int]
    """Width and height it is resized to."""
    cut: tuple[int, int]
    """Left and upper side of the square that is cut out."""

    def to_input(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """Return points `[..., 2]`, x and y in pixels of the image, in pixels of the engine's input."""
        return np.asarray((points - np.array(self.middle)) * self._scale - np.array(self.cut), np.float64)

    def to_image(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """Return points `[..., 2]`, x and y in pixels of the engine's input, in pixels of the image."""
        return np.asarray((points + np.array(self.cut)) / self._scale + np.array(self.middle), np.float64)

    @property
    def _scale(self) -> NDArray[np.float64]:
        return np.divide(self.resized, self.taken, dtype=np.float64)


def geometry(height: int, width: int, transform: Transform) -> Geometry:
    """Return where `resize` puts the pixels of an image of this size."""
    short = min(height, width)
    taken = min(width, THIN * short), min(height, THIN * short)
    scale = round(transform.size / transform.crop_pct) / short
    across, down = (max(transform.size, round(side * scale)) for side in taken)
    return Geometry(
        middle=((width - taken[0]) // 2, (height - taken[1]) // 2),
        taken=taken,
        resized=(across, down),
        cut=((across - transform.size) // 2, (down - transform.size) // 2),
    )


def resize_masks(masks: Sequence[NDArray[np.uint8]], transform: Transform) -> NDArray[np.uint8]:
    """Return `uint8 [n, size, size]`: the masks of images, where `resize` puts these; no value is mixed.

    Args:
        masks: Each `uint8 [height, width]`, as large as its image.
        transform: Size and crop.

    """
    return np.stack([_put(Image.fromarray(mask), transform, Image.Resampling.NEAREST) for mask in masks])


def resize(images: Sequence[NDArray[np.uint8]], transform: Transform) -> NDArray[np.uint8]:
    """Return `uint8 [n, size, size, 3]`: shorter side to `size / crop_pct`, then the centre cut out.

    Args:
        images: Each `uint8 [height, width, 3]`.
        transform: Size, crop and filter.

    """
    batch = np.empty((len(images), transform.size, transform.size, 3), np.uint8)
    for row, image in enumerate(images):
        batch[row] = _one(image, transform)
    return batch


def _one(image: NDArray[np.uint8], transform: Transform) -> NDArray[np.uint8]:
    return _put(Image.fromarray(image), transform, _FILTERS[transform.interpolation])


def _put(picture: Image.Image, transform: Transform, kernel: Image.Resampling) -> NDArray[np.uint8]:
    place = geometry(picture.height, picture.width, transform)
    if place.taken != picture.size:
        left, top = place.middle
        picture = picture.crop((left, top, left + place.taken[0], top + place.taken[1]))
    picture = picture.resize(place.resized, kernel)
    left, top = place.cut
    return np.asarray(picture.crop((left, top, left + transform.size, top + transform.size)))
