"""Blur of the lens, of a pane, of a motion."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from bobrt.data.corruptions.convolution import convolve, disc, streak
from bobrt.data.corruptions.size import scale

if TYPE_CHECKING:
    from numpy.typing import NDArray

# ImageNet-C's, lengths in pixels at 224.
_RADIUS = (3, 4, 6, 8, 10)
_GLASS = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))
"""Sigma of the Gaussian, farthest a pixel moves, how often."""
_MOTION = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))
"""Radius and sigma as ImageMagick takes them."""
_ZOOM = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))
"""Where the enlargements end, and the step from one to the next."""


def defocus_blur(image: NDArray[np.uint8], severity: int, _rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the image through a lens out of focus.

    The published disc is softened by a Gaussian of up to half a pixel; here each of its points falls on the
    four pixels around it, which does the same and also serves a disc below a pixel.
    """
    return convolve(image, disc(_RADIUS[severity - 1] * scale(len(image))))


def glass_blur(image: NDArray[np.uint8], severity: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the image through frosted glass: blurred, its pixels moved about, and blurred again.

    The published loop goes from pixel to pixel and means to swap each with a neighbour; as it is written both
    end up as the neighbour was, and some are carried on by what follows. Here every pixel at once takes
    the value at the end of a walk of its own, of as many steps as the loop has rounds: none has to wait for
    another. A step goes up to the published distance either way; the loop's stops one short of it to the
    right and below, so that its images also drift. Where a walk ends between pixels chance decides, the
    nearer the likelier. A pixel that moves is a larger part of a small image, which is harder for it than
    at 224, if not as hard as in CIFAR-10-C, where nearly every pixel moves by a whole one.
    """
    sigma, farthest, rounds = _GLASS[severity - 1]
    side, size = len(image), scale(len(image))
    steps = rng.integers(-farthest, farthest + 1, (rounds, 2, side, side), dtype=np.int8)
    walk = steps.sum(axis=0, dtype=np.int8) * np.float32(size)
    walk += rng.random(walk.shape, dtype=np.float32)
    place = np.floor(walk, out=walk).astype(np.intp)
    place[0] += np.arange(side)[:, None]
    place[1] += np.arange(side)
    np.clip(place, 0, side - 1, out=place)
    moved = (
        _gaussian(image.astype(np.float32), sigma * size)
        .reshape(-1, 3)
        .take(place[0] * side + place[1], axis=0)
    )
    return _gaussian(moved, sigma * size)


def motion_blur(image: NDArray[np.uint8], severity: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the image as a camera that moves within 45 degrees of the horizontal sees it.

    The kernel is ImageMagick's, whose points fall on the nearest pixel; here on the four around.
    """
    radius, sigma = _MOTION[severity - 1]
    size = scale(len(image))
    trail = streak(radius * size, sigma * size, rng.uniform(-45, 45), steps=2 * radius * ceil(size))
    return convolve(image, trail)


def zoom_blur(image: NDArray[np.uint8], severity: int, _rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the image as a camera that moves towards it sees it: the mean of enlargements, itself twice.

    The published enlargements are of a whole number of pixels, here of the exact part of the image.
    """
    side, picture = len(image), Image.fromarray(image)
    factors = np.arange(1, *_ZOOM[severity - 1])
    total = image.astype(np.float32)
    for factor in factors.tolist():
        edge = side / 2 * (1 - 1 / factor)
        box = (edge, edge, side - edge, side - edge)
        total += np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR, box))
    total /= len(factors) + 1
    return total


def _gaussian(image: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Return `[side, side, channels]` blurred by a Gaussian that ends at four sigma, edges repeated."""
    reach = int(4 * sigma + 0.5)
    if not reach:
        return image
    weights = np.exp(-0.5 * (np.arange(reach + 1) / sigma) ** 2)
    weights /= 2 * weights.sum() - weights[0]
    for axis in (0, 1):
        image = _weighted(image.swapaxes(0, axis), weights.tolist()).swapaxes(0, axis)
    return image


def _weighted(image: NDArray[np.float32], weights: list[float]) -> NDArray[np.float32]:
    """Return each row as the weighted sum of those about it, as far on either side."""
    side, reach = len(image), len(weights) - 1
    padded = image.take(np.clip(np.arange(-reach, side + reach), 0, side - 1), axis=0)
    total = padded[reach : reach + side] * weights[0]
    pair = np.empty_like(total)
    for far in range(1, reach + 1):
        before, after = padded[reach - far :][:side], padded[reach + far :][:side]
        np.add(before, after, out=pair)
        pair *= weights[far]
        total += pair
    return total
