"""What was learned of images is kept: each is read once, and nothing that goes wrong loses it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from bobrt.data import index

if TYPE_CHECKING:
    from pathlib import Path

LEARN = """
import resource, sys
from pathlib import Path
from bobrt.data import index
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
root, cache = map(Path, sys.argv[1:3])
names = sorted(path.name for path in root.iterdir())
files, notes = index.learn(root, names, cache)
print(len(files), sum(not known.problem for known in files.values()), *notes, sep="|")
"""


def pictures(root: Path, count: int = 6) -> list[str]:
    root.mkdir(exist_ok=True)
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (5 + number, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
    return sorted(path.name for path in root.iterdir())


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are decoded, as they are."""
    names: list[str] = []
    decode = index.decode

    def noted(path: Path) -> np.ndarray:
        names.append(path.name)
        return decode(path)

    monkeypatch.setattr(index, "decode", noted)
    return names


def test_each_file_is_hashed_and_measured_as_it_is_shown(tmp_path: Path) -> None:
    """Width and height are those of the upright picture; reports come up to the last one."""
    names = pictures(tmp_path / "set")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "set" / "turned.jpg", exif=exif)
    told: list[tuple[int, int]] = []
    files, notes = index.learn(
        tmp_path / "set", [*names, "turned.jpg"], report=lambda *done: told.append(done)
    )
    assert notes == []
    assert told[-1] == (7, 7)
    assert list(files) == [*names, "turned.jpg"]
    for number, name in enumerate(names):
        content = (tmp_path / "set" / name).read_bytes()
        assert files[name].sha256 == hashlib.sha256(content).hexdigest()
        assert (files[name].width, files[name].height, files[name].problem) == (9, 5 + number, "")
    assert (files["turned.jpg"].width, files["turned.jpg"].height) == (20, 30)


def test_a_file_is_read_once_and_again_when_it_changed(tmp_path: Path, opened: list[str]) -> None:
    """By its size or its time; one that is gone is forgotten, a new one is read; without a cache all are."""
    root, cache = tmp_path / "set", tmp_path / "cache"
    names = pictures(root)
    first = index.learn(root, names, cache)
    assert sorted(opened) == names
    opened.clear()
    assert index.learn(root, names, cache) == first
    assert opened == []

    Image.new("RGB", (3, 3)).save(root / "0.png")
    os.utime(root / "1.png", ns=(1, 1))
    Image.new("RGB", (4, 4)).save(root / "new.png")
    later = index.learn(root, ["0.png", "1.png", "2.png", "new.png"], cache)
    assert sorted(opened) == ["0.png", "1.png", "new.png"]
    assert list(later.files) == ["0.png", "1.png", "2.png", "new.png"]
    assert later.files["0.png"].sha256 != first.files["0.png"].sha256
    opened.clear()
    index.learn(root, ["3.png"], cache)
    assert opened == ["3.png"]
    opened.clear()
    index.learn(tmp_path / "set" / ".." / "set", ["3.png"], cache)
    assert opened == []
    index.learn(root, ["3.png"])
    assert opened == ["3.png"]


def test_what_is_wrong_with_a_file_is_kept_too(tmp_path: Path, opened: list[str]) -> None:
    """A broken file is not read again either; one that cannot be opened is, for the disk may be back."""
    root, cache = tmp_path / "set", tmp_path / "cache"
    pictures(root, 1)
    whole = (root / "0.png").read_bytes()
    (root / "cut.png").write_bytes(whole[:-30])
    (root / "empty.png").touch()
    (root / "words.jpg").write_text("words")
    (root / "gone.png").symlink_to(root / "nowhere.png")
    names = ["0.png", "cut.png", "empty.png", "gone.png", "words.jpg"]
    files = index.learn(root, names, cache).files
    problems = {name: known.problem for name, known in files.items()}
    assert problems == {
        "0.png": "",
        "cut.png": "damaged",
        "empty.png": "empty",
        "gone.png": "unreadable",
        "words.jpg": "not an image",
    }
    assert all(str(root / name) in files[name].detail for name in names[1:])
    opened.clear()
    assert index.learn(root, names, cache).files == files
    assert opened == []
    (root / "nowhere.png").write_bytes(whole)
    assert index.learn(root, names, cache).files["gone.png"].problem == ""


@pytest.mark.parametrize(
    "damage", [lambda _: b"", lambda whole: whole[:-10], lambda _: b"[1]", lambda _: b"\xff\x00"]
)
def test_a_damaged_index_is_made_anew_and_it_is_said(
    tmp_path: Path, opened: list[str], damage: object
) -> None:
    root, cache = tmp_path / "set", tmp_path / "cache"
    names = pictures(root)
    first = index.learn(root, names, cache)
    (path,) = cache.iterdir()
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    opened.clear()
    again = index.learn(root, names, cache)
    assert again.files == first.files
    assert sorted(opened) == names
    (note,) = again.notes
    assert str(path) in note
    assert "made anew" in note
    opened.clear()
    assert index.learn(root, names, cache) == first
    assert opened == []


def test_another_version_of_the_reader_reads_everything_anew(
    tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one Pillow cannot read another can."""
    names = pictures(tmp_path / "set")
    index.learn(tmp_path / "set", names, tmp_path / "cache")
    opened.clear()
    monkeypatch.setattr(index, "pillow", "99.0")
    assert index.learn(tmp_path / "set", names, tmp_path / "cache").notes == []
    assert sorted(opened) == names


def test_a_full_disk_costs_the_index_and_not_the_scan(tmp_path: Path) -> None:
    """Everything is known, and a line says that it must be read again; with room it is kept."""
    names = pictures(tmp_path / "set")
    command = [sys.executable, "-c", LEARN, str(tmp_path / "set"), str(tmp_path / "cache")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().split("|")
    assert said[:2] == ["6", "6"]
    assert said[2].startswith("the images will be read again next time: cannot write ")
    assert "File too large" in said[2]
    assert list((tmp_path / "cache").iterdir()) == []
    assert index.learn(tmp_path / "set", names, tmp_path / "cache").notes == []
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_cache_below_a_file_costs_the_index_and_not_the_scan(tmp_path: Path) -> None:
    """It can be neither read nor written."""
    names = pictures(tmp_path / "set")
    (tmp_path / "file").touch()
    files, notes = index.learn(tmp_path / "set", names, tmp_path / "file")
    assert len(files) == 6
    assert any("Not a directory" in note for note in notes)


def test_an_interrupted_scan_goes_on_where_it_was(
    tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was known before and what was learned until then are both kept."""
    root, cache = tmp_path / "set", tmp_path / "cache"
    names = pictures(root, 12)
    monkeypatch.setattr(index, "CHUNK", 4)
    index.learn(root, names[8:], cache)
    opened.clear()

    def interrupted(done: int, _whole: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index.learn(root, names, cache, interrupted)
    assert sorted(opened) == names[:4]
    opened.clear()
    assert len(index.learn(root, names, cache).files) == 12
    assert sorted(opened) == names[4:8]


def test_a_long_scan_is_kept_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After kill -9 no more is lost than the last minute."""
    names = pictures(tmp_path / "set", 4)
    monkeypatch.setattr(index, "CHUNK", 1)
    monkeypatch.setattr(index, "SAVE_S", 0)
    sizes: list[int] = []

    def look(_done: int, _whole: int) -> None:
        sizes.append(sum(path.stat().st_size for path in (tmp_path / "cache").glob("*.json")))

    index.learn(tmp_path / "set", names, tmp_path / "cache", look)
    assert sizes[0] == 0
    assert 0 < sizes[1] < sizes[2] < sizes[3]
