"""A crash, a full disk or a second run never leaves half a file, nor a lock nobody holds."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import tempfile
from typing import IO, TYPE_CHECKING

import pytest

from bobrt.errors import MachineError
from bobrt.paths import (
    check_writable,
    full_disk,
    lock,
    read_sealed,
    sha256_of,
    write_atomic,
    write_sealed,
)

if TYPE_CHECKING:
    from pathlib import Path

WRITE = """
import resource, sys
from pathlib import Path
from bobrt.errors import BobrtError
from bobrt.paths import write_atomic
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomic(Path(sys.argv[1]), b"new" * 1000)
except BobrtError as error:
    print(error.kind, error.message, error.hint, sep="|")
"""

HOLD = """
import sys
from bobrt.paths import lock
with lock("a thing", lambda: print("waiting", flush=True)):
    print("held", flush=True)
    sys.stdin.readline()
"""


def child(code: str, *args: object) -> subprocess.Popen[str]:
    """Start a Python of its own."""
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def next_line(process: subprocess.Popen[str]) -> str:
    """Return the next line another process says."""
    stream: IO[str] | None = process.stdout
    assert stream is not None
    return stream.readline().rstrip("\n")


def test_a_file_is_written_whole_and_replaces_the_old(tmp_path: Path) -> None:
    """Folders are made on the way, the content is exact, everyone may read it, nothing else is left."""
    path = tmp_path / "deep" / "er" / "file.json"
    for content in (b"old", b"new and longer"):
        write_atomic(path, content)
        assert path.read_bytes() == content
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("old", [b"old", None], ids=["over-an-old-one", "for-the-first-time"])
def test_a_failed_write_leaves_what_was_there(tmp_path: Path, old: bytes | None) -> None:
    """On a full disk the old file stays as it was, or there is none; no scrap is left beside it."""
    path = tmp_path / "file.json"
    if old is not None:
        path.write_bytes(old)
    process = child(WRITE, path)
    kind, message, hint = process.communicate(timeout=60)[0].strip().split("|")
    assert (kind, message) == ("machine", f"cannot write {path}: File too large")
    assert hint.startswith("free some space")
    assert list(tmp_path.iterdir()) == ([path] if old is not None else [])
    assert old is None or path.read_bytes() == old


def test_a_sealed_file_is_read_as_it_was_written_or_not_at_all(tmp_path: Path) -> None:
    """Absent, cut, edited or somebody else's: nothing."""
    path = tmp_path / "it"
    assert read_sealed(path) == b""
    write_sealed(path, b"content")
    assert read_sealed(path) == b"content"
    whole = path.read_bytes()
    for told in (whole[:-1], whole + b"x", whole.replace(b"content", b"contend"), b"content", b""):
        path.write_bytes(told)
        assert read_sealed(path) == b""


@pytest.mark.parametrize("deep", ["x.json", "folder/x.json"])
def test_a_folder_below_a_regular_file_is_a_machine_error(tmp_path: Path, deep: str) -> None:
    """It holds for root too: the path is named, and what to do."""
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    path = tmp_path / "file" / deep
    with pytest.raises(MachineError) as caught:
        write_atomic(path, b"x")
    assert caught.value.message.startswith(f"cannot write {path}: ")
    assert "--results" in caught.value.hint
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_a_folder_in_the_place_of_the_file_is_a_machine_error(tmp_path: Path) -> None:
    """A folder is not replaced by a file."""
    (tmp_path / "x.json").mkdir()
    with pytest.raises(MachineError, match=r"cannot write .*x\.json: Is a directory"):
        write_atomic(tmp_path / "x.json", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_to_prove_that_a_folder_can_be_written_leaves_nothing(tmp_path: Path) -> None:
    """The probe is gone; where it cannot be put, that is an error."""
    check_writable(tmp_path / "results")
    assert list((tmp_path / "results").iterdir()) == []
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(MachineError, match="cannot write"):
        check_writable(tmp_path / "file")


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    """The published test vector of the empty string and of `abc`."""
    (tmp_path / "file").write_bytes(b"")
    assert sha256_of(tmp_path / "file").startswith("e3b0c44298fc1c149afbf4c8996fb924")
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256_of(tmp_path / "file").startswith("ba7816bf8f01cfea414140de5dae2223")


@pytest.mark.usefixtures("own_locks")
def test_a_lock_is_exclusive_and_free_when_its_holder_is_killed() -> None:
    """The second process says that it waits, and gets the lock when the first dies by kill -9."""
    with child(HOLD) as first, child(HOLD) as second:
        try:
            says = {next_line(first): first, next_line(second): second}
            assert set(says) == {"held", "waiting"}
            says["held"].kill()
            assert next_line(says["waiting"]) == "held"
        finally:
            first.kill()
            second.kill()


@pytest.mark.usefixtures("own_locks")
def test_a_lock_nobody_holds_is_taken_without_waiting() -> None:
    """One after the other nobody waits, after an error neither; another name is another lock."""
    waited: list[str] = []
    with pytest.raises(ZeroDivisionError), lock("a thing", lambda: waited.append("first")):
        raise ZeroDivisionError
    with lock("a thing", lambda: waited.append("again")), lock("another", lambda: waited.append("another")):
        pass
    assert not waited


def test_locks_that_cannot_be_kept_are_a_machine_error(own_locks: Path) -> None:
    """The folder is named, and how to choose another."""
    folder = own_locks / f"bobrt-{os.getuid()}"
    folder.write_text("somebody's file", encoding="utf-8")
    with pytest.raises(MachineError, match=f"cannot keep locks in {folder}") as caught, lock("a thing"):
        pass
    assert "TMPDIR" in caught.value.hint


def test_no_folder_for_temporary_files_is_a_machine_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python tries to write into each that it knows, and finds none on a full disk."""

    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(MachineError, match="no folder for temporary files can be written"), lock("a thing"):
        pass


def test_a_full_disk_is_found_below_a_library_s_error() -> None:
    """Libraries wrap what they meet; a right that is missing is no full disk."""
    full = OSError(errno.ENOSPC, "full")
    assert full_disk(full) is full
    assert full_disk(wrapped(full)) is full
    assert full_disk(wrapped(wrapped(full))) is full
    assert full_disk(wrapped(PermissionError(errno.EACCES, "no"))) is None
    assert full_disk(ValueError("full")) is None


def wrapped(error: Exception) -> Exception:
    """Return an error as it is when it was raised while another was handled."""
    above = RuntimeError("it failed")
    above.__context__ = error
    return above
