"""VisDA-2017, classification: rendered objects in `train/`, photographs of the same in `validation/`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bobrt.data import Listing
from bobrt.data.formats.labelled import held_out, lines, of_lists
from bobrt.data.formats.listed import AGAIN
from bobrt.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from bobrt.data import Split

LINE = re.compile(r"(([^/\s]+)/\S+) (\d+)")
TEST = 0.1
VALIDATION = 0.1
"""Of what the test leaves."""


def read(root: Path) -> Listing:
    """Return the rendered images: train and, taken from it, a validation and a test of the same kind.

    Args:
        root: The folder with `train/`.

    Raises:
        UsageError: The list is missing or malformed, or an image it names is not there.

    """
    classes, whole = _listed(root / "train")
    apart = held_out(whole, TEST)
    return Listing(classes, {**held_out(apart["train"], VALIDATION), "test": apart["validation"]})


def read_real(root: Path) -> Listing:
    """Return the photographs, as `test`.

    Args:
        root: The folder with `validation/`.

    Raises:
        UsageError: The list is missing or malformed, or an image it names is not there.

    """
    classes, whole = _listed(root / "validation")
    return Listing(classes, {"test": whole})


def _listed(base: Path) -> tuple[list[str], Split]:
    """Return the classes in the order of their numbers, and the images of `image_list.txt`."""
    path, found = base / "image_list.txt", []
    named: dict[int, str] = {}
    for at, (image, folder, number) in lines(path, LINE, "<class>/<image> <number>"):
        where = f"{path}, line {at}"
        if named.setdefault(int(number), folder) != folder:
            raise UsageError(f"{where}: class {number} is {folder} and {named[int(number)]}", AGAIN)
        found.append((image, int(number), where))
    if sorted(named) != list(range(len(named))) or len({*named.values()}) != len(named):
        raise UsageError(f"{path}: the classes are {named}, not one number from 0 on for each folder", AGAIN)
    return [named[number] for number in sorted(named)], of_lists(base, found)
