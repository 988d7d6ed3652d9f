"""The process that does the work: makes files, or measures one cell, and tells what it does.

Started with `python -P -c "from bench.worker import main; main()"`, so that a user's own
folder named `bench` cannot shadow this one. It reads one JSON order from stdin, writes one
JSON event per line to the descriptor named in the environment, and dies when stdin closes:
no worker outlives its run.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import threading
import traceback
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from bench import cell
from bench.nvml import device_lock_name, open_gpu
from bench.orders import EVENTS_FD, Event, Order
from bobrt.errors import BobrtError, ExitCode, MachineError, one_line
from bobrt.paths import ROOM, full_disk, lock
from engines.runner import out_of_memory
from engines.stages import workshop


def main() -> None:
    """Do the order on stdin."""
    with os.fdopen(int(os.environ[EVENTS_FD]), "wb", buffering=0) as pipe:

        def tell(**event: Any) -> None:  # noqa: ANN401 - the fields of Event
            pipe.write(msgspec.json.encode(Event(**event)) + b"\n")

        order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
        threading.Thread(target=_die_with_parent, daemon=True).start()
        if order.memory_gb is not None:
            limit = int(order.memory_gb * 2**30)
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        try:
            _work(order, tell)
        except BobrtError as error:
            tell(kind="error", error_kind=error.kind, message=error.message, hint=error.hint)
            sys.exit(ExitCode.FAILED)
        except Exception as error:  # noqa: BLE001 - any bug of a model or a library is this cell's end, not the run's
            traceback.print_exc()
            if out_of_memory(error):
                tell(kind="error", message=_out_of_memory(order))
            elif full := full_disk(error):
                where = full.filename or tempfile.gettempdir()
                message = f"cannot write {where}: {full.strerror or full}"
                tell(kind="error", error_kind=MachineError.kind, message=message, hint=ROOM)
            else:
                tell(kind="error", message=f"{type(error).__name__}: {one_line(error)}")
            sys.exit(ExitCode.FAILED)


def _work(order: Order, tell: Any) -> None:  # noqa: ANN401 - see main
    def report(phase: str, detail: str) -> None:
        if phase == "waiting":
            tell(kind="waiting", detail=detail)
        else:
            tell(kind="phase", phase=phase, detail=detail)

    def waiting() -> None:
        report("waiting", "another bobrt uses this machine")

    shop, gpu = workshop(Path(order.cache)), open_gpu()
    for target in order.targets:
        tell(kind="running")
        # A builder tries its kernels on the GPU, and networks are trained there: nobody times on it then.
        with lock(device_lock_name(gpu), waiting) if gpu else nullcontext():
            shop.make(target, report, partial(tell, kind="running"))
        tell(kind="done")
    if order.cell is not None:
        with lock(device_lock_name(cell.device(order.cell)), waiting):
            tell(kind="running")
            cell.run(order.cell, report)
        tell(kind="done")


def _out_of_memory(order: Order) -> str:
    return "out of memory" + (f" (limit {order.memory_gb:g} GB)" if order.memory_gb else "")


def _die_with_parent() -> None:
    # A bare read of the descriptor: the buffered reader's lock would be held at shutdown.
    while os.read(0, 1):
        pass
    os._exit(ExitCode.INTERRUPTED)
