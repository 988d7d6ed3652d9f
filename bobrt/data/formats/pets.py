"""Oxford-IIIT Pets: `images/`, and lists that number the breeds."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bobrt.data import Listing
from bobrt.data.formats.labelled import held_out, lines, of_lists, top
from bobrt.data.formats.listed import AGAIN
from bobrt.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

BREEDS = 37
LINE = re.compile(r"((\S+)_\d+) (\d+) \d+ \d+")


def read(root: Path) -> Listing:
    """Return the 37 breeds in the order of their numbers: validation is taken from `trainval`.

    Args:
        root: The folder with `images/` and `annotations/`.

    Raises:
        UsageError: A list is missing or malformed, or an image it names is not there.

    """
    base = top(root, "oxford-iiit-pet")
    breeds: dict[int, str] = {}
    found: dict[str, list[tuple[str, int, str]]] = {"trainval": [], "test": []}
    for name, images in found.items():
        path = base / "annotations" / f"{name}.txt"
        for at, (image, breed, number) in lines(path, LINE, "<breed>_<number> <class> <species> <breed>"):
            where = f"{path}, line {at}"
            if not 1 <= int(number) <= BREEDS:
                raise UsageError(f"{where}: class {number} is not one of 1 to {BREEDS}", AGAIN)
            if breeds.setdefault(int(number), breed) != breed:
                raise UsageError(f"{where}: class {number} is {breed} and {breeds[int(number)]}", AGAIN)
            images.append((f"images/{image}.jpg", int(number) - 1, where))
    if missing := {*range(1, max(breeds, default=0))} - {*breeds}:
        raise UsageError(f"{base / 'annotations'}: no image is of class {min(missing)}", AGAIN)
    whole = of_lists(base, found["trainval"])
    splits = {**held_out(whole), "test": of_lists(base, found["test"])}
    return Listing([breeds[number] for number in sorted(breeds)], splits)
