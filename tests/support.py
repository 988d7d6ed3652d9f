"""The command line, run for real: the installed script, or the same verbs in this process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from unittest import mock

from bobrt.cli import main

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PLACES = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
BOBRT = Path(shutil.which("bobrt", path=_PLACES) or "bobrt")
"""Beside the interpreter; a system's own Python has its scripts elsewhere, as in the images."""
TINY = Path(__file__).parent / "plans" / "tiny.toml"
BUNDLE = ("export", "test_resnet", "--task", "digits", "--weights", "random", "--plan", TINY, "--bundle")
"""Makes a bundle of the tiny plan's backbone."""

# Before torch is imported anywhere: idle OpenMP threads sleep, as in our own workers.
# ONNX Runtime would keep a device id in the user's home.
os.environ.update(OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT="0", ORT_DISABLE_TELEMETRY="1")


class Ran(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Workspace(NamedTuple):
    """A cache and a results folder of a test's own."""

    cache: Path
    results: Path

    def env(self, **more: str) -> dict[str, str]:
        return {"BOBRT_CACHE": str(self.cache), "BOBRT_RESULTS": str(self.results), **more}

    def bobrt(
        self,
        *args: str | Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 300,
    ) -> Ran:
        return run_bobrt(*args, cwd=cwd, env=self.env(**(env or {})), timeout=timeout)

    def here(self, *args: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Ran:
        return run_here(*args, cwd=cwd, env=self.env(**(env or {})))


def install_package(folder: Path, name: str, entry_points: str, code: str = "", version: str = "1.0") -> Path:
    """Lay out a package of one module as an installer does; return the folder to put on the path."""
    module = name.replace("-", "_")
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(entry_points)
    (folder / f"{module}.py").write_text(code)
    return folder


def write_plan(path: Path, **changes: object) -> Path:
    """Write the tiny plan with some of its keys changed; None takes a key away."""
    content = {k: v for k, v in (tomllib.loads(TINY.read_text()) | changes).items() if v is not None}
    lines = [f"{key} = {json.dumps(value)}" for key, value in content.items() if not isinstance(value, dict)]
    for name, table in content.items():
        if isinstance(table, dict):
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    path.write_text("\n".join(lines) + "\n")
    return path


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return a quiet environment without the user's own settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("BOBRT_", "XDG_", "HF_", "COLUMNS"))}
    quiet = {"NO_COLOR": "1", "TERMINAL_WIDTH": "100", "_TYPER_FORCE_DISABLE_TERMINAL": "1"}
    return {**kept, **quiet, **(extra or {})}


def run_bobrt(
    *args: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None, timeout: float = 300
) -> Ran:
    """Run the installed console script."""
    command: Sequence[str] = [str(BOBRT), *map(str, args)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env=environment(env), timeout=timeout, check=False
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def run_here(*args: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Ran:
    """Run the command line in this process, which has imported it: where the process is not the question.

    The workers that make files and measure cells are processes of their own as ever.
    """
    out, err = StringIO(), StringIO()
    with (
        mock.patch.dict(os.environ, environment(env), clear=True),
        mock.patch.object(sys, "argv", ["bobrt", *map(str, args)]),
        redirect_stdout(out),
        redirect_stderr(err),
        chdir(cwd or Path.cwd()),
    ):
        try:
            main()
        except SystemExit as end:
            return Ran(int(end.code or 0), out.getvalue(), err.getvalue())
