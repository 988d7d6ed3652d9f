"""Any folder of images: what is read of it, how it is split, what is left out, and what is refused."""

from __future__ import annotations

import hashlib
import re
import shutil
import struct
import zlib
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from bobrt.data import folder, index
from bobrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bobrt.data import Split


def picture(path: Path, seed: int) -> Path:
    """Write an image that no other seed makes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def fill(root: Path, count: int = 20, classes: tuple[str, ...] = ("cat", "dog"), first: int = 0) -> Path:
    """Write so many images of each class; `first` keeps those of several folders apart."""
    for number, name in enumerate(classes):
        for i in range(count):
            picture(root / name / f"{i:03}.png", first + 1000 * number + i)
    return root


def sizes(scan: folder.Scan) -> dict[str, int]:
    return {name: len(split.ids) for name, split in scan.listing.splits.items()}


def contents(root: Path, split: Split) -> set[bytes]:
    return {(root / name).read_bytes() for name in split.ids}


def sides(root: Path) -> dict[bytes, str]:
    """Return the split of each image, whatever its name."""
    splits = folder.read(root).listing.splits
    return {content: name for name, split in splits.items() for content in contents(root, split)}


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def refusal(root: Path) -> UsageError:
    with pytest.raises(UsageError) as caught:
        folder.read(root)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


def test_one_folder_is_split_for_the_user(tmp_path: Path) -> None:
    """70, 15 and 15 per cent of each class, each image once, ids that name the files."""
    root = fill(tmp_path / "mine", 40)
    scan = folder.read(root)
    assert scan.listing.classes == ["cat", "dog"]
    assert list(scan.listing.splits) == ["train", "validation", "test"]
    assert sizes(scan) == {"train": 56, "validation": 12, "test": 12}
    for split in scan.listing.splits.values():
        assert np.bincount(split.targets).tolist() == [len(split.ids) // 2] * 2
        assert split.targets.dtype == np.int64
        for row, name in enumerate(split.ids):
            assert name.split("/")[0] == scan.listing.classes[split.targets[row]]
            assert np.array_equal(split.images[row], np.asarray(Image.open(root / name)))
    ids = [name for split in scan.listing.splits.values() for name in split.ids]
    assert len(set(ids)) == len(ids) == 80
    assert (scan.left_out, scan.shared) == ({}, [])
    (note,) = scan.notes
    assert "15%" in note
    assert "56 train, 12 validation, 12 test" in note


def test_the_content_decides_and_not_name_order_or_time(tmp_path: Path) -> None:
    """Renamed, moved deeper and copied elsewhere, every image keeps its side, and the digest stays."""
    root = fill(tmp_path / "mine")
    before, sha256 = sides(root), folder.read(root).sha256
    for label in ("cat", "dog"):  # the lowest hashes are asked: which they are is part of every result
        hashed = sorted((path.read_bytes() for path in (root / label).iterdir()), key=sha256_of)
        assert [before[content] for content in hashed] == ["test"] * 3 + ["validation"] * 3 + ["train"] * 14
    for path in sorted(root.rglob("*.png")):
        (path.parent / "deeper").mkdir(exist_ok=True)
        path.rename(path.parent / "deeper" / f"z{999 - int(path.stem)}.PNG")
    shutil.copytree(root, tmp_path / "copy")
    for place in (root, tmp_path / "copy"):
        assert sides(place) == before
        assert folder.read(place).sha256 == sha256


def test_a_few_more_images_move_a_few_of_those_at_the_edges(tmp_path: Path) -> None:
    """Of 200 images all but a handful keep their side when ten others come."""
    root = fill(tmp_path / "mine", 100)
    before = sides(root)
    fill(root / "cat", 10, ("more",), first=5000)
    after = sides(root)
    assert sum(after[content] != side for content, side in before.items()) <= 4
    assert folder.read(root).listing.classes == ["cat", "dog"]


def test_copies_of_an_image_fall_on_one_side(tmp_path: Path) -> None:
    """None is left out for it: each of them is asked, or each is learned."""
    root = fill(tmp_path / "mine")
    for path in sorted(root.rglob("*.png")):
        shutil.copy(path, path.with_name(f"copy-{path.name}"))
    scan = folder.read(root)
    assert scan.shared == []
    assert sizes(scan) == {"train": 56, "validation": 12, "test": 12}
    splits = [contents(root, split) for split in scan.listing.splits.values()]
    assert sum(map(len, splits)) == len(set.union(*splits)) == 40


def test_an_image_in_two_classes_is_on_one_side_and_noted(tmp_path: Path) -> None:
    """One of its labels is wrong. Where one class puts it into the test, it is not learned as the other."""
    root = fill(tmp_path / "mine", 30)
    for path in sorted((root / "cat").glob("*.png")):
        shutil.copy(path, root / "dog" / f"cat-{path.name}")
    scan = folder.read(root)
    splits = [contents(root, split) for split in scan.listing.splits.values()]
    assert sum(map(len, splits)) == len(set.union(*splits)) == 60
    assert sum("in several classes" in note for note in scan.notes) == 3


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "VALID", "testing")])
def test_splits_that_are_there_are_kept(tmp_path: Path, names: tuple[str, str, str]) -> None:
    root = tmp_path / "mine"
    for number, name in enumerate(names):
        fill(root / name, 3 + number, first=100 * number)
    scan = folder.read(root)
    assert sizes(scan) == {"train": 6, "validation": 8, "test": 10}
    for name, split in zip(names, scan.listing.splits.values(), strict=True):
        assert all(one.startswith(f"{name}/") for one in split.ids)
    assert scan.notes == []


def test_validation_is_taken_out_of_train_where_there_is_none(tmp_path: Path) -> None:
    """The test is as its maker made it."""
    fill(tmp_path / "mine" / "train", 20)
    fill(tmp_path / "mine" / "test", 5, first=500)
    scan = folder.read(tmp_path / "mine")
    assert sizes(scan) == {"train": 34, "validation": 6, "test": 10}
    assert all(name.startswith("test/") for name in scan.listing.splits["test"].ids)
    (note,) = scan.notes
    assert note.startswith("taken out of train, 15% each: validation")


def test_validation_alone_is_the_test(tmp_path: Path) -> None:
    """Nothing is selected on what is reported."""
    fill(tmp_path / "mine" / "train", 20)
    fill(tmp_path / "mine" / "val", 5, first=500)
    scan = folder.read(tmp_path / "mine")
    assert sizes(scan) == {"train": 34, "validation": 6, "test": 10}
    assert all(name.startswith("val/") for name in scan.listing.splits["test"].ids)
    assert all(name.startswith("train/") for name in scan.listing.splits["validation"].ids)
    assert "there is no test folder: the validation folder is the test" in scan.notes


def test_train_alone_is_split_as_one_folder(tmp_path: Path) -> None:
    fill(tmp_path / "one")
    fill(tmp_path / "two" / "train")
    one, two = folder.read(tmp_path / "one"), folder.read(tmp_path / "two")
    assert one.sha256 == two.sha256
    assert [f"train/{name}" for name in one.listing.splits["test"].ids] == two.listing.splits["test"].ids


def test_images_that_are_asked_are_not_trained_on(tmp_path: Path) -> None:
    """Found by content under any name and in any class; reported with a count and the first pair."""
    root = tmp_path / "mine"
    fill(root / "train", 10)
    fill(root / "val", 4, first=100)
    fill(root / "test", 4, first=200)
    shutil.copy(root / "test/cat/001.png", root / "train/cat/a.png")
    shutil.copy(root / "test/cat/002.png", root / "train/dog/b.png")
    shutil.copy(root / "test/dog/003.png", root / "val/dog/c.png")
    shutil.copy(root / "val/cat/000.png", root / "train/cat/d.png")
    scan = folder.read(root)
    assert sizes(scan) == {"train": 20, "validation": 8, "test": 8}
    assert scan.shared == [
        folder.Shared("test", "validation", 1, ("test/dog/003.png", "val/dog/c.png")),
        folder.Shared("test", "train", 2, ("test/cat/001.png", "train/cat/a.png")),
        folder.Shared("validation", "train", 1, ("val/cat/000.png", "train/cat/d.png")),
    ]
    assert (
        "2 images of train are in test too and were taken out of train; "
        "the first: train/cat/a.png is test/cat/001.png"
    ) in scan.notes


def test_what_is_taken_out_before_a_split_is_not_in_it(tmp_path: Path) -> None:
    """Validation that is taken out of train has nothing of the test either."""
    root = tmp_path / "mine"
    fill(root / "train", 40)
    fill(root / "test", 10, first=10)  # of each class, ten that train has too
    scan = folder.read(root)
    assert sizes(scan) == {"train": 52, "validation": 8, "test": 20}
    splits = [contents(root, split) for split in scan.listing.splits.values()]
    assert len(set.union(*splits)) == 80
    assert scan.shared[0].n == 20


def bomb(path: Path) -> None:
    """Write a PNG that says it is 30,000 pixels wide and high."""
    Image.new("1", (8, 8)).save(path)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 30_000, 30_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)


def test_what_cannot_be_used_is_left_out_counted_and_named(tmp_path: Path) -> None:
    """Broken, empty, too large, something else, floats; those of odd kinds that can be shown are kept."""
    root = fill(tmp_path / "mine")
    whole = (root / "cat/000.png").read_bytes()
    for number in range(5):
        (root / f"cat/broken{number}.png").write_bytes(whole[: 60 + number])
    (root / "dog/nothing.jpg").touch()
    (root / "dog/words.jpeg").write_text("no image")
    (root / "dog/notes.txt").write_text("about dogs")
    (root / "dog/.hidden.png").write_bytes(whole)
    (root / "dog/dangling.png").symlink_to(root / "nowhere.png")
    bomb(root / "cat/bomb.png")
    Image.fromarray(np.ones((3, 3), np.float32)).save(root / "cat/floats.tif")
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(root / "cat/deep.png")
    Image.new("CMYK", (4, 4), (9, 99, 199, 0)).save(root / "cat/inks.jpg")
    Image.new("P", (4, 4), 3).save(root / "dog/palette.gif")
    Image.new("RGB", (4, 4)).save(
        root / "dog/film.webp", save_all=True, append_images=[Image.new("RGB", (4, 4), 9)]
    )
    scan = folder.read(root, tmp_path / "cache")
    assert sum(sizes(scan).values()) == 44
    assert {reason: (those.n, those.first) for reason, those in scan.left_out.items()} == {
        "damaged": (5, ["cat/broken0.png", "cat/broken1.png", "cat/broken2.png"]),
        "empty": (1, ["dog/nothing.jpg"]),
        "hidden": (1, ["dog/.hidden.png"]),
        "not an image": (1, ["dog/words.jpeg"]),
        "not the name of an image": (1, ["dog/notes.txt"]),
        "too large": (1, ["cat/bomb.png"]),
        "unclear": (1, ["cat/floats.tif"]),
        "unreadable": (1, ["dog/dangling.png"]),
    }
    assert "left out, damaged: cat/broken0.png, cat/broken1.png, cat/broken2.png and 2 more" in scan.notes
    assert "left out, too large: cat/bomb.png" in scan.notes
    again = folder.read(root, tmp_path / "cache")
    assert (again.left_out, again.notes, again.sha256) == (scan.left_out, scan.notes, scan.sha256)


def test_a_class_without_an_image_is_left_out_and_named(tmp_path: Path) -> None:
    """Whether its folder is empty, or nothing in it can be used."""
    root = fill(tmp_path / "mine")
    (root / "emu").mkdir()
    (root / "fox").mkdir()
    (root / "fox/1.png").touch()
    scan = folder.read(root)
    assert scan.listing.classes == ["cat", "dog"]
    assert scan.left_out["a class of train without an image"] == folder.LeftOut(2, ["emu", "fox"])


def test_a_class_of_one_image_is_learned_and_never_asked(tmp_path: Path) -> None:
    """Of two images one is asked, of three there is one for each; it is said what is not asked."""
    root = fill(tmp_path / "mine")
    for count, name in ((1, "one"), (2, "two"), (3, "three")):
        fill(root, count, (name,), first=7000 + 10 * count)
    scan = folder.read(root)
    assert scan.listing.classes == ["cat", "dog", "one", "three", "two"]
    counts = {
        name: np.bincount(split.targets, minlength=5)[2:].tolist()
        for name, split in scan.listing.splits.items()
    }
    assert counts == {"train": [1, 1, 1], "validation": [0, 1, 0], "test": [0, 1, 1]}
    assert "test has no image of one" in scan.notes


@pytest.mark.parametrize(
    ("made", "error"),
    [
        (lambda root: picture(root / "a.png", 1), "has 1 images and no class folders"),
        (lambda root: fill(root, classes=("cat",)), "has one class, cat: nothing to tell apart"),
        (lambda root: fill(root, classes=("cat", "Cat", "dog")), "Cat and cat are one class"),
        (lambda root: fill(root / "test"), "has test and no train"),
        (lambda root: (fill(root / "train"), fill(root / "Train")), "are both the train split"),
        (
            lambda root: (fill(root / "train"), fill(root / "test", 3, ("cat", "emu", "fox"), first=300)),
            "test has the class emu, fox, and train has no image of it",
        ),
        (
            lambda root: (fill(root / "train"), fill(root / "val", 3, ("dog", "emu"), first=300)),
            "has the class emu, and train has no image of it",
        ),
        (lambda root: fill(root, 1), "too few images: none is left for validation"),
        (lambda root: fill(root, 2), "too few images: none is left for validation"),
        (
            lambda root: (fill(root / "train"), fill(root / "test")),
            "too few images: none is left for train once those of other splits are taken out",
        ),
        (
            lambda root: (
                fill(root / "train", classes=("dog", "cat")),
                fill(root / "test", classes=("dog",)),
            ),
            "test has the class dog, and train has no image of it once those of other splits are taken out",
        ),
        (
            lambda root: [path.write_bytes(b"") for path in fill(root).rglob("*.png")],
            "has no image that can be used",
        ),
        (
            lambda root: [
                path.write_bytes(b"x") for path in fill(fill(root / "train").parent / "test").rglob("*.png")
            ],
            "the test split of .* has no image that can be used",
        ),
    ],
    ids=[
        *("flat", "one class", "two spellings", "no train", "two trains", "strange classes"),
        *(
            "strange in val",
            "one each",
            "two each",
            "all shared",
            "a class all shared",
            "all empty",
            "test broken",
        ),
    ],
)
def test_what_is_no_task_is_refused_by_name(
    tmp_path: Path, made: Callable[[Path], object], error: str
) -> None:
    made(tmp_path / "mine")
    assert re.search(error, refusal(tmp_path / "mine").message)


def test_three_images_of_two_classes_make_a_task(tmp_path: Path) -> None:
    """The smallest folder that can be split."""
    assert sizes(folder.read(fill(tmp_path / "mine", 3))) == {"train": 2, "validation": 2, "test": 2}


def test_nothing_is_decoded_the_second_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same splits from the index alone; the images are read when they are asked for."""
    root = fill(tmp_path / "mine")
    first = folder.read(root, tmp_path / "cache")
    monkeypatch.setattr(index, "decode", None)
    again = folder.read(root, tmp_path / "cache")
    for name, split in again.listing.splits.items():
        assert split.ids == first.listing.splits[name].ids
        assert split.images[0].shape == (6, 7, 3)
    assert again.sha256 == first.sha256


def test_another_image_another_label_or_another_side_is_another_digest(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    for number, name in enumerate(("train", "val", "test")):
        fill(root / name, 4, first=100 * number)
    seen = {folder.read(root).sha256}
    for change in (
        partial(picture, root / "train/cat/000.png", 9999),
        partial((root / "train/cat/000.png").rename, root / "train/dog/moved.png"),
        partial((root / "train/dog/moved.png").rename, root / "val/dog/moved.png"),
        (root / "val/dog/moved.png").unlink,
    ):
        change()
        seen.add(folder.read(root).sha256)
    assert len(seen) == 5
