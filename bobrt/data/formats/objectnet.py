"""ObjectNet 1.0: `images/`, and `mappings/` from its folders to the classes of ImageNet-1k."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bobrt.data import Listing
from bobrt.data.formats.imagenet_shift import wnids
from bobrt.data.formats.labelled import Margins, of_folders, top, trimmed
from bobrt.data.formats.listed import AGAIN
from bobrt.errors import UsageError
from bobrt.strict import parse_json, read_text

if TYPE_CHECKING:
    from pathlib import Path

BORDER = 2
"""Pixels of a red frame that marks each image as one to test with; the authors' own reader cuts as many."""


def read(root: Path) -> Listing:
    """Return the images of those of ObjectNet's classes that ImageNet-1k has too.

    Several classes of ImageNet may be right: a bench, but a barber chair, a folding chair and a rocking
    chair for one chair. So the targets are `[n, classes]`, 1 for each that is right.

    Args:
        root: The folder with `images/` and `mappings/`, or the one with `objectnet-1.0/`.

    Raises:
        UsageError: A mapping is missing or malformed, or a folder it names is not there or empty.

    """
    base = top(root, "objectnet-1.0")
    right = _right(base / "mappings")
    classes = sorted({wnid for some in right.values() for wnid in some})
    folders = sorted(right)
    found = of_folders(base, {name: row for row, name in enumerate(folders)}, below="images")
    table = np.array([[int(wnid in right[name]) for wnid in classes] for name in folders], dtype=np.int64)
    photographed = trimmed(base, found, Margins(BORDER, BORDER, BORDER, BORDER))
    return Listing(classes, {"test": photographed._replace(targets=table[found.targets])})


def _right(mappings: Path) -> dict[str, set[str]]:
    """Return the WordNet ids that are right for each folder that has any."""
    folder_of = {label: name for name, label in _table(mappings / "folder_to_objectnet_label.json").items()}
    wnid_of = _by_label(mappings)
    path = mappings / "objectnet_to_imagenet_1k.json"
    right = {}
    for label, names in _table(path).items():
        if label not in folder_of:
            raise UsageError(f"{path}: {label!r} has no folder in folder_to_objectnet_label.json", AGAIN)
        for name in names.split("; "):
            if len(wnid_of.get(name, [])) != 1:
                how = "more than once" if name in wnid_of else "not"
                raise UsageError(
                    f"{path}: {name!r} of {label!r} is {how} in imagenet_to_label_2012_v2", AGAIN
                )
        right[folder_of[label]] = {wnid_of[name][0] for name in names.split("; ")}
    if not right:
        raise UsageError(f"{path} has no classes", AGAIN)
    return right


def _by_label(mappings: Path) -> dict[str, list[str]]:
    """Return the WordNet ids of each of ImageNet's labels; two of a thousand are there twice."""
    path = mappings / "pytorch_to_imagenet_2012_id.json"
    wnid_at = {}
    for place, line in parse_json(read_text(path, "mapping"), dict[str, int], str(path)).items():
        if not (place.isdecimal() and int(place) < len(wnids())):
            raise UsageError(f"{path}: {place!r} is no class of ImageNet-1k", AGAIN)
        wnid_at[line] = wnids()[int(place)]
    labels: dict[str, list[str]] = {}
    for line, label in enumerate(read_text(mappings / "imagenet_to_label_2012_v2", "mapping").splitlines()):
        if line in wnid_at:
            labels.setdefault(label.strip(), []).append(wnid_at[line])
    return labels


def _table(path: Path) -> dict[str, str]:
    return parse_json(read_text(path, "mapping"), dict[str, str], str(path))
