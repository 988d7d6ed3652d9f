"""What machine this is: the identity a result is filed under, and the versions beside it."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

from bobrt import __version__
from bobrt.artifacts import version
from bobrt.result import System
from bobrt.spec import digest

_CPUINFO = Path("/proc/cpuinfo")
_KERNELS = {"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni"}
_KERNELS |= {"amx_int8", "amx_bf16", "asimddp", "asimdhp", "bf16", "i8mm", "sve"}


@cache
def this_system() -> System:
    """Return hardware, driver and versions of this machine; `id` hashes hardware and driver only."""
    gpu, driver = _gpu()
    commit, dirty = _git()
    cpu, simd = _cpu_model(), _simd()
    hardware = {"cpu": cpu, "simd": simd, "cores": cores(), "gpu": gpu, "driver": driver}
    hardware["machine"] = platform.machine()
    slug = re.sub(r"[^a-z0-9]+", "-", (gpu or cpu).lower()).strip("-")[:32]
    return System(
        id=f"{slug}-{cores()}c-{digest(hardware)[:8]}",
        cpu=cpu,
        simd=simd,
        cores=cores(),
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        gpu=gpu,
        driver=driver,
        os=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        cuda=version("nvidia-cuda-runtime") or version("nvidia-cuda-runtime-cu12"),
        tensorrt=version("tensorrt"),
        tensorrt_rtx=version("tensorrt-rtx"),
        onnxruntime=version("onnxruntime"),
        onnx=version("onnx"),
        torch=version("torch"),
        timm=version("timm"),
        modelopt=version("nvidia-modelopt"),
        numpy=version("numpy"),
        bobrt=__version__,
        git_commit=commit,
        git_dirty=dirty,
    )


def cores() -> int:
    """Return how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def no_driver() -> str:
    """Return why no NVIDIA GPU can be used here, or an empty string if one can."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver on this machine (libcuda.so.1 not found)"
    return "" if _gpu()[0] else "no NVIDIA GPU answers nvidia-smi on this machine"


def _cpu_model() -> str:
    try:
        text = _CPUINFO.read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def _simd() -> list[str]:
    """Return the instruction sets that decide which kernels run: clouds give one name to many CPUs."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8")
    except OSError:
        return []
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    return sorted(_KERNELS & set(found[1].split())) if found else []


def gpu_is_lost() -> bool:
    """Tell whether the GPU that was there when this process first asked does not answer any more.

    The first of several is the one that is used: where it is gone, the next answers in its place.
    """
    return _gpu()[0] is not None and _asked_gpu()[0] != _gpu()[0]


@cache
def _gpu() -> tuple[str | None, str | None]:
    return _asked_gpu()


def _asked_gpu() -> tuple[str | None, str | None]:
    """Return name and driver of the GPU as nvidia-smi tells them now, or None twice."""
    name, uuid, driver = [*ask_gpu("name,uuid,driver_version").split(", "), "", ""][:3]
    if name.startswith("["):  # of a GPU that fell off the bus: [GPU is lost], [Unknown Error]
        return None, None
    return (f"{name} {_slice(uuid)}".strip() or None), (driver or None)


def ask_gpu(fields: str) -> str:
    """Return nvidia-smi's line for the GPU that CUDA calls device 0; an empty string if there is no answer.

    `CUDA_VISIBLE_DEVICES` is honoured: its first entry, an index or the start of a UUID, a slice's (MIG) too.
    Indices are in the order of the PCI bus, which is CUDA's in our workers.

    Args:
        fields: What is asked, in nvidia-smi's words.

    """
    word, row = _visible(), 0
    if word not in {"", "-1"}:
        cards = [line.partition(", ") for line in _query("index,uuid")]
        word = next((part.card for part in _slices() if part.uuid.startswith(word)), word)
        named = [i for i, (index, _, uuid) in enumerate(cards) if word == index or uuid.startswith(word)]
        row = named[0] if named else len(cards)
    return "".join(_query(fields)[row : row + 1])


def _slice(card: str) -> str:
    """Return the name of the slice (MIG) that CUDA calls device 0, with its share: `MIG 1g.10gb`, or nothing.

    Of a card that is cut in slices CUDA shows one, never the whole: the one that is named, else the first.
    """
    parts = [part for part in _slices() if part.card == card]
    named = [part for part in parts if _visible() and part.uuid.startswith(_visible())]
    return next((part.name for part in [*named, *parts]), "")


def _visible() -> str:
    return os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()


class _Slice(NamedTuple):
    card: str
    """The UUID of the GPU it is a part of."""
    uuid: str
    name: str


def _slices() -> list[_Slice]:
    """Return the slices of all GPUs, as `nvidia-smi -L` lists them, each behind its GPU."""
    found, card = [], ""
    for line in _nvidia_smi("-L"):
        if told := re.match(r"GPU \d+: .*\(UUID: (GPU-[^)]+)\)", line):
            card = told[1]
        elif told := re.match(r"\s+(MIG \S+) .*\(UUID: (MIG-[^)]+)\)", line):
            found.append(_Slice(card, told[2], told[1]))
    return found


def _query(fields: str) -> list[str]:
    return _nvidia_smi(f"--query-gpu={fields}", "--format=csv,noheader")


def _nvidia_smi(*options: str) -> list[str]:
    """Return the lines it answers; none where there is no driver, or it is in trouble."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    try:
        told = subprocess.run([command, *options], capture_output=True, text=True, timeout=20, check=True)  # noqa: S603 - fixed words
    except (OSError, subprocess.SubprocessError):
        return []
    return told.stdout.strip("\n").splitlines()


def _git() -> tuple[str | None, bool | None]:
    """Return the commit of the source tree bobrt runs from, and whether it has changes."""
    root = Path(__file__).resolve().parent.parent
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        return None, None
    try:
        run = {"capture_output": True, "text": True, "timeout": 20, "check": True, "cwd": root}
        commit = subprocess.run([git, "rev-parse", "HEAD"], **run).stdout.strip()  # type: ignore[call-overload]  # noqa: S603, PLW1510
        changes = subprocess.run([git, "status", "--porcelain", "-uno"], **run).stdout.strip()  # type: ignore[call-overload]  # noqa: S603, PLW1510
    except (OSError, subprocess.SubprocessError):
        return None, None
    return commit, bool(changes)
