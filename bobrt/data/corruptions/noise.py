"""Noise of the sensor: each of its grains is a pixel, at any size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bobrt.data.corruptions.size import between

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A row for each severity: the constants of CIFAR-10-C, Tiny ImageNet-C and ImageNet-C.
_GAUSSIAN = (
    (0.04, 0.04, 0.08),
    (0.06, 0.08, 0.12),
    (0.08, 0.12, 0.18),
    (0.09, 0.15, 0.26),
    (0.10, 0.18, 0.38),
)
_SHOT = ((500, 250, 60), (250, 100, 25), (100, 50, 12), (75, 30, 5), (50, 15, 3))
_IMPULSE = (
    (0.01, 0.01, 0.03),
    (0.02, 0.02, 0.06),
    (0.03, 0.05, 0.09),
    (0.05, 0.08, 0.17),
    (0.07, 0.14, 0.27),
)


def gaussian_noise(image: NDArray[np.uint8], severity: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the image under noise of a standard deviation that is a share of white."""
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    noise *= 255 * between(len(image), _GAUSSIAN[severity - 1])
    noise += image
    return noise


def shot_noise(image: NDArray[np.uint8], severity: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the image as that many photons a white value would show it."""
    photons = between(len(image), _SHOT[severity - 1])
    counted = rng.poisson(image * (photons / 255)).astype(np.float32)
    counted *= 255 / photons
    return counted


def impulse_noise(image: NDArray[np.uint8], severity: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the image with a share of its values, each channel's by itself, all dark or all bright."""
    share = between(len(image), _IMPULSE[severity - 1])
    drawn = rng.random(image.shape, dtype=np.float32)
    spoilt = image.astype(np.float32)
    spoilt[drawn < share / 2] = 0
    spoilt[drawn >= 1 - share / 2] = 255
    return spoilt
