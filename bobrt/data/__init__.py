"""Where images come from, as numpy, with no torch.

A source returns a `Listing`, or a `Retrieval`: splits whose images have their own sizes;
`bobrt.data.resize` brings them to the engine's, the same code everywhere.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from bobrt import config, console
from bobrt.data import formats, places
from bobrt.data.images import Files
from bobrt.errors import AbsentDataError, UsageError
from bobrt.spec import digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bobrt.spec import TaskCard


DIGITS = "digits"
"""The source that brings its images along."""
FOLDER = "folder"
"""The source that reads any folder of images."""


ANEW = "install bobrt anew, from its checkout: pip install --force-reinstall --no-deps ."
"""What to do about digits that are not as they came."""


class Split(NamedTuple):
    """The images and targets of one split."""

    ids: list[str]
    images: Sequence[NDArray[np.uint8]]
    """Each `[height, width, 3]`; of images in files, indexing decodes one and slicing none."""
    targets: NDArray[Any]
    """`int64 [n]` classes, or `int64 [n, labels]` of 0 and 1 where an image may have several; of a dense task
    `object [n]`, an array for each image: `each` makes it."""

    def head(self, n: int | None) -> Split:
        """Return the first `n` samples, or all of them."""
        return Split(self.ids[:n], self.images[:n], self.targets[:n])

    def shapes(self) -> list[tuple[int, int]]:
        """Return height and width of each image, in pixels; those in files are not decoded."""
        if isinstance(self.images, Files):
            return self.images.shapes()
        return [(image.shape[0], image.shape[1]) for image in self.images]

    def some(self, rows: Sequence[int]) -> Split:
        """Return the samples of these rows, in their order."""
        images = self.images.some(rows) if isinstance(self.images, Files) else [self.images[i] for i in rows]
        return Split([self.ids[row] for row in rows], images, self.targets[list(rows)])


def each(targets: Sequence[NDArray[Any]]) -> NDArray[np.object_]:
    """Return the targets of a dense task: boxes `float32 [k, 5]` of each image, or its mask.

    A box is left, upper, right and lower side in pixels of the image, and its class; a mask is
    `uint8 [height, width]`, as large as the image.
    """
    found = np.empty(len(targets), dtype=object)
    for row, target in enumerate(targets):  # numpy would stack arrays of one shape
        found[row] = target
    return found


class Listing(NamedTuple):
    """What the folder of a data set holds, before any image is opened."""

    classes: list[str]
    """In the order of the targets."""
    splits: dict[str, Split]


class Relevant(NamedTuple):
    """What a query of a retrieval task is to find: rows of its database."""

    positives: NDArray[np.int64]
    junk: NDArray[np.int64]
    """Neither right nor wrong: taken out of a ranking before anything is counted."""


class Retrieval(NamedTuple):
    """A retrieval task's images, and what is to be found among them."""

    queries: Split
    database: Split
    settings: dict[str, list[Relevant]]
    """For each setting, one entry per query."""


def load(card: TaskCard, name: str, bundle: str | None = None) -> Split:
    """Return one split of a task's data.

    Args:
        card: The task.
        name: The split; of a retrieval task `query` or `database`.
        bundle: A folder that brings the images along; the card's own source is not asked then.

    Raises:
        AbsentDataError: The data is not on this machine.
        UsageError: It is damaged, or not what the card or the bundle pins, or has no such split.

    """
    if bundle is not None:
        from bobrt.data import bundle as bundles  # noqa: PLC0415 - it reads and writes what is defined here

        return bundles.load(Path(bundle), name)
    splits = _loaded(card).splits
    if name not in splits:
        raise UsageError(f"task {card.name} has no split {name}: it has {', '.join(splits)}")
    return splits[name]


def relevant(card: TaskCard) -> dict[str, list[Relevant]]:
    """Return what each query of a retrieval task is to find, by setting."""
    return _loaded(card).settings


def notes(card: TaskCard) -> list[str]:
    """Return what of a task's data is not used, or was made for the user, a line each."""
    return _loaded(card).notes


def resolve(card: TaskCard) -> TaskCard:
    """Return a card with what the data itself says: its labels, its sizes, its digest.

    Raises:
        AbsentDataError: The data is not on this machine.
        UsageError: It is damaged, or not what the card pins.

    """
    found = _loaded(card)
    return msgspec.structs.replace(
        card,
        labels=found.classes,
        splits=_sizes(found.splits),
        data_sha256=found.sha256,
        random_score=card.random_score if card.data != FOLDER else 1 / len(found.classes),
    )


def digest_of(splits: dict[str, Split]) -> str:
    """Return the sha256 over every split's name, ids, images and targets, in hex.

    Of images in files the sizes in bytes stand for the content: a data set of a million photographs is
    not read to be recognised.
    """
    hasher = hashlib.sha256()
    for name, split in sorted(splits.items()):
        hasher.update(f"{name}:{','.join(split.ids)}".encode())
        if isinstance(split.images, Files):
            hasher.update(np.array(split.images.sizes(), dtype="<i8").tobytes())
        else:
            for image in split.images:
                hasher.update(str(image.shape).encode() + np.ascontiguousarray(image).tobytes())
        hasher.update(_bytes_of(split.targets))
    return hasher.hexdigest()


