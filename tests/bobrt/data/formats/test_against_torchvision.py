"""Where torchvision reads a format too, it lists the same images and classes from the same folder."""

from __future__ import annotations

import tarfile
from hashlib import md5
from pathlib import Path
from typing import TYPE_CHECKING, Any

import miniatures
import numpy as np
from torchvision import datasets
from torchvision.datasets import imagenet, inaturalist

from bobrt.catalogue import TASKS
from bobrt.data import formats

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest

    from bobrt.data import Listing

Listed = dict[str, int]
"""The class of each image, by the end of its path."""


def test_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same pixels and classes, in the same order."""
    miniatures.cifar10(tmp_path)
    same_as_cifar(datasets.CIFAR10, tmp_path, monkeypatch, formats.read("cifar10", tmp_path))


def test_cifar100(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same pixels and fine classes, in the same order."""
    miniatures.cifar100(tmp_path)
    same_as_cifar(datasets.CIFAR100, tmp_path, monkeypatch, formats.read("cifar100", tmp_path))


def same_as_cifar(kind: Any, root: Path, monkeypatch: pytest.MonkeyPatch, ours: Listing) -> None:
    """Compare every image of both splits; the miniature's digests take the place of the real ones."""
    for name in ("train_list", "test_list"):
        monkeypatch.setattr(
            kind, name, [[file, digest(root / kind.base_folder / file)] for file, _ in getattr(kind, name)]
        )
    meta = root / kind.base_folder / kind.meta["filename"]
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": digest(meta)})
    train, test = kind(root, train=True), kind(root, train=False)
    assert ours.classes == train.classes
    assert ours.splits["test"].targets.tolist() == test.targets
    np.testing.assert_array_equal(np.stack(ours.splits["test"].images), test.data)
    whole = dict(zip(training_ids(kind), range(len(train)), strict=True))
    for name in ("train", "validation"):
        split = ours.splits[name]
        rows = [whole.pop(one) for one in split.ids]
        np.testing.assert_array_equal(np.stack(split.images), train.data[rows])
        assert split.targets.tolist() == [train.targets[row] for row in rows]
    assert not whole


def training_ids(kind: Any) -> list[str]:
    """Return our ids of the miniature's training images, in the order of the files."""
    return [f"{file}/{row:05}" for file, _ in kind.train_list for row in range(6)]


