"""FGVC-Aircraft 2013b: `data/images/`, `data/variants.txt`, and a list for each split."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bobrt.data import Listing
from bobrt.data.formats.labelled import Margins, lines, of_lists, top, trimmed
from bobrt.data.formats.listed import AGAIN
from bobrt.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

BANNER = Margins(0, 0, 0, 20)
"""Whose photograph it is, in writing: the publisher asks that it be cut off before training and testing."""

SPLITS = {"train": "train", "validation": "val", "test": "test"}


def read(root: Path) -> Listing:
    """Return the official splits by variant: 3,334 train, 3,333 validation, 3,333 test; without banners.

    Args:
        root: The folder with `data/`, or the one with `fgvc-aircraft-2013b/`.

    Raises:
        UsageError: A list is missing or malformed, or an image it names is not there.

    """
    base = top(root, "fgvc-aircraft-2013b") / "data"
    classes = [name for _, (name,) in lines(base / "variants.txt", re.compile(r"(.+)"), "<variant>")]
    number = {name: row for row, name in enumerate(classes)}
    splits = {}
    for name, file in SPLITS.items():
        path, found = base / f"images_variant_{file}.txt", []
        for at, (image, variant) in lines(path, re.compile(r"(\S+) (.+)"), "<image> <variant>"):
            if variant not in number:
                raise UsageError(f"{path}, line {at}: variant {variant!r} is not in variants.txt", AGAIN)
            found.append((f"images/{image}.jpg", number[variant], f"{path}, line {at}"))
        splits[name] = trimmed(base, of_lists(base, found), BANNER)
    return Listing(classes, splits)
