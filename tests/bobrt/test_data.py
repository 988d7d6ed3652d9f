"""The splits are fixed, disjoint and stratified, pinned by digest; one resize serves everyone."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from bobrt import data
from bobrt.catalogue import TASKS
from bobrt.data import Split, digits
from bobrt.data.resize import resize
from bobrt.errors import MachineError, UsageError
from bobrt.spec import TaskCard, Transform

if TYPE_CHECKING:
    from pathlib import Path

CARD = TASKS.get("digits")


@pytest.fixture(scope="module")
def splits() -> dict[str, Split]:
    """Every split of the digits."""
    return {name: data.load(CARD, name) for name in CARD.splits}


def test_the_splits_have_the_sizes_of_the_card(splits: dict[str, Split]) -> None:
    """All 1,797 images are used, each once."""
    assert {name: len(split.ids) for name, split in splits.items()} == CARD.splits
    ids = [one for split in splits.values() for one in split.ids]
    assert len(set(ids)) == len(ids) == 1797


def test_no_image_is_in_two_splits(splits: dict[str, Split]) -> None:
    """Nothing that is tested was trained on, under another id neither."""
    content = {name: {image.tobytes() for image in split.images} for name, split in splits.items()}
    assert not content["train"] & content["test"]
    assert not content["train"] & content["validation"]
    assert not content["validation"] & content["test"]


def test_the_splits_are_stratified(splits: dict[str, Split]) -> None:
    """Each class has the same share of every split, to within two points."""
    everything = np.concatenate([split.targets for split in splits.values()])
    whole = np.bincount(everything, minlength=10) / len(everything)
    for split in splits.values():
        share = np.bincount(split.targets, minlength=10) / len(split.targets)
        assert np.abs(share - whole).max() < 0.02


def test_images_are_what_a_camera_gives(splits: dict[str, Split]) -> None:
    """uint8, three channels, the whole range; a target for each, a label for each class."""
    for split in splits.values():
        assert len(split.images) == len(split.ids) == len(split.targets)
        assert split.targets.dtype == np.int64
        assert {(image.dtype.str, image.shape) for image in split.images} == {("|u1", (8, 8, 3))}
        assert set(split.targets.tolist()) == set(range(len(CARD.labels)))
    pixels = np.stack(splits["test"].images)
    assert (pixels.min(), pixels.max()) == (0, 255)


def test_images_targets_and_splits_are_those_of_scikit_learn(splits: dict[str, Split]) -> None:
    """The id leads back to the very image of its bundle, the split to its own stratified one."""
    bunch = load_digits()
    everything = np.arange(len(bunch.target))
    rest, test = train_test_split(everything, test_size=450, stratify=bunch.target, random_state=0)
    train, validation = train_test_split(rest, test_size=269, stratify=bunch.target[rest], random_state=0)
    rows = {"train": train, "validation": validation, "test": test}
    for name, split in splits.items():
        assert split.ids == [f"digits/{row:04d}" for row in sorted(rows[name])]
        mine = [int(one.removeprefix("digits/")) for one in split.ids]
        assert split.targets.tolist() == bunch.target[mine].tolist()
        grey = np.stack(split.images)[..., 0].astype(float) * 16 / 255
        assert np.abs(grey - bunch.images[mine]).max() < 0.05


def test_no_image_costs_the_import_of_scikit_learn() -> None:
    """It takes a second, and every process that measures a row reads images."""
    code = (
        "import sys; from bobrt import data; from bobrt.catalogue import TASKS\n"
        "print(len(data.load(TASKS.get('digits'), 'test').ids), {'sklearn', 'scipy'} & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split(maxsplit=1) == ["450", "set()\n"]


@pytest.mark.parametrize("card", [card for card in TASKS.all().values() if card.data == data.DIGITS])
def test_the_digest_is_that_of_the_card(card: TaskCard) -> None:
    """The data is pinned, the digits of eight classes as well as those of ten."""
    names = ("train", "validation", "test")
    assert data.digest_of({name: data.load(card, name) for name in names}) == card.data_sha256


def test_the_digest_sees_every_pixel_target_id_and_name(splits: dict[str, Split]) -> None:
    """Another image, another label, another name or another split is other data."""
    base = {"test": splits["test"].head(3)}
    ids, images, targets = base["test"]
    brighter = [images[0] ^ np.uint8(1), *images[1:]]
    digests = {
        data.digest_of(changed)
        for changed in (
            base,
            {"test": Split(ids, brighter, targets)},
            {"test": Split(ids, images, targets[::-1])},
            {"test": Split([*ids[:2], "x"], images, targets)},
            {"train": base["test"]},
            {"test": splits["test"].head(2)},
        )
    }
    assert len(digests) == 6


@pytest.mark.parametrize(
    "change", [{"data_sha256": "0" * 64}, {"splits": {"train": 1, "validation": 1, "test": 1}}]
)
def test_data_that_is_not_what_its_card_pins_is_refused(change: dict[str, object]) -> None:
    """One line: the task, what was found, and how to get the pinned data."""
    with pytest.raises(UsageError) as caught:
        data.load(msgspec.structs.replace(CARD, **change), "test")
    found = f"{{'train': 1078, 'validation': 269, 'test': 450}}, {CARD.data_sha256[:12]}..."
    assert caught.value.message.startswith(f"the data of task digits is not what its card pins: {found}")
    assert caught.value.hint == data.ANEW


@pytest.mark.parametrize(
    "content", [None, b"", b"PK\x03\x04", b"version https://git-lfs.github.com/spec/v1\n"]
)
def test_an_install_without_its_digits_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    """Gone, cut, or the pointer that another tool has left in its place: one line, and what to do."""
    monkeypatch.setattr(digits, "FILE", tmp_path / "digits.npz")
    if content is not None:
        digits.FILE.write_bytes(content)

    with pytest.raises(MachineError, match="the digits of this install cannot be read: ") as caught:
        digits.read()

    assert "\n" not in caught.value.message
    assert caught.value.hint == data.ANEW


def test_a_format_nobody_wrote_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nearest ones that exist are in the hint."""
    monkeypatch.setenv("BOBRT_DATA", str(tmp_path))
    (tmp_path / "digits").mkdir()
    with pytest.raises(UsageError, match="unknown format 'flower'") as caught:
        data.load(msgspec.structs.replace(CARD, data="flower"), "test")
    assert "flowers" in caught.value.hint


