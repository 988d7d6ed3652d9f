"""A machine whose time is the test's: engines on it take what they are told to, and nothing waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np

from bench.measure import Clock
from bench.stage import Stage
from bobrt.speed import Timing
from engines.runner import IMAGES, TensorMeta

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

SIDE = 4
NS = 1_000_000_000


class Machine:
    """Simulated time, and a speed that changes with it."""

    def __init__(self, slowness: Callable[[float], float] = lambda _: 1.0, seed: int = 0) -> None:
        self.ns = 0
        self.slowness = slowness
        self._rng = np.random.default_rng(seed)
        self.clock = Clock(self.read, self.spend)

    def read(self) -> int:
        """Reading a clock takes a moment too, or who spins on it would spin for ever."""
        self.ns += 2_000
        return self.ns

    def spend(self, seconds: float) -> None:
        self.ns += max(1, round(seconds * NS))

    def work(self, seconds: float, noise: float = 0.005) -> None:
        """Work that takes so long on the machine as it was at first."""
        self.spend(seconds * self.slowness(self.ns / NS) * float(np.exp(self._rng.normal(0, noise))))


class Engine:
    """An engine whose call takes `cost(batch, calls before)` seconds of the machine's time, or raises."""

    def __init__(self, machine: Machine, cost: Callable[[int, int], float], fixed: int | None = None) -> None:
        self.machine, self.cost, self.fixed = machine, cost, fixed
        self.asked: list[int] = []
        self.broken = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def inputs(self) -> Mapping[str, TensorMeta]:
        return {IMAGES: TensorMeta("uint8", (self.fixed, SIDE, SIDE, 3))}

    def infer(self, feeds: Mapping[str, NDArray[np.uint8]]) -> Mapping[str, NDArray[np.float32]]:
        batch = len(feeds[IMAGES])
        self.asked.append(batch)
        self.machine.work(self.cost(batch, len(self.asked)))
        value = np.nan if self.broken else float(batch)
        return {"logits": np.full((batch, 2), value, np.float32)}


class GpuEngine(Engine):
    """An engine whose device has a clock of its own: a fifth of a call is copies."""

    def infer(self, feeds: Mapping[str, NDArray[np.uint8]]) -> Mapping[str, NDArray[np.float32]]:
        began = self.machine.ns
        answer = super().infer(feeds)
        self._busy = (self.machine.ns - began) * 4 // 5
        return answer

    def device_ns(self) -> int:
        self.machine.spend(0.001)  # reading it takes time too, which is in neither clock
        return self._busy


def linear(base: float, each: float, largest: int | None = None) -> Callable[[int, int], float]:
    """Return a cost of `base + each * batch` seconds, out of memory above the largest batch."""

    def cost(batch: int, _: int) -> float:
        if largest is not None and batch > largest:
            raise MemoryError(f"Failed to allocate memory for a batch of {batch}")
        return base + each * batch

    return cost


def stage(engine: Engine, **changes: object) -> Stage:
    """Return the engine with images, on windows of a second; the changes are of the plan's [timing]."""
    timing = {"warmup_s": 0.5, "min_s": 1.0, "min_n": 100, "max_s": 10.0, "width": 0.02}
    timing |= {"throughput_batches": (1, 2, 4, 8, 16, 32, 64, 128), "scenario_s": 20.0, "p99_ms": 15.0}
    images = np.arange(8 * SIDE * SIDE * 3, dtype=np.uint8).reshape(8, SIDE, SIDE, 3)
    told = Timing(**{**timing, **changes})  # type: ignore[arg-type]
    return Stage(engine, images, told, 1, lambda _: None, engine.machine.clock)
