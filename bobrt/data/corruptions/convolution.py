"""Kernels of any shape and fractional size, and images convolved with them."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DISC = 65
"""Points across a disc: a third of a pixel apart for the largest at 224 pixels."""


@lru_cache(maxsize=64)
def disc(radius: float) -> NDArray[np.float32]:
    """Return the kernel of a lens out of focus."""
    line = np.linspace(-radius, radius, _DISC)
    across, down = (axis.ravel() for axis in np.meshgrid(line, line))
    inside = across**2 + down**2 <= radius**2
    kernel = _spread(across[inside], down[inside], np.ones(inside.sum()))
    kernel.setflags(write=False)
    return kernel


def streak(radius: float, sigma: float, degrees: float, steps: int) -> NDArray[np.float32]:
    """Return the kernel of a motion as ImageMagick has it: half a Gaussian that trails to one side.

    Args:
        radius: Pixels; the trail is twice as long.
        sigma: Pixels, of the Gaussian.
        degrees: Direction of the trail; 0 is to the right.
        steps: How many parts the trail is made of.

    """
    far = np.linspace(0, 2 * radius, steps + 1)
    angle = np.deg2rad(degrees)
    return _spread(far * np.cos(angle), far * np.sin(angle), np.exp(-0.5 * (far / sigma) ** 2))


def convolve(
    image: NDArray[np.float32] | NDArray[np.uint8], kernel: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the image convolved with the kernel, and mirrored at its border.

    Args:
        image: `[side, side, channels]`.
        kernel: `[2 * reach + 1, 2 * reach + 1]`, with a reach below the side.

    """
    side, reach = len(image), len(kernel) // 2
    padded = _fast(side + 2 * reach)
    mirrored = np.abs(np.arange(-reach, padded - reach)) % (2 * side - 2)
    mirrored = np.minimum(mirrored, 2 * side - 2 - mirrored)
    planes = (
        image.transpose(2, 0, 1).take(mirrored, axis=1).take(mirrored, axis=2).astype(np.float32, copy=False)
    )
    spectrum = np.fft.fft(np.fft.rfft(planes), axis=-2)
    spectrum *= np.fft.fft(np.fft.rfft(kernel, padded), padded, axis=-2)
    planes = np.fft.irfft(np.fft.ifft(spectrum, axis=-2), padded)
    inside = slice(2 * reach, 2 * reach + side)
    return np.ascontiguousarray(planes[:, inside, inside].transpose(1, 2, 0))


def _fast(length: int) -> int:
    """Return the next length that a Fourier transform is quick at: even, and of the factors 2, 3 and 5."""
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1 and length % 2 == 0:
            return length
        length += 1


def _spread(
    across: NDArray[np.float64], down: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return a kernel of weighted points: each falls on the four pixels around it, the nearest most."""
    reach = int(max(np.abs(across).max(), np.abs(down).max())) + 1
    width = 2 * reach + 1
    left, top = np.floor(across), np.floor(down)
    right, bottom = across - left, down - top
    corner = ((top + reach) * width + left + reach).astype(np.intp)
    cells = np.concatenate([corner, corner + 1, corner + width, corner + width + 1])
    shares = np.concatenate(
        [(1 - bottom) * (1 - right), (1 - bottom) * right, bottom * (1 - right), bottom * right]
    )
    kernel = np.bincount(cells, np.tile(weights / weights.sum(), 4) * shares, width * width)
    return kernel.reshape(width, width).astype(np.float32)
