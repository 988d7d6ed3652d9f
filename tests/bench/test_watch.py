"""Who else used the machine, what its clocks did, and how much memory was taken."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench import kernel, watch
from bench.nvml import State
from bench.watch import GpuMemory, MachineWatch, PeakMemory, merge
from bobrt.speed import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

TICK = os.sysconf("SC_CLK_TCK")
MB = 2**20
FILES = ("_STAT", "_CPUINFO", "_CPUS", "_OWN_CGROUPS", "_CGROUPS")
COOL = State(1980.0, 2619.0, 300.0, 60.0, ())


class Machine:
    """A machine whose counters stand where the test puts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.folder, self._patch = folder, monkeypatch
        for name in FILES:
            monkeypatch.setattr(kernel, name, folder / name)
        self.at(0.0)

    def at(self, clock: float, seconds: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)) -> None:
        """Set the clock and the seconds that all, this process, the hypervisor and nobody has used."""
        busy, own, stolen, idle = seconds
        used, lost, rest = (round(value * TICK) for value in (busy, stolen, idle))
        stat = f"cpu  {used} 0 0 {rest} {rest} 0 0 {lost} 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n"
        self.write("_STAT", stat)
        times = os.times_result((own / 4, own / 4, own / 4, own / 4, clock))
        self._patch.setattr(watch.time, "monotonic", lambda: clock)
        self._patch.setattr(kernel.os, "times", lambda: times)

    def write(self, path: str, text: str) -> None:
        """Write one of the kernel's files."""
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(text)


class FakeGpu:
    """A card that tells its looks in turn, again and again."""

    uuid = "GPU-1"

    def __init__(self, looks: list[State], pids: list[list[int] | None] | None = None) -> None:
        self.looks, self._pids, self.seen = looks, pids or [[os.getpid()]], 0
        self.memory: list[int | None] = [None]

    def state(self) -> State:
        self.seen += 1
        return self.looks[(self.seen - 1) % len(self.looks)]

    def pids(self) -> list[int] | None:
        return self._pids.pop(0) if len(self._pids) > 1 else self._pids[0]

    def used_bytes(self) -> int | None:
        return self.memory.pop(0) if len(self.memory) > 1 else self.memory[0]

    def energy_mj(self) -> int | None:
        return None


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    """Return a machine of which nothing but the CPU's counters can be read, and fast sampling."""
    monkeypatch.setattr(watch, "GPU_PERIOD_S", 0.001)
    monkeypatch.setattr(watch, "CPU_PERIOD_S", 0.001)
    return Machine(monkeypatch, tmp_path)


def until(happened: Callable[[], bool]) -> None:
    """Wait for another thread."""
    deadline = time.perf_counter() + 10
    while not happened():
        assert time.perf_counter() < deadline
        time.sleep(0.001)


def watched(gpu: FakeGpu) -> MachineWatch:
    """Watch a card until all its looks were taken."""
    with MachineWatch(gpu) as seen:
        until(lambda: gpu.seen >= len(gpu.looks))
    return seen


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
    machine: Machine, seconds: tuple[float, float, float, float], earned: set[str]
) -> None:
    """Over ten seconds, more than two of others' work or half a second stolen is said; own work is not."""
    with MachineWatch() as seen:
        machine.at(10.0, seconds)
    assert seen.caveats() == earned


def test_the_record_says_how_much_was_taken(machine: Machine) -> None:
    """The numbers behind the caveats stand beside the row."""
    with MachineWatch() as seen:
        machine.at(10.0, (20.0, 5.0, 9.0, 0.0))
    record = seen.record()
    assert (record.others_cores, record.stolen_cores) == (1.5, 0.9)
    assert record.load is not None
    assert (record.held_back_s, record.cpu_mhz, record.gpu_mhz) == (None, None, None)


