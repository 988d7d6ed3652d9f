"""Run a worker, watch it, and say how it ended, however it ended."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import msgspec

from bench.orders import EVENTS_FD, Event, Order
from bobrt.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bobrt.errors import ErrorKind

_COMMAND = "from bench.worker import main; main()"
_TICK_S = 0.2


class Ended(NamedTuple):
    """How a worker ended."""

    job: int
    """The job it was at; all before it are done."""
    message: str
    """Empty if everything was done."""
    hint: str = ""
    kind: ErrorKind = "failed"

    @property
    def reason(self) -> str:
        """What went wrong and what to do about it, in one line."""
        return f"{self.message} ({self.hint})" if self.hint else self.message


def run(order: Order, *, limit_s: float, threads: int, log: Path, tell: Callable[[Event], None]) -> Ended:
    """Run one worker to its end.

    Args:
        order: What it is to do.
        limit_s: Seconds for each job; time spent waiting for another run does not count.
        threads: CPU threads it may use.
        log: Receives everything the worker and its libraries print.
        tell: Called with each event.

    Returns:
        The job it stopped at and why: an error it told, a crash, or the time limit.

    Raises:
        MachineError: The log cannot be written.

    """
    with _opened(log) as output:
        read, write = os.pipe()
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and command
            [sys.executable, "-P", "-c", _COMMAND],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            pass_fds=[write],
            env=_environment(write, threads),
            start_new_session=True,
        )
    os.close(write)
    try:
        return _watch(process, read, order, limit_s, tell)
    finally:
        _kill(process)
        os.close(read)


def _opened(log: Path) -> BinaryIO:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return log.open("ab")
    except OSError as error:
        raise MachineError(
            f"cannot write {log}: {error.strerror or error}",
            "free some space, or choose another place with --output, --results or BOBRT_CACHE",
        ) from error


def _watch(
    process: subprocess.Popen[bytes], read: int, order: Order, limit_s: float, tell: Callable[[Event], None]
) -> Ended:
    if process.stdin is None:
        raise RuntimeError("the worker has no stdin")
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(msgspec.json.encode(order) + b"\n")
        process.stdin.flush()
    jobs = len(order.targets) + (order.cell is not None)
    done, phase = 0, "starting"
    deadline: float | None = time.monotonic() + limit_s
    for event in _events(read):
        if event is None:
            if deadline is not None and time.monotonic() > deadline:
                return Ended(done, f"gave up after its time limit of {limit_s:g} s, while {phase}")
            continue
        tell(event)
        if event.kind == "waiting":
            deadline = None
        elif event.kind == "running":
            deadline = time.monotonic() + limit_s
        elif event.kind == "phase":
            phase = event.phase
            deadline = deadline or time.monotonic() + limit_s
        elif event.kind == "done":
            done += 1
            phase = "starting"
        elif event.kind == "error":
            return Ended(done, event.message, event.hint, event.error_kind)
    code = process.wait()
    return Ended(done, "" if done == jobs else f"{_died(code)}, while {phase}")


def _events(read: int) -> Iterator[Event | None]:
    """Yield the worker's events until it closes the pipe, and None at every tick without one."""
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(read, selectors.EVENT_READ)
        while True:
            if not selector.select(_TICK_S):
                yield None
                continue
            chunk = os.read(read, 65536)
            if not chunk:
                return
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                yield msgspec.json.decode(line, type=Event)


def _died(code: int) -> str:
    if code == -signal.SIGKILL:
        return "its process was killed (SIGKILL): most likely the machine ran out of memory"
    if code < 0:
        return f"its process crashed ({signal.Signals(-code).name})"
    return f"its process ended with exit code {code}"


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    process.wait()


def _environment(write: int, threads: int) -> dict[str, str]:
    """Return the worker's environment: a stated thread count, and threads that sleep when idle.

    On a small CPU, OpenMP's spinning is the largest noise there is. ONNX Runtime's wheel would
    keep a device id in the user's home and upload events from a thread of its own.
    """
    return (
        {"ORT_DISABLE_TELEMETRY": "1"}
        | os.environ
        | {
            EVENTS_FD: str(write),
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # the order NVML counts in: the GPU watched is the one used
            "OMP_NUM_THREADS": str(threads),
            "OMP_WAIT_POLICY": "PASSIVE",
            "GOMP_SPINCOUNT": "0",
            "PYTHONUNBUFFERED": "1",
        }
    )
