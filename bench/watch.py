"""Who else used the machine while a row was timed, and how much memory the engine took. Linux."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import NamedTuple, Self

from bobrt.errors import BobrtError

OTHERS_CORES = 0.2
"""Cores kept busy by others, above which a row carries a caveat."""
STOLEN_CORES = 0.05

_STAT = Path("/proc/stat")
_STATUS = Path("/proc/self/status")


class _Reading(NamedTuple):
    at: float
    busy: float
    stolen: float
    own: float


class CpuWatch:
    """Compares the machine's CPU time with this process's own, over a `with` block."""

    def __enter__(self) -> Self:
        self._before = _read()
        return self

    def __exit__(self, *_: object) -> None:
        self._after = _read()

    def caveats(self) -> set[str]:
        """Return the names of the caveats the block earned."""
        if self._before is None or self._after is None:
            return set()
        before, after = self._before, self._after
        elapsed = max(after.at - before.at, 1e-3)
        others = (after.busy - before.busy - (after.own - before.own)) / elapsed
        stolen = (after.stolen - before.stolen) / elapsed
        found = {"busy-machine"} if others > OTHERS_CORES else set()
        return found | ({"stolen-cpu"} if stolen > STOLEN_CORES else set())


class PeakMemory:
    """Peak resident memory of this process over a `with` block, above its level at the start."""

    def __enter__(self) -> Self:
        self.bytes: int | None = None
        try:
            Path("/proc/self/clear_refs").write_text(
                "5", encoding="ascii"
            )  # resets the peak to the level now
        except OSError:
            self._before = None
        else:
            self._before = _status("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        peak = _status("VmHWM")
        if self._before is not None and peak is not None:
            self.bytes = max(0, peak - self._before)


def _read() -> _Reading | None:
    try:
        fields = _STAT.read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    except OSError:
        return None
    user, nice, system, _idle, _wait, irq, softirq, steal = (int(field) for field in fields[:8])
    tick = os.sysconf("SC_CLK_TCK")
    own = os.times()
    return _Reading(
        at=time.monotonic(),
        busy=(user + nice + system + irq + softirq) / tick,
        stolen=steal / tick,
        own=own.user + own.system,
    )


def _status(key: str) -> int | None:
    try:
        found = re.search(rf"^{key}:\s+(\d+) kB", _STATUS.read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return None
    if found is None:
        raise BobrtError(f"{_STATUS} has no {key}")
    return int(found[1]) * 1024
