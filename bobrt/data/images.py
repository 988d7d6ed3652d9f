"""From an image file to pixels: any format Pillow reads, as a viewer shows it, or refused by name."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, overload

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from bobrt.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Box = tuple[float, float, float, float]
    """Left, upper, right and lower side, in pixels of the image as it is shown."""

Problem = Literal["unreadable", "empty", "not an image", "damaged", "too large", "unclear"]
"""What is wrong with a file: it cannot be opened, has no bytes, holds something else, is cut off or
broken, is above a bound, or its pixels have no brightness that is beyond doubt."""

LARGEST = 100_000_000
"""Pixels; decoded they are 300 MB. Pillow warns from 89 million on and refuses twice that."""
LONGEST = 25_000
"""Pixels of a side."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings an image with this EXIF orientation upright."""
_LYING = {_TURNS[turn] for turn in (5, 6, 7, 8)}
"""Those that change width for height."""
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0

# Of bombs the bound here decides, and damaged EXIF is no news to the user. Set once: a filter around each
# call would not be safe in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


class ImageError(UsageError):
    """An image file is of no use; the message names it."""

    def __init__(self, message: str, hint: str = "", problem: Problem = "damaged") -> None:
        super().__init__(message, hint or "replace the file, or take it out of the folder")
        self.problem = problem


def decode(file: Path | str, box: Box | None = None) -> NDArray[np.uint8]:
    """Return the pixels of an image file as `uint8 [height, width, 3]`, read-only.

    As a viewer shows it on a white page: turned as its EXIF says, the first picture of an animation, what
    is transparent on white (the colour below a transparent pixel is whatever the encoder left there),
    16-bit grey scaled to eight bits. Colour profiles are not applied.

    Args:
        file: Of any format Pillow reads, but PostScript, which is a program.
        box: The part that is wanted, rounded to pixels; what is beyond the image is left out.

    Raises:
        ImageError: It cannot be opened, is no image, is cut off, has more than `LARGEST` pixels or more
            than `LONGEST` on a side, or its pixels are floats or 32-bit numbers without a known white.

    """
    try:
        with Image.open(file) as picture:
            _require_bounded(picture, file)
            picture.load()
            turn = _turn(picture)
            shown = _in_colour(picture, file)
            return np.asarray(_cut(shown.transpose(turn) if turn is not None else shown, box, file))
    except ImageError:
        raise
    except Exception as error:  # each of Pillow's formats has its own way to stumble over bytes
        raise _explained(file, error) from error


def shape(file: Path | str, box: Box | None = None) -> tuple[int, int]:
    """Return height and width of what `decode` would return, from the file's header alone.

    Raises:
        ImageError: It cannot be opened, is no image, is too large, or has no pixel in the box.

    """
    try:
        with Image.open(file) as picture:
            _require_bounded(picture, file)
            width, height = picture.size[::-1] if _turn(picture) in _LYING else picture.size
    except ImageError:
        raise
    except Exception as error:
        raise _explained(file, error) from error
    if box is not None:
        left, upper, right, lower = _inside((width, height), box, file)
        width, height = right - left, lower - upper
    return height, width


class Files(Sequence["NDArray[np.uint8]"]):
    """Images in files: indexing decodes one, slicing decodes none.

    Args:
        paths: One image each.
        boxes: The part of each that is wanted, or None for all of all.

    """

    def __init__(self, paths: Sequence[Path | str], boxes: Sequence[Box | None] | None = None) -> None:
        if boxes is not None and len(boxes) != len(paths):
            raise ValueError(f"{len(boxes)} boxes for {len(paths)} images")
        # As text: a million `Path`s take five times the memory, and seconds to send to another process.
        self.paths = [os.fspath(path) for path in paths]
        self.boxes = None if boxes is None else list(boxes)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.uint8]: ...

    @overload
    def __getitem__(self, index: slice) -> Files: ...

    def __getitem__(self, index: int | slice) -> NDArray[np.uint8] | Files:
        """Return an image, or a part of them that is still in files."""
        if isinstance(index, slice):
            return Files(self.paths[index], None if self.boxes is None else self.boxes[index])
        return decode(self.paths[index], None if self.boxes is None else self.boxes[index])

    def some(self, rows: Sequence[int]) -> Files:
        """Return the images of these rows, in their order."""
        boxes = None if self.boxes is None else [self.boxes[row] for row in rows]
        return Files([self.paths[row] for row in rows], boxes)

    def shapes(self) -> list[tuple[int, int]]:
        """Return height and width of each image as `decode` returns it; raise `ImageError` as it does."""
        boxes = self.boxes or [None] * len(self.paths)
        return [shape(path, box) for path, box in zip(self.paths, boxes, strict=True)]

    def sizes(self) -> list[int]:
        """Return the bytes of each file; raise `ImageError` naming one that is gone."""
        try:
            return [os.stat(path).st_size for path in self.paths]  # noqa: PTH116 - they are text
        except OSError as error:
            raise _explained(error.filename, error) from error


