"""Who else used the machine, and how much memory was taken."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from bench import watch
from bench.watch import CpuWatch, PeakMemory

TICK = os.sysconf("SC_CLK_TCK")
MB = 2**20


class Machine:
    """A machine whose counters stand where the test puts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._stat, self._patch = folder / "stat", monkeypatch
        monkeypatch.setattr(watch, "_STAT", self._stat)
        self.at(0.0)

    def at(self, clock: float, seconds: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)) -> None:
        """Set the clock and the seconds that all, this process, the hypervisor and nobody has used."""
        busy, own, stolen, idle = seconds
        used, lost, rest = (round(value * TICK) for value in (busy, stolen, idle))
        self._stat.write_text(f"cpu  {used} 0 0 {rest} {rest} 0 0 {lost} 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
        self._patch.setattr(watch.time, "monotonic", lambda: clock)
        self._patch.setattr(watch.os, "times", lambda: os.times_result((own / 2, own / 2, 0.0, 0.0, clock)))


@pytest.mark.parametrize(
    ("seconds", "earned"),
    [
        ((10.0, 10.0, 0.0, 10.0), set()),
        ((11.9, 10.0, 0.0, 8.0), set()),
        ((12.1, 10.0, 0.0, 8.0), {"busy-machine"}),
        ((10.0, 10.0, 0.4, 9.0), set()),
        ((10.0, 10.0, 0.6, 9.0), {"stolen-cpu"}),
        ((20.0, 5.0, 9.0, 0.0), {"busy-machine", "stolen-cpu"}),
    ],
    ids=["alone", "a little noise", "others", "a little stolen", "stolen", "both"],
)
def test_caveats_name_who_took_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    seconds: tuple[float, float, float, float],
    earned: set[str],
) -> None:
    """Over ten seconds, more than two of others' work or half a second stolen is said; own work is not."""
    machine = Machine(monkeypatch, tmp_path)
    with CpuWatch() as cpu:
        machine.at(10.0, seconds)
    assert cpu.caveats() == earned


def test_a_machine_without_counters_has_no_caveat(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where there is no /proc/stat nothing is known, and nothing is claimed."""
    monkeypatch.setattr(watch, "_STAT", tmp_path / "none")
    with CpuWatch() as cpu:
        pass
    assert cpu.caveats() == set()


def test_peak_memory_counts_what_was_freed_inside_and_not_what_was_freed_before() -> None:
    """The peak is that of the block alone, above the level at its start."""
    before = np.ones(200 * MB, np.uint8)
    del before
    with PeakMemory() as memory:
        inside = np.ones(64 * MB, np.uint8)
        del inside
    assert memory.bytes is not None
    assert 60 * MB < memory.bytes < 120 * MB


def test_peak_memory_is_null_where_the_kernel_cannot_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a peak that can be reset, a peak from before would be told as the engine's."""

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError("clear_refs")

    monkeypatch.setattr(Path, "write_text", refuse)
    with PeakMemory() as memory:
        pass
    assert memory.bytes is None
