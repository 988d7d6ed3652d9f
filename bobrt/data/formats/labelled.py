"""What readers of labelled images share: numbered lines of lists, class folders, files that are there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from bobrt.data import Split, carve
from bobrt.data.formats.listed import AGAIN
from bobrt.data.images import Files
from bobrt.errors import UsageError
from bobrt.strict import read_text

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""What an image's name ends with, in either case. Other files of a class folder are no images."""

HELD_OUT = 0.1
"""Share of the training images that validate where the publisher has no validation split."""


def top(root: Path, *names: str) -> Path:
    """Return the folder an archive unpacks to, whether the user names that or the one around it."""
    return next((root / name for name in names if (root / name).is_dir()), root)


def lines(path: Path, form: re.Pattern[str], shape: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield the number and the parts of each line of a list; empty ones have none.

    Args:
        path: The list.
        form: What a line is, with a group for each part.
        shape: The same for the message: `<image> <class>`.

    Raises:
        UsageError: The list is missing, or a line is not so.

    """
    for number, line in enumerate(read_text(path, "list").splitlines(), start=1):
        if not line.strip():
            continue
        if (found := form.fullmatch(line.strip())) is None:
            raise UsageError(f"{path}, line {number}: {line!r} is not '{shape}'", AGAIN)
        yield number, found.groups()


def split(
    base: Path,
    names: Sequence[str],
    targets: ArrayLike,
    where: Callable[[int], str],
) -> Split:
    """Return images by their names, once it is known that all are there.

    Each folder is listed once, which a million images on a network share need.

    Args:
        base: What the names start from.
        names: Unique paths, which become the ids.
        targets: `[n]` classes, or `[n, labels]` of 0 and 1.
        where: What says that there is such an image, by its row: a file and its line.

    Raises:
        UsageError: There are no images, one is missing, or a name is there twice or leads out of the folder.

    """
    if not names:
        raise UsageError(f"{base} has no images", AGAIN)
    there: dict[str, set[str]] = {}
    seen: set[str] = set()
    for row, name in enumerate(names):
        folder, _, file = name.rpartition("/")
        if name.startswith("/") or ".." in folder.split("/"):
            raise UsageError(f"{where(row)}: the image {name} is outside of {base}", AGAIN)
        if name in seen:
            raise UsageError(f"{where(row)}: the image {name} is listed twice", AGAIN)
        if folder not in there:
            there[folder] = files_in(base / folder)
        if file not in there[folder]:
            raise UsageError(f"{where(row)}: the image {base / name} is not there", AGAIN)
        seen.add(name)
    files = Files([f"{base}/{name}" for name in names])
    return Split(list(names), files, np.array(targets, dtype=np.int64))


def files_in(folder: Path) -> set[str]:
    """Return the names of what is in a folder; none if there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        return set()


class Margins(NamedTuple):
    """Pixels of an image's sides that are none of the photograph."""

    left: int
    upper: int
    right: int
    lower: int


def trimmed(base: Path, found: Split, margins: Margins) -> Split:
    """Return images without their margins; only the head of each file is read.

    Raises:
        UsageError: A file is no image.

    """
    paths = [base / name for name in found.ids]
    return found._replace(images=Files(paths, [_inside(path, margins) for path in paths]))


def _inside(path: Path, margins: Margins) -> tuple[int, int, int, int]:
    try:
        with Image.open(path) as picture:
            width, height = picture.size
    except Exception as error:  # each of Pillow's formats has its own way to stumble over bytes
        raise UsageError(f"cannot read the image {path}: {error}", AGAIN) from error
    return margins.left, margins.upper, width - margins.right, height - margins.lower


def of_lists(base: Path, found: Sequence[tuple[str, int, str]]) -> Split:
    """Return the split of what a list names: `(name, target, where)` each."""
    return split(
        base, [name for name, _, _ in found], [target for _, target, _ in found], lambda row: found[row][2]
    )


def class_folders(base: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted; raise `UsageError` if it has none."""
    found = sorted(path.name for path in base.iterdir() if path.is_dir()) if base.is_dir() else []
    if not found:
        raise UsageError(f"{base} has no folders of images", AGAIN)
    return found


def of_folders(base: Path, target_of: dict[str, int], below: str = "") -> Split:
    """Return the images of class folders, sorted by folder and name.

    Args:
        base: What the ids start from.
        target_of: The class of each folder.
        below: Where in `base` the folders are.

    Raises:
        UsageError: A folder is missing or has no images.

    """
    names: list[str] = []
    targets: list[int] = []
    for folder, target in target_of.items():
        prefix = f"{below}/{folder}" if below else folder
        found = sorted(name for name in files_in(base / prefix) if _is_image(name))
        if not found:
            raise UsageError(f"{base / prefix} has no images", AGAIN)
        names += [f"{prefix}/{name}" for name in found]
        targets += [target] * len(found)
    return split(base, names, targets, lambda row: f"{base / names[row]}")


def _is_image(name: str) -> bool:
    # "._cat.jpg" is what macOS leaves beside a file on a foreign disk.
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def held_out(train: Split, fraction: float = HELD_OUT) -> dict[str, Split]:
    """Return training images as `train` and `validation`, at least one, by class and always the same."""
    kept, out = carve.carve(train.targets, max(1, round(fraction * len(train.ids))))
    return {"train": train.some(kept.tolist()), "validation": train.some(out.tolist())}
