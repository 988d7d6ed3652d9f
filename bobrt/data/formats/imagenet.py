"""ImageNet-1k of ILSVRC 2012: a folder for each WordNet id; validation so too, or flat with the devkit."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bobrt.data import Listing
from bobrt.data.formats.labelled import class_folders, held_out, lines, of_folders, of_lists
from bobrt.data.formats.listed import AGAIN
from bobrt.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from bobrt.data import Split

HELD_OUT = 0.01
"""Share of the training images that validate: about thirteen of each class."""

DEVKIT = "ILSVRC2012_devkit_t12/data"


def read(root: Path) -> Listing:
    """Return ImageNet-1k: its 50,000 validation images are the test, and validation is taken from train.

    Args:
        root: The folder with `train/`, a folder for each WordNet id, and `val/`: such folders too, or the
            images as their archive leaves them, and `ILSVRC2012_devkit_t12/` beside it.

    Raises:
        UsageError: A folder or a list is missing or malformed.

    """
    classes, whole, test = _whole(root)
    return Listing(classes, {**held_out(whole, HELD_OUT), "test": test})


def read_1pct(root: Path) -> Listing:
    """Return ImageNet-1k with the 12,811 training images that SimCLR published as one per cent.

    Args:
        root: As `read` has it, with `1percent.txt`.

    Raises:
        UsageError: As `read`, or the list is missing, malformed, or names an image that is not there.

    """
    return _part(root, root / "1percent.txt")


def read_10pct(root: Path) -> Listing:
    """Return ImageNet-1k with the 128,116 training images that SimCLR published as ten per cent.

    Args:
        root: As `read` has it, with `10percent.txt`.

    Raises:
        UsageError: As `read`, or the list is missing, malformed, or names an image that is not there.

    """
    return _part(root, root / "10percent.txt")


def _whole(root: Path) -> tuple[list[str], Split, Split]:
    """Return the classes, all training images, and the test."""
    classes = class_folders(root / "train")
    number = {wnid: row for row, wnid in enumerate(classes)}
    whole = of_folders(root, number, below="train")
    if any(path.is_dir() for path in (root / "val").glob("n*")):
        folders = class_folders(root / "val")
        if unknown := [wnid for wnid in folders if wnid not in number]:
            raise UsageError(
                f"{root / 'val' / unknown[0]} is of a class that {root / 'train'} has not", AGAIN
            )
        return classes, whole, of_folders(root, {wnid: number[wnid] for wnid in folders}, below="val")
    return classes, whole, _flat(root, number)


def _flat(root: Path, number: dict[str, int]) -> Split:
    """Return the validation images of one folder, whose classes the devkit lists in their order."""
    path, wnids, found = root / DEVKIT / "ILSVRC2012_validation_ground_truth.txt", _wnids(root), []
    for at, (label,) in lines(path, re.compile(r"(\d+)"), "<ILSVRC2012_ID>"):
        where = f"{path}, line {at}"
        if (wnid := wnids.get(int(label))) not in number:
            raise UsageError(f"{where}: class {label}, {wnid}, is not in {root / 'train'}", AGAIN)
        found.append((f"val/ILSVRC2012_val_{at:08}.JPEG", number[wnid], where))
    return of_lists(root, found)


def _wnids(root: Path) -> dict[int, str]:
    """Return the WordNet id of each of the devkit's own numbers."""
    from bobrt.data.formats import matlab  # noqa: PLC0415 - scipy, only where the images are flat

    path = root / DEVKIT / "meta.mat"
    if not path.is_file():
        hint = f"unpack ILSVRC2012_devkit_t12.tar.gz in {root}, or sort the images into folders by id"
        raise UsageError(f"{path} does not exist, and {root / 'val'} has no folders of images", hint)
    synsets = matlab.row(path, "synsets")
    if not {"ILSVRC2012_ID", "WNID"} <= {*(synsets.dtype.names or ())}:
        raise UsageError(f"{path}: the synsets have no ILSVRC2012_ID and WNID", AGAIN)
    return {int(one["ILSVRC2012_ID"]): str(one["WNID"]) for one in synsets}


def _part(root: Path, path: Path) -> Listing:
    """Return the training images of a list; validation is taken from the others, that the list stay whole."""
    classes, whole, test = _whole(root)
    number = {wnid: row for row, wnid in enumerate(classes)}
    found = []
    for at, (image, wnid) in lines(path, re.compile(r"((n\d{8})_\d+\.JPEG)"), "<wnid>_<image>.JPEG"):
        if wnid not in number:
            raise UsageError(f"{path}, line {at}: class {wnid} is not in {root / 'train'}", AGAIN)
        found.append((f"train/{wnid}/{image}", number[wnid], f"{path}, line {at}"))
    train = of_lists(root, found)
    listed = {*train.ids}
    rest = whole.some([row for row, name in enumerate(whole.ids) if name not in listed])
    validation = held_out(rest, HELD_OUT)["validation"]
    return Listing(classes, {"train": train, "validation": validation, "test": test})
