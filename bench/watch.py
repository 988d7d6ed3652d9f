"""What the machine did while a row was timed, and how much memory the engine took."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Self, TypeVar

import numpy as np

from bench import kernel
from bench.nvml import THROTTLES, State
from bobrt.speed import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bench.nvml import Gpu

OTHERS_CORES = 0.2
"""Cores kept busy by others, above which a row carries a caveat."""
STOLEN_CORES = 0.05
HELD_BACK = 0.01
"""Share of the time a quota held the process back, above which a row carries a caveat."""
MOVED = 0.1
"""Share of the higher clock by which the lower may be away from it."""
ENOUGH = 10
"""Samples of a clock, below which nothing is said about its moving."""
CPU_PERIOD_S = 0.5
GPU_PERIOD_S = 0.1
MEMORY_PERIOD_S = 0.05
PIDS_EVERY = 10
"""Samples of a GPU from one look at its processes to the next, which costs more than the others."""

_GIVE_UP_S = 5.0

Row = TypeVar("Row")
Range = tuple[float, float]


class MachineWatch:
    """Watches the machine over a `with` block around one round of timing. It never raises.

    Counters are read before and after. What has no counter is sampled by a thread: a GPU ten times
    a second, a CPU's frequency twice; where neither can be read there is no thread.

    Args:
        gpu: The GPU the engine runs on; None for a CPU.

    """

    def __init__(self, gpu: Gpu | None = None) -> None:
        self._cpu = CpuWatch()
        self._gpu = None if gpu is None else _GpuWatch(gpu)
        self._mhz = _Sampler(kernel.cpu_clock() if gpu is None else lambda: None, CPU_PERIOD_S)
        self._load: list[float] = []

    def __enter__(self) -> Self:
        self._load = kernel.load()
        if self._gpu:
            self._gpu.start()
        self._mhz.start()
        self._cpu.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._cpu.__exit__()
        self._mhz.stop()
        if self._gpu:
            self._gpu.stop()
        self._load += kernel.load()

    def caveats(self) -> set[str]:
        """Return the names of the caveats the block earned."""
        found = self._cpu.caveats() | (self._gpu.caveats() if self._gpu else set())
        return found | ({"clocks-moved"} if _moved(self._mhz.rows) else set())

    def record(self) -> Watch:
        """Return what was seen."""
        cpu = Watch(
            cpu_mhz=_range(self._mhz.rows),
            load=_range(self._load),
            others_cores=_rounded(self._cpu.others_cores),
            stolen_cores=_rounded(self._cpu.stolen_cores),
            held_back_s=_rounded(self._cpu.held_back_s),
        )
        return merge(cpu, self._gpu.record()) if self._gpu else cpu


def merge(a: Watch | None, b: Watch) -> Watch:
    """Join what was seen in two rounds: the widest range, the worst, the sum, all that was named."""
    if a is None:
        return b
    return Watch(
        cpu_mhz=_range([*(a.cpu_mhz or ()), *(b.cpu_mhz or ())]),
        load=_range([*(a.load or ()), *(b.load or ())]),
        others_cores=max(_known(a.others_cores, b.others_cores), default=None),
        stolen_cores=max(_known(a.stolen_cores, b.stolen_cores), default=None),
        held_back_s=_rounded(sum(both)) if (both := _known(a.held_back_s, b.held_back_s)) else None,
        gpu_mhz=_range([*(a.gpu_mhz or ()), *(b.gpu_mhz or ())]),
        gpu_memory_mhz=_range([*(a.gpu_memory_mhz or ()), *(b.gpu_memory_mhz or ())]),
        gpu_watts=_range([*(a.gpu_watts or ()), *(b.gpu_watts or ())]),
        gpu_celsius=_range([*(a.gpu_celsius or ()), *(b.gpu_celsius or ())]),
        gpu_slowed_by=sorted({*a.gpu_slowed_by, *b.gpu_slowed_by}),
        gpu_others=sorted({*a.gpu_others, *b.gpu_others}),
    )


class CpuWatch:
    """Compares the machine's CPU time with this process's own, over a `with` block.

    `others_cores`, `stolen_cores` and `held_back_s` are None where the machine does not tell.
    """

    def __enter__(self) -> Self:
        self.others_cores: float | None = None
        self.stolen_cores: float | None = None
        self.held_back_s: float | None = None
        self._held = kernel.held_back_s()
        self._began = time.monotonic()
        self._before = kernel.read()
        return self

    def __exit__(self, *_: object) -> None:
        after, held = kernel.read(), kernel.held_back_s()
        self._elapsed = max(time.monotonic() - self._began, 1e-3)
        if self._before is not None and after is not None:
            busy, stolen, own = (now - then for now, then in zip(after, self._before, strict=True))
            self.others_cores = max(0.0, (busy - own) / self._elapsed)
            self.stolen_cores = max(0.0, stolen / self._elapsed)
        if self._held is not None and held is not None:
            self.held_back_s = max(0.0, held - self._held)

    def caveats(self) -> set[str]:
        """Return the names of the caveats the block earned."""
        found = {"busy-machine"} if (self.others_cores or 0.0) > OTHERS_CORES else set()
        found |= {"stolen-cpu"} if (self.stolen_cores or 0.0) > STOLEN_CORES else set()
        return found | ({"cpu-quota"} if (self.held_back_s or 0.0) > HELD_BACK * self._elapsed else set())


class PeakMemory:
    """Peak resident memory of this process over a `with` block, above its level at the start.

    `bytes` is null until the end, and where the kernel does not say.
    """

    what = "peak resident memory of the process above its level before the runtime's library was loaded"

    def __enter__(self) -> Self:
        self.bytes: int | None = None
        try:
            Path("/proc/self/clear_refs").write_text(
                "5", encoding="ascii"
            )  # resets the peak to the level now
        except OSError:
            self._before = None
        else:
            self._before = kernel.status_bytes("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        if self.bytes is None:
            self.end()

    def end(self) -> None:
        """End before the block does: what the process takes from here on does not count."""
        peak = kernel.status_bytes("VmHWM")
        if self._before is not None and peak is not None:
            self.bytes = max(0, peak - self._before)


class GpuMemory:
    """Peak memory in use on a GPU over a `with` block, above its level at the start.

    The card's and not the process's: in a container NVML may not know the process. The device's lock
    keeps other runs of ours away, and others are a caveat. `bytes` is null where NVML does not say.
    """

    what = "peak memory in use on the GPU, looked at 20 times a second, above its level before it was opened"

    def __init__(self, gpu: Gpu) -> None:
        self._used = gpu.used_bytes
        self._levels = _Sampler(self._used, MEMORY_PERIOD_S)

    def __enter__(self) -> Self:
        self.bytes: int | None = None
        self._levels.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bytes is None:
            self.end()

    def end(self) -> None:
        """End before the block does."""
        self._levels.stop()
        if rows := self._levels.rows:
            self.bytes = max(*rows, self._used() or 0) - rows[0]


class _GpuWatch:
    """Samples one GPU."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._looks = 0
        self._others: set[int] = set()
        self._states = _Sampler(self._look, GPU_PERIOD_S)

    def start(self) -> None:
        self._states.start()

    def stop(self) -> None:
        self._states.stop()
        self._others |= _others(self._gpu.pids())

    def caveats(self) -> set[str]:
        rows = self._states.rows
        found = {"gpu-throttled"} if any(THROTTLES & {*(row.slowed_by or ())} for row in rows) else set()
        found |= {"gpu-shared"} if self._others else set()
        return found | ({"clocks-moved"} if _moved(_known(*(row.sm_mhz for row in rows))) else set())

    def record(self) -> Watch:
        rows = self._states.rows
        return Watch(
            gpu_mhz=_range(_known(*(row.sm_mhz for row in rows))),
            gpu_memory_mhz=_range(_known(*(row.memory_mhz for row in rows))),
            gpu_watts=_range(_known(*(row.watts for row in rows))),
            gpu_celsius=_range(_known(*(row.celsius for row in rows))),
            gpu_slowed_by=sorted({reason for row in rows for reason in row.slowed_by or ()}),
            gpu_others=sorted(self._others),
        )

    def _look(self) -> State | None:
        if self._looks % PIDS_EVERY == 0:
            self._others |= _others(self._gpu.pids())
        self._looks += 1
        state = self._gpu.state()
        return None if state == State() else state


