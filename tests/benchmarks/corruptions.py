"""How many images a second each corruption spoils on one core, at 32 and at 224 pixels.

    make bench-corruptions

Each is asked for its five severities in turns, of images as large as an engine's input, one at a time as
`bobrt.data.corruptions.corrupt_batch` does. Printed: the rate over all five, and that of the slowest of
them. Goals: 2,000 images/s at 32 pixels for the median corruption, 60 at 224 for the slowest one.
"""

from __future__ import annotations

import time

import numpy as np

from bobrt import console
from bobrt.data import corruptions
from bobrt.paths import CPU, lock

SIDES = (32, 224)
TURNS = 5
TURN_S = 0.05
"""Seconds that a severity is repeated for in each turn, at least."""


def main() -> None:
    """Print one line per corruption, and one on each goal."""
    with lock(CPU, lambda: console.note("waiting: another bobrt uses this machine")):
        rates = {name: {side: _rates(name, side) for side in SIDES} for name in corruptions.NAMES}
    for name, found in rates.items():
        parts = [
            f"{side} px {_together(r):,.0f} images/s (slowest {r.min():,.0f})" for side, r in found.items()
        ]
        console.data(f"{name}: {', '.join(parts)}")
    small = float(np.median([_together(found[32]) for found in rates.values()]))
    large = min(_together(found[224]) for found in rates.values())
    console.data(
        f"median corruption at 32 px: {small:,.0f} images/s; slowest at 224 px: {large:,.0f} images/s"
    )


def _together(rates: np.ndarray) -> float:
    """Return the rate of as many images of each severity."""
    return float(len(rates) / (1 / rates).sum())


def _rates(name: str, side: int) -> np.ndarray:
    """Return images per second for each severity: the median of the turns."""
    images = _photographs(side)
    corruptions.corrupt_batch(images[:1], [0], name, 1, seed=0)  # what is drawn once in a process
    turns = [[_rate(name, severity, images) for severity in corruptions.SEVERITIES] for _ in range(TURNS)]
    return np.median(turns, axis=0)


def _rate(name: str, severity: int, images: np.ndarray) -> float:
    done, begin = 0, time.perf_counter()
    while (passed := time.perf_counter() - begin) < TURN_S:
        corruptions.corrupt_batch(images, range(done, done + len(images)), name, severity, seed=0)
        done += len(images)
    return done / passed


def _photographs(side: int) -> np.ndarray:
    """Return four images with detail at every scale, as a photograph's: `uint8 [4, side, side, 3]`."""
    frequency = np.hypot(np.fft.fftfreq(side), np.fft.fftfreq(side)[:, None])
    frequency[0, 0] = np.inf
    noise = np.random.default_rng(0).standard_normal((4, 3, side, side))
    detail = np.fft.ifft2(np.fft.fft2(noise) / frequency).real
    grey = 128 + 50 * detail / detail.std()
    return np.ascontiguousarray(np.clip(grey, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1))


if __name__ == "__main__":
    main()
