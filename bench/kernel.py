"""What the kernel tells of the CPUs and of this process; null where it tells nothing, as on macOS."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_STAT = Path("/proc/stat")
_STATUS = Path("/proc/self/status")
_CPUINFO = Path("/proc/cpuinfo")
_CPUS = Path("/sys/devices/system/cpu")
_OWN_CGROUPS = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")


def cpu_clock() -> Callable[[], float | None]:
    """Return how to read the frequency, in MHz, of the fastest core this process may use."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else frozenset[int]()
    files = [_CPUS / f"cpu{core}/cpufreq/scaling_cur_freq" for core in sorted(cores)]
    files = [file for file in files if file.is_file()]
    if files:
        return lambda: _fastest(_text(file) for file in files)
    # Without this flag the kernel writes the nominal frequency, as in most virtual machines.
    if not re.search(r"^flags\s*:.*\baperfmperf\b", _text(_CPUINFO), re.MULTILINE):
        return lambda: None
    return lambda: _fastest(_listed(cores), 1.0)


def _listed(cores: Iterable[int]) -> Iterator[str]:
    lines = re.findall(
        r"^processor\s*:\s*(\d+)$.*?^cpu MHz\s*:\s*(\S+)$", _text(_CPUINFO), re.MULTILINE | re.DOTALL
    )
    return (mhz for core, mhz in lines if int(core) in cores)


def _fastest(texts: Iterable[str], mhz: float = 1e-3) -> float | None:
    try:
        return max((float(text) * mhz for text in texts if text), default=None)
    except ValueError:
        return None


class Reading(NamedTuple):
    """Seconds of CPU time so far."""

    busy: float
    stolen: float
    own: float


def read() -> Reading | None:
    """Return the CPU time of the whole machine and of this process, or None where the kernel does not say."""
    try:
        fields = _text(_STAT).split("\n", 1)[0].split()[1:9]
        user, nice, system, _idle, _wait, irq, softirq, steal = (int(field) for field in fields)
    except ValueError:
        return None
    tick = os.sysconf("SC_CLK_TCK")
    own = os.times()
    return Reading(
        busy=(user + nice + system + irq + softirq) / tick,
        stolen=steal / tick,
        own=own.user + own.system + own.children_user + own.children_system,
    )


def held_back_s() -> float | None:
    """Return seconds that quotas have held back this process's cgroup and those above it, so far."""
    told = [
        int(found[2]) * (1e-6 if found[1] == "usec" else 1e-9)
        for folder in _cgroups()
        if (found := re.search(r"^throttled_(usec|time) (\d+)$", _text(folder / "cpu.stat"), re.MULTILINE))
    ]
    return sum(told) if told else None


def _cgroups() -> Iterator[Path]:
    """Yield the folders that account for this process's CPU time, of cgroup v2 and v1."""
    for controllers, path in re.findall(r"^\d+:([^:]*):(.*)$", _text(_OWN_CGROUPS), re.MULTILINE):
        if controllers and "cpu" not in controllers.split(","):
            continue
        roots = (_CGROUPS / (controllers or "unified"), _CGROUPS)
        root = next(root for root in roots if root.is_dir() or root == _CGROUPS)
        parts = Path(path).parts[1:]
        yield from (root.joinpath(*parts[:depth]) for depth in range(len(parts) + 1))


def load() -> list[float]:
    """Return the one-minute average of processes ready to run; empty where it is not known."""
    try:
        return [os.getloadavg()[0]]
    except OSError:
        return []


def status_bytes(key: str) -> int | None:
    """Return a size the kernel tells of this process, in bytes."""
    found = re.search(rf"^{key}:\s+(\d+) kB", _text(_STATUS), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _text(path: Path) -> str:
    """Return a file's text, empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
