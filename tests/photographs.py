"""Small photographs for miniatures of data sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path


def photograph(path: Path, shade: int = 128, size: tuple[int, int] = (8, 6)) -> None:
    """Write a grey image, its folders too; `size` is width and height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, shade, shade)).save(path)
