"""iNaturalist 2019 and 2021: folders of photographs, and annotations like COCO's of two published splits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from bobrt.data import Listing
from bobrt.data.formats.labelled import held_out, split
from bobrt.data.formats.listed import AGAIN
from bobrt.errors import UsageError
from bobrt.strict import parse_json, read_text

if TYPE_CHECKING:
    from pathlib import Path

    from bobrt.data import Split

HELD_OUT = 0.05
"""Share of the training images that validate."""


class _Image(msgspec.Struct):
    id: int
    file_name: str


class _Category(msgspec.Struct):
    id: int
    name: str


class _Annotation(msgspec.Struct):
    image_id: int
    category_id: int


class _Annotations(msgspec.Struct):
    images: list[_Image]
    categories: list[_Category]
    annotations: list[_Annotation]


def read_2019(root: Path) -> Listing:
    """Return the 1,010 species of 2019: the published validation images are the test.

    Args:
        root: The folder with `train_val2019/`, `train2019.json` and `val2019.json`.

    Raises:
        UsageError: An annotation file is missing or malformed, or an image it names is not there.

    """
    return _read(root, root / "train2019.json", root / "val2019.json")


def read_2021(root: Path) -> Listing:
    """Return the 10,000 species of 2021: the published validation images are the test.

    Args:
        root: The folder with `train/`, `val/`, `train.json` and `val.json`.

    Raises:
        UsageError: An annotation file is missing or malformed, or an image it names is not there.

    """
    return _read(root, root / "train.json", root / "val.json")


def _read(root: Path, train: Path, test: Path) -> Listing:
    classes, whole = _annotated(root, train)
    again, tested = _annotated(root, test)
    if again != classes:
        raise UsageError(f"{test} has other categories than {train}", AGAIN)
    return Listing(classes, {**held_out(whole, HELD_OUT), "test": tested})


def _annotated(root: Path, path: Path) -> tuple[list[str], Split]:
    """Return the classes and the images of one file of annotations."""
    found = parse_json(read_text(path, "annotations"), _Annotations, str(path))
    categories = sorted(found.categories, key=lambda category: category.id)
    if [category.id for category in categories] != list(range(len(categories))):
        raise UsageError(f"{path}: the categories are not numbered from 0 on", AGAIN)
    target_of: dict[int, int] = {}
    for one in found.annotations:
        if not 0 <= one.category_id < len(categories):
            raise UsageError(f"{path}, image {one.image_id}: there is no category {one.category_id}", AGAIN)
        if one.image_id in target_of:
            raise UsageError(f"{path}, image {one.image_id}: it is annotated twice", AGAIN)
        target_of[one.image_id] = one.category_id
    images = sorted(found.images, key=lambda image: image.id)
    for image in images:
        if image.id not in target_of:
            raise UsageError(f"{path}, image {image.id}: it has no annotation", AGAIN)
    targets = [target_of.pop(image.id) for image in images]
    if target_of:
        raise UsageError(f"{path}, image {min(target_of)}: it is annotated and not listed", AGAIN)
    names = [image.file_name for image in images]
    return _names(categories), split(root, names, targets, lambda row: f"{path}, image {images[row].id}")


def _names(categories: list[_Category]) -> list[str]:
    """Return the species; with the number where two kingdoms share a name."""
    names = [category.name for category in categories]
    return names if len({*names}) == len(names) else [f"{one.id} {one.name}" for one in categories]
