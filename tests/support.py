"""The installed command line, run for real in an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BOBRT = Path(sys.executable).with_name("bobrt")
TINY = Path(__file__).parent / "plans" / "tiny.toml"

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


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return a quiet environment without the user's own settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("BOBRT_", "XDG_", "HF_"))}
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
