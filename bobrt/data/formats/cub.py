"""Caltech-UCSD Birds-200-2011: `images/`, and two lists that number the images and name their classes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bobrt.data.formats import by_class
from bobrt.data.formats.labelled import lines, of_lists, top
from bobrt.data.formats.listed import AGAIN
from bobrt.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from bobrt.data import Retrieval

_IMAGE = re.compile(r"(\d+) (\S.*)")
_CLASS = re.compile(r"(\d+) (\d+)")


def read(root: Path) -> Retrieval:
    """Return all images, the first fifth of each class as queries, as Battle of the Backbones has it.

    Args:
        root: The folder with `images.txt`, or that with `CUB_200_2011/`.

    Raises:
        UsageError: A list is missing or malformed, or an image it names is not there.

    """
    base = top(root, "CUB_200_2011")
    named, labelled = base / "images.txt", base / "image_class_labels.txt"
    classes: dict[str, int] = {}
    for line, (number, label) in lines(labelled, _CLASS, "<image> <class>"):
        if number in classes:
            raise UsageError(f"{labelled}, line {line}: image {number} has a class already", AGAIN)
        classes[number] = int(label) - 1
    found: dict[str, tuple[str, int, str]] = {}
    for line, (number, name) in lines(named, _IMAGE, "<image> <file>"):
        where = f"{named}, line {line}"
        if number in found or number not in classes:
            wrong = "there twice" if number in found else f"without a class in {labelled.name}"
            raise UsageError(f"{where}: image {number} is {wrong}", AGAIN)
        found[number] = name, classes[number], where
    if unnamed := classes.keys() - found.keys():
        raise UsageError(f"{labelled}: image {min(unnamed, key=int)} is not in {named.name}", AGAIN)
    return by_class.asked(of_lists(base / "images", [*found.values()]))
