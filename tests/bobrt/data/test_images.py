"""An image file becomes the pixels a viewer shows, or is refused by name."""

from __future__ import annotations

import pickle
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from bobrt.data import images
from bobrt.data.images import Files, ImageError, decode

if TYPE_CHECKING:
    from pathlib import Path

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
CUT = ["bmp", "gif", "jp2", "jpg", "png", "ppm", "tga", "tif", "webp"]
"""Formats that are cut off somewhere."""


def corners(mode: str = "RGB") -> Image.Image:
    """Return an image of 30 x 20 pixels whose quarters are red, green / blue, white."""
    picture = Image.new("RGB", (30, 20), WHITE)
    for colour, left, top in ((RED, 0, 0), (GREEN, 15, 0), (BLUE, 0, 10)):
        picture.paste(colour, (left, top, left + 15, top + 10))
    return picture.convert(mode)


def seen(pixels: np.ndarray) -> list[tuple[int, ...]]:
    """Return the colours near the corners: upper left, upper right, lower left, lower right."""
    return [tuple(pixels[y, x].tolist()) for y in (2, -3) for x in (2, -3)]


def noise(seed: int = 0, size: tuple[int, int] = (40, 60)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def bomb(path: Path, width: int, height: int) -> None:
    """Write a PNG that says it has so many pixels; it would be as small with all of them in it."""
    Image.new("1", (8, 8)).save(path)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)


