"""Writing files so that a crash, a full disk or a second run never leaves half of one."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from bobrt.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
CANNOT_WRITE = FULL | {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR}

ROOM = "free some space, or set TMPDIR to a folder of another disk"
"""What helps where there is no room for a temporary file: libraries' own lie there too."""

CPU = "cpu"
"""The lock every heavy stage of every run on this machine takes in turn."""


def sha256_of(path: Path, *more: Path) -> str:
    """Return the sha256 of a file's bytes, in hex; of several files, that of their digests in order."""
    if more:
        return hashlib.sha256("".join(map(sha256_of, (path, *more))).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, content: bytes) -> None:
    """Write a whole file or nothing, creating its folder.

    Raises:
        MachineError: The folder cannot be written, or the disk is full.

    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)  # noqa: PTH101 - mkstemp made it private; results are to be shared
            os.replace(name, path)  # noqa: PTH105 - one call, atomic by POSIX
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise MachineError(
            f"cannot write {path}: {error.strerror or error}",
            "free some space, or choose another place with --output, --results or BOBRT_CACHE",
        ) from error


def write_sealed(path: Path, content: bytes) -> None:
    """Write a file that `read_sealed` will know from one that was edited; raises as `write_atomic` does."""
    write_atomic(path, hashlib.sha256(content).digest() + content)


def read_sealed(path: Path) -> bytes:
    """Return what `write_sealed` wrote; nothing if the file is not there or is not what was written."""
    if not path.is_file():
        return b""
    told = path.read_bytes()
    seal, content = told[: hashlib.sha256().digest_size], told[hashlib.sha256().digest_size :]
    return content if hashlib.sha256(content).digest() == seal else b""


def full_disk(error: BaseException) -> OSError | None:
    """Return the system's word that a disk is full, if an error comes from that: libraries wrap it."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError) and below.errno in FULL:
            return below
        below = below.__cause__ or below.__context__
    return None


def check_writable(folder: Path) -> None:
    """Prove that a file can be written into `folder`; raise `MachineError` otherwise."""
    probe = folder / f".bobrt-{os.getpid()}"
    write_atomic(probe, b"bobrt\n")
    probe.unlink(missing_ok=True)


@contextmanager
def lock(name: str, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold a lock that is exclusive among this user's processes on this machine.

    The operating system lets go of it when its holder dies, however it dies.

    Args:
        name: What is locked: `CPU`, or the path of the thing that only one may make.
        waiting: Called once if another process holds the lock.

    Raises:
        MachineError: The folder of the locks cannot be written.

    """
    folder = _temporary() / f"bobrt-{os.getuid()}"
    held = FileLock(folder / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.lock")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        held.acquire(timeout=0)
    except Timeout:
        waiting()
        held.acquire()
    except OSError as error:
        raise MachineError(
            f"cannot keep locks in {folder}: {error.strerror or error}",
            "set TMPDIR to a folder you can write",
        ) from error
    try:
        yield
    finally:
        held.release()


def _temporary() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as error:  # it tries to write into each that it knows
        raise MachineError("no folder for temporary files can be written", ROOM) from error