def test_a_machine_without_counters_has_no_caveat_and_no_thread(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where there is no /proc and no /sys nothing is known, nothing is claimed and nothing is sampled."""

    def refuse() -> tuple[float, float, float]:
        raise OSError

    for name in FILES:
        monkeypatch.setattr(kernel, name, tmp_path / "none")
    monkeypatch.setattr(kernel.os, "getloadavg", refuse)
    monkeypatch.delattr(kernel.os, "sched_getaffinity", raising=False)
    threads = threading.active_count()
    with MachineWatch() as seen:
        assert threading.active_count() == threads
    assert seen.caveats() == set()
    assert seen.record() == Watch()


V2 = ("0::/pod/box\n", "{root}/pod/cpu.stat", "usage_usec 5\nthrottled_usec {usec}\n")
V2_IN_CONTAINER = ("0::/\n", "{root}/cpu.stat", "nr_throttled 3\nthrottled_usec {usec}\n")
V1 = (
    "5:cpuset:/\n3:cpu,cpuacct:/box\n0::/\n",
    "{root}/cpu,cpuacct/box/cpu.stat",
    "throttled_time {usec}000\n",
)
V1_IN_CONTAINER = ("3:cpu:/docker/1f\n", "{root}/cpu/cpu.stat", "throttled_time {usec}000\n")


@pytest.mark.parametrize("kind", [V2, V2_IN_CONTAINER, V1, V1_IN_CONTAINER])
@pytest.mark.parametrize(("held_back", "earned"), [(0.05, set()), (0.15, {"cpu-quota"})])
def test_a_quota_that_held_the_process_back_is_told(
    machine: Machine, kind: tuple[str, str, str], held_back: float, earned: set[str]
) -> None:
    """More than a hundredth of the time is said, whoever of the groups above has the quota."""
    groups, stat, text = kind
    machine.write("_OWN_CGROUPS", groups)
    machine.write(stat.format(root="_CGROUPS"), text.format(usec=7_000_000))
    with MachineWatch() as seen:
        machine.at(10.0)
        machine.write(stat.format(root="_CGROUPS"), text.format(usec=7_000_000 + round(held_back * 1e6)))
    assert seen.caveats() == earned
    assert seen.record().held_back_s == held_back


def test_a_cpu_that_slows_down_is_told_by_its_fastest_core(machine: Machine) -> None:
    """An idle core is slow and says nothing; the one that works does."""
    core = min(os.sched_getaffinity(0))

    def clock(khz: int) -> None:
        machine.write(f"_CPUS/cpu{core}/cpufreq/scaling_cur_freq", f"{khz}\n")

    clock(3_000_000)
    with MachineWatch() as seen:
        until(lambda: len(seen._mhz.rows) >= 20)
        clock(2_400_000)
        until(lambda: seen._mhz.rows.count(2400.0) >= seen._mhz.rows.count(3000.0))
    assert seen.caveats() == {"clocks-moved"}
    assert seen.record().cpu_mhz == (2400.0, 3000.0)
    assert not [thread for thread in threading.enumerate() if thread.name == "bobrt-watch"]


@pytest.mark.parametrize(
    ("flags", "mhz"), [("fpu aperfmperf sse", (2900.5, 2900.5)), ("fpu hypervisor", None)]
)
def test_the_nominal_clock_of_a_virtual_machine_is_no_reading(
    machine: Machine, flags: str, mhz: tuple[float, float] | None
) -> None:
    """Without counters for it the kernel writes the same figure whatever the CPU does."""
    core = min(os.sched_getaffinity(0))
    cores = [(core, 2900.5), (4096, 9999.0)]
    cpus = (f"processor\t: {n}\nmodel name\t: x\ncpu MHz\t\t: {f}\nflags\t\t: {flags}\n" for n, f in cores)
    machine.write("_CPUINFO", "\n".join(cpus))
    with MachineWatch() as seen:
        pass
    assert seen.record().cpu_mhz == mhz


@pytest.mark.parametrize(
    ("clocks", "moved"),
    [
        ([1980.0] * 30, False),
        ([300.0] * 4 + [1980.0] * 30, False),
        ([1980.0] * 20 + [900.0] + [1980.0] * 20, False),
        ([1980.0] * 20 + [1800.0] * 20, False),
        ([1980.0] * 20 + [1700.0] * 20, True),
        ([1980.0, 900.0] * 4, False),
    ],
    ids=["still", "wakes up", "one odd look", "less than a tenth", "more than a tenth", "too few to say"],
)
def test_clocks_moved_is_said_of_what_lasted(clocks: list[float], moved: bool) -> None:
    """The outer deciles after the first tenth: not of waking up, nor of a single look."""
    assert watch._moved(clocks) is moved


@pytest.mark.usefixtures("machine")
def test_a_gpu_is_sampled_while_it_is_timed() -> None:
    """Lowest and highest of each reading, and the reasons in NVML's words."""
    hot = State(1400.0, 2619.0, 700.0, 87.5, ("SwThermalSlowdown",))
    seen = watched(FakeGpu([COOL] * 20 + [hot] * 20))
    assert seen.caveats() == {"gpu-throttled", "clocks-moved"}
    record = seen.record()
    assert (record.gpu_mhz, record.gpu_memory_mhz) == ((1400.0, 1980.0), (2619.0, 2619.0))
    assert (record.gpu_watts, record.gpu_celsius) == ((300.0, 700.0), (60.0, 87.5))
    assert (record.gpu_slowed_by, record.gpu_others) == (["SwThermalSlowdown"], [])


@pytest.mark.parametrize("reason", ["ApplicationsClocksSetting", "DisplayClockSetting", "SyncBoost"])
@pytest.mark.usefixtures("machine")
def test_clocks_that_somebody_set_are_recorded_and_are_no_caveat(reason: str) -> None:
    """Fixed clocks are the remedy, not the disease."""
    seen = watched(FakeGpu([COOL._replace(slowed_by=(reason,))]))
    assert seen.caveats() == set()
    assert seen.record().gpu_slowed_by == [reason]


@pytest.mark.parametrize(
    ("pids", "others"),
    [
        ([[os.getpid()]], []),
        ([None], []),
        ([[4_000_001]], []),
        ([[os.getpid()], [os.getpid(), 4_000_002]], [4_000_002]),
        ([[os.getpid(), 4_000_002], [os.getpid()]], [4_000_002]),
        ([[4_000_001, 4_000_002]], [4_000_001, 4_000_002]),
    ],
    ids=["alone", "not told", "alone in a container", "came", "went", "others in a container"],
)
@pytest.mark.usefixtures("machine")
def test_others_on_the_gpu_are_told(pids: list[list[int] | None], others: list[int]) -> None:
    """At the start or at the end; a container's own process has another number in the driver's eyes."""
    seen = watched(FakeGpu([COOL], pids))
    assert seen.record().gpu_others == others
    assert seen.caveats() == ({"gpu-shared"} if others else set())


@pytest.mark.usefixtures("machine")
def test_a_gpu_that_refuses_midway_leaves_what_it_said_before() -> None:
    """A lost card or library leaves gaps in the samples; the timing does not hear of it."""
    seen = watched(FakeGpu([COOL, State(), COOL._replace(watts=None, slowed_by=None), State()]))
    assert (seen.record().gpu_watts, seen.record().gpu_mhz) == ((300.0, 300.0), (1980.0, 1980.0))
    assert seen.caveats() == set()


@pytest.mark.usefixtures("machine")
def test_a_gpu_that_tells_nothing_is_not_sampled() -> None:
    """No thread beside the stopwatch for nothing."""
    gpu = FakeGpu([State()])
    threads = threading.active_count()
    with MachineWatch(gpu) as seen:
        assert threading.active_count() == threads
    assert seen.record().gpu_mhz is None


def test_rounds_are_joined_as_the_record_says() -> None:
    """Widest range, worst share, sum of what was held back, every name; what one lacks the other tells."""
    first = Watch(
        cpu_mhz=(2000.0, 3000.0),
        load=(1.0, 2.0),
        others_cores=0.5,
        held_back_s=0.25,
        gpu_celsius=(40.0, 60.0),
        gpu_slowed_by=["SwPowerCap"],
        gpu_others=[9],
    )
    second = Watch(
        cpu_mhz=(2500.0, 3500.0),
        others_cores=0.1,
        stolen_cores=0.0,
        held_back_s=0.5,
        gpu_celsius=(50.0, 70.0),
        gpu_slowed_by=["HwSlowdown", "SwPowerCap"],
        gpu_others=[7],
    )
    assert merge(first, second) == Watch(
        cpu_mhz=(2000.0, 3500.0),
        load=(1.0, 2.0),
        others_cores=0.5,
        stolen_cores=0.0,
        held_back_s=0.75,
        gpu_celsius=(40.0, 70.0),
        gpu_slowed_by=["HwSlowdown", "SwPowerCap"],
        gpu_others=[7, 9],
    )
    assert merge(None, second) is second
    assert merge(Watch(), Watch()) == Watch()


FREED = """
import numpy as np
from bench.watch import PeakMemory

np.ones(200 << 20, np.uint8)
with PeakMemory() as whole, PeakMemory() as early:
    early.end()
    np.ones(64 << 20, np.uint8)
print(whole.bytes, early.bytes)
"""


def test_peak_memory_is_that_of_the_block_alone() -> None:
    """What was freed inside counts; what was freed before, or is taken after an early end, does not.

    In a process of its own, as a row has one: this one is full of libraries, whose pages a machine that runs
    short of memory takes away, and the level falls meanwhile.
    """
    done = subprocess.run(
        [sys.executable, "-c", FREED], capture_output=True, text=True, check=True, timeout=60
    )
    whole, early = map(int, done.stdout.split())

    assert 60 * MB < whole < 120 * MB
    assert early < 8 * MB


def test_peak_memory_is_null_where_the_kernel_cannot_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a peak that can be reset, a peak from before would be told as the engine's."""

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError("clear_refs")

    monkeypatch.setattr(Path, "write_text", refuse)
    with PeakMemory() as memory:
        pass
    assert memory.bytes is None


def test_a_gpus_memory_is_its_peak_above_the_level_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """What others hold before the block is not the engine's; what was freed within it is."""
    monkeypatch.setattr(watch, "MEMORY_PERIOD_S", 0.001)
    gpu = FakeGpu([State()])
    gpu.memory = [500 * MB, 900 * MB, 1700 * MB, 800 * MB]
    with GpuMemory(gpu) as memory:
        until(lambda: len(gpu.memory) == 1)
        memory.end()
        gpu.memory = [4000 * MB]
    assert memory.bytes == 1200 * MB
    assert "GPU" in memory.what


def test_a_gpus_memory_is_null_where_nvml_does_not_say() -> None:
    """A gap, never an estimate."""
    with GpuMemory(FakeGpu([State()])) as memory:
        pass
    assert memory.bytes is None