def test_head_takes_the_first_of_everything(splits: dict[str, Split]) -> None:
    """A limited split is the beginning of the whole; without a limit it is the whole."""
    head = splits["test"].head(7)
    assert (len(head.ids), len(head.images), len(head.targets)) == (7, 7, 7)
    assert head.ids == splits["test"].ids[:7]
    assert splits["test"].head(None).ids == splits["test"].ids


def stripes(height: int, width: int) -> np.ndarray:
    """Return an image whose red is its column and whose green is its row."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.arange(width)[None, :]
    image[..., 1] = np.arange(height)[:, None]
    return image


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(8, 8), (40, 30), (30, 41), (1, 9), (100, 33)])
def test_every_image_becomes_a_square_of_the_asked_size(shape: tuple[int, int], interpolation: str) -> None:
    """Whatever it was: uint8, three channels, one batch."""
    transform = msgspec.convert({"size": 32, "crop_pct": 0.9, "interpolation": interpolation}, Transform)
    batch = resize([stripes(*shape), stripes(*shape)], transform)
    assert (batch.shape, batch.dtype) == ((2, 32, 32, 3), np.uint8)
    assert (batch[0] == batch[1]).all()


def test_no_images_are_an_empty_batch() -> None:
    """Nothing in, nothing out."""
    assert resize([], Transform(size=32)).shape == (0, 32, 32, 3)


def test_an_image_of_the_right_size_is_left_alone() -> None:
    """No filter touches it."""
    image = stripes(32, 32)
    assert (resize([image], Transform(size=32))[0] == image).all()


@pytest.mark.parametrize(
    ("height", "width", "top", "left"), [(32, 64, 0, 16), (50, 32, 9, 0), (32, 35, 0, 1), (33, 32, 0, 0)]
)
def test_the_centre_is_cut_and_the_aspect_kept(height: int, width: int, top: int, left: int) -> None:
    """With the shorter side at the asked size, the crop is the middle of the image, pixel for pixel."""
    image = stripes(height, width)
    assert (resize([image], Transform(size=32))[0] == image[top : top + 32, left : left + 32]).all()


def test_crop_pct_leaves_a_border_out() -> None:
    """0.5 of 64 pixels: the middle 32 of an image twice the size."""
    image = stripes(64, 64)
    assert (resize([image], Transform(size=32, crop_pct=0.5))[0] == image[16:48, 16:48]).all()


@pytest.mark.parametrize(
    ("interpolation", "kernel"),
    [("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)],
)
def test_the_filter_is_the_one_of_the_transform(interpolation: str, kernel: Image.Resampling) -> None:
    """Pixel for pixel what Pillow makes of it."""
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    transform = msgspec.convert({"size": 32, "interpolation": interpolation}, Transform)
    wanted = np.asarray(Image.fromarray(image).resize((32, 32), kernel))
    assert (resize([image], transform)[0] == wanted).all()