class _Sampler(Generic[Row]):
    """Calls `take` now and then in a thread; starts none where the first call gives None."""

    def __init__(self, take: Callable[[], Row | None], period_s: float) -> None:
        self._take, self._period_s = take, period_s
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self.rows: list[Row] = []

    def start(self) -> None:
        if (first := self._take()) is not None:
            self.rows.append(first)
            self._thread = threading.Thread(target=self._run, name="bobrt-watch", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(_GIVE_UP_S)  # a driver that hangs must not take the timing with it

    def _run(self) -> None:
        while not self._over.wait(self._period_s):
            if (row := self._take()) is not None:
                self.rows.append(row)


def _moved(clock: Sequence[float]) -> bool:
    """Say whether a clock moved: its outer deciles, after the first tenth, in which it wakes up."""
    steady = clock[len(clock) // 10 :]
    if len(steady) < ENOUGH:
        return False
    low, high = np.quantile(steady, [0.1, 0.9])
    return bool(high - low > MOVED * high)


def _others(pids: Iterable[int] | None) -> set[int]:
    """Return who else computes on a GPU.

    In a container the driver may count in the host's numbers, where the own one cannot be told from
    the others: a single process is then this one, and of several all are returned.
    """
    found = set(pids or ())
    if os.getpid() in found:
        return found - {os.getpid()}
    return found if len(found) > 1 else set()


def _range(values: Sequence[float]) -> Range | None:
    return (round(min(values), 2), round(max(values), 2)) if values else None


def _known(*values: float | None) -> list[float]:
    return [value for value in values if value is not None]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
