"""What a machine is made of: the GPU as NVML tells it, precisions, clocks, memory and libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pynvml
import pytest
from fake_nvml import Driver, names_asked_by

from bench import nvml
from bobrt import hardware
from bobrt.hardware import Card, Memory
from bobrt.spec import Precision
from engines import libraries

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

INT8, FP16, TF32, BF16, FP8 = (
    Precision.INT8,
    Precision.FP16,
    Precision.TF32,
    Precision.BF16,
    Precision.FP8,
)


class Cards(Driver):
    """Two H100, whose answers a test may take away."""

    def answers(self) -> dict[str, Callable[..., Any]]:
        memory = type("Memory", (), {"total": 80 * 2**30, "used": 2**30})
        return {
            "nvmlInit": lambda: None,
            "nvmlDeviceGetCount": lambda: 2,
            "nvmlDeviceGetHandleByIndex": lambda index: f"GPU-{index}",
            "nvmlDeviceGetHandleByUUID": str,
            "nvmlDeviceGetUUID": str,
            "nvmlDeviceGetName": lambda _: "NVIDIA H100",
            "nvmlSystemGetDriverVersion": lambda: "580.159.04",
            "nvmlSystemGetCudaDriverVersion_v2": lambda: 13010,
            "nvmlDeviceGetMemoryInfo": lambda _: memory,
            "nvmlDeviceGetCudaComputeCapability": lambda _: (9, 0),
            "nvmlDeviceGetClockInfo": lambda _, kind: {pynvml.NVML_CLOCK_SM: 345}[kind],
            "nvmlDeviceGetMaxClockInfo": lambda _, kind: {pynvml.NVML_CLOCK_SM: 1980}[kind],
            "nvmlDeviceGetApplicationsClock": lambda _, kind: {pynvml.NVML_CLOCK_GRAPHICS: 1980}[kind],
            "nvmlDeviceGetDefaultApplicationsClock": lambda *_: 1980,
            "nvmlDeviceGetPersistenceMode": lambda _: pynvml.NVML_FEATURE_ENABLED,
        }


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Cards:
    """Put a driver with two cards in NVML's place."""
    made = Cards()
    monkeypatch.setattr(nvml, "pynvml", made)
    monkeypatch.setattr(hardware, "pynvml", made)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return made


def test_every_name_asked_of_nvml_is_in_the_installed_library() -> None:
    """A fake would take any name; the library that users get has only its own."""
    names = names_asked_by(hardware)
    assert len(names) > 10
    assert {name for name in names if not hasattr(pynvml, name)} == set()


@pytest.mark.usefixtures("driver")
def test_the_card_that_cuda_uses_is_described() -> None:
    """In the units that the fields name."""
    assert hardware.card() == Card(
        name="NVIDIA H100",
        driver="580.159.04",
        cuda="13.1",
        memory_gb=80.0,
        capability=(9, 0),
        cards=2,
        sm_mhz=345,
        top_mhz=1980,
        set_mhz=1980,
        default_mhz=1980,
        persistent=True,
    )


def test_what_a_card_does_not_tell_is_null(driver: Driver) -> None:
    """Application clocks are gone from new cards; a line is missing then, not the doctor."""
    told = {"nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetUUID"}
    told |= {"nvmlDeviceGetHandleByUUID", "nvmlDeviceGetName"}
    asked = {name for name in dir(pynvml) if name.startswith("nvmlDeviceGet")} - told
    driver.refused = dict.fromkeys(asked, pynvml.NVML_ERROR_NOT_SUPPORTED)
    card = hardware.card()
    assert card is not None
    assert (card.memory_gb, card.capability, card.set_mhz, card.persistent) == (None, None, None, None)


def test_without_a_driver_there_is_no_card(driver: Driver) -> None:
    """Nor where the card is lost between two questions."""
    driver.refused = {"nvmlInit": pynvml.NVML_ERROR_NOT_SUPPORTED}
    assert hardware.card() is None
    driver.refused = {"nvmlDeviceGetHandleByUUID": pynvml.NVML_ERROR_NOT_SUPPORTED}
    assert hardware.card() is None


