"""Frozen panes, drawn: crystals of six feathered arms that have grown until they met."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from bobrt.data.corruptions.size import REFERENCE

if TYPE_CHECKING:
    from numpy.typing import NDArray

PANES = 5
"""As many as the photographs that ImageNet-C chooses from."""
_SIDE = 2 * REFERENCE
_CRYSTALS = (10, 30)
_ARM = np.pi / 3
"""Radians from one arm of a crystal to the next, and from an arm to its barbs."""
_BARBS = ((23, 0.35), (9, 0.3), (5, 0.25))
"""Pixels from one barb to the next, and how bright these are."""


@lru_cache(maxsize=4)
def panes(side: int) -> NDArray[np.uint8]:
    """Return the panes for images of this side: grey, `uint8 [5, 2 * side, 2 * side]`, not to be written.

    They are the same for every seed; an image's seed decides which one it is behind, and which part.
    """
    drawn = [
        Image.fromarray(pane).resize((2 * side, 2 * side), Image.Resampling.BICUBIC) for pane in _drawn()
    ]
    found = np.stack([np.asarray(pane) for pane in drawn])
    found.setflags(write=False)
    return found


@lru_cache(maxsize=1)
def _drawn() -> list[NDArray[np.uint8]]:
    return [_pane(np.random.Generator(np.random.PCG64(number))) for number in range(PANES)]


def _pane(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return one pane for images of 224 pixels."""
    bent, patches, grain = _clouds(rng, 1.7), _clouds(rng, 1.4), _clouds(rng, 0.6).real
    line = np.arange(_SIDE, dtype=np.float32)
    along, aside = _on_arms(line + 1j * line[:, None] + 5 * bent, rng)
    feathers = 0.5 * np.exp(-((aside / (1.2 + 0.01 * along)) ** 2))
    for apart, bright in _BARBS:
        turns = (along - aside / np.tan(_ARM) + 2 * patches.imag) / apart
        feathers += bright * np.cos(np.pi * turns) ** 4
    thickness = np.clip(0.7 + 0.35 * patches.real, 0, None)
    ice: NDArray[np.float32] = 0.2 + thickness * (0.1 + feathers) + 0.06 * grain
    return (255 * np.clip(ice, 0, 1)).astype(np.uint8)


def _on_arms(
    place: NDArray[np.complex64], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return how far along the nearest arm of its crystal each place is, and how far aside of it."""
    count = int(rng.integers(*_CRYSTALS))
    centres = (rng.uniform(-0.1, 1.1, (count, 2)) * _SIDE).astype(np.float32).view(np.complex64)[:, 0]
    tilts, growths = rng.uniform(0, _ARM, count), rng.uniform(0.6, 1.4, count)
    nearest, closest = np.zeros(place.shape, np.intp), np.full(place.shape, np.inf, np.float32)
    for number, centre in enumerate(centres):
        distance = np.abs(place - centre) / np.float32(growths[number])
        nearest[distance < closest] = number
        np.minimum(distance, closest, out=closest)
    away = place - centres[nearest]
    turned = np.angle(away) - tilts.astype(np.float32)[nearest]
    turned = (turned + np.float32(_ARM / 2)) % np.float32(_ARM) - np.float32(_ARM / 2)
    distance = np.abs(away)
    return distance * np.cos(turned), distance * np.abs(np.sin(turned))


def _clouds(rng: np.random.Generator, smoothness: float) -> NDArray[np.complex64]:
    """Return two independent maps of deviation 1, one real and one imaginary, `[448, 448]`."""
    across = np.fft.fftfreq(_SIDE).astype(np.float32)
    frequency = np.hypot(across, across[:, None])
    frequency[0, 0] = np.inf
    noise = rng.standard_normal((_SIDE, _SIDE, 2), dtype=np.float32).view(np.complex64)[..., 0]
    field = np.fft.ifft2(noise * frequency**-smoothness)
    clouds: NDArray[np.complex64] = (field / field.real.std()).astype(np.complex64)
    return clouds
