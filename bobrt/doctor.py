"""`bobrt doctor`: what this machine can do, what it cannot, and what to do about it."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING, Literal

from bobrt.artifacts import version
from bobrt.errors import BobrtError
from bobrt.paths import check_writable
from bobrt.spec import Frozen
from bobrt.system import cores, no_driver, this_system
from engines.runtimes import RUNTIMES, cannot_build, cannot_run

if TYPE_CHECKING:
    from bobrt.config import Config, Setting

LOW_DISK_GB = 2.0


class Check(Frozen, frozen=True, kw_only=True):
    """One line of the doctor. A `bang` is worth knowing; only a `cross` is in the way."""

    name: str
    status: Literal["ok", "bang", "cross"]
    detail: str
    hint: str = ""


class Diagnosis(Frozen, frozen=True, kw_only=True):
    """Every check; `ok` is false only if nothing can be benched here."""

    schema: int = 1
    ok: bool
    checks: list[Check]


def examine(settings: Config) -> Diagnosis:
    """Return the state of this machine. Loads no heavy library."""
    checks = [_python(), _processor(), _gpu(), *_tools(), *_runtimes()]
    checks += [_folder("cache", settings.cache), _folder("results", settings.results)]
    return Diagnosis(ok=all(check.status != "cross" for check in checks), checks=checks)


def _python() -> Check:
    return Check(name="python", status="ok", detail=f"{sys.version.split()[0]} at {sys.executable}")


def _processor() -> Check:
    system = this_system()
    detail = f"{system.cpu}, {cores()} cores, {system.memory_gb:g} GB; system id {system.id}"
    return Check(name="processor", status="ok", detail=detail)


def _gpu() -> Check:
    reason = no_driver()
    if reason:
        return Check(name="gpu", status="bang", detail=reason, hint="CPU runtimes work without one")
    system = this_system()
    return Check(name="gpu", status="ok", detail=f"{system.gpu}, driver {system.driver}")


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


def _runtimes() -> list[Check]:
    checks = []
    for name, runtime in RUNTIMES.all().items():
        unable, unbuilt = cannot_run(runtime), cannot_build(runtime)
        status: Literal["ok", "bang"] = "bang" if unable else "ok"
        builds = ", builds engines" if runtime.artifact == "engine" and not unbuilt else ""
        detail = f"cannot run here{builds}: {unable}" if unable else "runs here"
        checks.append(Check(name=f"runtime {name}", status=status, detail=detail))
    if all(cannot_run(runtime) for runtime in RUNTIMES.all().values()):
        hint = "pip install bobrt"
        checks.append(Check(name="runtimes", status="cross", detail="no runtime runs here", hint=hint))
    return checks


def _folder(name: str, setting: Setting) -> Check:
    where = f"{setting.path} (from {setting.origin})"
    nearest = next(p for p in [setting.path, *setting.path.parents] if p.exists())
    try:
        if nearest == setting.path:
            check_writable(setting.path)
        elif not nearest.is_dir() or not os.access(nearest, os.W_OK):
            return Check(
                name=name, status="cross", detail=f"{where} cannot be made in {nearest}", hint=_move(name)
            )
    except BobrtError as error:
        return Check(name=name, status="cross", detail=error.message, hint=_move(name))
    free = shutil.disk_usage(nearest).free / 1e9
    if free < LOW_DISK_GB:
        return Check(name=name, status="bang", detail=f"{where}, only {free:.1f} GB free", hint=_move(name))
    return Check(name=name, status="ok", detail=f"{where}, {free:.0f} GB free")


def _move(name: str) -> str:
    return f"set BOBRT_{name.upper()} to a folder you can write"
