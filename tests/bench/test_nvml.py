"""What a GPU says about itself, and which one is asked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pynvml
import pytest
from fake_nvml import Driver, names_asked_by

from bench import nvml
from bench.nvml import State, device_lock_name, open_gpu
from bobrt.paths import CPU

if TYPE_CHECKING:
    from collections.abc import Callable

CARDS = {"GPU-aaaa-1": "H100", "GPU-bbbb-2": "H100", "GPU-bbcc-3": "H100"}


class Cards(Driver):
    """Three cards, whose answers a test may take away."""

    def __init__(self, names: dict[str, str] = CARDS) -> None:
        super().__init__()
        self.names = names

    def answers(self) -> dict[str, Callable[..., Any]]:
        clocks = {pynvml.NVML_CLOCK_SM: 1980, pynvml.NVML_CLOCK_MEM: 2619}
        return {
            "nvmlInit": lambda: None,
            "nvmlDeviceGetCount": lambda: len(self.names),
            "nvmlDeviceGetHandleByIndex": list(self.names).__getitem__,
            "nvmlDeviceGetHandleByUUID": str,
            "nvmlDeviceGetUUID": str,
            "nvmlDeviceGetName": self.names.get,
            "nvmlDeviceGetClockInfo": lambda _, kind: clocks[kind],
            "nvmlDeviceGetPowerUsage": lambda _: 345_600,
            "nvmlDeviceGetTemperature": lambda _, sensor: {pynvml.NVML_TEMPERATURE_GPU: 61}[sensor],
            "nvmlDeviceGetCurrentClocksEventReasons": lambda _: 0x1 | 0x4 | 0x40,
            "nvmlDeviceGetComputeRunningProcesses": lambda _: [
                SimpleNamespace(pid=7),
                SimpleNamespace(pid=9),
            ],
            "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(
                total=80 << 30, free=70 << 30, used=10 << 30
            ),
            "nvmlDeviceGetTotalEnergyConsumption": lambda _: 123_456,
        }


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Cards:
    """Put a driver with three like cards in NVML's place; CUDA sees all of them."""
    made = Cards()
    monkeypatch.setattr(nvml, "pynvml", made)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    return made


def test_every_name_asked_of_nvml_is_in_the_installed_library() -> None:
    """A fake would take any name; the library that users get has only its own."""
    names = names_asked_by(nvml)
    assert len(names) > 10
    assert {name for name in names if not hasattr(pynvml, name)} == set()


@pytest.mark.usefixtures("driver")
def test_readings_are_in_the_units_the_fields_name() -> None:
    """Milliwatts become watts, bits become NVML's words, and being idle is no reason."""
    gpu = open_gpu()
    assert gpu is not None
    assert gpu.state() == State(1980, 2619, 345.6, 61, ("HwThermalSlowdown", "SwPowerCap"))
    assert gpu.pids() == [7, 9]
    assert gpu.used_bytes() == 10 << 30
    assert gpu.energy_mj() == 123_456


@pytest.mark.parametrize(
    "code", [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_UNINITIALIZED]
)
def test_what_is_refused_midway_is_none(driver: Driver, code: int) -> None:
    """An old card, a lost card and a lost library leave gaps, never an error."""
    gpu = open_gpu()
    assert gpu is not None
    driver.refused = {"nvmlDeviceGetPowerUsage": code, "nvmlDeviceGetTotalEnergyConsumption": code}
    state = gpu.state()
    assert (state.watts, gpu.energy_mj()) == (None, None)
    assert (state.sm_mhz, state.celsius) == (1980, 61)
    driver.refused = dict.fromkeys((name for name in dir(pynvml) if name.startswith("nvmlDeviceGet")), code)
    assert gpu.state() == State()
    assert gpu.pids() is None
    assert gpu.used_bytes() is None


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED])
def test_without_a_driver_there_is_no_gpu_and_the_machine_is_locked(driver: Driver, code: int) -> None:
    """A CPU has no UUID: its timings exclude each other by the machine."""
    driver.refused = {"nvmlInit": code}
    assert open_gpu() is None
    assert device_lock_name(None) == CPU


@pytest.mark.parametrize(
    ("visible", "uuid"),
    [
        (None, "GPU-aaaa-1"),
        ("1", "GPU-bbbb-2"),
        ("2,0", "GPU-bbcc-3"),
        ("GPU-bbcc", "GPU-bbcc-3"),
        ("GPU-bbbb-2,GPU-aaaa-1", "GPU-bbbb-2"),
        ("MIG-cafe", "MIG-cafe"),
        ("3", None),
        ("-1", None),
        ("", None),
        ("GPU-dddd", None),
    ],
)
@pytest.mark.usefixtures("driver")
def test_the_first_device_cuda_may_see_is_watched_and_locked(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, uuid: str | None
) -> None:
    """Another card's clocks beside a number would be worse than none."""
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpu = open_gpu()
    assert (gpu and gpu.uuid) == uuid
    assert device_lock_name(gpu) == (f"gpu-{uuid}" if uuid else CPU)


@pytest.mark.parametrize(("order", "uuid"), [(None, None), ("FASTEST_FIRST", None), ("PCI_BUS_ID", "GPU-2")])
def test_among_unlike_cards_an_index_counts_only_in_the_order_of_the_bus(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, order: str | None, uuid: str | None
) -> None:
    """CUDA counts the fastest first unless told otherwise, and NVML never does."""
    driver.names = {"GPU-1": "T400", "GPU-2": "H100"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    if order:
        monkeypatch.setenv("CUDA_DEVICE_ORDER", order)
    gpu = open_gpu()
    assert (gpu and gpu.uuid) == uuid


def test_the_driver_of_this_machine_is_asked_without_an_error() -> None:
    """With the library itself: a GPU with a UUID where there is one, else None."""
    gpu = open_gpu()
    assert gpu is None or (gpu.uuid.startswith(("GPU-", "MIG-")) and isinstance(gpu.state(), State))
