"""What becomes of a published constant in an image of another size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

REFERENCE = 224
"""Pixels: the side of the images that ImageNet-C's lengths were published for."""
PUBLISHED = (32, 64, 224)
"""Pixels: the sides of CIFAR-10-C, Tiny ImageNet-C and ImageNet-C."""


def scale(side: int) -> float:
    """Return what a length at 224 pixels is multiplied by."""
    return side / REFERENCE


def between(side: int, constants: Sequence[float]) -> float:
    """Return a constant published for 32, 64 and 224 pixels at another side.

    Linear in the logarithm of the side, and held below 32 and above 224.

    Args:
        side: Pixels.
        constants: Of 32, 64 and 224 pixels.

    """
    return float(np.interp(np.log2(side), np.log2(PUBLISHED), constants))
