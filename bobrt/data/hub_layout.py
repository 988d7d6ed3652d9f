"""From rows of images and labels to a folder of images: `train/CLASS/ROW.EXT`, other splits beside.

The bytes of an image are written as they came, whatever they are: what cannot be decoded is for the reader
of folders to leave out and to count. Names of classes come from a stranger: no file lands outside of the
folder.
"""

from __future__ import annotations

import io
import os
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from bobrt.data import tree
from bobrt.errors import UsageError, unknown
from bobrt.spec import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from bobrt.data.hub_address import Address

    Features = Mapping[str, Any]
    """The columns of a data set and their types, as `datasets` describes them."""

REPORT_EVERY = 100
"""Rows between two reports."""
LONGEST = 200
"""Bytes of a folder's name; file systems take 255."""
_NUMBERS = ("int", "uint", "bool")


class Columns(NamedTuple):
    """Where a data set keeps its images and their classes."""

    image: str
    label: str


class Laid(NamedTuple):
    """What was laid out."""

    splits: dict[str, int]
    """Images of each split."""
    notes: list[str]
    """What was not, and why."""


def columns(features: Features, address: Address) -> Columns:
    """Return the columns with the image and the class: those that were chosen, or the only ones.

    A class is a `ClassLabel`; where there is none, text or a whole number.

    Args:
        features: The columns.
        address: What was chosen, and what the hints are about.

    Raises:
        UsageError: There is none, there are several, or an image has several labels or boxes.

    """
    images = [name for name, feature in features.items() if _kind(feature) == "Image"]
    image = _one("image", images, features, address)
    return Columns(image, _one("label", _labels(features), features, address))


def lay_out(  # noqa: PLR0913, PLR0917 - what it is about, where it goes, and whom it tells
    splits: Mapping[str, Any],
    found: Columns,
    address: Address,
    folder: Path,
    within: Sequence[Path],
    report: Callable[[int, int], None] = lambda _done, _all: None,
) -> Laid:
    """Write the images of every split that has labels. What an earlier try wrote is not written again.

    Args:
        splits: Tables of `datasets` by the hub's names of the splits; their image column is not decoded.
        found: The columns.
        address: For the messages.
        folder: Where to.
        within: Folders that hold the data set's own files: where a row names one instead of having the bytes.
        report: Called now and then with how many rows are done, of how many.

    Raises:
        UsageError: No split has labels, the labels are no classes, or a row names a file that is not the
            data set's.
        OSError: The folder cannot be written.

    """
    named, notes = _named(splits)
    classes: dict[str, list[str | None]] = {}
    for split, (name, table) in named.items():
        words = _classes(table, found.label, f"{name} in {address.repo}")
        if missing := words.count(None):
            notes.append(f"left out of {name}, without a label: {missing:,} of {len(words):,} images")
        if missing < len(words):
            classes[split] = words
    folders = folder_names(_known(classes, found.label, named, address, notes))
    done, rows, sizes = 0, sum(map(len, classes.values())), dict.fromkeys(classes, 0)
    for split, words in classes.items():
        name, table = named[split]
        for row, (entry, word) in enumerate(zip(table.select_columns([found.image]), words, strict=True)):
            if word is not None:
                image = entry[found.image] or {}
                content = _content(image, within, f"row {row} of {name} in {address.repo}")
                place = folder / split / folders[word] / f"{row:07d}{_suffix(content, image.get('path'))}"
                _write(place, content)
                sizes[split] += 1
            done += 1
            if done % REPORT_EVERY == 0 or done == rows:
                report(done, rows)
    return Laid(sizes, notes)


def folder_names(classes: Iterable[str]) -> dict[str, str]:
    """Return a folder's name for each class: as it is, or with characters quoted as in a web address.

    What would lead elsewhere, would be hidden, or is another class's name but for case or for how an accent
    is composed, is quoted: unquoting gives the class again, unless its name is too long to be kept whole.
    """
    taken: set[str] = set()
    names = {}
    for word in sorted(classes):
        name, first = _quoted(word), 1
        while name.startswith(".") or name.lower() in tree.SYSTEMS or _alike(name) in taken:
            name, first = _quoted(word, first), first + 1
        taken.add(_alike(name))
        names[word] = name
    return names


def _quoted(word: str, first: int = 0) -> str:
    """Return a name with its first few characters quoted, and all those that a folder's name cannot have."""
    letters = [
        "".join(f"%{byte:02X}" for byte in letter.encode())
        if place < first or letter in "/\\%" or not letter.isprintable()
        else letter
        for place, letter in enumerate(word)
    ]
    name = "".join(letters) or "%"
    if len(name.encode()) <= LONGEST:
        return name
    return f"{name.encode()[: LONGEST // 2].decode(errors='ignore')}~{digest(word)[:12]}"


