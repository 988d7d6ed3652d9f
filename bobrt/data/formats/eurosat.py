"""EuroSAT in colour: a folder of satellite images for each of ten classes, and no official splits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bobrt.data import Listing
from bobrt.data.formats.labelled import class_folders, held_out, of_folders, top

if TYPE_CHECKING:
    from pathlib import Path

TEST = 0.2
VALIDATION = 0.25
"""Of what the test leaves."""


def read(root: Path) -> Listing:
    """Return 60 % train, 20 % validation and 20 % test: a split of ours, stratified and always the same.

    Args:
        root: The folder of class folders, or the one with `2750/` (EuroSAT.zip) or `EuroSAT_RGB/` (Zenodo).

    Raises:
        UsageError: There are no such folders, or one is empty.

    """
    base = top(root, "2750", "EuroSAT_RGB")
    classes = class_folders(base)
    whole = of_folders(base, {name: number for number, name in enumerate(classes)})
    apart = held_out(whole, TEST)
    return Listing(classes, {**held_out(apart["train"], VALIDATION), "test": apart["validation"]})
