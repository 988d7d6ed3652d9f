"""What an NVIDIA GPU says about itself, through NVML."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pynvml  # type: ignore[import-untyped]

from bobrt.paths import CPU

if TYPE_CHECKING:
    from collections.abc import Callable

THROTTLES = frozenset(
    ("SwPowerCap", "HwSlowdown", "SwThermalSlowdown", "HwThermalSlowdown", "HwPowerBrakeSlowdown")
)
"""Reasons for lower clocks that nobody asked for: heat and power."""
SETTINGS = frozenset(("ApplicationsClocksSetting", "DisplayClockSetting", "SyncBoost"))
"""Reasons that somebody chose. What is left of NVML's reasons is `GpuIdle`: nothing to do."""
_BITS = {name: getattr(pynvml, f"nvmlClocksEventReason{name}") for name in sorted(THROTTLES | SETTINGS)}


class State(NamedTuple):
    """One look at a GPU; what the card does not tell is None."""

    sm_mhz: float | None = None
    memory_mhz: float | None = None
    watts: float | None = None
    celsius: float | None = None
    slowed_by: tuple[str, ...] | None = None
    """Why the clocks are not the highest, in NVML's words; empty if they are, or idle."""


class Gpu(Protocol):
    """One GPU. No reading ever raises: what the card or the driver refuses is None."""

    @property
    def uuid(self) -> str:
        """The card's own name, the same in every process and container."""

    def state(self) -> State:
        """Return clocks, power, temperature and what holds the clocks back."""

    def pids(self) -> list[int] | None:
        """Return the processes that hold a compute context, this one too, in the driver's numbering."""

    def used_bytes(self) -> int | None:
        """Return the card's memory that is in use, by whomever."""

    def energy_mj(self) -> int | None:
        """Return the card's energy counter, in millijoules since the driver was loaded."""


def open_gpu() -> Gpu | None:
    """Return the GPU that CUDA calls device 0, or None where there is no driver or no such GPU.

    `CUDA_VISIBLE_DEVICES` is honoured: its first entry, an index or the start of a UUID. NVML counts
    in the order of the PCI bus. CUDA does so with `CUDA_DEVICE_ORDER=PCI_BUS_ID`; without it, among
    unlike cards, no index can be told apart and the answer is None.
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    handle = _visible()
    uuid = None if handle is None else ask(pynvml.nvmlDeviceGetUUID, handle)
    return None if uuid is None else _Card(handle, uuid)


def device_lock_name(gpu: Gpu | None) -> str:
    """Return the name of the lock under which only one may time on a device."""
    return CPU if gpu is None else f"gpu-{gpu.uuid}"


class _Card:
    """A GPU behind its NVML handle."""

    def __init__(self, handle: Any, uuid: str) -> None:  # noqa: ANN401 - a ctypes pointer
        self._handle = handle
        self.uuid = uuid

    def state(self) -> State:
        power = ask(pynvml.nvmlDeviceGetPowerUsage, self._handle)
        reasons = ask(pynvml.nvmlDeviceGetCurrentClocksEventReasons, self._handle)
        return State(
            sm_mhz=ask(pynvml.nvmlDeviceGetClockInfo, self._handle, pynvml.NVML_CLOCK_SM),
            memory_mhz=ask(pynvml.nvmlDeviceGetClockInfo, self._handle, pynvml.NVML_CLOCK_MEM),
            watts=None if power is None else power / 1e3,
            celsius=ask(pynvml.nvmlDeviceGetTemperature, self._handle, pynvml.NVML_TEMPERATURE_GPU),
            slowed_by=None
            if reasons is None
            else tuple(name for name, bit in _BITS.items() if reasons & bit),
        )

    def pids(self) -> list[int] | None:
        found = ask(pynvml.nvmlDeviceGetComputeRunningProcesses, self._handle)
        return None if found is None else [process.pid for process in found]

    def used_bytes(self) -> int | None:
        memory = ask(pynvml.nvmlDeviceGetMemoryInfo, self._handle)
        return None if memory is None else int(memory.used)

    def energy_mj(self) -> int | None:
        value: int | None = ask(pynvml.nvmlDeviceGetTotalEnergyConsumption, self._handle)
        return value


def _visible() -> Any:  # noqa: ANN401 - a ctypes pointer, or None
    """Return the handle of the first device CUDA may see."""
    word = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    cards = [ask(pynvml.nvmlDeviceGetHandleByIndex, i) for i in range(ask(pynvml.nvmlDeviceGetCount) or 0)]
    if word.isdecimal():
        names = {ask(pynvml.nvmlDeviceGetName, card) for card in cards}
        known = len(names) == 1 or os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
        return cards[int(word)] if known and int(word) < len(cards) else None
    if word.startswith("MIG-"):
        return ask(pynvml.nvmlDeviceGetHandleByUUID, word)
    uuids = [(ask(pynvml.nvmlDeviceGetUUID, card) or "", card) for card in cards]
    return next((card for uuid, card in uuids if word and uuid.startswith(word)), None)


def ask(question: Callable[..., Any], *args: object) -> Any:  # noqa: ANN401 - NVML has no types
    """Return NVML's answer, or None where the card, the driver or a lost library refuses it."""
    try:
        return question(*args)
    except pynvml.NVMLError:
        return None