@pytest.mark.parametrize(
    ("simd", "native"),
    [
        (["avx2"], {}),
        (["avx512_bf16", "avx512_vnni", "avx512f"], {BF16: "avx512_bf16", INT8: "avx512_vnni"}),
        (["avx2", "avx_vnni"], {INT8: "avx_vnni"}),
        (
            ["amx_bf16", "amx_int8", "avx512_bf16", "avx512_fp16", "avx512_vnni"],
            {BF16: "amx_bf16", FP16: "avx512_fp16", INT8: "amx_int8"},
        ),
        (["asimdhp", "asimddp", "i8mm", "bf16"], {FP16: "asimdhp", INT8: "i8mm", BF16: "bf16"}),
    ],
)
def test_a_cpu_computes_in_what_it_has_instructions_for(
    simd: list[str], native: dict[Precision, str]
) -> None:
    """The strongest of each kind is named."""
    assert hardware.native_on_cpu(simd) == native


@pytest.mark.parametrize(
    ("capability", "native"),
    [
        ((6, 0), set()),
        ((6, 1), {INT8}),
        ((7, 5), {INT8, FP16}),
        ((8, 6), {INT8, FP16, TF32, BF16}),
        ((8, 9), {INT8, FP16, TF32, BF16, FP8}),
        ((9, 0), {INT8, FP16, TF32, BF16, FP8}),
        ((12, 0), {INT8, FP16, TF32, BF16, FP8}),
    ],
)
def test_a_gpu_computes_in_what_its_generation_has(
    capability: tuple[int, int], native: set[Precision]
) -> None:
    """Pascal, Turing, Ampere, Ada, Hopper, Blackwell."""
    assert set(hardware.native_on_gpu(capability)) == native


def test_governors_and_boost_are_read_where_the_kernel_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the cores this process may use alone; Intel's switch is the other way round."""
    monkeypatch.setattr(hardware, "_CPUS", tmp_path)
    monkeypatch.setattr(hardware.os, "sched_getaffinity", lambda _: {0, 2})
    assert (hardware.governors(), hardware.boost()) == ([], None)
    for core, governor in enumerate(("performance", "ondemand", "powersave")):
        folder = tmp_path / f"cpu{core}" / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text(f"{governor}\n", encoding="ascii")
    assert hardware.governors() == ["performance", "powersave"]
    (tmp_path / "intel_pstate").mkdir()
    (tmp_path / "intel_pstate" / "no_turbo").write_text("1\n", encoding="ascii")
    assert hardware.boost() is False
    (tmp_path / "cpufreq").mkdir()
    (tmp_path / "cpufreq" / "boost").write_text("1\n", encoding="ascii")
    assert hardware.boost() is True


@pytest.mark.parametrize(
    ("limit", "memory"),
    [("max\n", Memory(16.0, 12.0)), (f"{8 * 2**30}\n", Memory(8.0, 8.0)), ("", Memory(16.0, 12.0))],
)
def test_a_containers_limit_counts_as_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, memory: Memory
) -> None:
    """The smaller of what the machine has and what the container may use."""
    (tmp_path / "meminfo").write_text(
        f"MemTotal:       {16 * 2**20} kB\nMemFree:  1 kB\nMemAvailable:   {12 * 2**20} kB\n",
        encoding="ascii",
    )
    (tmp_path / "memory.max").write_text(limit, encoding="ascii")
    monkeypatch.setattr(hardware, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(hardware, "_LIMITS", (tmp_path / "memory.max", tmp_path / "none"))
    assert hardware.memory() == memory


def test_memory_is_unknown_where_the_kernel_does_not_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS."""
    monkeypatch.setattr(hardware, "_MEMINFO", tmp_path / "none")
    assert hardware.memory() is None


def test_libraries_of_the_system_are_found_with_their_whole_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No wheel has them, as in NVIDIA's containers: the link the loader follows leads to the name."""
    for real, link in (
        ("libnvinfer.so.10.16.1", "libnvinfer.so.10"),
        ("libcudnn.so.9.22.0", "libcudnn.so.9"),
    ):
        (tmp_path / real).write_bytes(b"")
        (tmp_path / link).symlink_to(real)
    monkeypatch.setattr(hardware, "version", lambda _: None)
    monkeypatch.setattr(libraries, "_WHEELS", {})
    monkeypatch.setattr(libraries, "_cached", dict)
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{tmp_path / 'none'}::{tmp_path}")
    assert hardware.cuda_libraries() == {"cuDNN": "9.22.0", "TensorRT": "10.16.1"}


def test_libraries_of_wheels_have_the_wheels_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Either generation's wheel answers."""
    wheels = {"nvidia-cuda-runtime-cu12": "12.9.79", "nvidia-cudnn-cu13": "9.24.0.43"}
    monkeypatch.setattr(hardware, "version", wheels.get)
    monkeypatch.setattr(libraries, "find", lambda _: None)
    assert hardware.cuda_libraries() == {"CUDA runtime": "12.9.79", "cuDNN": "9.24.0.43"}