def _require_bounded(picture: Image.Image, file: Path | str) -> None:
    width, height = picture.size
    if width * height > LARGEST or max(picture.size) > LONGEST:
        raise _too_large(file, f"has {width:,} x {height:,} pixels")
    if picture.format == "EPS":
        raise ImageError(f"the image {file} is PostScript, a program that is not run", problem="unclear")


def _too_large(file: Path | str, what: str) -> ImageError:
    return ImageError(
        f"the image {file} {what}: more than {LARGEST:,} in all or {LONGEST:,} on a side are refused",
        "make it smaller, or take it out of the folder",
        "too large",
    )


def _turn(picture: Image.Image) -> Image.Transpose | None:
    """Return what brings a loaded picture upright. Damage in its EXIF is no damage to its pixels."""
    try:
        return _TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - nor has Pillow one word for what is wrong with EXIF
        return None


def _in_colour(picture: Image.Image, file: Path | str) -> Image.Image:
    if picture.mode.startswith("I"):
        return _from_deep_grey(picture, file)
    if picture.mode in {"F", "LAB"}:
        raise ImageError(
            f"the image {file} has pixels of mode {picture.mode}: nothing says which value is white",
            "save it with 8 or 16 bits",
            "unclear",
        )
    if picture.has_transparency_data:
        clear = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
    return picture.convert("RGB")


def _from_deep_grey(picture: Image.Image, file: Path | str) -> Image.Image:
    """Return 16-bit grey by its share of white: Pillow's own conversion cuts off all above 255."""
    tags = getattr(picture, "tag_v2", {})
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    white = 2 ** min(bits, 16) - 1
    values = np.asarray(picture).astype(np.int64)
    if values.min() < 0 or values.max() > white:
        raise ImageError(
            f"the image {file} has values from {values.min()} to {values.max()}: nothing says which is white",
            "save it with 8 or 16 bits",
            "unclear",
        )
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        values = white - values
    return Image.fromarray(((values * 255 + white // 2) // white).astype(np.uint8)).convert("RGB")


def _cut(picture: Image.Image, box: Box | None, file: Path | str) -> Image.Image:
    return picture if box is None else picture.crop(_inside(picture.size, box, file))


def _inside(size: tuple[int, int], box: Box, file: Path | str) -> tuple[int, int, int, int]:
    """Return the part of a box that is in an image of this width and height, in whole pixels."""
    left, upper, right, lower = (round(side) for side in box)
    width, height = size
    inside = max(0, left), max(0, upper), min(width, right), min(height, lower)
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        raise ImageError(f"the image {file} has {width} x {height} pixels, and none in the box {box}")
    return inside


def _explained(file: Path | str, error: Exception) -> ImageError:
    """Return the error for what Pillow or the system raised over a file."""
    if isinstance(error, OSError) and error.errno is not None:
        return ImageError(f"cannot open the image {file}: {error.strerror}", problem="unreadable")
    if isinstance(error, Image.DecompressionBombError):
        return _too_large(file, f"has more than {LARGEST:,} pixels")
    if isinstance(error, UnidentifiedImageError):
        if not os.stat(file).st_size:  # noqa: PTH116 - may be text
            return ImageError(f"the image {file} is empty: it has no bytes", problem="empty")
        return ImageError(f"{file} is no image of a format that is known here", problem="not an image")
    said = " ".join(str(error).split()) or type(error).__name__
    return ImageError(f"the image {file} is damaged or cut off: {said}")
