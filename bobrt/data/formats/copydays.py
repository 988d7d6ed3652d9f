"""INRIA Copydays: 157 photographs and their attacked copies. The first four digits of a name are the block.

The folders `original/` and `strong/` hold images; `crops/` and `jpegqual/` a folder for each strength.

Queries are the originals, the database is the copies, those of a query's block are to be found. So it
is in Battle of the Backbones, with the strong copies: its code lists the copies of each original once, as
the database. It reads which are whose from a file of its own that was not published; the names say the same.
(Others ask the other way about: copies for their original.)
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from bobrt.data import Relevant, Retrieval
from bobrt.data.formats.labelled import split
from bobrt.data.formats.listed import AGAIN
from bobrt.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FAMILIES = {"jpeg": "jpegqual", "crops": "crops", "strong": "strong"}
"""Kinds of attack, and their folders."""
_NAME = re.compile(r"(\d{4})\d{2}\.jpg")


def read(root: Path) -> Retrieval:
    """Return the originals as queries and every copy as the database.

    The settings are `all`, and `jpeg`, `crops` and `strong`, in which the copies of the other kinds are junk.

    Args:
        root: The folder with `original/`, `jpegqual/`, `crops/` and `strong/`.

    Raises:
        UsageError: A folder has no images, a name has no block, or a copy has no original.

    """
    found = _read(root, [*FAMILIES.values()])
    families = np.array([name.partition("/")[0] for name in found.database.ids])
    settings = {
        name: _relevant(found.database.targets, len(found.queries.ids), families == folder)
        for name, folder in FAMILIES.items()
    }
    return found._replace(settings=found.settings | settings)


def read_strong(root: Path) -> Retrieval:
    """Return the originals as queries and the strong copies as the database: the study's task.

    Args:
        root: The folder with `original/` and `strong/`.

    Raises:
        UsageError: As for `read`.

    """
    return _read(root, [FAMILIES["strong"]])


def _read(root: Path, folders: list[str]) -> Retrieval:
    originals = _images(root, "original")
    row_of = {_block(root, name): row for row, name in enumerate(originals)}
    if len(row_of) < len(originals):
        raise UsageError(f"{root / 'original'} has two images of one block", AGAIN)
    copies = [name for folder in folders for name in _images(root, folder)]
    if strange := [name for name in copies if _block(root, name) not in row_of]:
        raise UsageError(f"{root / strange[0]} is a copy of no image in {root / 'original'}", AGAIN)
    targets = np.array([row_of[_block(root, name)] for name in copies], dtype=np.int64)
    return Retrieval(
        split(root, originals, np.arange(len(originals)), originals.__getitem__),
        split(root, copies, targets, copies.__getitem__),
        {"all": _relevant(targets, len(originals), np.ones(len(copies), dtype=bool))},
    )


def _relevant(targets: NDArray[np.int64], queries: int, counted: NDArray[np.bool_]) -> list[Relevant]:
    """Return what each query is to find among the copies that count; the others are junk."""
    junk = np.flatnonzero(~counted)
    return [Relevant(np.flatnonzero(counted & (targets == row)), junk) for row in range(queries)]


def _images(root: Path, folder: str) -> list[str]:
    """Return the images below a folder by their paths, sorted."""
    found = sorted(path.relative_to(root).as_posix() for path in (root / folder).rglob("*.jpg"))
    if not found:
        raise UsageError(f"{root / folder} has no images", AGAIN)
    return found


def _block(root: Path, name: str) -> str:
    """Return the number that an original shares with its copies."""
    if not (match := _NAME.fullmatch(name.rpartition("/")[2])):
        raise UsageError(f"{root / name}: no name of Copydays, four digits of the block and two more", AGAIN)
    return match[1]
