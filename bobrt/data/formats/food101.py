"""Food-101: `images/`, and in `meta/` the classes and two lists."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bobrt.data import Listing
from bobrt.data.formats.labelled import held_out, lines, of_lists, top
from bobrt.data.formats.listed import AGAIN
from bobrt.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from bobrt.data import Split


def read(root: Path) -> Listing:
    """Return the 101 dishes: validation is taken from the 75,750 training images, the test has 25,250.

    Args:
        root: The folder with `images/` and `meta/`, or the one with `food-101/`.

    Raises:
        UsageError: A list is missing or malformed, or an image it names is not there.

    """
    base = top(root, "food-101")
    names = [name for _, (name,) in lines(base / "meta" / "classes.txt", re.compile(r"(\S+)"), "<class>")]
    classes = sorted(names)
    whole = _split(base, "train", classes)
    return Listing(classes, {**held_out(whole), "test": _split(base, "test", classes)})


def _split(base: Path, name: str, classes: list[str]) -> Split:
    number = {dish: row for row, dish in enumerate(classes)}
    path, found = base / "meta" / f"{name}.txt", []
    for at, (dish, image) in lines(path, re.compile(r"([^/]+)/(\d+)"), "<class>/<image>"):
        if dish not in number:
            raise UsageError(f"{path}, line {at}: class {dish!r} is not in classes.txt", AGAIN)
        found.append((f"images/{dish}/{image}.jpg", number[dish], f"{path}, line {at}"))
    return of_lists(base, found)
