"""From images of any size to the engine's input: the one resize of training's eval and of bench."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    picture = _less_thin(Image.fromarray(image))
    scale = round(transform.size / transform.crop_pct) / min(picture.size)
    width, height = (max(transform.size, round(side * scale)) for side in picture.size)
    picture = picture.resize((width, height), _FILTERS[transform.interpolation])
    left, top = (width - transform.size) // 2, (height - transform.size) // 2
    return np.asarray(picture.crop((left, top, left + transform.size, top + transform.size)))


def _less_thin(picture: Image.Image) -> Image.Image:
    short = min(picture.size)
    width, height = (min(side, THIN * short) for side in picture.size)
    if (width, height) == picture.size:
        return picture
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))
