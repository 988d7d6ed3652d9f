"""Where shared libraries are, found without loading one: what a machine can do is asked often."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

_WHEELS = {"nvidia": "*/lib/", "tensorrt_libs": ""}
"""Packages of wheels that bring NVIDIA's libraries, and where in them these are."""


def find(name: str) -> Path | None:
    """Return where a shared library of this very name is, or None: in wheels, else where the loader looks."""
    paths = [
        path
        for package, inside in _WHEELS.items()
        for folder in folders_of(package)
        for path in folder.glob(f"{inside}{name}")
    ]
    paths += [Path(part) / name for part in os.environ.get("LD_LIBRARY_PATH", "").split(":") if part]
    if known := _cached().get(name):
        paths.append(known)
    return next((path for path in paths if path.exists()), None)


def folders_of(module: str) -> list[Path]:
    """Return the folders of an installed package, several for a namespace, without importing it."""
    spec = importlib.util.find_spec(module)
    return [Path(place) for place in (spec and spec.submodule_search_locations) or ()]


@cache
def _cached() -> dict[str, Path]:
    """Return what the loader's own cache knows."""
    command = shutil.which("ldconfig", path=f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin")
    if command is None:
        return {}
    try:
        told = subprocess.run([command, "-p"], capture_output=True, text=True, timeout=10, check=True).stdout  # noqa: S603 - a fixed command
    except (OSError, subprocess.SubprocessError):
        return {}
    return {name: Path(path) for name, path in re.findall(r"^\s*(\S+) .*=> (\S+)$", told, re.MULTILINE)}
