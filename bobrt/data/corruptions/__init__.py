"""The fifteen corruptions of ImageNet-C, at five severities, of the images an engine is about to be shown.

After Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", ICLR 2019. The constants are those their programs draw ImageNet-C with at 224 pixels;
the same authors have published others for 32 pixels (CIFAR-10-C) and 64 (Tiny ImageNet-C). At a
side of 224 this is ImageNet-C but for what each function says of itself. At other sides:

- A strength, as of a light or a fog, is the same at any size, so that a severity looks alike. Theirs are
  milder at 32 and some at 64: a contrast of 0.75 to 0.15 where it is 0.4 to 0.05 at 224.
- A length grows with the image, as `side / 224`. Theirs do so, roughly: a defocus of 3 to 10 pixels at 224
  is one of 0.3 to 1.5 at 32. Their motions, snow flakes and moved pixels are longer than that at 32.
- What is as large as a pixel or a JPEG block at any size, as a grain of noise is, hides more of a small
  image: there the published constants of 32, 64 and 224 pixels are met, and interpolated between.

A value is rounded where the authors' programs truncate, and is not stored as JPEG of quality 85 afterwards,
as the files of ImageNet-C are: a score compares with others from here, and not exactly with published ones.

What is drawn by chance depends on the seed, the image's number, the corruption and the severity, and on
nothing else: not on the batch, the order, the thread or the process. Another version of numpy or Pillow may
draw other noise, and another processor round a value to its neighbour.
"""

from __future__ import annotations

import zlib
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bobrt.data.corruptions.blur import defocus_blur, glass_blur, motion_blur, zoom_blur
from bobrt.data.corruptions.digital import contrast, elastic_transform, jpeg_compression, pixelate
from bobrt.data.corruptions.noise import gaussian_noise, impulse_noise, shot_noise
from bobrt.data.corruptions.weather import brightness, fog, frost, snow
from bobrt.errors import UsageError, unknown
from bobrt.paths import sha256_of
from bobrt.spec import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

_CORRUPTIONS: dict[str, Callable[[NDArray[np.uint8], int, np.random.Generator], NDArray[np.float32]]] = {
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "defocus_blur": defocus_blur,
    "glass_blur": glass_blur,
    "motion_blur": motion_blur,
    "zoom_blur": zoom_blur,
    "snow": snow,
    "frost": frost,
    "fog": fog,
    "brightness": brightness,
    "contrast": contrast,
    "elastic_transform": elastic_transform,
    "pixelate": pixelate,
    "jpeg_compression": jpeg_compression,
}
NAMES = tuple(_CORRUPTIONS)
"""The published names, in the published order."""
SEVERITIES = (1, 2, 3, 4, 5)


@cache
def identity() -> str:
    """Return a digest of what decides the pixels beside the arguments: this code, and what it calls."""
    code = sha256_of(*sorted(Path(__file__).parent.glob("*.py")))
    return digest([code, *(version(name) for name in ("numpy", "scipy", "pillow"))])


def corrupt(
    image: NDArray[np.uint8], name: str, severity: int, seed: int, number: int = 0
) -> NDArray[np.uint8]:
    """Return one image spoilt, `uint8 [side, side, 3]`.

    Args:
        image: `uint8 [side, side, 3]`, resized and cropped to the engine's input, not normalised.
        name: One of `NAMES`.
        severity: 1 to 5.
        seed: Of the experiment; not negative.
        number: Which image this is; another number draws other noise.

    Raises:
        UsageError: There is no such corruption or severity.

    """
    if name not in _CORRUPTIONS:
        raise unknown("corruption", name, NAMES)
    if severity not in SEVERITIES:
        raise UsageError(f"unknown severity {severity} of {name}", "one of: 1, 2, 3, 4, 5")
    rng = np.random.Generator(np.random.PCG64([seed, number, zlib.crc32(name.encode()), severity]))
    spoilt = _CORRUPTIONS[name](image, severity, rng)
    np.rint(spoilt, out=spoilt)
    return np.clip(spoilt, 0, 255, out=spoilt).astype(np.uint8, order="C")


def corrupt_batch(
    images: NDArray[np.uint8], numbers: Sequence[int], name: str, severity: int, seed: int
) -> NDArray[np.uint8]:
    """Return a batch spoilt, `uint8 [n, side, side, 3]`: each image as `corrupt` spoils it alone.

    Args:
        images: `uint8 [n, side, side, 3]`.
        numbers: The number of each image, `n` of them.
        name: One of `NAMES`.
        severity: 1 to 5.
        seed: Of the experiment; not negative.

    Raises:
        UsageError: There is no such corruption or severity.

    """
    spoilt = np.empty_like(images)
    for row, (image, number) in enumerate(zip(images, numbers, strict=True)):
        spoilt[row] = corrupt(image, name, severity, seed, int(number))
    return spoilt
