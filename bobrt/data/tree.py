"""The layout of a folder of images: which files are images, of which class, in which split."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from bobrt.errors import UsageError

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
"""What the folder of a split may be called, in any case."""
LAYOUT = "the layout is FOLDER/CLASS/IMAGE, or FOLDER/train/CLASS/IMAGE with validation and test beside train"

SYSTEMS = {"__macosx", "@eadir", "$recycle.bin", "lost+found"}
"""Folders that systems put between the user's own."""
_NO_PICTURES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
"""Formats Pillow knows by name and cannot draw by itself."""


class Picture(NamedTuple):
    """A file with the name of an image in a class folder."""

    name: str
    """From the root, with slashes."""
    label: str
    """The class folder's name."""


class Tree(NamedTuple):
    """What is where in a folder."""

    splits: dict[str, list[Picture]]
    """`train`, and `validation` and `test` if there are such folders; one without splits is all `train`."""
    labels: dict[str, list[str]]
    """The class folders of each split, those without an image too."""
    left_out: dict[str, list[str]]
    """By reason, the names of files and of folders that are not read."""
    notes: list[str]


class _Walked(NamedTuple):
    files: list[str]
    folders: list[str]
    left_out: dict[str, list[str]]


def read(root: Path) -> Tree:
    """Return the layout of a folder; none of its files is opened.

    Raises:
        UsageError: There is no such folder, it has not the layout, or two folders are one class or one
            split; they are named.

    """
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise UsageError(f"the folder of images {root} {what}", "name the folder that holds the images")
    walked = _walk(root)
    base = _base(walked.folders)
    found = _splits(root, base, walked)
    labels = {split: [_leaf(name) for name in _below(walked.folders, top)] for split, top in found.items()}
    for split, top in found.items():
        if not labels[split]:
            count = sum(_parent(name) == top for name in walked.files)
            what = (
                f"{count:,} images and no class folders: nothing says what they show"
                if count
                else "no images"
            )
            raise UsageError(f"the folder {root / top} has {what}", LAYOUT)
    _require_apart([(label, f"{top}/{label}".lstrip("/")) for s, top in found.items() for label in labels[s]])
    notes = [f"the splits or classes were looked for in {base}/, the only folder there is"] if base else []
    splits: dict[str, list[Picture]] = {split: [] for split in found}
    for name in walked.files:
        split = next((split for split, top in found.items() if not top or name.startswith(f"{top}/")), "")
        label, inside, _ = name[len(found[split]) :].lstrip("/").partition("/") if split else ("", "", "")
        if inside:
            splits[split].append(Picture(name, label))
        else:
            walked.left_out["outside of the class folders"].append(name)
    return Tree(splits, labels, walked.left_out, notes)


def _splits(root: Path, base: str, walked: _Walked) -> dict[str, str]:
    """Return the folder of each split; `train` is `base` itself where its folders are classes."""
    tops = _below(walked.folders, base)
    found: dict[str, str] = {}
    for split, words in SPLITS.items():
        matching = [top for top in tops if _leaf(top).lower() in words]
        if len(matching) > 1:
            raise UsageError(
                f"{' and '.join(str(root / top) for top in matching)} are both the {split} split",
                "keep one of them",
            )
        if matching:
            found[split] = matching[0]
    # A class may be called `train` too: then it is one among others, with images right inside.
    if not found or (len(found) == 1 < len(tops) and not _below(walked.folders, *found.values())):
        return {"train": base}
    if "train" not in found:
        raise UsageError(f"{root / base} has {' and '.join(found.values())} and no train", LAYOUT)
    return found


def _base(folders: list[str]) -> str:
    """Return where splits or classes begin: in the root, or in the one folder that an archive unpacks to."""
    base = ""
    words = {word for split in SPLITS.values() for word in split}
    while len(tops := _below(folders, base)) == 1 and _below(folders, tops[0]):
        if _leaf(tops[0]).lower() in words:
            break
        base = tops[0]
    return base


def _require_apart(labels: list[tuple[str, str]]) -> None:
    """Raise if two spellings would be one class: another case, or an accent composed and not."""
    first: dict[str, tuple[str, str]] = {}
    for label, name in labels:
        other, where = first.setdefault(unicodedata.normalize("NFC", label).casefold(), (label, name))
        if other != label:
            raise UsageError(
                f"the class folders {where} and {name} are one class by their names", "join or rename them"
            )


def _walk(root: Path) -> _Walked:
    endings = {
        ending
        for ending, kind in Image.registered_extensions().items()
        if kind in Image.OPEN and kind not in _NO_PICTURES
    }
    walked = _Walked([], [], defaultdict(list))
    above: dict[str, tuple[tuple[int, int], ...]] = {}

    def closed(error: OSError) -> None:
        walked.left_out["a folder that cannot be opened"].append(
            _printable(os.path.relpath(error.filename, root))
        )

    for at, folders, files in os.walk(root, followlinks=True, onerror=closed):
        prefix = "" if at == str(root) else f"{os.path.relpath(at, root)}/"
        status, chain = Path(at).stat(), above.get(_parent(at), ())
        me = status.st_dev, status.st_ino
        if me in chain:
            walked.left_out["a link to a folder it is in"].append(prefix)
            folders.clear()
            continue
        above[at] = (*chain, me)
        kept = []
        for folder in folders:
            if reason := _unseen(folder):
                walked.left_out[reason].append(_printable(f"{prefix}{folder}/"))
            else:
                kept.append(folder)
        folders[:] = kept
        walked.folders.extend(f"{prefix}{folder}" for folder in kept)
        for file in files:
            reason = _unseen(file)
            if not reason and f".{file.rpartition('.')[2].lower()}" not in endings:
                reason = "not the name of an image"
            if reason:
                walked.left_out[reason].append(_printable(prefix + file))
            else:
                walked.files.append(prefix + file)
    for names in (walked.files, walked.folders, *walked.left_out.values()):
        names.sort()
    return walked


def _unseen(name: str) -> str:
    """Return why a file or folder is passed over whatever it holds, or an empty string."""
    if name.startswith(".") or name.lower() in SYSTEMS:
        return "hidden"
    return "" if _printable(name) == name else "a name that is not UTF-8"


def _printable(name: str) -> str:
    return os.fsencode(name).decode(errors="replace")


def _below(folders: list[str], base: str) -> list[str]:
    """Return the folders that lie directly in one, `""` for the root."""
    return [name for name in folders if _parent(name) == base]


def _parent(name: str) -> str:
    return name.rpartition("/")[0]


def _leaf(name: str) -> str:
    return name.rpartition("/")[2]
