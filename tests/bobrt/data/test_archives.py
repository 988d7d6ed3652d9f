"""Archives of other people: unpacked whole into their folder, or refused by name with nothing left behind."""

from __future__ import annotations

import io
import os
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest

from bobrt.data import archives
from bobrt.data.archives import unpack
from bobrt.errors import MachineError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Write = Callable[[Path, dict[str, bytes]], None]

NOISE = np.random.default_rng(0).bytes(30_000)
CONTENT = {
    "set/list.txt": b"a 0\nb 1\n" * 100,
    "set/images/a.jpg": NOISE,
    "set/images/b.jpg": NOISE[::-1],
    "c": b"",
}

UNPACK = """
import resource, sys
from pathlib import Path
from bobrt.data.archives import unpack
from bobrt.errors import BobrtError
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    unpack(Path(sys.argv[1]), Path(sys.argv[2]))
except BobrtError as error:
    print(error.kind, error.message, error.hint, sep="|")
"""


def write_tar(path: Path, content: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(path, mode) as archive:
        for name, data in content.items():
            add(archive, name, data)


def write_zip(path: Path, content: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def add(archive: tarfile.TarFile, name: str, data: bytes = b"", **more: object) -> None:
    """Add a member; `more` are attributes of its head."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in more.items():
        setattr(member, key, value)
    archive.addfile(member, io.BytesIO(data))


WRITERS: dict[str, Write] = {
    "zip": write_zip,
    "tar": write_tar,
    "tar.gz": lambda path, content: write_tar(path, content, "w:gz"),
    "tgz": lambda path, content: write_tar(path, content, "w:gz"),
    "tar.bz2": lambda path, content: write_tar(path, content, "w:bz2"),
    "tar.xz": lambda path, content: write_tar(path, content, "w:xz"),
}


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refusal(archive: Path, folder: Path) -> UsageError:
    """Return the error an archive is refused with: it names the archive, and nothing is left behind."""
    before = {path: path.read_bytes() for path in folder.parent.rglob("*") if path.is_file()}
    folders = {path for path in folder.parent.rglob("*") if path.is_dir()}
    with pytest.raises(UsageError) as caught:
        unpack(archive, folder)
    assert {path: path.read_bytes() for path in folder.parent.rglob("*") if path.is_file()} == before
    assert {path for path in folder.parent.rglob("*") if path.is_dir()} == folders
    assert str(archive) in caught.value.message
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize("ending", WRITERS)
def test_an_archive_is_unpacked_whole(tmp_path: Path, ending: str) -> None:
    """Whatever its name: what it is is told from its content. Everybody may read what came out."""
    archive = tmp_path / "archive"
    WRITERS[ending](archive, CONTENT)
    unpack(archive, tmp_path / "new" / "set")
    assert files(tmp_path / "new" / "set") == CONTENT
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["set"]
    assert stat.S_IMODE((tmp_path / "new" / "set").stat().st_mode) & 0o055 == 0o055
    assert stat.S_IMODE((tmp_path / "new" / "set" / "c").stat().st_mode) & 0o044 == 0o044


def test_an_empty_folder_is_filled_and_a_full_one_is_not(tmp_path: Path) -> None:
    """Nothing of the user's is written over, nor is a file in the place of the folder."""
    archive = tmp_path / "a.zip"
    write_zip(archive, CONTENT)
    (tmp_path / "empty").mkdir()
    unpack(archive, tmp_path / "empty")
    assert files(tmp_path / "empty") == CONTENT
    with pytest.raises(UsageError, match="empty is there already, and is no empty folder"):
        unpack(archive, tmp_path / "empty")
    with pytest.raises(UsageError, match=r"a\.zip is there already"):
        unpack(archive, archive)
    assert files(tmp_path / "empty") == CONTENT


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".set.unpacking" / "half").mkdir(parents=True)
    (tmp_path / ".set.unpacking" / "half" / "old").write_text("old")
    write_tar(tmp_path / "a.tar", CONTENT)
    unpack(tmp_path / "a.tar", tmp_path / "set")
    assert files(tmp_path / "set") == CONTENT
    assert not (tmp_path / ".set.unpacking").exists()


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path: Path) -> None:
    """A zip is known by its end, and so such a tar looks like one."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("inside", b"x")
    write_tar(tmp_path / "a.tar", {"first": b"1", "inner.zip": inner.getvalue()})
    assert zipfile.is_zipfile(tmp_path / "a.tar")
    unpack(tmp_path / "a.tar", tmp_path / "set")
    assert sorted(files(tmp_path / "set")) == ["first", "inner.zip"]


@pytest.mark.parametrize("ending", ["zip", "tar", "tgz"])
@pytest.mark.parametrize(
    "name",
    [
        "/etc/evil",
        "../evil",
        "a/../../evil",
        "a/b/..",
        "..\\evil",
        "C:\\evil",
        "C:evil",
        "\\evil",
        "//host/evil",
    ],
)
def test_a_member_that_leads_out_of_the_folder_is_refused_by_name(
    tmp_path: Path, ending: str, name: str
) -> None:
    """Even after others that are sound; those are not left behind either."""
    archive = tmp_path / f"a.{ending}"
    WRITERS[ending](archive, {"fine": b"1", name: b"2"})
    error = refusal(archive, tmp_path / "set")
    assert repr(name) in error.message
    assert "leads out of the folder" in error.message
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("ending", ["w", "w:gz"])
@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE],
    ids=["symlink", "hard link", "character device", "block device", "fifo"],
)
def test_links_and_devices_of_a_tar_are_refused_by_name(tmp_path: Path, kind: bytes, ending: str) -> None:
    """Links that stay inside as well: what is written through one need not."""
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, ending) as made:
        add(made, "fine", b"1")
        add(made, "odd", type=kind, linkname="fine")
        add(made, "odd/passwd", b"2")
    error = refusal(archive, tmp_path / "set")
    assert "'odd' is a link or a device" in error.message


def test_a_link_in_a_zip_is_refused_by_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        link = zipfile.ZipInfo("odd")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc")
        archive.writestr("odd/passwd", b"2")
    assert "'odd' is a link or a device" in refusal(tmp_path / "a.zip", tmp_path / "set").message


def test_an_encrypted_zip_is_refused_by_name(tmp_path: Path) -> None:
    """A flag in the directory says so; there is nobody to ask for the password."""
    write_zip(tmp_path / "a.zip", {"secret": b"x"})
    content = bytearray((tmp_path / "a.zip").read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 8] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    assert "'secret' is encrypted" in refusal(tmp_path / "a.zip", tmp_path / "set").message


@pytest.mark.parametrize("ending", ["zip", "tgz", "tar.xz"])
def test_a_bomb_is_refused_before_it_grows(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a hundred times its own size; below a bound that fits everywhere nobody counts."""
    monkeypatch.setattr(archives, "FREE", 2_000_000)
    WRITERS[ending](tmp_path / "small", {"zeros": bytes(1_900_000)})
    unpack(tmp_path / "small", tmp_path / "grown")
    WRITERS[ending](tmp_path / "bomb", {"fine": b"1", "zeros": bytes(2_100_000)})
    error = refusal(tmp_path / "bomb", tmp_path / "set")
    assert "'zeros'" in error.message
    assert "2,000,000 bytes" in error.message
    WRITERS[ending](
        tmp_path / "sound", {"noise": NOISE * 4, "other": np.random.default_rng(1).bytes(2_100_000)}
    )
    unpack(tmp_path / "sound", tmp_path / "large")