def refusal(path: Path, box: Any = None) -> ImageError:
    """Return the error a file is refused with; it names the file and says what to do."""
    with pytest.raises(ImageError) as caught:
        decode(path, box)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("mode", "ending"),
    [
        ("RGB", "bmp"),
        ("RGB", "png"),
        ("RGB", "ppm"),
        ("RGB", "tga"),
        ("RGB", "tif"),
        ("RGBA", "png"),
        ("RGBA", "webp"),
        ("P", "gif"),
        ("P", "png"),
        ("P", "bmp"),
        ("CMYK", "tif"),
        ("RGB", "jp2"),
    ],
)
def test_colours_are_those_of_the_picture(tmp_path: Path, mode: str, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    corners(mode).save(path, **({"lossless": True} if ending == "webp" else {}))
    pixels = decode(path)
    assert (pixels.shape, pixels.dtype) == ((20, 30, 3), np.uint8)
    assert seen(pixels) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_a_jpeg_has_its_colours_about_right(tmp_path: Path, mode: str) -> None:
    """One of four inks is stored upside down by convention: a negative would be far off."""
    corners(mode).save(tmp_path / "a.jpg", quality=95)
    wanted = np.asarray(corners()).astype(int)
    assert np.abs(decode(tmp_path / "a.jpg").astype(int) - wanted)[2:8, 2:12].max() < 8


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_grey_is_three_times_the_same(tmp_path: Path, mode: str) -> None:
    picture = Image.new("L", (4, 3), 255)
    picture.putpixel((0, 0), 0)
    picture.convert(mode).save(tmp_path / "a.png")
    pixels = decode(tmp_path / "a.png")
    assert pixels[0, 0].tolist() == [0, 0, 0]
    assert pixels[2, 3].tolist() == [255, 255, 255]


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path, ending: str) -> None:
    """Darkest, middle and brightest stay apart; an image of eight bits in sixteen comes back exactly."""
    path = tmp_path / f"a.{ending}"
    deep = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    Image.fromarray(deep).save(path)
    assert np.array_equal(decode(path)[..., 1], np.arange(256).reshape(16, 16))
    Image.fromarray(np.array([[0, 127, 129, 32768, 65535]], dtype=np.uint16)).save(path)
    assert decode(path)[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_a_sixteen_bit_image_of_an_inverted_scanner_is_turned_round(tmp_path: Path) -> None:
    """TIFF may say that zero is white, as X-rays do."""
    Image.fromarray(np.array([[0, 65535]], dtype=np.uint16)).save(tmp_path / "a.tif", tiffinfo={262: 0})
    assert decode(tmp_path / "a.tif")[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize(
    "pixels",
    [
        np.array([[0.0, 0.5, 1.0]], dtype=np.float32),
        np.array([[0, 70_000]], dtype=np.int32),
        np.array([[-5, 5]], dtype=np.int32),
    ],
    ids=["floats", "32 bits", "negative"],
)
def test_pixels_without_a_known_white_are_refused(tmp_path: Path, pixels: np.ndarray) -> None:
    """Made black or clipped, they would be wrong without a word."""
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    error = refusal(tmp_path / "a.tif")
    assert error.problem == "unclear"
    assert "nothing says which" in error.message
    assert "8 or 16 bits" in error.hint


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    """Whole, half and not at all, whatever colour lies below; of a palette and of a key colour too."""
    clear = Image.new("RGBA", (3, 1))
    for x, alpha in enumerate((0, 128, 255)):
        clear.putpixel((x, 0), (255, 0, 0, alpha))
    clear.save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png")[0].tolist() == [[255, 255, 255], [255, 127, 127], [255, 0, 0]]

    listed = corners("P")
    for ending in ("gif", "png"):
        listed.save(tmp_path / f"b.{ending}", transparency=listed.getpixel((0, 0)))
        assert seen(decode(tmp_path / f"b.{ending}")) == [WHITE, GREEN, BLUE, WHITE]
    corners().save(tmp_path / "c.png", transparency=GREEN)
    assert seen(decode(tmp_path / "c.png")) == [RED, WHITE, BLUE, WHITE]
    listed.save(tmp_path / "d.png", transparency=bytes([0] * 256))  # a transparency for each of the colours
    assert (decode(tmp_path / "d.png") == 255).all()


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_as_its_camera_says(tmp_path: Path, orientation: int, ending: str) -> None:
    """The sensor's image of each way to hold a camera is shown upright: once, not twice."""
    as_held = {
        1: lambda p: p,
        2: lambda p: p.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda p: p.transpose(Image.Transpose.ROTATE_180),
        4: lambda p: p.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda p: p.transpose(Image.Transpose.TRANSPOSE),
        6: lambda p: p.transpose(Image.Transpose.ROTATE_90),
        7: lambda p: p.transpose(Image.Transpose.TRANSVERSE),
        8: lambda p: p.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}.get(ending, {})
    path = tmp_path / f"a.{ending}"
    as_held(corners()).save(path, exif=exif, **options)
    pixels = decode(path)
    assert pixels.shape == (20, 30, 3)
    assert np.abs(np.array(seen(pixels)) - np.array([RED, GREEN, BLUE, WHITE])).max() < 8


@pytest.mark.parametrize("orientation", [0, 9, 99])
def test_an_orientation_that_does_not_exist_turns_nothing(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    corners().save(tmp_path / "a.png", exif=exif)
    assert seen(decode(tmp_path / "a.png")) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # as outside of pytest
def test_damage_in_exif_is_no_damage_to_the_picture(tmp_path: Path) -> None:
    """A viewer shows it; thousands of photographs on the web are like that."""
    for number, words in enumerate(
        (b"Exif\x00\x00garbage", b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x05\x00\x12\x01")
    ):
        path = tmp_path / f"{number}.jpg"
        corners().save(path, exif=words, quality=95)
        assert decode(path).shape == (20, 30, 3)


@pytest.mark.parametrize("ending", ["gif", "png", "tif", "webp"])
def test_an_animation_is_its_first_picture(tmp_path: Path, ending: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, BLUE, GREEN)]
    path = tmp_path / f"a.{ending}"
    frames[0].save(
        path, save_all=True, append_images=frames[1:], **({"lossless": True} if ending == "webp" else {})
    )
    assert (decode(path) == RED).all()


@pytest.mark.parametrize("ending", CUT)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, ending: str, share: float) -> None:
    """Never a picture whose lower part is grey."""
    path = tmp_path / f"a.{ending}"
    Image.fromarray(noise()).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert refusal(path).problem in {"damaged", "not an image"}


@pytest.mark.parametrize(
    ("content", "problem", "says"),
    [
        (b"", "empty", "has no bytes"),
        (b"words, and no image", "not an image", "is no image"),
        (b"\x00" * 1000, "not an image", "is no image"),
        (b"\x89PNG\r\n\x1a\n", "not an image", "is no image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", "unclear", "is PostScript"),
    ],
    ids=["empty", "words", "zeros", "a head alone", "postscript"],
)
def test_what_is_no_image_is_told_apart(tmp_path: Path, content: bytes, problem: str, says: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    error = refusal(path)
    assert error.problem == problem
    assert says in error.message


def test_a_file_that_is_not_there_or_a_folder_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    for name, says in (("gone.png", "No such file"), ("folder.png", "Is a directory")):
        error = refusal(tmp_path / name)
        assert error.problem == "unreadable"
        assert says in error.message


@pytest.mark.parametrize("ending", ["jpg", "png", "gif", "tif", "webp", "bmp"])
def test_flipped_bytes_end_in_pixels_or_in_an_error_that_names_the_file(tmp_path: Path, ending: str) -> None:
    """Whatever Pillow stumbles over, it is never anything else."""
    path = tmp_path / f"a.{ending}"
    Image.fromarray(noise()).save(path)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    refused = []
    for _ in range(60):
        broken = whole.copy()
        places = rng.integers(0, min(len(whole), 400), 5)
        broken[places] = rng.integers(0, 256, 5)
        path.write_bytes(broken.tobytes())
        try:
            assert decode(path).shape[2:] == (3,)
        except ImageError as error:
            refused.append(error.message)
    assert refused
    assert all(str(path) in message for message in refused)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # as outside of pytest
@pytest.mark.parametrize("size", [(30_000, 30_000), (30_000, 2), (2, 30_000), (10_001, 10_000)])
def test_an_image_of_30_000_pixels_a_side_is_refused_before_it_is_decoded(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    """A file of kilobytes that would become gigabytes: the bound is said, its pixels are not looked at."""
    path = tmp_path / "bomb.png"
    bomb(path, *size)
    error = refusal(path)
    assert error.problem == "too large"
    assert "100,000,000" in error.message
    assert "25,000" in error.message
    assert "smaller" in error.hint


def test_a_bomb_costs_neither_memory_nor_a_warning(tmp_path: Path) -> None:
    """In a process that may have 2 GB, a decoded bomb would end it; Pillow's warnings are not for users."""
    Image.new("1", (9_700, 9_700)).save(tmp_path / "large.png", compress_level=1)
    bomb(tmp_path / "bomb.png", 30_000, 30_000)
    exif = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x05\x00\x12\x01"
    corners().save(tmp_path / "exif.jpg", exif=exif)
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))\n"
        "from bobrt.data.images import ImageError, decode\n"
        "print(decode(sys.argv[1]).shape, decode(sys.argv[2]).shape)\n"
        "try: decode(sys.argv[3])\n"
        "except ImageError as error: print(error.problem)\n"
    )
    files = [str(tmp_path / name) for name in ("large.png", "exif.jpg", "bomb.png")]
    command = [sys.executable, "-c", code, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["(9700, 9700, 3) (20, 30, 3)", "too large"]
    assert done.stderr == ""


def test_a_box_is_cut_out_of_what_is_shown(tmp_path: Path) -> None:
    """Rounded to pixels, kept within the image, and told from the upright picture."""
    corners().save(tmp_path / "a.png")
    whole = decode(tmp_path / "a.png")
    assert np.array_equal(decode(tmp_path / "a.png", (14.6, 0.4, 20.4, 5)), whole[0:5, 15:20])
    assert np.array_equal(decode(tmp_path / "a.png", (-5, -5, 3, 99)), whole[:, :3])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    corners().transpose(Image.Transpose.ROTATE_90).save(tmp_path / "b.png", exif=exif)
    assert np.array_equal(decode(tmp_path / "b.png", (20, 0, 30, 5)), whole[0:5, 20:30])
    error = refusal(tmp_path / "a.png", (30, 0, 40, 5))
    assert "30 x 20 pixels, and none in the box (30, 0, 40, 5)" in error.message


def test_an_error_keeps_what_it_says_on_its_way_from_another_process(tmp_path: Path) -> None:
    error = refusal(tmp_path / "gone.png")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (again.message, again.hint, again.problem) == (error.message, error.hint, error.problem)


def test_files_decode_what_is_indexed_and_nothing_else(tmp_path: Path) -> None:
    """A slice, a choice of rows and a copy in another process open nothing: most files do not even exist."""
    corners().save(tmp_path / "a.png")
    gone, there = tmp_path / "gone.png", tmp_path / "a.png"
    files = Files([there, gone, there, str(there)], [None, None, (15, 0, 20, 5), None])
    assert len(files) == 4
    assert np.array_equal(files[0], decode(there))
    assert files[-1].shape == (20, 30, 3)
    part = pickle.loads(pickle.dumps(files[1:]))  # noqa: S301 - our own
    assert isinstance(part, Files)
    assert len(part) == 3
    assert part.some([1, 1])[1].shape == (5, 5, 3)
    assert (part.some(np.array([1]))[0] == GREEN).all()
    assert len(files[5:]) == 0
    with pytest.raises(ImageError, match=r"cannot open the image .*gone\.png"):
        part[0]
    with pytest.raises(ImageError, match=r"cannot open the image .*gone\.png"):
        files.sizes()
    assert files[2:].sizes() == [there.stat().st_size] * 2
    with pytest.raises(IndexError):
        files[4]
    with pytest.raises(ValueError, match="1 boxes for 2 images"):
        Files([there, there], [None])


def test_many_files_are_a_list_of_names() -> None:
    """Made, cut and sent in bytes of the order of their names; none of them exists."""
    files = Files([f"/data/{number:07}.jpg" for number in range(200_000)])
    assert len(pickle.dumps(files)) < 6e6
    assert len(files[10:]) == 199_990
    assert files[199_999:].paths == ["/data/0199999.jpg"]


def test_threads_decode_the_same_as_one(tmp_path: Path) -> None:
    """Nothing is shared between two calls, and no filter of warnings is left behind."""
    for number in range(12):
        Image.fromarray(noise(number)).save(tmp_path / f"{number:02}.png")
    files = Files(sorted(tmp_path.iterdir()))
    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda row: files[row % 12], range(48)))
    assert all(np.array_equal(pixels, noise(row % 12)) for row, pixels in enumerate(got))
    assert warnings.filters == before


def test_the_bounds_are_those_of_the_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the bound an image passes, one pixel more and it does not."""
    corners().save(tmp_path / "a.png")
    monkeypatch.setattr(images, "LARGEST", 600)
    monkeypatch.setattr(images, "LONGEST", 30)
    assert decode(tmp_path / "a.png").shape == (20, 30, 3)
    monkeypatch.setattr(images, "LARGEST", 599)
    assert "30 x 20 pixels: more than 599" in refusal(tmp_path / "a.png").message
    monkeypatch.setattr(images, "LARGEST", 600)
    monkeypatch.setattr(images, "LONGEST", 29)
    assert "29 on a side" in refusal(tmp_path / "a.png").message
