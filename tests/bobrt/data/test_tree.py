"""From the names of folders and files to splits and classes; what fits no layout is refused by name."""

from __future__ import annotations

import os
import unicodedata
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from bobrt.data import tree
from bobrt.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def plant(root: Path, *names: str) -> Path:
    """Make empty files, and folders for names that end with a slash."""
    root.mkdir(exist_ok=True)
    for name in names:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return root


def seen(root: Path) -> dict[str, dict[str, list[str]]]:
    """Return the names of the files by split and class."""
    found: dict[str, dict[str, list[str]]] = {}
    for split, pictures in tree.read(root).splits.items():
        found[split] = {}
        for picture in pictures:
            found[split].setdefault(picture.label, []).append(picture.name)
    return found


def refusal(root: Path) -> UsageError:
    with pytest.raises(UsageError) as caught:
        tree.read(root)
    assert str(root) in caught.value.message or "class folders" in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


def test_class_folders_are_classes_whatever_lies_how_deep_in_them(tmp_path: Path) -> None:
    root = plant(tmp_path / "set", "cat/1.jpg", "cat/indoors/2020/2.PNG", "dog/3.webp")
    assert seen(root) == {"train": {"cat": ["cat/1.jpg", "cat/indoors/2020/2.PNG"], "dog": ["dog/3.webp"]}}


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Training", "VALID", "Testing"), ("TRAIN", "dev", "test")]
)
def test_splits_go_by_several_names_in_any_case(tmp_path: Path, names: tuple[str, str, str]) -> None:
    root = plant(tmp_path / "set", *(f"{name}/{label}/1.jpg" for name in names for label in ("cat", "dog")))
    assert seen(root) == {
        split: {label: [f"{name}/{label}/1.jpg"] for label in ("cat", "dog")}
        for split, name in zip(("train", "validation", "test"), names, strict=True)
    }


@pytest.mark.parametrize("splits", [("train",), ("train", "test"), ("train", "validation")])
def test_splits_that_are_missing_are_missing(tmp_path: Path, splits: tuple[str, ...]) -> None:
    """Whoever reads the images makes them; here nothing is guessed."""
    assert tuple(seen(plant(tmp_path / "set", *(f"{split}/cat/1.jpg" for split in splits)))) == splits


def test_the_one_folder_an_archive_unpacks_to_is_gone_into(tmp_path: Path) -> None:
    """However many there are around each other, and it is said."""
    root = plant(
        tmp_path / "set", "pets-v2/data/train/cat/1.jpg", "pets-v2/data/test/cat/2.jpg", "__MACOSX/x/y.jpg"
    )
    assert seen(root) == {
        "train": {"cat": ["pets-v2/data/train/cat/1.jpg"]},
        "test": {"cat": ["pets-v2/data/test/cat/2.jpg"]},
    }
    (note,) = tree.read(root).notes
    assert "pets-v2/data/" in note


def test_a_class_may_be_called_like_a_split(tmp_path: Path) -> None:
    """Trains among other vehicles: images right inside say so."""
    root = plant(tmp_path / "set", "bus/1.jpg", "car/2.jpg", "train/3.jpg")
    assert list(seen(root)["train"]) == ["bus", "car", "train"]


def test_a_folder_beside_the_splits_is_no_class(tmp_path: Path) -> None:
    """Nor does `train` with class folders become one for its sake; what is in it is counted."""
    root = plant(
        tmp_path / "set", "train/cat/1.jpg", "train/dog/2.jpg", "unlabelled/3.jpg", "4.jpg", "train/5.jpg"
    )
    assert seen(root) == {"train": {"cat": ["train/cat/1.jpg"], "dog": ["train/dog/2.jpg"]}}
    assert tree.read(root).left_out == {
        "outside of the class folders": ["4.jpg", "train/5.jpg", "unlabelled/3.jpg"],
    }


def test_what_is_hidden_or_no_image_by_its_name_is_counted(tmp_path: Path) -> None:
    """The leavings of systems too; an ending in capitals is one."""
    root = plant(
        tmp_path / "set",
        *("cat/1.JPEG", "cat/labels.csv", "cat/noending", "cat/movie.mpg", "cat/figure.eps", "cat/._1.jpg"),
        *(".git/x.jpg", "__MACOSX/cat/1.jpg", "dog/@eaDir/1.jpg", "dog/2.png", "README.md"),
    )
    found = tree.read(root)
    assert [picture.name for picture in found.splits["train"]] == ["cat/1.JPEG", "dog/2.png"]
    assert found.left_out == {
        "hidden": [".git/", "__MACOSX/", "cat/._1.jpg", "dog/@eaDir/"],
        "not the name of an image": [
            *("README.md", "cat/figure.eps", "cat/labels.csv", "cat/movie.mpg", "cat/noending")
        ],
    }