def test_a_bomb_of_many_small_parts_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is harmless; empty files count as well, as their heads unpack to something."""
    monkeypatch.setattr(archives, "FREE", 200_000)
    WRITERS["tgz"](tmp_path / "bomb", {f"{number:05}": b"" for number in range(4_000)})
    assert (tmp_path / "bomb").stat().st_size < 60_000
    monkeypatch.setattr(archives, "RATIO", 10)
    assert "grows to more than" in refusal(tmp_path / "bomb", tmp_path / "set").message


def test_a_zip_that_lies_about_its_sizes_grows_no_further(tmp_path: Path) -> None:
    """No more than the directory says is read: the rest is damage."""
    write_zip(tmp_path / "a.zip", {"zeros": bytes(5_000_000)})
    content = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(content.replace(struct.pack("<I", 5_000_000), struct.pack("<I", 100)))
    assert "damaged" in refusal(tmp_path / "a.zip", tmp_path / "set").message


@pytest.mark.parametrize("ending", WRITERS)
def test_an_archive_that_is_cut_off_anywhere_is_named(tmp_path: Path, ending: str) -> None:
    """At every share of it, and at the seams between members, where tarfile by itself sees an end."""
    WRITERS[ending](tmp_path / "whole", CONTENT)
    whole = (tmp_path / "whole").read_bytes()
    lengths = {int(share * len(whole)) for share in np.linspace(0, 0.97, 15)}
    if ending == "tar":
        # Two empty blocks end a tar, and then it is filled up with more.
        end = len(whole.rstrip(b"\0")) // 512 * 512 + 512
        lengths = {*range(0, end, 512), *(length for length in lengths if length < end)}
    for length in sorted(lengths):
        (tmp_path / "cut").write_bytes(whole[:length])
        error = refusal(tmp_path / "cut", tmp_path / "set")
        assert "cut off" in error.message
        assert "again" in error.hint


@pytest.mark.parametrize("ending", ["zip", "tar", "tgz"])
def test_flipped_bytes_end_in_files_or_in_an_error_that_names_the_archive(
    tmp_path: Path, ending: str
) -> None:
    """Never anything else, and never anything beside the folder."""
    WRITERS[ending](
        tmp_path / "whole", {**CONTENT, "set/images/a.jpg": NOISE[:2000], "set/images/b.jpg": b"b"}
    )
    whole = np.frombuffer((tmp_path / "whole").read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    refused = 0
    for number in range(50):
        broken = whole.copy()
        broken[rng.integers(0, len(whole), 4)] = rng.integers(0, 256, 4)
        (tmp_path / "broken").write_bytes(broken.tobytes())
        folder = tmp_path / "out" / str(number)
        try:
            unpack(tmp_path / "broken", folder)
        except UsageError as error:
            refused += str(tmp_path / "broken") in error.message
            assert not folder.exists()
    assert refused > 15
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "broken", "out"}


@pytest.mark.parametrize(
    "content", [b"", b"words, and no archive", bytes(5000)], ids=["empty", "words", "zeros"]
)
def test_what_is_no_archive_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar.gz").write_bytes(content)
    message = refusal(tmp_path / "a.tar.gz", tmp_path / "set").message
    assert "neither zip nor tar" in message or "holds nothing" in message  # zeros are a tar without members


def test_an_archive_that_is_missing_is_named(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "gone.zip", tmp_path / "set").message
    assert "does not exist" in refusal(tmp_path, tmp_path / "set").message


@pytest.mark.parametrize("ending", ["zip", "tgz"])
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, ending: str) -> None:
    """A file that does not fit: exit code 3, both paths, and what was written is gone."""
    WRITERS[ending](tmp_path / "a", CONTENT)
    command = [sys.executable, "-c", UNPACK, str(tmp_path / "a"), str(tmp_path / "set")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    kind, message, hint = done.stdout.strip().split("|")
    assert kind == "machine"
    assert message == f"cannot unpack {tmp_path / 'a'} into {tmp_path / 'set'}: File too large"
    assert "free some space" in hint
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_below_a_file_is_a_machine_error(tmp_path: Path) -> None:
    write_zip(tmp_path / "a.zip", CONTENT)
    with pytest.raises(MachineError, match=r"cannot unpack .* into .*: Not a directory"):
        unpack(tmp_path / "a.zip", tmp_path / "a.zip" / "below")


def test_owners_and_special_bits_of_the_packer_are_not_taken_over(tmp_path: Path) -> None:
    """A file that would run as root, and folders nobody else can read, are not."""
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add(archive, "tool", b"x", mode=0o6777, uid=12345, gid=12345)
    unpack(tmp_path / "a.tar", tmp_path / "set")
    status = (tmp_path / "set" / "tool").stat()
    assert status.st_uid == os.getuid()
    assert not status.st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWOTH)