def _alike(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _one(what: str, found: list[str], features: Features, address: Address) -> str:
    """Return the column that was chosen, or the only one of its kind."""
    chosen: str | None = getattr(address, what)
    if chosen is not None:
        if chosen not in features:
            raise unknown("column", chosen, features, str(address))
        if chosen not in found and not (what == "label" and _is_word(features[chosen])):
            raise UsageError(
                f"column {chosen} of {address.repo} holds {_kind(features[chosen])}, no {what}",
                " or ".join(address.option(**{what: name}) for name in found[:3]) or _WANTED,
            )
        return chosen
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"{address.repo} has {len(found)} columns that may be the {what}: {', '.join(found)}",
            " or ".join(address.option(**{what: name}) for name in found[:3]),
        )
    held = ", ".join(f"{name} ({_kind(feature)})" for name, feature in features.items())
    one = " with one class for each image" if what == "label" else ""
    raise UsageError(f"{address.repo} has no column of {what}s{one}: it has {held}", _WANTED)


_WANTED = "lists of labels and boxes are not read: choose a data set for classification"


def _labels(features: Features) -> list[str]:
    classes = [name for name, feature in features.items() if _kind(feature) == "ClassLabel"]
    # WebDataset's own columns begin with two underscores.
    words = [name for name, feature in features.items() if _is_word(feature) and not name.startswith("__")]
    return classes or words


def _kind(feature: object) -> str:
    """Return the type of a column as `datasets` names it; of a plain value, what it is a value of."""
    name = type(feature).__name__
    return str(getattr(feature, "dtype", name)) if name == "Value" else name


def _is_word(feature: object) -> bool:
    kind = _kind(feature)
    return kind in {"ClassLabel", "string", "large_string"} or kind.startswith(_NUMBERS)


def _named(splits: Mapping[str, Any]) -> tuple[dict[str, tuple[str, Any]], list[str]]:
    """Return each of our splits with the hub's name for it, and what is left out."""
    ours = {word: split for split, words in tree.SPLITS.items() for word in words}
    filled = {name: table for name, table in splits.items() if len(table)}
    notes = [f"left out, a split without rows: {name}" for name in splits if name not in filled]
    if len(filled) == 1:
        (name,) = filled
        if ours.get(name.lower()) != "train":
            notes.append(f"the only split, {name}, is taken for train")
        return {"train": (name, filled[name])}, notes
    found: dict[str, tuple[str, Any]] = {}
    for name, table in filled.items():
        split = ours.get(name.lower())
        if split and split not in found:
            found[split] = name, table
        else:
            notes.append(
                f"left out, neither train, validation nor test: the split {name}, {len(table):,} rows"
            )
    return found, notes


def _classes(table: Any, label: str, where: str) -> list[str | None]:  # noqa: ANN401 - a table of `datasets`
    """Return the class of each row, None where it has none."""
    feature, values = table.features[label], list(table[label])
    if _kind(feature) == "ClassLabel":
        names = feature.names
        if (most := max((value for value in values if value is not None), default=-1)) >= len(names):
            raise UsageError(f"label {most} of {where} is beyond its {len(names)} classes", _WANTED)
        return [None if value is None or value < 0 else names[value] for value in values]
    if set(values) == {-1}:
        return [None] * len(values)  # how the labels of a test are kept secret
    return [None if value is None else str(value) for value in values]


def _known(
    classes: Mapping[str, Sequence[str | None]],
    label: str,
    named: Mapping[str, tuple[str, Any]],
    address: Address,
    notes: Sequence[str],
) -> set[str]:
    """Return the classes of all splits; raise if there is none, or if they are no classes."""
    known = {word for words in classes.values() for word in words if word is not None}
    if not known:
        raise UsageError(f"{address.repo} has no labels to use: {'; '.join(notes)}", _WANTED)
    rows = sum(map(len, classes.values()))
    feature = named[next(iter(classes))][1].features[label]
    if _kind(feature) != "ClassLabel" and 2 * len(known) > max(rows, 4):
        raise UsageError(
            f"column {label} of {address.repo} has {len(known):,} values in {rows:,} rows: no classes",
            f"name the column of the classes: {address.option(label='COLUMN')}",
        )
    return known


def _content(image: Mapping[str, Any], within: Sequence[Path], where: str) -> bytes:
    """Return the bytes of an image as they came, none if the row has no image."""
    if (content := image.get("bytes")) is not None:
        return bytes(content)
    if not (path := image.get("path")):
        return b""
    place = Path(path).resolve()
    if not any(place.is_relative_to(folder.resolve()) for folder in within):
        raise UsageError(f"{where} names the file {path}, which is not the data set's", _WANTED)
    return place.read_bytes()


def _suffix(content: bytes, path: str | None) -> str:
    """Return the ending for an image by what it holds; of what is no image, the one it had."""
    endings = Image.registered_extensions()
    try:
        with Image.open(io.BytesIO(content)) as picture:
            kind = picture.format
    except Exception:  # noqa: BLE001 - each of Pillow's formats has its own way to stumble over bytes
        kind = None
    had = Path(path or "").suffix.lower()
    if had in endings and kind in {None, endings[had]}:
        return had
    usual = {"JPEG": ".jpg", "TIFF": ".tif", "PPM": ".ppm", None: ".jpg"}
    return usual.get(kind) or next((end for end, its in endings.items() if its == kind), ".jpg")


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, unless it is there: a name stands for a row of a commit."""
    if path.is_file() and path.stat().st_size == len(content):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)  # noqa: PTH105 - one call, atomic by POSIX
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