def test_a_name_that_is_not_utf8_is_counted_and_can_be_shown(tmp_path: Path) -> None:
    """A file and a folder of an old system; every name that is kept can be written into a record."""
    root = plant(tmp_path / "set", "cat/1.jpg", "dog/2.jpg")
    (root / "cat" / os.fsdecode(b"caf\xe9.jpg")).touch()
    (root / os.fsdecode(b"\xe9l\xe9phant")).mkdir()
    (root / os.fsdecode(b"\xe9l\xe9phant") / "3.jpg").touch()
    found = tree.read(root)
    assert [picture.name for picture in found.splits["train"]] == ["cat/1.jpg", "dog/2.jpg"]
    assert found.left_out == {"a name that is not UTF-8": ["cat/caf\ufffd.jpg", "\ufffdl\ufffdphant/"]}


def test_a_class_without_a_file_is_known(tmp_path: Path) -> None:
    root = plant(tmp_path / "set", "cat/1.jpg", "dog/", "emu/notes.txt")
    assert tree.read(root).labels == {"train": ["cat", "dog", "emu"]}


def test_links_are_followed_and_not_for_ever(tmp_path: Path) -> None:
    """A linked class folder is one; links to a folder around it, or to each other, end."""
    plant(tmp_path / "elsewhere", "1.jpg")
    root = plant(tmp_path / "set", "cat/1.jpg", "dog/2.jpg")
    (root / "emu").symlink_to(tmp_path / "elsewhere")
    (root / "cat" / "up").symlink_to(root)
    (root / "cat" / "cousin").symlink_to(root / "dog")
    (root / "dog" / "cousin").symlink_to(root / "cat")
    (root / "dog" / "broken.jpg").symlink_to(root / "gone.jpg")
    found = tree.read(root)
    assert ("emu/1.jpg", "emu") in found.splits["train"]
    assert ("dog/broken.jpg", "dog") in found.splits["train"]
    assert "cat/up/" in found.left_out["a link to a folder it is in"]
    assert len(found.splits["train"]) < 10


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["1.jpg", "2.jpg"], "has 2 images and no class folders: nothing says what they show"),
        (["train/1.jpg", "test/2.jpg", "labels.csv"], "train has 1 images and no class folders"),
        (["train/cat/1.jpg", "test/2.jpg"], "test has 1 images and no class folders"),
        ([], "has no images"),
        (["notes.txt"], "has no images"),
        (["train/"], "has no images"),
        ([".hidden/cat/1.jpg"], "has no images"),
        (["test/cat/1.jpg"], "has test and no train"),
        (["val/cat/1.jpg", "Test/cat/1.jpg", "x/1.jpg"], "has val and Test and no train"),
        (["cat/1.jpg", "dog/2.jpg", "test/cat/3.jpg"], "has test and no train"),
    ],
    ids=str,
)
def test_a_folder_without_the_layout_is_refused_and_told_which_it_is(
    tmp_path: Path, names: list[str], says: str
) -> None:
    error = refusal(plant(tmp_path / "set", *names))
    assert says in error.message
    assert "FOLDER/CLASS/IMAGE" in error.hint
    assert "FOLDER/train/CLASS/IMAGE" in error.hint


@pytest.mark.parametrize("pair", [("train", "Train"), ("val", "validation"), ("test", "testing")])
def test_two_folders_for_one_split_are_refused_and_both_named(tmp_path: Path, pair: tuple[str, str]) -> None:
    root = plant(tmp_path / "set", "train/cat/1.jpg", *(f"{name}/cat/1.jpg" for name in pair))
    error = refusal(root)
    assert all(str(root / name) in error.message for name in pair)


@pytest.mark.parametrize(
    "names",
    [
        ("cat", "Cat"),
        ("train/Straße", "train/STRASSE"),
        ("train/cat", "test/CAT"),
        (unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")),
    ],
    ids=["one folder", "sharp s", "two splits", "an accent"],
)
def test_one_class_in_two_spellings_is_refused_and_both_named(tmp_path: Path, names: tuple[str, str]) -> None:
    """On the disk of another system they are one folder; a model would have a class for each."""
    root = plant(
        tmp_path / "set",
        *(f"{name}/1.jpg" for name in names),
        *(f"{name.split('/')[0]}/dog/2.jpg" for name in names if "/" in name),
    )
    error = refusal(root)
    assert all(name in error.message for name in names)
    assert error.hint == "join or rename them"


def test_a_file_or_nothing_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "set.zip").touch()
    assert "is a file" in refusal(tmp_path / "set.zip").message
    assert "does not exist" in refusal(tmp_path / "gone").message


def test_names_are_in_order_and_from_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the disk's order, and whether the folder is named by its whole path or from within it."""
    root = plant(tmp_path / "set", *(f"{label}/{number:03}.jpg" for label in "zyx" for number in (9, 1, 5)))
    names = [picture.name for picture in tree.read(root).splits["train"]]
    assert all(name < other for name, other in pairwise(names))
    monkeypatch.chdir(root)
    assert tree.read(root.relative_to(root)) == tree.read(root)
