"""Energy by a counter of the machine: without one there is no number, never an estimate."""

from __future__ import annotations

import time
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

from bobrt.speed import Energy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.nvml import Gpu

Feed = TypeVar("Feed")

LEAST_S = 1.0
"""NVML's counter moves some ten times a second: a shorter block could be wrong by more than a tenth."""
POWERCAP = Path("/sys/class/powercap")
_MICRO = 1e-6
_MILLI = 1e-3


class Counter(Protocol):
    """A counter of energy that only grows."""

    @property
    def what(self) -> str:
        """Which counter, and what it covers."""

    def joules(self) -> float | None:
        """Return joules since some fixed moment, or None if the machine refuses."""


class Meter:
    """Energy over a `with` block: `joules` is None where no counter tells, `seconds` is its length."""

    def __init__(self, counter: Counter | None) -> None:
        self._counter = counter
        self.joules: float | None = None
        self.seconds = 0.0

    def __enter__(self) -> Self:
        self._before = self._read()
        self._began = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._began
        after = self._read()
        if self._before is not None and after is not None and after > self._before:
            self.joules = after - self._before

    def per_image(self, images: int) -> Energy | None:
        """Return the record for so many images answered in the block, warm-up and all; None if unknown."""
        if self._counter is None or self.joules is None or self.seconds < LEAST_S:
            return None
        return Energy(
            joules_per_image=self.joules / images,
            what=self._counter.what,
            images=images,
            seconds=round(self.seconds, 3),
        )

    def _read(self) -> float | None:
        return None if self._counter is None else self._counter.joules()


def measure(
    counter: Counter | None,
    infer: Callable[[Feed], object],
    feeds: Sequence[Feed],
    batch: int,
    seconds: float,
) -> Energy | None:
    """Answer one batch after another for a while, without a stopwatch, and read the counter around it.

    Args:
        counter: Where the energy is read; None costs no time and gives None.
        infer: A warm engine's call; it returns when the answer is there.
        feeds: Batches of real inputs that take turns.
        batch: Images in each.
        seconds: How long; never less than `LEAST_S`.

    Returns:
        The record, or None where no counter tells.

    """
    if counter is None:
        return None
    pool, calls = cycle(feeds), 0
    with Meter(counter) as meter:
        end = time.perf_counter() + max(seconds, LEAST_S)
        while time.perf_counter() < end:
            infer(next(pool))
            calls += 1
    return meter.per_image(calls * batch)


def counter(gpu: Gpu | None, powercap: Path = POWERCAP) -> Counter | None:
    """Return the counter of the device that is timed, or None.

    Args:
        gpu: The GPU the engine runs on; None for a CPU, whose counter is RAPL's.
        powercap: Linux's folder of RAPL zones; its counters are often readable by root alone.

    """
    if gpu is not None:
        return None if gpu.energy_mj() is None else _GpuCounter(gpu)
    zones = sorted(powercap.glob("intel-rapl:*"))
    # Of the other zones, cores and caches are parts of a package, and psys is more than the CPU.
    rapl = _Rapl([zone for zone in zones if _text(zone / "name").startswith("package")])
    return None if rapl.joules() is None else rapl


class _GpuCounter:
    """The energy counter of a GPU."""

    what = "NVML's energy counter: the whole GPU board, without the host"

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu

    def joules(self) -> float | None:
        value = self._gpu.energy_mj()
        return None if value is None else value * _MILLI


class _Rapl:
    """The energy counters of all CPU packages; each starts anew at its own range, which is counted in.

    Two starts between two readings would look like one; at 200 W that takes several minutes.
    """

    what = "RAPL: all CPU packages with all that ran on them, without memory, disks and fans"

    def __init__(self, zones: Sequence[Path]) -> None:
        self._zones = zones
        self._last: list[int] | None = None
        self._sum = 0

    def joules(self) -> float | None:
        now = [_number(zone / "energy_uj") for zone in self._zones]
        ranges = [_number(zone / "max_energy_range_uj") for zone in self._zones]
        known, spans = [v for v in now if v is not None], [v for v in ranges if v is not None]
        if not known or len(known) < len(now) or len(spans) < len(ranges):
            return None
        for value, before, span in zip(known, self._last or known, spans, strict=True):
            self._sum += value - before + (span if value < before else 0)
        self._last = known
        return self._sum * _MICRO


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
