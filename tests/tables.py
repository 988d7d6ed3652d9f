"""Tables of small images, as data sets of the hub have them."""

from __future__ import annotations

import io
from typing import Any

import datasets
import numpy as np
from datasets import ClassLabel, Dataset, Features
from PIL import Image

PICTURE = datasets.Image()
CLASSES = ("cat", "dog")


def picture(seed: int, kind: str = "PNG", side: int = 8) -> bytes:
    """Return an image file of its own."""
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def rows(count: int, first: int = 0, **more: list[Any]) -> dict[str, list[Any]]:
    """Return images of two classes in turn."""
    images = [
        {"bytes": picture(first + row, "JPEG" if row % 2 else "PNG"), "path": None} for row in range(count)
    ]
    return {"image": images, "label": [row % 2 for row in range(count)], **more}


def parquet(content: dict[str, list[Any]], **features: Any) -> bytes:
    """Return a table as the hub keeps it."""
    kinds = {"image": PICTURE, "label": ClassLabel(names=list(CLASSES)), **features}
    file = io.BytesIO()
    Dataset.from_dict(content, features=Features({name: kinds[name] for name in content})).to_parquet(file)
    return file.getvalue()
