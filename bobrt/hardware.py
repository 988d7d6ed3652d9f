"""What this machine is made of, as far as a speed depends on it: facts, and no verdict.

`bobrt.system` is the identity a result is filed under; this is what a person looks at before a run.
Whatever cannot be read is null or empty.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pynvml  # type: ignore[import-untyped]

from bench.nvml import ask, open_gpu
from bobrt.artifacts import version
from bobrt.spec import Precision
from engines import libraries
from engines.runtimes import SINCE

if TYPE_CHECKING:
    from collections.abc import Iterable

_CPUS = Path("/sys/devices/system/cpu")
_MEMINFO = Path("/proc/meminfo")
_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)

_CPU_SETS = {
    Precision.FP16: ("avx512_fp16", "asimdhp"),
    Precision.BF16: ("amx_bf16", "avx512_bf16", "bf16"),
    Precision.INT8: ("amx_int8", "avx512_vnni", "avx_vnni", "i8mm", "asimddp"),
}
"""Instruction sets that multiply and add at a precision without a detour through fp32."""

_CAPABILITIES = {Precision.INT8: (6, 1), Precision.FP16: (7, 0), **SINCE}
"""The first compute capability with such arithmetic: dp4a, then the generations of tensor cores.

Source: the tables of the CUDA programming guide, "Compute Capabilities".
"""

_LIBRARIES = {
    "CUDA runtime": ("libcudart.so", (13, 12), ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12")),
    "cuBLAS": ("libcublas.so", (13, 12), ("nvidia-cublas", "nvidia-cublas-cu12")),
    "cuDNN": ("libcudnn.so", (9,), ("nvidia-cudnn-cu13", "nvidia-cudnn-cu12")),
    "TensorRT": ("libnvinfer.so", (11, 10), ("tensorrt",)),
}
"""What GPU runtimes link to: the shared library, its major versions, and the wheels that bring it."""


class Card(NamedTuple):
    """The GPU that CUDA calls device 0, as NVML tells it."""

    name: str
    driver: str
    cuda: str
    """The newest CUDA version the driver runs."""
    memory_gb: float | None
    capability: tuple[int, int] | None
    cards: int
    """GPUs in the machine."""
    sm_mhz: int | None
    top_mhz: int | None
    set_mhz: int | None
    """The application clock; the card's own default unless somebody chose one."""
    default_mhz: int | None
    persistent: bool | None
    """Whether the driver stays loaded, and a clock set, while nobody uses the card."""


class Memory(NamedTuple):
    """Main memory this process may use, in GB (2^30 bytes); a container's limit counts."""

    total_gb: float
    free_gb: float


def card() -> Card | None:
    """Return the GPU, or None where there is no driver or no GPU that CUDA may see."""
    gpu = open_gpu()
    handle = None if gpu is None else ask(pynvml.nvmlDeviceGetHandleByUUID, gpu.uuid)
    if handle is None:
        return None
    cuda = ask(pynvml.nvmlSystemGetCudaDriverVersion_v2)
    memory = ask(pynvml.nvmlDeviceGetMemoryInfo, handle)
    persistent = ask(pynvml.nvmlDeviceGetPersistenceMode, handle)
    return Card(
        name=ask(pynvml.nvmlDeviceGetName, handle) or "a GPU without a name",
        driver=ask(pynvml.nvmlSystemGetDriverVersion) or "",
        cuda=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else "",
        memory_gb=None if memory is None else memory.total / 2**30,
        capability=ask(pynvml.nvmlDeviceGetCudaComputeCapability, handle),
        cards=ask(pynvml.nvmlDeviceGetCount) or 1,
        sm_mhz=ask(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM),
        top_mhz=ask(pynvml.nvmlDeviceGetMaxClockInfo, handle, pynvml.NVML_CLOCK_SM),
        set_mhz=ask(pynvml.nvmlDeviceGetApplicationsClock, handle, pynvml.NVML_CLOCK_GRAPHICS),
        default_mhz=ask(pynvml.nvmlDeviceGetDefaultApplicationsClock, handle, pynvml.NVML_CLOCK_GRAPHICS),
        persistent=None if persistent is None else bool(persistent),
    )


def native_on_cpu(simd: Iterable[str]) -> dict[Precision, str]:
    """Return the precisions a CPU computes in, each with the instruction set it has for it."""
    there = set(simd)
    found = {
        precision: next((name for name in names if name in there), "")
        for precision, names in _CPU_SETS.items()
    }
    return {precision: name for precision, name in found.items() if name}


def native_on_gpu(capability: tuple[int, int]) -> list[Precision]:
    """Return the precisions an NVIDIA GPU computes in, beside fp32."""
    return [precision for precision, first in _CAPABILITIES.items() if capability >= first]


def governors() -> list[str]:
    """Return the frequency governors of the cores this process may use, each once."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set[int]()
    found = {_text(_CPUS / f"cpu{core}/cpufreq/scaling_governor") for core in cores}
    return sorted(found - {""})


def boost() -> bool | None:
    """Tell whether cores may go above their nominal frequency."""
    if switch := _text(_CPUS / "cpufreq/boost"):
        return switch == "1"
    if switch := _text(_CPUS / "intel_pstate/no_turbo"):
        return switch == "0"
    return None


def memory() -> Memory | None:
    """Return main memory, or None where the kernel does not say."""
    told = dict(re.findall(r"^(Mem\w+):\s+(\d+) kB$", _text(_MEMINFO), re.MULTILINE))
    if not {"MemTotal", "MemAvailable"} <= set(told):
        return None
    limits = [int(text) for path in _LIMITS if (text := _text(path)).isdecimal()]
    total = min([1024 * int(told["MemTotal"]), *limits])
    return Memory(total / 2**30, min(1024 * int(told["MemAvailable"]), total) / 2**30)


def cuda_libraries() -> dict[str, str]:
    """Return the versions of NVIDIA's libraries that are here, from wheels or else from the system."""
    found = {}
    for name, (file, majors, wheels) in _LIBRARIES.items():
        known = next((told for wheel in wheels if (told := version(wheel))), "")
        path = next((path for major in majors if (path := libraries.find(f"{file}.{major}"))), None)
        if not known and path is not None:
            # A library of the system is a link to a file whose name has the whole version.
            known = path.resolve().name.removeprefix(f"{file}.")
        if known:
            found[name] = known
    return found


def in_container() -> bool:
    """Tell whether Docker or Podman made this machine."""
    return Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()


def _text(path: Path) -> str:
    """Return a file's text, empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
