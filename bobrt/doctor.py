"""`bobrt doctor`: what this machine can do, what it cannot, and what to do about it.

The facts are those of `bobrt.hardware` and `bobrt.loading`; this file says which of them are in the way.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bobrt import hardware, loading, reach
from bobrt.artifacts import version
from bobrt.errors import BobrtError
from bobrt.paths import check_writable
from bobrt.spec import Frozen, Precision
from bobrt.system import cores, this_system
from engines.runtimes import RUNTIMES, Runtime, cannot_build, cannot_run, no_gpu

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bobrt.config import Config, Setting
    from bobrt.hardware import Card
    from bobrt.loading import Loaded

LOW_DISK_GB = 2.0
LOW_MEMORY_GB = 2.0
HUB_PATIENCE_S = 3.0
"""How long the hub may take to answer."""

_HUB = "https://huggingface.co"
_TRUE = {"1", "ON", "YES", "TRUE"}
"""What `huggingface_hub` takes for a yes."""

Status = Literal["ok", "bang", "cross"]


class Check(Frozen, frozen=True, kw_only=True):
    """One line of the doctor. A `bang` is worth knowing; only a `cross` is in the way. Both have a hint."""

    name: str
    status: Status
    detail: str
    hint: str = ""


class Diagnosis(Frozen, frozen=True, kw_only=True):
    """Every check; `ok` is false only if nothing can be benched here, or not what was asked for."""

    schema: int = 1
    ok: bool
    checks: list[Check]


def examine(settings: Config, names: Sequence[str] = ()) -> Diagnosis:
    """Return the state of this machine. Heavy libraries are loaded in children alone.

    Args:
        settings: The folders that are written to.
        names: Runtimes that have to run here; without any, one of all is enough.

    Raises:
        UsageError: A name is no runtime's.

    """
    asked = [RUNTIMES.get(name) for name in names]
    hub = _ask_hub()
    loaded = loading.load(asked or RUNTIMES.all().values())
    card = hardware.card()
    checks = [_python(), _processor(), _memory(), _cpu_clocks(), _cpu_precisions()]
    checks += [_driver(card), _gpu(card), _libraries(card)]
    if card is not None:
        checks += [_gpu_clocks(card), _gpu_precisions(card)]
    checks += [*_tools(), *_runtimes(loaded, card, asked=bool(asked))]
    checks += [_folder("cache", settings.cache), _folder("results", settings.results), hub()]
    return Diagnosis(ok=all(check.status != "cross" for check in checks), checks=checks)


# -- the machine ---------------------------------------------------------------------------------


def _python() -> Check:
    return Check(name="python", status="ok", detail=f"{sys.version.split()[0]} at {sys.executable}")


def _processor() -> Check:
    system = this_system()
    return Check(
        name="processor", status="ok", detail=f"{system.cpu}, {cores()} cores; system id {system.id}"
    )


def _memory() -> Check:
    found = hardware.memory()
    if found is None:
        hint = "on Linux: mount -t proc proc /proc"
        return Check(name="memory", status="bang", detail="the kernel does not say", hint=hint)
    detail = f"{found.total_gb:.1f} GB, {found.free_gb:.1f} GB free"
    if found.free_gb < LOW_MEMORY_GB:
        return Check(name="memory", status="bang", detail=detail, hint="end what else runs here")
    return Check(name="memory", status="ok", detail=detail)


def _cpu_clocks() -> Check:
    governors, boost = hardware.governors(), hardware.boost()
    said = {True: ", boost on", False: ", boost off", None: ""}[boost]
    if not governors:
        return Check(
            name="clocks cpu",
            status="bang",
            detail=f"no governor can be read, as in most virtual machines{said}",
            hint="each record says how far the machine moved (drift), and unstable rows are not ranked",
        )
    detail = f"governor {', '.join(governors)}{said}"
    if governors != ["performance"]:
        hint = "sudo cpupower frequency-set -g performance"
        return Check(name="clocks cpu", status="bang", detail=detail, hint=hint)
    return Check(name="clocks cpu", status="ok", detail=detail)


def _cpu_precisions() -> Check:
    native = hardware.native_on_cpu(this_system().simd)
    had = [str(Precision.FP32), *(f"{precision} ({by})" for precision, by in native.items())]
    rest = [p for p in Precision if p not in {Precision.FP32, Precision.TF32, *native}]
    return Check(name="precisions cpu", status="ok", detail=_native(had, rest))


def _native(had: Sequence[str], rest: Sequence[str]) -> str:
    more = f"; {', '.join(rest)} through conversion, if at all" if rest else ""
    return f"{', '.join(had)} natively{more}"


def _driver(card: Card | None) -> Check:
    if card is None:
        detail = no_gpu() or "NVML shows no GPU that CUDA may see"
        return Check(name="driver", status="bang", detail=detail, hint=_to_have_a_gpu())
    detail = f"{card.driver}, runs CUDA up to {card.cuda}"
    runtime = hardware.cuda_libraries().get("CUDA runtime", "")
    if runtime and card.cuda and _major(runtime) > _major(card.cuda):
        hint = f"install a driver for CUDA {_major(runtime)}"
        detail += f", and the libraries here are of CUDA {runtime}"
        return Check(name="driver", status="bang", detail=detail, hint=hint)
    return Check(name="driver", status="ok", detail=detail)


def _to_have_a_gpu() -> str:
    """Return the hint where no GPU can be used."""
    hides = "CUDA_VISIBLE_DEVICES"
    if no_gpu().startswith(hides) or (not no_gpu() and hides in os.environ):
        return f"unset {hides}"
    if hardware.in_container():
        return "start the container with docker run --gpus all, on a host with NVIDIA's driver"
    return "with an NVIDIA GPU: install its driver; in a container: docker run --gpus all"


def _major(text: str) -> int:
    return int(text.partition(".")[0])


def _gpu(card: Card | None) -> Check:
    if card is None:
        detail = "none that can be used; CPU runtimes work without one"
        return Check(name="gpu", status="bang", detail=detail, hint=_to_have_a_gpu())
    parts = [card.name]
    if card.memory_gb is not None:
        parts.append(f"{card.memory_gb:.0f} GB")
    if card.capability is not None:
        parts.append("compute capability {}.{}".format(*card.capability))
    if card.cards > 1:
        parts.append(f"the first of {card.cards} that CUDA_VISIBLE_DEVICES lets be seen")
    return Check(name="gpu", status="ok", detail=", ".join(parts))


def _libraries(card: Card | None) -> Check:
    found = hardware.cuda_libraries()
    detail = ", ".join(f"{name} {told}" for name, told in found.items()) or "none"
    lacking = [name for name in ("CUDA runtime", "cuBLAS", "cuDNN") if name not in found]
    if not lacking:
        return Check(name="cuda libraries", status="ok", detail=detail)
    detail += f"; no {', no '.join(lacking)}" if found else ""
    hint = "pip install 'bobrt[train]' brings them, NVIDIA's containers have them"
    if card is None:
        hint = "only GPU runtimes need them"
    return Check(name="cuda libraries", status="bang", detail=detail, hint=hint)


def _gpu_clocks(card: Card) -> Check:
    """Return what NVML tells; it has no question for clocks locked with `nvidia-smi -lgc`."""
    parts = [f"SM {card.sm_mhz} of {card.top_mhz} MHz now"]
    chosen = card.set_mhz is not None and card.set_mhz != card.default_mhz
    if card.set_mhz is not None:
        parts.append(f"application clock {card.set_mhz} MHz{'' if chosen else ', the default'}")
    if card.persistent is not None:
        parts.append(f"persistence {'on' if card.persistent else 'off'}")
    parts.append("a lock cannot be read")
    if chosen:
        return Check(name="clocks gpu", status="ok", detail=", ".join(parts))
    hint = "on the host: sudo nvidia-smi -pm 1, then sudo nvidia-smi -lgc MHZ with a clock it can hold"
    return Check(name="clocks gpu", status="bang", detail=", ".join(parts), hint=hint)


def _gpu_precisions(card: Card) -> Check:
    if card.capability is None:
        detail = "unknown: NVML does not tell the compute capability"
        hint = "nvidia-smi --query-gpu=name,compute_cap --format=csv"
        return Check(name="precisions gpu", status="bang", detail=detail, hint=hint)
    native = [Precision.FP32, *hardware.native_on_gpu(card.capability)]
    return Check(
        name="precisions gpu", status="ok", detail=_native(native, [p for p in Precision if p not in native])
    )


# -- what is installed ---------------------------------------------------------------------------


def _tools() -> list[Check]:
    """Return one check per optional library that makes files."""
    needed = {"torch": "train", "timm": "train", "onnxscript": "train", "nvidia-modelopt": "quant"}
    checks = []
    for tool, extra in needed.items():
        found = version(tool)
        detail = found or "not installed: files made elsewhere can still be benched"
        hint = "" if found else f"pip install 'bobrt[{extra}]'"
        checks.append(Check(name=tool, status="ok" if found else "bang", detail=detail, hint=hint))
    return checks


def _runtimes(loaded: dict[str, Loaded], card: Card | None, *, asked: bool) -> list[Check]:
    """Return one check per runtime; what does not run is a cross if it was asked for, or if nothing runs."""
    checks = []
    able = 0
    for name, answer in loaded.items():
        runtime = RUNTIMES.get(name)
        if _runs(runtime, answer):
            able += 1
            checks.append(_runtime(runtime, answer, card))
        else:
            checks.append(_no_runtime(runtime, answer, "cross" if asked else "bang"))
    if not able and not asked:
        hint = "pip install bobrt"
        checks.append(Check(name="runtimes", status="cross", detail="no runtime runs here", hint=hint))
    return checks


def _runs(runtime: Runtime, answer: Loaded) -> bool:
    return not answer.error and not cannot_run(runtime)


def _runtime(runtime: Runtime, answer: Loaded, card: Card | None) -> Check:
    said = f"; {answer.detail}" if answer.detail else ""
    detail = f"{answer.version} loads and runs here{said}".strip()
    if card is not None and runtime.module == "torch" and loading.SEES_A_GPU not in answer.detail:
        hint = "install a newer driver, or a PyTorch built for CUDA that this driver runs"
        return Check(name=f"runtime {runtime.name}", status="bang", detail=detail, hint=hint)
    return Check(name=f"runtime {runtime.name}", status="ok", detail=detail)


def _no_runtime(runtime: Runtime, answer: Loaded, status: Status) -> Check:
    name, reason = f"runtime {runtime.name}", cannot_run(runtime)
    others = "bobrt list runtimes shows the others"
    if answer.error and answer.version:
        detail = f"{answer.version} loads, and its runner does not open: {answer.error}"
        return Check(name=name, status=status, detail=detail, hint=others)
    if answer.error and answer.missing != runtime.module:
        detail = f"is installed and does not load: {answer.error}"
        hint = f"{sys.executable} -c 'import {runtime.module}' says more"
        return Check(name=name, status=status, detail=detail, hint=hint)
    hint = _to_have_a_gpu() if reason == no_gpu() else others
    if not answer.error:
        builds = (
            " loads and builds engines," if runtime.artifact == "engine" and not cannot_build(runtime) else ""
        )
        reason = f"{answer.version}{builds} cannot run here: {reason}".strip()
    # The reason names the command in brackets where there is one.
    command = re.search(r" \(((?:pip|apt) install [^)]+)\)$", reason)
    if command:
        return Check(name=name, status=status, detail=reason[: command.start()], hint=command[1])
    return Check(name=name, status=status, detail=reason, hint=hint)


# -- where things are kept, and fetched from --------------------------------------------------------


def _folder(name: str, setting: Setting) -> Check:
    where = f"{setting.path} (from {setting.origin})"
    nearest = next(p for p in [setting.path, *setting.path.parents] if p.exists())
    try:
        if nearest == setting.path:
            check_writable(setting.path)
        else:
            Path(tempfile.mkdtemp(dir=nearest, prefix=".bobrt-")).rmdir()
    except BobrtError as error:
        return Check(name=name, status="cross", detail=error.message, hint=_move(name))
    except OSError as error:
        detail = f"{where} cannot be made in {nearest}: {error.strerror or error}"
        return Check(name=name, status="cross", detail=detail, hint=_move(name))
    free = shutil.disk_usage(nearest).free / 1e9
    if free < LOW_DISK_GB:
        return Check(name=name, status="bang", detail=f"{where}, only {free:.1f} GB free", hint=_move(name))
    return Check(name=name, status="ok", detail=f"{where}, {free:.0f} GB free")


def _move(name: str) -> str:
    return f"set BOBRT_{name.upper()} to a folder you can write"


def _ask_hub() -> Callable[[], Check]:
    """Ask the hub in the background; return what waits for its answer and judges it."""
    if (os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or "").upper() in _TRUE:
        detail = "not asked: HF_HUB_OFFLINE is set"
        off = Check(name="hub", status="bang", detail=detail, hint="unset it to fetch published weights")
        return lambda: off
    endpoint = os.environ.get("HF_ENDPOINT") or _HUB
    try:
        wait = reach.ask(urllib.request.Request(endpoint, method="HEAD"), HUB_PATIENCE_S)  # noqa: S310 - the hub's own
    except ValueError as error:
        wrong = error
        return lambda: _hub(endpoint, wrong)
    return lambda: _hub(endpoint, wait())


def _hub(endpoint: str, error: Exception | None) -> Check:
    answered = isinstance(error, urllib.error.HTTPError) and error.code < HTTPStatus.INTERNAL_SERVER_ERROR
    if isinstance(error, urllib.error.HTTPError):
        error.close()
    if error is not None and not answered:
        reason = " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__
        hint = "--weights random or --weights PATH needs no hub; HF_ENDPOINT names a mirror"
        return Check(name="hub", status="bang", detail=f"{endpoint} cannot be reached: {reason}", hint=hint)
    token = "HF_TOKEN is set" if os.environ.get("HF_TOKEN") else "HF_TOKEN is not set: no gated weights"
    return Check(name="hub", status="ok", detail=f"{endpoint} answers; {token}")
