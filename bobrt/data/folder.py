"""Any folder of images as a task: `train/ validation/ test/`, or one folder that is split for the user.

Below each split, or right below the root, a folder per class; images may lie deeper inside. Every file is
read once: what cannot be decoded is left out and counted, and what was learned is kept in an index.

Where a split must be made, the content of the files decides: of each class those with the lowest hashes
go to the test, the next ones to validation. So a file keeps its side when it is renamed, or when a few
others come, and copies of an image stay together.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bobrt.data import Listing, Split, index, tree
from bobrt.data.images import Files
from bobrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from bobrt.data.index import Known
    from bobrt.data.tree import Picture

    Parts = dict[str, list[Picture]]
    """The images of each split."""

SHARE = 0.15
"""Of each class for a split that is missing."""
SHOWN = 3
"""Names that stand for all of a kind."""


class LeftOut(NamedTuple):
    """Files or folders that were left out for one reason."""

    n: int
    first: list[str]
    """The first few, from the root."""


class Shared(NamedTuple):
    """Images of one split that are in another as well, byte for byte."""

    kept: str
    """The split they stay in."""
    taken: str
    """The split they were taken out of."""
    n: int
    first: tuple[str, str]
    """The first one, as it is called in either."""


class Scan(NamedTuple):
    """What a folder holds, and what of it is not used."""

    listing: Listing
    """`train`, `validation` and `test`."""
    left_out: dict[str, LeftOut]
    """By reason."""
    shared: list[Shared]
    notes: list[str]
    """All of that, and what was decided, in lines to show."""
    sha256: str
    """Over the split, the class and the content of every image, whatever its name."""


def read(
    root: Path,
    cache: Path | None = None,
    report: Callable[[int, int], None] = lambda _done, _all: None,
) -> Scan:
    """Return the splits of a folder.

    With `train` alone, or without splits, 15 % of each class are the test and 15 % validation. With `train`
    and `test`, validation is taken out of `train`; with `train` and `validation`, so it is, and what was
    called validation is the test: nothing is selected on what is reported. An image that is in two splits
    stays in the one that is asked: test before validation before train.

    Args:
        root: The folder.
        cache: The folder in which what was learned of the files is kept.
        report: Called now and then with how many images were looked at, of how many.

    Raises:
        UsageError: It has not the layout, a split has no image that can be used, another split has a class
            that train lacks, or there are not two classes; all by name.

    """
    found = tree.read(root)
    names = [picture.name for pictures in found.splits.values() for picture in pictures]
    known, notes = index.learn(root, names, cache, report)
    left_out = defaultdict(list, found.left_out)
    parts: Parts = {}
    for split, pictures in found.splits.items():
        parts[split] = [picture for picture in pictures if not known[picture.name].problem]
        for picture in pictures:
            if problem := known[picture.name].problem:
                left_out[problem].append(picture.name)
        empty = set(found.labels[split]) - {picture.label for picture in parts[split]}
        left_out[f"a class of {split} without an image"] += sorted(empty)
    shared: list[Shared] = []
    said = _completed(root, parts, known, shared)
    classes = _classes(root, parts, shared)
    counts = {reason: LeftOut(len(those), those[:SHOWN]) for reason, those in left_out.items() if those}
    listing = Listing(classes, {split: _split(root, parts[split], classes) for split in tree.SPLITS})
    lines = [*found.notes, *notes, *said, *map(_line, shared), *_alone(parts), *_twice(parts, known)]
    lines += [_left(reason, those) for reason, those in counts.items()]
    return Scan(listing, counts, shared, lines, _digest(parts, known))


def _completed(root: Path, parts: Parts, known: Mapping[str, Known], shared: list[Shared]) -> list[str]:
    """Make `parts` three splits with no image in two of them; return what was decided."""
    for split, pictures in parts.items():
        if not pictures:
            raise UsageError(f"the {split} split of {root} has no image that can be used", tree.LAYOUT)
    said = []
    if "validation" in parts and "test" not in parts:
        parts["test"] = parts.pop("validation")
        said.append("there is no test folder: the validation folder is the test")
    shared += _part(parts, known)
    if missing := [split for split in ("test", "validation") if split not in parts]:
        _carve(parts, missing, known)
        # An image may be in two classes, on one side here and on the other there.
        shared += _part(parts, known)
        sizes = ", ".join(f"{len(parts[split]):,} {split}" for split in tree.SPLITS)
        said.append(f"taken out of train, {SHARE:.0%} each: {' and '.join(missing)}; by content: {sizes}")
    return said


def _carve(parts: Parts, missing: list[str], known: Mapping[str, Known]) -> None:
    """Take the missing splits out of train: of each class its share, one at least while train has another."""
    by_class: dict[str, set[str]] = defaultdict(set)
    for picture in parts["train"]:
        by_class[picture.label].add(known[picture.name].sha256)
    side: dict[tuple[str, str], str] = {}
    for label, contents in by_class.items():
        rest = sorted(contents)
        count = max(1, round(SHARE * len(rest)))
        for split in missing:
            taken = min(count, len(rest) - 1)
            side |= {(label, sha256): split for sha256 in rest[:taken]}
            rest = rest[taken:]
    whole = parts["train"]
    for split in ["train", *missing]:
        parts[split] = [
            picture
            for picture in whole
            if side.get((picture.label, known[picture.name].sha256), "train") == split
        ]


def _part(parts: Parts, known: Mapping[str, Known]) -> list[Shared]:
    """Take out of a split what another one has that is asked first; return what that was."""
    found = []
    for kept, taken in (("test", "validation"), ("test", "train"), ("validation", "train")):
        there = {known[picture.name].sha256: picture.name for picture in reversed(parts.get(kept, []))}
        both = [picture.name for picture in parts.get(taken, []) if known[picture.name].sha256 in there]
        if both:
            found.append(Shared(kept, taken, len(both), (there[known[both[0]].sha256], both[0])))
            parts[taken] = [picture for picture in parts[taken] if known[picture.name].sha256 not in there]
    return found


def _classes(root: Path, parts: Parts, shared: list[Shared]) -> list[str]:
    """Return the classes of train; raise if another split has more, or if there is nothing to tell apart."""
    classes = sorted({picture.label for picture in parts["train"]})
    why = " once those of other splits are taken out" if shared else ""
    for split in ("train", "validation", "test"):
        if strange := sorted({picture.label for picture in parts[split]} - set(classes)):
            raise UsageError(
                f"{split} has the class {_few(len(strange), strange)}, and train has no image of it{why}",
                "add some to train, or remove the class",
            )
        if not parts[split]:
            raise UsageError(
                f"{root} has too few images: none is left for {split}{why}",
                "add images: seven of a class make all three splits",
            )
    if len(classes) == 1:
        raise UsageError(f"{root} has one class, {classes[0]}: nothing to tell apart", tree.LAYOUT)
    return classes


def _split(root: Path, pictures: list[Picture], classes: list[str]) -> Split:
    number = {label: row for row, label in enumerate(classes)}
    targets = np.array([number[picture.label] for picture in pictures], dtype=np.int64)
    names = [picture.name for picture in pictures]
    return Split(names, Files([f"{root}/{name}" for name in names]), targets)


def _digest(parts: Parts, known: Mapping[str, Known]) -> str:
    hasher = hashlib.sha256()
    for split in tree.SPLITS:
        contents = sorted((picture.label, known[picture.name].sha256) for picture in parts[split])
        hasher.update(f"{split}: {contents}\n".encode())
    return hasher.hexdigest()


def _line(shared: Shared) -> str:
    return (
        f"{shared.n:,} images of {shared.taken} are in {shared.kept} too and were taken out of "
        f"{shared.taken}; the first: {shared.first[1]} is {shared.first[0]}"
    )


def _left(reason: str, those: LeftOut) -> str:
    return f"left out, {reason}: {_few(those.n, those.first)}"


def _few(n: int, names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {n - SHOWN:,} more" if n > SHOWN else "")


def _alone(parts: Parts) -> list[str]:
    """Return a note about classes that nothing is asked about."""
    silent = sorted(
        {picture.label for picture in parts["train"]} - {picture.label for picture in parts["test"]}
    )
    return [f"test has no image of {_few(len(silent), silent)}"] if silent else []


def _twice(parts: Parts, known: Mapping[str, Known]) -> list[str]:
    """Return a note for each split that has an image in two classes: one of the answers is wrong."""
    notes = []
    for split, pictures in parts.items():
        labels: dict[str, set[str]] = defaultdict(set)
        for picture in pictures:
            labels[known[picture.name].sha256].add(picture.label)
        names = [p.name for p in pictures if len(labels[known[p.name].sha256]) > 1]
        if names:
            notes.append(f"{len(names):,} images of {split} are in several classes; the first: {names[0]}")
    return notes
