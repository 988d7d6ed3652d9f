"""Weather before the lens, and on it."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from bobrt.data.corruptions.convolution import convolve, streak
from bobrt.data.corruptions.panes import panes
from bobrt.data.corruptions.size import REFERENCE, scale

if TYPE_CHECKING:
    from numpy.typing import NDArray

# ImageNet-C's, lengths in pixels at 224.
_SNOW = (
    (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
    (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
    (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
    (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
    (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
)
"""Mean and deviation of the noise, size of a flake, value from which noise is snow, radius and sigma of the
fall, and how much of the image is not whitened."""
_FROST = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))
"""Weights of the image and of the frost."""
_ICE = np.array([0.84, 0.93, 1.0], np.float32)
"""Red, green and blue of a white pane."""
_FOG = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))
"""How thick, and how fast the fog's detail fades as it gets finer."""
_BRIGHTNESS = (0.1, 0.2, 0.3, 0.4, 0.5)
"""What the value of hue, saturation and value gains; Tiny ImageNet-C's too."""


def snow(image: NDArray[np.uint8], severity: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the image whitened, behind flakes that fall within 45 degrees of the vertical.

    The fall is ImageMagick's motion blur. For an image below 224 pixels the flakes are drawn larger, up to
    four times, and made smaller: they may well be less than a pixel.
    """
    mean, spread, flake, threshold, radius, sigma, kept = _SNOW[severity - 1]
    side, size = len(image), scale(len(image))
    drawn = max(side, min(4 * side, REFERENCE))
    flakes = _noise(drawn, flake * scale(drawn), rng) * np.float32(spread) + np.float32(mean)
    flakes[flakes < threshold] = 0
    flakes = _resized(np.clip(flakes, 0, 1), side, drawn)
    fall = streak(radius * size, sigma * size, rng.uniform(-135, -45), steps=2 * radius * ceil(size))
    layer = convolve(flakes[..., None], fall)
    layer = 255 * (layer + layer[::-1, ::-1])
    red, green, blue = (image[..., channel] for channel in range(3))
    grey = red * np.float32(0.299) + green * np.float32(0.587) + blue * np.float32(0.114)
    white: NDArray[np.float32] = np.maximum(image, (grey * 1.5 + 127.5)[..., None])
    white *= 1 - kept
    white += image * np.float32(kept)
    white += layer
    return white


def frost(image: NDArray[np.uint8], severity: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the image behind a frozen pane.

    ImageNet-C lays parts of five photographs of frost over the image. They cannot be shipped; the five
    panes of `bobrt.data.corruptions.panes` are drawn, and chosen and cut in the same way.
    """
    kept, weight = _FROST[severity - 1]
    side = len(image)
    choice = panes(side)
    top, left = rng.integers(0, side, 2, endpoint=True)
    pane = choice[rng.integers(len(choice)), top : top + side, left : left + side]
    spoilt: NDArray[np.float32] = pane[..., None] * (weight * _ICE)
    spoilt += image * np.float32(kept)
    return spoilt


def fog(image: NDArray[np.uint8], severity: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the image behind a plasma fractal, as bright at its brightest as it was."""
    thickness, decay = _FOG[severity - 1]
    brightest = float(image.max())
    spoilt = image + (255 * thickness) * _plasma(len(image), decay, rng)[..., None]
    spoilt *= brightest / (brightest + 255 * thickness)
    return spoilt


def brightness(image: NDArray[np.uint8], severity: int, _rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the image with more value, of the same hue and saturation."""
    value = np.maximum(np.maximum(image[..., :1], image[..., 1:2]), image[..., 2:]).astype(np.float32)
    brighter = np.minimum(value + 255 * _BRIGHTNESS[severity - 1], 255)
    # Black has no hue: it becomes grey.
    spoilt: NDArray[np.float32] = np.where(value > 0, image * (brighter / np.maximum(value, 1)), brighter)
    return spoilt


def _noise(side: int, grain: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return standard normal noise `[side, side]` on a grid of so many pixels, between its points linear."""
    across = side / grain
    return _resized(rng.standard_normal((ceil(across), ceil(across)), dtype=np.float32), side, across)


def _plasma(side: int, decay: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a fractal map from 0 to 1, `[side, side]`, by the diamond-square algorithm.

    ImageNet-C cuts 224 pixels out of a map of 256; here, the same part of the next map that has so many.
    Its displacements shrink from one scale to the next by the square of the decay, as published.
    """
    part = 224 / 256
    grid, strength = np.zeros((1, 1)), 1.0
    while len(grid) * part < side:
        grid = _finer(grid, strength, rng)
        strength /= decay**2
    grid -= grid.min()
    grid /= grid.max()
    return _resized(grid.astype(np.float32), side, len(grid) * part)


def _resized(values: NDArray[np.float32], side: int, end: float) -> NDArray[np.float32]:
    """Return the part of a square map up to `end` pixels at another side."""
    picture = Image.fromarray(values).resize((side, side), Image.Resampling.BILINEAR, (0, 0, end, end))
    return np.asarray(picture)


def _finer(grid: NDArray[np.float64], strength: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a map that repeats at twice the resolution: means of the four points around, displaced."""
    size = len(grid)
    noise = rng.uniform(-strength, strength, (3, size, size))
    right, below = np.roll(grid, -1, axis=1), np.roll(grid, -1, axis=0)
    centre = (grid + right + below + np.roll(right, -1, axis=0)) / 4 + noise[0]
    finer = np.empty((2 * size, 2 * size))
    finer[::2, ::2] = grid
    finer[1::2, 1::2] = centre
    finer[::2, 1::2] = (grid + right + centre + np.roll(centre, 1, axis=0)) / 4 + noise[1]
    finer[1::2, ::2] = (grid + below + centre + np.roll(centre, 1, axis=1)) / 4 + noise[2]
    return finer
