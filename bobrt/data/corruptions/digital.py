"""What processing does: contrast, a distorted shape, coarse pixels, compression."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from bobrt.data.corruptions.size import between, scale

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CONTRAST = (0.4, 0.3, 0.2, 0.1, 0.05)
"""ImageNet-C's and Tiny ImageNet-C's."""
_ELASTIC = tuple(
    (244 * strength, 244 * length, 244 * jolt)
    for strength, length, jolt in (
        (2, 0.7, 0.1),
        (2, 0.08, 0.2),
        (0.05, 0.01, 0.02),
        (0.07, 0.01, 0.02),
        (0.12, 0.01, 0.02),
    )
)
"""ImageNet-C's, in pixels at 224 (the 244 is the authors', and stands): strength of the local
displacement before it is smoothed, length it is smoothed over, and farthest a corner moves."""

# A row for each severity: the constants of CIFAR-10-C, Tiny ImageNet-C and ImageNet-C.
_PIXELATE = ((0.95, 0.9, 0.6), (0.9, 0.8, 0.5), (0.85, 0.7, 0.4), (0.75, 0.6, 0.3), (0.65, 0.5, 0.25))
_QUALITY = ((80, 65, 25), (65, 58, 18), (58, 50, 15), (50, 40, 10), (40, 25, 7))


def contrast(image: NDArray[np.uint8], severity: int, _rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the image with every channel drawn towards its mean."""
    means = image.mean(axis=(0, 1)).astype(np.float32)
    spoilt = image.astype(np.float32)
    spoilt -= means
    spoilt *= _CONTRAST[severity - 1]
    spoilt += means
    return spoilt


def elastic_transform(
    image: NDArray[np.uint8], severity: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return the image stretched as a whole, and every spot of it displaced with its surroundings.

    As published, severities 1 and 2 stretch and 3 to 5 displace: 3 is nearer to the clean image than 2. The
    published displacement is noise smoothed between mirrors, here the same noise on a plane that repeats,
    and the image is sampled once for both. Below 92 pixels a displacement would be smoothed over less than a
    pixel: there it is smoothed over a pixel, and as strong as it would be.
    """
    strength, length, jolt = _ELASTIC[severity - 1]
    side, size = len(image), scale(len(image))
    stretch = _stretch(side, rng.uniform(-jolt * size, jolt * size, (3, 2)))
    across, down = _displacement(side, strength * size, length * size, rng)
    place = np.arange(side, dtype=np.float32)
    across += place
    down += place[:, None]
    return _sampled(
        image,
        across * stretch[0, 0] + down * stretch[1, 0] + stretch[2, 0],
        across * stretch[0, 1] + down * stretch[1, 1] + stretch[2, 1],
    )


def pixelate(image: NDArray[np.uint8], severity: int, _rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the image made of fewer pixels."""
    side, box = len(image), Image.Resampling.BOX
    few = int(side * between(side, _PIXELATE[severity - 1]))
    picture = Image.fromarray(image).resize((few, few), box).resize((side, side), box)
    return np.asarray(picture, np.float32)


def jpeg_compression(
    image: NDArray[np.uint8], severity: int, _rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return the image out of a JPEG file of low quality."""
    file = io.BytesIO()
    quality = round(between(len(image), _QUALITY[severity - 1]))
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file), np.float32)


def _stretch(side: int, moves: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return `[3, 2]`, by which `(x, y, 1)` is where a pixel's value comes from.

    Args:
        side: Pixels.
        moves: `[3, 2]` pixels, how far three corners of a square in the middle go.

    """
    middle, arm = side // 2, side // 3
    corners = np.array([[arm, arm], [arm, -arm], [-arm, -arm]], np.float64) + middle
    return np.linalg.solve(np.column_stack([corners + moves, np.ones(3)]), corners).astype(np.float32)


def _displacement(
    side: int, strength: float, length: float, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return how far every pixel goes to the right and down: noise from -1 to 1, smoothed, times a strength.

    The spectrum of noise is noise itself, so that it is drawn where smoothing is a product. Two independent
    maps are the parts of a complex one.

    Args:
        side: Pixels.
        strength: Pixels.
        length: Pixels, sigma of the Gaussian.
        rng: What draws.

    """
    smoothed = max(length, 1)
    gain = np.exp(-2 * (np.pi * smoothed * np.fft.fftfreq(side)) ** 2).astype(np.float32)
    noise = rng.standard_normal((side, side, 2), dtype=np.float32).view(np.complex64)[..., 0]
    noise *= gain * gain[:, None]
    # At 224 the noise has a standard deviation of a root of 1/3 in every pixel; in another image its grains
    # keep their share of the side, and a pixel is a part of one or a mean of several.
    noise *= strength * scale(side) * side / 3**0.5 * smoothed / length
    field: NDArray[np.complex64] = np.fft.ifft2(noise)  # type: ignore[assignment] # single precision is kept
    return field.real, field.imag


def _sampled(
    image: NDArray[np.uint8], across: NDArray[np.float32], down: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the image's values at these places, between pixels linearly, beyond the border mirrored."""
    side, values = len(image), image.reshape(-1, 3).astype(np.float32)
    left, right = _between_pixels(across, side)
    top, low = _between_pixels(down, side)
    corner = top * side + left
    above = _mixed(values.take(corner, axis=0), values.take(corner + 1, axis=0), right)
    corner += side
    below = _mixed(values.take(corner, axis=0), values.take(corner + 1, axis=0), right)
    return _mixed(above, below, low).reshape(*across.shape, 3)


def _mixed(
    one: NDArray[np.float32], other: NDArray[np.float32], share: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return this share of the other and the rest of the one, in the other's memory."""
    other -= one
    other *= share
    other += one
    return other


def _between_pixels(place: NDArray[np.float32], side: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the last pixel before each place, flat, and how far behind it the place is, `[n, 1]`."""
    last = side - 1
    folded = last - np.abs(np.abs(place) % (2 * last) - last)
    before = np.minimum(folded.astype(np.intp), last - 1)
    return before.ravel(), (folded - before).astype(np.float32).reshape(-1, 1)
