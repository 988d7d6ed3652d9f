"""The on-disk formats of published data sets: a reader each, named in one table."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from bobrt.errors import unknown

if TYPE_CHECKING:
    from pathlib import Path

    from bobrt.data import Listing, Retrieval

FORMATS: dict[str, str] = {
    # Classification.
    "aircraft": "bobrt.data.formats.aircraft:read",
    "chexpert": "bobrt.data.formats.chexpert:read",
    "cifar10": "bobrt.data.formats.cifar:read_10",
    "cifar100": "bobrt.data.formats.cifar:read_100",
    "dtd": "bobrt.data.formats.dtd:read",
    "eurosat": "bobrt.data.formats.eurosat:read",
    "flowers102": "bobrt.data.formats.flowers:read",
    "food101": "bobrt.data.formats.food101:read",
    "imagenet1k": "bobrt.data.formats.imagenet:read",
    "imagenet1k-10pct": "bobrt.data.formats.imagenet:read_10pct",
    "imagenet1k-1pct": "bobrt.data.formats.imagenet:read_1pct",
    "inat2019": "bobrt.data.formats.inaturalist:read_2019",
    "inat2021": "bobrt.data.formats.inaturalist:read_2021",
    "pets": "bobrt.data.formats.pets:read",
    "visda": "bobrt.data.formats.visda:read",
    # Distribution shift.
    "imagenet-a": "bobrt.data.formats.imagenet_shift:read",
    "imagenet-r": "bobrt.data.formats.imagenet_shift:read",
    "imagenet-sketch": "bobrt.data.formats.imagenet_shift:read",
    "imagenet-v2": "bobrt.data.formats.imagenet_shift:read_v2",
    "objectnet": "bobrt.data.formats.objectnet:read",
    "visda-real": "bobrt.data.formats.visda:read_real",
    # Retrieval.
    "copydays": "bobrt.data.formats.copydays:read",
    "copydays-strong": "bobrt.data.formats.copydays:read_strong",
    "cub": "bobrt.data.formats.cub:read",
    "gldv2": "bobrt.data.formats.gldv2:read",
    "inat2021-retrieval": "bobrt.data.formats.by_class:read_inaturalist",
    "instre": "bobrt.data.formats.by_class:read_instre",
    "objectnet-retrieval": "bobrt.data.formats.by_class:read_objectnet",
    "roxford5k": "bobrt.data.formats.revisited:read_oxford",
    "rparis6k": "bobrt.data.formats.revisited:read_paris",
}
"""The reader of each format, as `module:function`."""


def read(name: str, root: Path) -> Listing | Retrieval:
    """Return what a folder holds.

    Args:
        name: The format.
        root: The folder, as its publisher's archives leave it when they are unpacked.

    Raises:
        UsageError: There is no such format, or a file is not what the format says; it is named.

    """
    if name not in FORMATS:
        raise unknown("format", name, FORMATS)
    module, _, function = FORMATS[name].partition(":")
    found: Listing | Retrieval = getattr(importlib.import_module(module), function)(root)
    return found