def test_flowers102(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of order, as the real lists are; the classes count from 0."""
    miniatures.flowers102(tmp_path)
    monkeypatch.setattr(datasets.Flowers102, "_check_integrity", lambda _: True)
    ours = formats.read("flowers102", tmp_path)
    for split, theirs in {"train": "train", "validation": "val", "test": "test"}.items():
        found = datasets.Flowers102(tmp_path, theirs)
        assert in_order(ours, split) == pairs(found._image_files, found._labels)


def test_aircraft(tmp_path: Path) -> None:
    """Variants with strokes and blanks in their names."""
    miniatures.aircraft(tmp_path)
    ours = formats.read("aircraft", tmp_path)
    for split, theirs in {"train": "train", "validation": "val", "test": "test"}.items():
        found = datasets.FGVCAircraft(tmp_path, theirs)
        assert ours.classes == found.classes
        assert in_order(ours, split) == pairs(found._image_files, found._labels)


def test_eurosat(tmp_path: Path) -> None:
    """Whatever the split of ours, together they are all images."""
    miniatures.eurosat(tmp_path)
    ours, theirs = formats.read("eurosat", tmp_path / "eurosat"), datasets.EuroSAT(tmp_path)
    assert ours.classes == theirs.classes
    assert together(ours, "train", "validation", "test") == dict(pairs(*zip(*theirs.samples, strict=True)))


def test_pets(tmp_path: Path) -> None:
    """The breeds in the order of their numbers, the same in every process."""
    miniatures.pets(tmp_path)
    ours = formats.read("pets", tmp_path)
    train, test = datasets.OxfordIIITPet(tmp_path, "trainval"), datasets.OxfordIIITPet(tmp_path, "test")
    assert [name.replace("_", " ").title() for name in ours.classes] == train.classes
    assert together(ours, "train", "validation") == dict(pairs(train._images, train._labels))
    assert in_order(ours, "test") == pairs(test._images, test._labels)


def test_dtd(tmp_path: Path) -> None:
    """The first way to split, not the second. Torchvision wants a folder around that of the archive."""
    miniatures.dtd(tmp_path)
    (tmp_path / "around").mkdir()
    (tmp_path / "around" / "dtd").symlink_to(tmp_path)
    ours = formats.read("dtd", tmp_path)
    for split, theirs in {"train": "train", "validation": "val", "test": "test"}.items():
        found = datasets.DTD(tmp_path / "around", theirs)
        assert ours.classes == found.classes
        assert in_order(ours, split) == pairs(found._image_files, found._labels)


def test_food101(tmp_path: Path) -> None:
    """Torchvision reads the lists in JSON, we those in text: both are in the archive."""
    miniatures.food101(tmp_path)
    ours = formats.read("food101", tmp_path)
    train, test = datasets.Food101(tmp_path, "train"), datasets.Food101(tmp_path, "test")
    assert ours.classes == train.classes
    assert together(ours, "train", "validation") == dict(pairs(train._image_files, train._labels))
    assert together(ours, "test") == dict(pairs(test._image_files, test._labels))


def test_inaturalist_2019(tmp_path: Path) -> None:
    """Torchvision goes by the folders' names and has one split, we by the annotations."""
    miniatures.inat2019(tmp_path)
    (tmp_path / "2019").symlink_to(tmp_path / "train_val2019")
    ours, theirs = formats.read("inat2019", tmp_path), datasets.INaturalist(tmp_path, "2019")
    names = {f"{theirs.all_categories[key]}/{name}": key for key, name in theirs.index}
    assert together(ours, "train", "validation", "test") == dict(pairs(names, names.values()))


def test_inaturalist_2021(tmp_path: Path) -> None:
    """Torchvision goes by the folders' names, we by the annotations."""
    miniatures.inat2021(tmp_path)
    ours = formats.read("inat2021", tmp_path)
    assert ours.classes == ["Lumbricus terrestris", "Bellis perennis"]
    for folder, version in {"train": "2021_train", "val": "2021_valid"}.items():
        (tmp_path / version).symlink_to(tmp_path / folder)
        theirs = datasets.INaturalist(tmp_path, version)
        names = {f"{theirs.all_categories[key]}/{name}": key for key, name in theirs.index}
        splits = ("train", "validation") if folder == "train" else ("test",)
        assert together(ours, *splits) == dict(pairs(names, names.values()))


def test_imagenet1k(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torchvision unpacks the archives into folders; we read those, and the validation images left flat."""
    packed = tmp_path / "packed"
    miniatures.imagenet1k(tmp_path)
    miniatures.devkit(tmp_path)
    archives(tmp_path, packed, monkeypatch)
    theirs = {split: datasets.ImageNet(packed, split) for split in ("train", "val")}
    flat = tmp_path / "flat"
    flat.mkdir()
    (flat / "train").symlink_to(packed / "train")
    for name, below in {"val": "val", "devkit": "."}.items():
        with tarfile.open(packed / imagenet.ARCHIVE_META[name][0]) as archive:
            archive.extractall(flat / below, filter="data")
    assert not [path for path in (flat / "val").iterdir() if path.is_dir()]
    for ours in (formats.read("imagenet1k", packed), formats.read("imagenet1k", flat)):
        assert ours.classes == theirs["train"].wnids
        assert together(ours, "train", "validation") == dict(
            pairs(*zip(*theirs["train"].samples, strict=True))
        )
        named = {Path(path).name: target for path, target in theirs["val"].samples}
        assert {Path(path).name: target for path, target in in_order(ours, "test")} == named


def archives(root: Path, packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the three archives as they are published, and tell torchvision their digests."""
    packed.mkdir()
    for wnid in miniatures.WNIDS:
        with tarfile.open(root / f"{wnid}.tar", "w") as archive:
            for path in (root / "train" / wnid).iterdir():
                archive.add(path, path.name)
    content = {
        "train": {f"{wnid}.tar": root / f"{wnid}.tar" for wnid in miniatures.WNIDS},
        "val": {path.name: path for path in (root / "val").glob("*/*")},
        "devkit": {"ILSVRC2012_devkit_t12": root / "ILSVRC2012_devkit_t12"},
    }
    told = {}
    for name, paths in content.items():
        file = packed / imagenet.ARCHIVE_META[name][0]
        with tarfile.open(file, "w:gz" if file.suffix == ".gz" else "w") as archive:
            for inside, path in paths.items():
                archive.add(path, inside)
        told[name] = (file.name, digest(file))
    monkeypatch.setattr(imagenet, "ARCHIVE_META", told)


def test_the_cards_have_the_digests_that_torchvision_states() -> None:
    """None is invented: each is torchvision's for the same archive, but for iNaturalist's annotations."""
    flowers = dict(datasets.Flowers102._file_dict.values())
    stated = {
        "cifar10": {datasets.CIFAR10.filename: datasets.CIFAR10.tgz_md5},
        "cifar100": {datasets.CIFAR100.filename: datasets.CIFAR100.tgz_md5},
        "flowers102": flowers,
        "pets": {Path(url).name: told for url, told in datasets.OxfordIIITPet._RESOURCES},
        "dtd": {Path(datasets.DTD._URL).name: datasets.DTD._MD5},
        "food101": {Path(datasets.Food101._URL).name: datasets.Food101._MD5},
        "imagenet1k": dict(imagenet.ARCHIVE_META.values()),
        "inat2019": {"train_val2019.tar.gz": inaturalist.DATASET_MD5["2019"]},
        "inat2021": {
            "train.tar.gz": inaturalist.DATASET_MD5["2021_train"],
            "val.tar.gz": inaturalist.DATASET_MD5["2021_valid"],
        },
    }
    for name, digests in stated.items():
        ours = {file: one.removeprefix("md5:") for file, one in TASKS.get(name).checksums.items()}
        assert {file: one for file, one in ours.items() if ".json." not in file} == digests


def digest(path: Path) -> str:
    """Return the md5 that torchvision asks for."""
    return md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def pairs(paths: Iterable[Any], targets: Iterable[int]) -> list[tuple[str, int]]:
    """Return what torchvision lists, each path by its last two parts."""
    return [(short(path), target) for path, target in zip(paths, targets, strict=True)]


def in_order(ours: Listing, name: str) -> list[tuple[str, int]]:
    """Return what we list for a split."""
    split = ours.splits[name]
    assert all(str(path).endswith(one) for path, one in zip(split.images.paths, split.ids, strict=True))
    return [(short(one), target) for one, target in zip(split.ids, split.targets.tolist(), strict=True)]


def together(ours: Listing, *names: str) -> Listed:
    """Return what we list for several splits, none of which shares an image with another."""
    every = [pair for name in names for pair in in_order(ours, name)]
    assert len(dict(every)) == len(every)
    return dict(every)


def short(path: Any) -> str:
    """Return the last two parts of a path."""
    return "/".join(Path(path).parts[-2:])
