"""Unpacking what somebody else packed: nothing outside of its folder, no bombs, whole or not at all."""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING

from bobrt.errors import MachineError, UsageError
from bobrt.paths import CANNOT_WRITE, lock

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

RATIO = 100
"""How many times its own size an archive may grow to: lists of labels reach ten, images one."""
FREE = 64 * 2**20
"""Bytes up to which it may grow whatever its size."""
_BLOCK = 512
"""Bytes of a member's head, which count as well: a bomb can be made of empty files."""
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    OSError,
    ValueError,
)
"""What the readers raise for bytes that are cut off or changed."""
AGAIN = "fetch it again"


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip, or a tar with or without compression, into a new folder, or an empty one.

    It is unpacked beside and renamed when it is whole.

    Args:
        archive: The file; what it is is told from its content.
        folder: Where its members go.

    Raises:
        UsageError: The archive is missing, cut off or damaged, grows to more than `RATIO` times its size,
            or has a member that is absolute, leads out of the folder, or is a link or a device; or the
            folder holds something.
        MachineError: The folder cannot be written, or the disk is full.

    """
    if not archive.is_file():
        raise UsageError(f"the archive {archive} does not exist")
    beside = folder.with_name(f".{folder.name}.unpacking")
    with lock(str(folder.absolute())):
        try:
            if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
                raise UsageError(f"{folder} is there already, and is no empty folder", "name a new one")
            shutil.rmtree(beside, ignore_errors=True)  # of a process that was killed
            beside.mkdir(parents=True)
            _unpack(archive, beside)
            if not any(beside.iterdir()):
                raise UsageError(f"the archive {archive} holds nothing", AGAIN)
            beside.rename(folder)
        except _DAMAGED as error:
            if isinstance(error, OSError) and error.errno in CANNOT_WRITE:
                raise MachineError(
                    f"cannot unpack {archive} into {folder}: {error.strerror}",
                    "free some space, or name a folder you can write",
                ) from error
            said = " ".join(str(error).split()) or type(error).__name__
            raise UsageError(f"the archive {archive} is cut off or damaged: {said}", AGAIN) from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def _unpack(archive: Path, folder: Path) -> None:
    try:
        opened = tarfile.open(archive, tarinfo=_Member)  # noqa: SIM115 - closed by whom it is handed to
    except tarfile.ReadError as error:
        # Not the other way round: a tar that ends with a zip looks like one.
        if not zipfile.is_zipfile(archive):
            raise UsageError(f"{archive} is cut off, or no archive: neither zip nor tar", AGAIN) from error
        _unzip(archive, folder)
    else:
        with opened:
            _untar(opened, archive, folder)


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as content:
        size = _Size(archive)
        for member in content.infolist():
            _require_inside(archive, member.filename)
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
                raise _refused(archive, member.filename, "is a link or a device")
            if member.flag_bits & 1:
                raise _refused(archive, member.filename, "is encrypted")
            # No more than is said here is ever read of it.
            size.grow(member.file_size, member.filename)
        content.extractall(folder)  # noqa: S202 - every member was looked at


def _untar(content: tarfile.TarFile, archive: Path, folder: Path) -> None:
    # What it would refuse is refused before; early releases of Python 3.11 do not have it.
    content.extraction_filter = getattr(tarfile, "data_filter", None)
    size = _Size(archive)
    while (member := content.next()) is not None:
        _require_inside(archive, member.name)
        if not (member.isreg() or member.isdir()):
            raise _refused(archive, member.name, "is a link or a device")
        size.grow(member.size, member.name)
        content.extract(member, folder)
        # Of each it would remember a kilobyte; there can be millions.
        content.members.clear()  # type: ignore[attr-defined]


class _Member(tarfile.TarInfo):
    """A member of a tar; a damaged head is an error, where tarfile takes it for the end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        """Return the next member."""
        try:
            return super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":
                raise
            raise tarfile.ReadError(f"{error} at byte {archive.offset:,}") from None


class _Size:
    """How far an archive has grown."""

    def __init__(self, archive: Path) -> None:
        self._archive = archive
        self._bound = max(FREE, RATIO * archive.stat().st_size)
        self._bytes = 0

    def grow(self, size: int, name: str) -> None:
        self._bytes += _BLOCK + size
        if self._bytes > self._bound:
            raise UsageError(
                f"the archive {self._archive} is refused: with its member {name!r} it grows to more than "
                f"{self._bound:,} bytes, {RATIO} times its size",
                "unpack it by hand if you trust it",
            )


def _require_inside(archive: Path, name: str) -> None:
    path = PureWindowsPath(name)  # which knows both kinds of slashes, and drives
    if path.drive or path.root or ".." in path.parts:
        raise _refused(archive, name, "leads out of the folder")


def _refused(archive: Path, name: str, why: str) -> UsageError:
    return UsageError(
        f"the archive {archive} is refused: its member {name!r} {why}", "unpack it by hand if you trust it"
    )
