"""Where data sets are: remembered once, found again, and never a crash when a folder is gone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bobrt.data import places
from bobrt.errors import MachineError, UsageError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty config home, and no `BOBRT_DATA`; return the file of places, which is not there yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("BOBRT_DATA", raising=False)
    return tmp_path / "config" / "bobrt" / "places.toml"


def folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def test_what_was_remembered_is_found(tmp_path: Path, home: Path) -> None:
    """By each name its folder; a name said again is moved, and the file says what it is for."""
    assert places.names() == []
    for name in ("pets", "cub"):
        places.remember(name, folder(tmp_path / name))
    assert places.names() == ["cub", "pets"]
    assert places.place_of("pets") == tmp_path / "pets"
    assert places.why_absent("pets") == ""
    places.remember("pets", folder(tmp_path / "elsewhere"))
    assert places.place_of("pets") == tmp_path / "elsewhere"
    assert places.place_of("cub") == tmp_path / "cub"
    assert home.read_text(encoding="utf-8").startswith("# Where data sets are")


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "with spaces",
        "ünïcödé",
        "smile 😀",
        'quo"te',
        "back\\slash",
        "new\nline",
        "tab\t\x7f\x01",
        "x.y",
        "[a]",
        "# no",
    ],
)
def test_any_name_a_folder_can_have_is_remembered(tmp_path: Path, name: str) -> None:
    places.remember(name, folder(tmp_path / name))
    assert places.place_of(name) == tmp_path / name
    assert places.names() == [name]


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path, home: Path) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    odd.mkdir()
    with pytest.raises(UsageError, match="is not UTF-8"):
        places.remember("cafe", odd)
    assert not home.exists()


def test_a_relative_path_is_kept_from_where_it_was_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a tilde means home; later, the working folder is another."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(folder(tmp_path / "mine"))
    places.remember("here", Path())
    places.remember("home", Path("~/mine"))
    monkeypatch.chdir(tmp_path)
    assert places.place_of("here") == tmp_path / "mine"
    assert places.place_of("home") == tmp_path / "mine"


def test_a_folder_that_is_not_there_is_not_remembered(tmp_path: Path, home: Path) -> None:
    """Nor is a file."""
    (tmp_path / "file").touch()
    for name, why in (("gone", "is gone"), ("file", "Not a directory")):
        with pytest.raises(UsageError, match=f"{tmp_path / name} .*{why}"):
            places.remember("x", tmp_path / name)
    assert not home.exists()


def test_without_a_word_a_folder_of_that_name_in_bobrt_data_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was remembered comes first, even if it is gone: other images would be another data set."""
    assert places.why_absent("cub") == "nobody has said where it is"
    monkeypatch.setenv("BOBRT_DATA", str(tmp_path / "data"))
    assert places.place_of("cub") is None
    assert str(tmp_path / "data" / "cub") in places.why_absent("cub")
    folder(tmp_path / "data" / "cub")
    assert places.place_of("cub") == tmp_path / "data" / "cub"
    places.remember("cub", folder(tmp_path / "mine"))
    assert places.place_of("cub") == tmp_path / "mine"
    (tmp_path / "mine").rmdir()
    assert places.place_of("cub") is None
    assert places.why_absent("cub") == f"its folder {tmp_path / 'mine'} is gone"
    assert places.names() == ["cub"]
    monkeypatch.setenv("BOBRT_DATA", "")
    assert places.why_absent("other") == "nobody has said where it is"


def test_a_disk_that_is_not_mounted_and_a_file_in_its_place_are_told_apart(tmp_path: Path) -> None:
    """The reason says which; nothing is forgotten, so that it is there when the disk is."""
    disk = folder(tmp_path / "disk" / "data").parent
    places.remember("x", disk / "data")
    (disk / "data").rmdir()
    disk.rmdir()
    assert places.place_of("x") is None
    assert places.why_absent("x").endswith("is gone, and so is the one it was in")
    folder(disk / "data")
    assert places.place_of("x") == disk / "data"
    (disk / "data").rmdir()
    (disk / "data").touch()
    assert places.place_of("x") is None
    assert "cannot be opened: Not a directory" in places.why_absent("x")


@pytest.mark.parametrize(
    "content", [b"no toml [", b"x = 3\n", b"[x]\ny = 'z'\n", b"x = '\xff'\n", b"x = 'cut o"], ids=str
)
def test_a_damaged_file_is_named_and_left_alone(tmp_path: Path, home: Path, content: bytes) -> None:
    """Whatever is asked; what the user wrote into it is for the user to mend."""
    home.parent.mkdir(parents=True)
    home.write_bytes(content)
    for ask in (
        places.names,
        lambda: places.place_of("x"),
        lambda: places.why_absent("x"),
        lambda: places.remember("x", tmp_path),
    ):
        with pytest.raises(UsageError, match=r"the file of places .* is damaged") as caught:
            ask()
        assert str(home) in caught.value.message
        assert "\n" not in caught.value.message
        assert "mend it" in caught.value.hint
    assert home.read_bytes() == content


def test_a_config_folder_that_cannot_be_written_is_a_machine_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    with pytest.raises(MachineError, match=r"cannot write .*places\.toml") as caught:
        places.remember("x", tmp_path)
    assert "XDG_CONFIG_HOME" in caught.value.hint


def test_without_xdg_it_is_below_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    places.remember("x", tmp_path)
    assert (tmp_path / "user" / ".config" / "bobrt" / "places.toml").is_file()


def test_several_processes_that_remember_at_once_lose_nothing(tmp_path: Path) -> None:
    """Each reads, adds and writes under the lock."""
    code = (
        "import sys; from pathlib import Path; from bobrt.data import places\n"
        "for number in range(5): places.remember(f'{sys.argv[1]}-{number}', Path(sys.argv[2]))\n"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, str(n), str(tmp_path)]) for n in range(3)]
    assert [process.wait(timeout=60) for process in started] == [0, 0, 0]
    assert len(places.names()) == 15
