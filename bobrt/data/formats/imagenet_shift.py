"""Other images of ImageNet-1k's classes, named by WordNet ids as there: ImageNet-A, -R, -Sketch, -V2."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from bobrt.data import Listing
from bobrt.data.formats.labelled import class_folders, of_folders, top
from bobrt.data.formats.listed import AGAIN
from bobrt.errors import UsageError

ARCHIVES = ("imagenet-a", "imagenet-r", "sketch")
V2 = ("imagenetv2-matched-frequency-format-val", "imagenetv2-matched-frequency")


@cache
def wnids() -> list[str]:
    """Return the WordNet ids of ILSVRC 2012 in the order of ImageNet-1k's classes: sorted."""
    return Path(__file__).with_name("imagenet_wnids.txt").read_text(encoding="ascii").split()


def read(root: Path) -> Listing:
    """Return ImageNet-A, -R or -Sketch: the classes are those that have a folder.

    Args:
        root: The folder of folders named by WordNet ids, or the one with `imagenet-a/`, `imagenet-r/` or
            `sketch/`.

    Raises:
        UsageError: There are no folders, one is empty, or one is of no class of ImageNet-1k.

    """
    base = top(root, *ARCHIVES)
    classes = class_folders(base)
    known = {*wnids()}
    if unknown := [name for name in classes if name not in known]:
        raise UsageError(f"{base / unknown[0]} is no class of ImageNet-1k", AGAIN)
    return Listing(classes, {"test": of_folders(base, {wnid: row for row, wnid in enumerate(classes)})})


def read_v2(root: Path) -> Listing:
    """Return ImageNet-V2, whose folders are named by the place of their class: 2 comes before 10.

    Args:
        root: The folder of folders `0` to `999`, or the one with `imagenetv2-matched-frequency-format-val/`.

    Raises:
        UsageError: There are no folders, one is empty, or one is of no class of ImageNet-1k.

    """
    base, known = top(root, *V2), wnids()
    folders = class_folders(base)
    for name in folders:
        if not (name.isdecimal() and int(name) < len(known)):
            raise UsageError(
                f"{base / name} is not one of 0 to {len(known) - 1}, a class of ImageNet-1k", AGAIN
            )
    folders.sort(key=int)
    classes = [known[int(name)] for name in folders]
    return Listing(classes, {"test": of_folders(base, {name: row for row, name in enumerate(folders)})})