def _bytes_of(targets: NDArray[Any]) -> bytes:
    if targets.dtype != object:
        return np.ascontiguousarray(targets, dtype="<i8").tobytes()
    return b"".join(f"{one.dtype.str}{one.shape}".encode() + one.tobytes() for one in targets)


def digest_of_relevant(images: str, settings: dict[str, list[Relevant]]) -> str:
    """Return the sha256 over a retrieval task's images and what each query is to find, in hex."""
    hasher = hashlib.sha256(images.encode())
    for name, relevant in sorted(settings.items()):
        hasher.update(name.encode())
        for positives, junk in relevant:
            for rows in (positives, junk):
                hasher.update(len(rows).to_bytes(8, "little") + rows.astype("<i8").tobytes())
    return hasher.hexdigest()


class _Loaded(NamedTuple):
    """What a card stands for on this machine."""

    classes: list[str]
    splits: dict[str, Split]
    settings: dict[str, list[Relevant]]
    sha256: str
    notes: list[str]


_kept: dict[str, _Loaded] = {}


def _loaded(card: TaskCard) -> _Loaded:
    """Return a card's data, read once in a process, and found to be what the card pins."""
    place = None if card.data == DIGITS else _place(card)
    key = digest([card.data, str(place), card.splits, card.data_sha256, card.options])
    if key not in _kept:
        _kept[key] = _read(card, place)
    return _kept[key]


def _read(card: TaskCard, place: Path | None) -> _Loaded:
    content, notes, found = _source(card, place)
    settings: dict[str, list[Relevant]] = {}
    classes: list[str] = []
    if isinstance(content, Retrieval):
        splits, settings = {"query": content.queries, "database": content.database}, content.settings
    else:
        classes, splits = content.classes, content.splits
    if wanted := card.options.get("classes"):
        classes, splits = _only(classes, splits, wanted)
    found, some = found or digest_of(splits), _few(card, classes, splits)
    if settings:
        found = digest_of_relevant(found, settings)
    # A card that was resolved counts the variant's images, one of the catalogue the published ones.
    pinned = any(card.splits.items() <= _sizes(one).items() for one in (splits, some))
    if not pinned or card.data_sha256 not in {None, found}:
        where = f" in {place}" if place else ""
        raise UsageError(
            f"the data of task {card.name}{where} is not what its card pins: {_sizes(splits)}, "
            f"{found[:12]}..., where it says {card.splits}, {(card.data_sha256 or 'nothing')[:12]}...",
            card.fetch or ANEW,
        )
    return _Loaded(classes, some, settings, found, notes)


def _sizes(splits: dict[str, Split]) -> dict[str, int]:
    return {name: len(split.ids) for name, split in splits.items()}


def _source(card: TaskCard, place: Path | None) -> tuple[Listing | Retrieval, list[str], str]:
    """Return what a source holds, what is to be told of it, and its digest where the source knows it."""
    # Each is imported by whom it concerns.
    if place is None:
        from bobrt.data import digits  # noqa: PLC0415

        return digits.read(), [], ""
    if card.data == FOLDER:
        from bobrt.data import folder, hub  # noqa: PLC0415

        told = console.counting(f"looking at the images of {place}")
        scan = folder.read(place, config.load().cache.path / "data", told)
        return scan.listing, [*hub.told(place), *scan.notes], scan.sha256
    return formats.read(card.data, place), [], ""


def require_here(card: TaskCard) -> None:
    """Raise `AbsentDataError` unless a card's images are on this machine, or are another task's."""
    if card.data not in {"", DIGITS}:
        _place(card)


def place_name(card: TaskCard) -> str:
    """Return the name under which a card's folder is remembered."""
    return str(card.options.get("place", card.name.partition("@")[0]))


def _place(card: TaskCard) -> Path:
    """Return where a card's data is on this machine."""
    name = place_name(card)
    if (place := places.place_of(name)) is not None:
        return place
    then = f"bobrt bench --task {card.name} --data FOLDER"
    hint = card.fetch if not card.fetch or "--data" in card.fetch else f"{card.fetch}; then: {then}"
    raise AbsentDataError(
        f"the data of task {card.name} is not here: {places.why_absent(name)}", hint or then
    )


def _only(
    classes: list[str], splits: dict[str, Split], wanted: list[str]
) -> tuple[list[str], dict[str, Split]]:
    """Return those images that are of some of the classes, counted anew in the order wanted."""
    number = {classes.index(name): row for row, name in enumerate(wanted)}
    kept = {}
    for name, split in splits.items():
        rows = [row for row, target in enumerate(split.targets.tolist()) if target in number]
        targets = np.array([number[int(split.targets[row])] for row in rows], dtype=np.int64)
        kept[name] = Split([split.ids[row] for row in rows], split.some(rows).images, targets)
    return list(wanted), kept


def _few(card: TaskCard, classes: list[str], splits: dict[str, Split]) -> dict[str, Split]:
    """Return the splits with as many training images as the card's variant has."""
    shots, share = card.options.get("shots"), card.options.get("share", 1.0)
    if shots is None and share == 1.0:
        return splits
    from bobrt.data import carve  # noqa: PLC0415 - few tasks have a variant

    train = splits["train"]
    rows = (
        carve.shots(train.targets, shots, classes=classes) if shots else carve.fraction(train.targets, share)
    )
    return {**splits, "train": train.some(rows.tolist())}
