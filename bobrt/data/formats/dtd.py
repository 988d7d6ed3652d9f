"""Describable Textures: `images/`, and in `labels/` ten ways to split them, of which the first is taken."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bobrt.data import Listing
from bobrt.data.formats.labelled import lines, of_lists, top

if TYPE_CHECKING:
    from pathlib import Path

SPLITS = {"train": "train1", "validation": "val1", "test": "test1"}


def read(root: Path) -> Listing:
    """Return the 47 textures: 1,880 train, 1,880 validation and 1,880 test images.

    Args:
        root: The folder with `images/` and `labels/`, or the one with `dtd/`.

    Raises:
        UsageError: A list is missing or malformed, or an image it names is not there.

    """
    base = top(root, "dtd")
    named: dict[str, list[tuple[str, str, str]]] = {}
    for name, file in SPLITS.items():
        path = base / "labels" / f"{file}.txt"
        form = re.compile(r"([^/]+)/([^/]+)")
        named[name] = [
            (texture, f"images/{texture}/{image}", f"{path}, line {at}")
            for at, (texture, image) in lines(path, form, "<texture>/<image>")
        ]
    classes = sorted({texture for found in named.values() for texture, _, _ in found})
    number = {texture: row for row, texture in enumerate(classes)}
    splits = {
        name: of_lists(base, [(image, number[texture], where) for texture, image, where in found])
        for name, found in named.items()
    }
    return Listing(classes, splits)
