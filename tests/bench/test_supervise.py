"""Workers and how they end, with small programs in the worker's place."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bench import supervise
from bench.orders import Event, Order
from bobrt.artifacts import Target
from bobrt.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TWO_JOBS = [Target(stage="first"), Target(stage="second")]

_PROLOGUE = """
import json, os, signal, subprocess, sys, time
order = json.loads(sys.stdin.readline())
def tell(kind, **more):
    os.write(int(os.environ["BOBRT_EVENTS_FD"]), json.dumps({"kind": kind, **more}).encode() + b"\\n")
"""


class Watched:
    """Run a program as a worker, and keep what was told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._patch, self.log = monkeypatch, folder / "logs" / "worker.log"
        self.events: list[Event] = []

    def run(self, program: str, limit_s: float = 60.0) -> supervise.Ended:
        self._patch.setattr(supervise, "_COMMAND", _PROLOGUE + program)
        order = Order(cache="unused", targets=TWO_JOBS)
        return supervise.run(order, limit_s=limit_s, threads=1, log=self.log, tell=self.events.append)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Watched:
    return Watched(monkeypatch, tmp_path)


def test_a_worker_that_does_everything_ends_without_a_word(watched: Watched) -> None:
    """Both jobs done: no message, and every event was passed on in order."""
    ended = watched.run(
        "for job in (0, 1): tell('running'); tell('phase', phase='p', detail=str(job)); tell('done')"
    )
    assert ended == supervise.Ended(2, "")
    assert [event.kind for event in watched.events] == ["running", "phase", "done"] * 2
    assert [event.detail for event in watched.events if event.kind == "phase"] == ["0", "1"]


@pytest.mark.parametrize(
    ("program", "job", "message"),
    [
        ("os.abort()", 0, "its process crashed (SIGABRT), while starting"),
        (
            "tell('phase', phase='timing'); os.kill(os.getpid(), signal.SIGSEGV)",
            0,
            "crashed (SIGSEGV), while timing",
        ),
        (
            "tell('done'); tell('phase', phase='parity'); os.kill(os.getpid(), 9)",
            1,
            "ran out of memory, while parity",
        ),
        ("tell('done'); os._exit(0)", 1, "its process ended with exit code 0, while starting"),
        ("tell('phase', phase='timing'); sys.exit(7)", 0, "ended with exit code 7, while timing"),
        ("tell('running'); raise ValueError('x')", 0, "ended with exit code 1"),
    ],
    ids=["abort", "segfault", "killed", "leaves early", "exit code", "uncaught"],
)
def test_a_death_is_told_with_the_job_and_the_phase(
    watched: Watched, program: str, job: int, message: str
) -> None:
    """However the process dies, the job it was at and the phase it was in are said."""
    ended = watched.run(program)
    assert ended.job == job
    assert message in ended.message
    assert ended.kind == "failed"


def test_an_error_is_told_with_its_hint_and_kind(watched: Watched) -> None:
    """A worker's own error is taken word for word, and nothing after it counts."""
    ended = watched.run(
        "tell('done'); tell('error', error_kind='machine', message='full', hint='free some'); tell('done')"
    )
    assert ended == supervise.Ended(1, "full", "free some", "machine")


def test_a_crash_at_the_very_end_loses_nothing(watched: Watched) -> None:
    """A library that crashes while it is unloaded does not undo work that is done."""
    assert watched.run("tell('done'); tell('done'); os.abort()") == supervise.Ended(2, "")


def test_time_limit_ends_a_worker_that_hangs(watched: Watched, gone: Callable[[list[int]], bool]) -> None:
    """The limit and the phase are said, and the process is gone, with every process of its group."""
    ended = watched.run(
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "tell('phase', phase='accuracy', detail=f'{os.getpid()} {child.pid}')\n"
        "time.sleep(600)",
        limit_s=1.0,
    )
    assert ended.message == "gave up after its time limit of 1 s, while accuracy"
    assert gone([int(pid) for pid in watched.events[0].detail.split()])


def test_waiting_does_not_count_and_work_after_it_does(watched: Watched) -> None:
    """A worker may wait for longer than its limit; once it runs, the limit holds again."""
    ended = watched.run(
        "tell('waiting'); time.sleep(2); tell('running'); tell('done'); tell('phase', phase='parity'); "
        "time.sleep(600)",
        limit_s=1.5,
    )
    assert ended == supervise.Ended(1, "gave up after its time limit of 1.5 s, while parity")


def test_everything_a_worker_prints_is_in_its_log(watched: Watched) -> None:
    """Prints, libraries that write to the descriptor, tracebacks: none of it on the user's terminal."""
    watched.run("print('hello'); os.write(2, b'from C\\n'); sys.stdout.flush(); raise ValueError('the end')")
    text = watched.log.read_text()
    assert "hello" in text
    assert "from C" in text
    assert "ValueError: the end" in text


def test_events_that_come_in_pieces_are_put_together(watched: Watched) -> None:
    """A pipe keeps bytes, not lines."""
    ended = watched.run(
        "fd = int(os.environ['BOBRT_EVENTS_FD'])\n"
        'os.write(fd, b\'{"kind":"do\'); time.sleep(0.3); os.write(fd, b\'ne"}\\n{"kind":"done"}\\n\')'
    )
    assert ended == supervise.Ended(2, "")


def test_a_worker_is_told_its_threads_and_keeps_them_asleep(watched: Watched) -> None:
    """The thread count is stated, and idle OpenMP threads do not spin."""
    watched.run(
        "names = ('OMP_NUM_THREADS', 'OMP_WAIT_POLICY', 'GOMP_SPINCOUNT')\n"
        "tell('phase', phase=' '.join(os.environ[name] for name in names))"
    )
    assert watched.events[0].phase == "1 PASSIVE 0"


def test_a_worker_imports_nothing_from_the_folder_it_is_started_in(
    watched: Watched, user_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user's own `bench` beside the data is not ours."""
    monkeypatch.chdir(user_folder)
    watched.run("import bench, train, engines; tell('phase', phase=bench.__file__)")
    assert str(user_folder) not in watched.events[0].phase


def test_a_worker_dies_when_its_run_is_gone(tmp_path: Path) -> None:
    """The real worker: once the other end of its stdin is closed, it ends, whatever it was doing."""
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", supervise._COMMAND],
        stdin=subprocess.PIPE,
        env={**os.environ, "BOBRT_EVENTS_FD": str(write)},
        pass_fds=[write],
    )
    os.close(write)
    process.communicate(b'{"cache": "%s"}\n' % str(tmp_path).encode(), timeout=60)
    os.close(read)
    assert process.returncode in {0, 130}


def test_a_log_that_cannot_be_written_is_the_machines_fault(watched: Watched, tmp_path: Path) -> None:
    """Below a regular file there is no folder: an error names the file, and nothing is started."""
    (tmp_path / "logs").write_text("a file")
    with pytest.raises(MachineError, match=r"cannot write .*worker\.log") as caught:
        watched.run("tell('done'); tell('done')")
    assert "BOBRT_CACHE" in caught.value.hint
    assert not watched.events
