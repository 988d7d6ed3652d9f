"""ImageNet-1k and SimCLR's lists of a part of it; and other images of its classes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import miniatures
import pytest
from photographs import photograph

from bobrt.data import formats
from bobrt.data.formats.imagenet_shift import wnids
from bobrt.errors import UsageError


def test_the_published_validation_images_are_the_test(tmp_path: Path) -> None:
    """Validation is taken from train, and no image is in two splits."""
    miniatures.imagenet1k(tmp_path)
    found = formats.read("imagenet1k", tmp_path)
    assert found.classes == miniatures.WNIDS
    assert {name: len(split.ids) for name, split in found.splits.items()} == {
        "train": 35,
        "validation": 1,
        "test": 9,
    }
    assert all(name.startswith("val/") for name in found.splits["test"].ids)
    assert not {*found.splits["train"].ids} & {*found.splits["validation"].ids}


def test_a_part_of_the_classes_can_be_validated(tmp_path: Path) -> None:
    """Their targets are those of the training classes."""
    miniatures.imagenet1k(tmp_path)
    (tmp_path / "val" / miniatures.WNIDS[0]).rename(tmp_path / "gone")
    assert set(formats.read("imagenet1k", tmp_path).splits["test"].targets.tolist()) == {1, 2}


def test_validation_of_another_class_is_refused(tmp_path: Path) -> None:
    """Else its images would have no target."""
    miniatures.imagenet1k(tmp_path)
    photograph(tmp_path / "val" / "n99999999" / "x.JPEG")
    with pytest.raises(UsageError, match=r"n99999999 is of a class that .*train has not"):
        formats.read("imagenet1k", tmp_path)


def test_flat_validation_without_the_devkit_says_what_is_missing(tmp_path: Path) -> None:
    """The archive of the validation images has no classes."""
    miniatures.imagenet1k(tmp_path)
    (tmp_path / "val").rename(tmp_path / "sorted")
    photograph(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(UsageError, match=r"meta.mat does not exist, and .*val has no folders") as caught:
        formats.read("imagenet1k", tmp_path)
    assert "ILSVRC2012_devkit_t12.tar.gz" in caught.value.hint


def test_simclrs_list_is_taken_whole(tmp_path: Path) -> None:
    """In its order; what validates is not on it."""
    miniatures.imagenet1k(tmp_path)
    names = [f"{wnid}_{number}.JPEG" for number in (7, 2) for wnid in reversed(miniatures.WNIDS)]
    miniatures.listed(tmp_path / "1percent.txt", names)
    splits = formats.read("imagenet1k-1pct", tmp_path).splits
    assert splits["train"].ids == [f"train/{name.split('_')[0]}/{name}" for name in names]
    assert splits["train"].targets.tolist() == [2, 1, 0, 2, 1, 0]
    assert not {*splits["train"].ids} & {*splits["validation"].ids}
    assert len(splits["test"].ids) == 9


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("n01440764/n01440764_1.JPEG", r"10percent.txt, line 1: .* is not '<wnid>_<image>.JPEG'"),
        ("n99999999_1.JPEG", "10percent.txt, line 1: class n99999999 is not in"),
        ("n01440764_99.JPEG", "10percent.txt, line 1: the image .*n01440764_99.JPEG is not there"),
        ("n01440764_1.JPEG\nn01440764_1.JPEG", "10percent.txt, line 2: .* is listed twice"),
    ],
)
def test_a_wrong_line_of_a_list_is_named(tmp_path: Path, line: str, said: str) -> None:
    """And a list that is not there."""
    miniatures.imagenet1k(tmp_path)
    with pytest.raises(UsageError, match=r"10percent.txt does not exist"):
        formats.read("imagenet1k-10pct", tmp_path)
    miniatures.listed(tmp_path / "10percent.txt", [line])
    with pytest.raises(UsageError, match=said):
        formats.read("imagenet1k-10pct", tmp_path)


def test_the_ids_are_imagenets() -> None:
    """A thousand, sorted; the lists that timm has of ImageNet-A and -R put each at the same place."""
    assert len({*wnids()}) == 1000
    assert wnids() == sorted(wnids())
    spec = importlib.util.find_spec("timm")  # found, not imported
    assert spec is not None
    assert spec.origin is not None
    lists = Path(spec.origin).parent / "data" / "_info"
    for name in ("imagenet_a", "imagenet_r"):
        places = (lists / f"{name}_indices.txt").read_text().split()
        ids = (lists / f"{name}_synsets.txt").read_text().split()
        assert [wnids()[int(place)] for place in places] == ids


@pytest.mark.parametrize(
    ("name", "folder"),
    [("imagenet-a", "imagenet-a"), ("imagenet-r", "imagenet-r"), ("imagenet-sketch", "sketch")],
)
def test_the_classes_of_a_shift_are_those_with_a_folder(tmp_path: Path, name: str, folder: str) -> None:
    """Named by WordNet ids, so that the mask over ImageNet-1k follows; other files are left out."""
    for label, wnid in enumerate(("n02119789", "n01443537")):
        for number in range(label + 1):
            photograph(tmp_path / folder / wnid / f"{number}.jpg", 10 * number)
    (tmp_path / folder / "README.txt").write_text("about")
    (tmp_path / folder / "n01443537" / "._0.jpg").write_bytes(b"what macOS leaves")
    (tmp_path / folder / "n01443537" / "notes.txt").write_text("no image")
    for root in (tmp_path, tmp_path / folder):
        found = formats.read(name, root)
        assert found.classes == ["n01443537", "n02119789"]
        assert found.splits["test"].ids == ["n01443537/0.jpg", "n01443537/1.jpg", "n02119789/0.jpg"]
        assert found.splits["test"].targets.tolist() == [0, 0, 1]


def test_a_folder_of_no_class_of_imagenet_is_refused(tmp_path: Path) -> None:
    """An engine would have no answer for it."""
    photograph(tmp_path / "imagenet-a" / "n00000001" / "0.jpg")
    with pytest.raises(UsageError, match="n00000001 is no class of ImageNet-1k"):
        formats.read("imagenet-a", tmp_path)
    with pytest.raises(UsageError, match="empty has no folders of images"):
        formats.read("imagenet-a", tmp_path / "empty")
    (tmp_path / "imagenet-a" / "n00000001").rename(tmp_path / "away")
    (tmp_path / "imagenet-a" / "n01443537").mkdir()
    with pytest.raises(UsageError, match="n01443537 has no images"):
        formats.read("imagenet-a", tmp_path)


def test_the_folders_of_v2_are_numbers(tmp_path: Path) -> None:
    """In the order of text 10 comes before 2: read so, nearly every label of ImageNet-V2 is wrong."""
    base = tmp_path / "imagenetv2-matched-frequency-format-val"
    for number in (0, 2, 10, 999):
        photograph(base / str(number) / f"{number}.jpeg", number % 256)
    found = formats.read("imagenet-v2", tmp_path)
    assert found.classes == ["n01440764", "n01484850", "n01530575", "n15075141"]
    assert found.splits["test"].ids == ["0/0.jpeg", "2/2.jpeg", "10/10.jpeg", "999/999.jpeg"]
    photograph(base / "1000" / "0.jpeg")
    with pytest.raises(UsageError, match="1000 is not one of 0 to 999"):
        formats.read("imagenet-v2", tmp_path)
