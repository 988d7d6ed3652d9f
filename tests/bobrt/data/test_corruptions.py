"""Every corruption is as strong as published, looks alike at any size, and gives the same bytes anywhere."""

from __future__ import annotations

import colorsys
import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from bobrt.data import digits
from bobrt.data.corruptions import NAMES, SEVERITIES, blur, corrupt, corrupt_batch, digital, weather
from bobrt.data.corruptions.convolution import convolve, disc, streak
from bobrt.data.corruptions.size import between
from bobrt.data.resize import resize
from bobrt.errors import UsageError
from bobrt.spec import Transform

if TYPE_CHECKING:
    from pathlib import Path

Corruption = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]
NOISY = {"gaussian_noise", "shot_noise", "impulse_noise"}
DRAWN = NOISY | {"glass_blur", "motion_blur", "snow", "frost", "fog", "elastic_transform"}
"""Those in which chance has a part."""
BRIGHTER = {"snow", "frost", "brightness"}
SIDES = (8, 32, 33, 64, 224, 384)


@cache
def scene(side: int) -> np.ndarray:
    """Four views like photographs: detail at every scale, and the hard edges of a house and its windows."""
    rng, fine = np.random.default_rng(0), 448
    frequency = np.hypot(np.fft.fftfreq(fine), np.fft.fftfreq(fine)[:, None])
    frequency[0, 0] = np.inf
    detail = np.fft.ifft2(np.fft.fft2(rng.standard_normal((4, 3, fine, fine))) / frequency**1.2).real
    views = 110 + 30 * detail.transpose(0, 2, 3, 1) / detail.std()
    for number, view in enumerate(views):
        left = 60 + 40 * number
        view[160:330, left : left + 170] += (60, 20, -10)
        for window in (left + 20, left + 100):
            view[200:250, window : window + 45] = (40, 50, 80)
    small = [
        Image.fromarray(np.clip(view, 30, 225).astype(np.uint8)).resize((side, side), Image.Resampling.BOX)
        for view in views
    ]
    return frozen(np.stack([np.asarray(view) for view in small]))


@cache
def handwriting() -> np.ndarray:
    """Real digits as an engine of 32 pixels is shown them."""
    return frozen(resize(digits.read().splits["test"].images[:48], Transform(size=32)))


def frozen(images: np.ndarray) -> np.ndarray:
    """Images as Pillow may give them: not to be written."""
    images.setflags(write=False)
    return images


def spoil(images: np.ndarray, name: str, severity: int, seed: int = 0) -> np.ndarray:
    return corrupt_batch(images, range(len(images)), name, severity, seed)


def drawn_alike(corruption: Corruption, images: np.ndarray, severity: int) -> np.ndarray:
    """Images spoilt by the same draws whatever the severity: it alone makes the difference."""
    spoilt = [corruption(image, severity, np.random.default_rng(row)) for row, image in enumerate(images)]
    return np.clip(spoilt, 0, 255)


def apart(some: np.ndarray, others: np.ndarray) -> float:
    """Root mean square of the difference, in grey levels: of each image, and the mean of all."""
    squares = (some.astype(float) - others) ** 2
    return float(np.sqrt(squares.mean(axis=(1, 2, 3))).mean())


def unlike(some: np.ndarray, others: np.ndarray) -> float:
    """One minus the correlation: what of an image is lost, however bright or pale it is."""
    pairs = [np.corrcoef(one.ravel(), other.ravel())[0, 1] for one, other in zip(some, others, strict=True)]
    return 1 - float(np.mean(pairs))


def grows(distances: list[float]) -> bool:
    return all(less < more for less, more in pairwise(distances))


def test_the_names_are_the_published_ones() -> None:
    """In the order of the paper: noise, blur, weather, digital."""
    assert ", ".join(NAMES) == (
        "gaussian_noise, shot_noise, impulse_noise, defocus_blur, glass_blur, motion_blur, zoom_blur, snow, "
        "frost, fog, brightness, contrast, elastic_transform, pixelate, jpeg_compression"
    )


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name not in {"frost", "fog", "elastic_transform"}]
)
def test_a_severity_is_farther_from_the_clean_image_than_the_one_before(name: str) -> None:
    """On real digits and on views; how digits fall into fewer pixels than 32 is a matter of luck."""
    for images in (scene(64) if name == "pixelate" else handwriting(), scene(224)):
        assert grows([apart(spoil(images, name, severity), images) for severity in SEVERITIES])


@pytest.mark.parametrize("corruption", [weather.frost, weather.fog])
def test_less_of_the_image_is_left_in_thicker_weather(corruption: Corruption) -> None:
    """As published, frost and fog pale the image as they thicken: drawn alike, the likeness goes."""
    for images in (handwriting(), np.concatenate([scene(64)] * 8)):
        assert grows([unlike(drawn_alike(corruption, images, severity), images) for severity in SEVERITIES])


def test_elastic_first_stretches_then_displaces() -> None:
    """Drawn alike, 2 stretches more than 1, 5 displaces more than 3, and 3 starts anew, as published."""
    for images in (handwriting(), scene(224)):
        spoilt = [drawn_alike(digital.elastic_transform, images, severity) for severity in SEVERITIES]
        distances = [apart(some, images) for some in spoilt]
        assert grows(distances[:2])
        assert grows(distances[2:])
        assert distances[2] < distances[1]


@pytest.mark.parametrize("name", NAMES)
def test_the_mildest_changes_the_image_and_the_hardest_leaves_some(name: str) -> None:
    """More than a level of grey at 32 and 224; fewer than 0.6 of the values cut off, none of them before."""
    for side in (32, 224):
        assert apart(spoil(scene(side), name, 1), scene(side)) > 1
        hardest = spoil(scene(side), name, 5)
        assert ((hardest == 0) | (hardest == 255)).mean() < 0.6
        assert min(image.std() for image in hardest) > 1


@pytest.mark.parametrize("name", NAMES)
def test_the_brightness_moves_as_expected(name: str) -> None:
    """Snow, frost and light brighten; fog draws towards its own grey; nothing else moves the mean much."""
    for severity in SEVERITIES:
        moved = spoil(scene(64), name, severity).mean() - scene(64).mean()
        if name in BRIGHTER:
            assert moved > 15
        elif name != "fog":
            assert abs(moved) < 5
        else:
            assert spoil(handwriting(), name, severity).mean() > handwriting().mean() + 15
            assert spoil(255 - handwriting(), name, severity).mean() < 255 - handwriting().mean() - 15


@pytest.mark.parametrize(
    "name", ["snow", "frost", "brightness", "fog", "defocus_blur", "motion_blur", "zoom_blur", "contrast"]
)
def test_a_severity_looks_alike_at_another_size(name: str) -> None:
    """Spoilt at 224 and made smaller is nearly made smaller and spoilt: lengths grow with the image."""
    clean = scene(112)
    for severity in (1, 3, 5):
        large = [Image.fromarray(image) for image in spoil(scene(224), name, severity)]
        smaller = np.stack([np.asarray(image.resize((112, 112), Image.Resampling.BOX)) for image in large])
        assert apart(smaller, spoil(clean, name, severity)) < 0.25 * apart(smaller, clean)


@pytest.mark.parametrize("side", SIDES)
def test_any_size_works(side: int) -> None:
    """Odd ones, small and large ones: the shape stays, and memory is as an engine wants it."""
    for name in NAMES:
        for severity in (1, 5):
            spoilt = corrupt(scene(side)[0], name, severity, seed=0)
            assert (spoilt.shape, spoilt.dtype) == ((side, side, 3), np.uint8), name
            assert spoilt.flags.c_contiguous, name


def test_another_process_gives_the_same_bytes(tmp_path: Path) -> None:
    """Whatever it hashes by, and whatever was drawn there before."""
    np.save(tmp_path / "images.npy", scene(32))
    script = (
        "import hashlib, sys, numpy as np; from bobrt.data.corruptions import NAMES, corrupt_batch\n"
        "np.random.seed(1); images, hasher = np.load(sys.argv[1]), hashlib.sha256()\n"
        "for name in reversed(NAMES): hasher.update(corrupt_batch(images, range(4), name, 4, 3).tobytes())\n"
        "print(hasher.hexdigest())"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "images.npy")]
    env = {**os.environ, "PYTHONHASHSEED": "7"}
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout.strip()
    here = {name: spoil(scene(32), name, 4, seed=3).tobytes() for name in NAMES}
    assert said == hashlib.sha256(b"".join(here[name] for name in reversed(NAMES))).hexdigest()


def test_threads_order_and_batch_change_nothing() -> None:
    """Four threads in a shuffled order, one image each, against one batch after the other."""
    images, numbers = scene(33), [5, 2, 9, 2**40]
    jobs = [(name, severity, row) for name in NAMES for severity in SEVERITIES for row in range(len(images))]
    random.Random(0).shuffle(jobs)  # noqa: S311 - an order, not a secret
    with ThreadPoolExecutor(4) as pool:
        alone = list(pool.map(lambda job: corrupt(images[job[2]], job[0], job[1], 1, numbers[job[2]]), jobs))
    for (name, severity, row), image in zip(jobs, alone, strict=True):
        assert np.array_equal(image, corrupt_batch(images, numbers, name, severity, 1)[row]), name


@pytest.mark.parametrize("name", NAMES)
def test_chance_depends_on_seed_number_and_nothing_else(name: str) -> None:
    """Where it has a part; where it has none, nothing does."""
    image = scene(32)[0]
    first = corrupt(image, name, 3, seed=0, number=1)
    others = [corrupt(image, name, 3, seed=0, number=2), corrupt(image, name, 3, seed=1, number=1)]
    assert [np.array_equal(first, other) for other in others] == [name not in DRAWN] * 2


def test_two_severities_and_two_corruptions_do_not_share_their_draws() -> None:
    """The directions of a motion are others for each."""
    image = scene(64)[0]
    noise = [corrupt(image, "gaussian_noise", severity, 0).astype(float) - image for severity in (1, 2)]
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.05


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name not in NOISY | BRIGHTER | {"fog", "jpeg_compression"}]
)
def test_what_only_moves_or_mixes_leaves_an_even_grey_alone(name: str) -> None:
    """Kernels sum to one and borders are mirrored: not a level is lost."""
    grey = np.full((65, 65, 3), 99, np.uint8)
    for severity in SEVERITIES:
        assert np.array_equal(corrupt(grey, name, severity, seed=0), grey)


@pytest.mark.parametrize(
    ("side", "gaussian", "photons", "impulses"),
    [(32, 0.08, 100, 0.03), (64, 0.12, 50, 0.05), (224, 0.18, 12, 0.09)],
)
def test_noise_is_as_strong_as_published_at_three_sizes(
    side: int, gaussian: float, photons: float, impulses: float
) -> None:
    """Severity 3 on an even grey: the deviation, Poisson's variance, and the share of dark and of bright."""
    grey = np.full((-(-224 // side), side, side, 3), 128, np.uint8)
    noise = {name: spoil(grey, name, 3).astype(float) for name in NOISY}
    assert noise["gaussian_noise"].std() == pytest.approx(255 * gaussian, rel=0.02)
    assert noise["shot_noise"].var() == pytest.approx(128 * 255 / photons, rel=0.05)
    for value in (0, 255):
        assert (noise["impulse_noise"] == value).mean() == pytest.approx(impulses / 2, rel=0.15)


def test_constants_between_published_sizes_are_interpolated_and_beyond_them_held() -> None:
    """Exactly the published ones at the published sizes."""
    constants = (80, 65, 25)
    assert [between(side, constants) for side in (8, 32, 64, 224, 512)] == [80, 80, 65, 25, 25]
    assert 25 < between(160, constants) < between(96, constants) < 65


@pytest.mark.parametrize("radius", [0.43, 3, 10])
def test_a_disc_is_as_wide_as_its_radius_even_within_a_pixel(radius: float) -> None:
    """A disc's variance along an axis is a quarter of its radius squared; the pixels add little."""
    kernel = disc(radius).astype(float)
    place = np.arange(len(kernel)) - len(kernel) // 2
    assert kernel.sum() == pytest.approx(1)
    assert np.allclose(kernel, kernel.T)
    assert np.allclose(kernel, kernel[::-1])
    assert radius**2 / 4 < (kernel * place**2).sum() < radius**2 / 4 + 0.25


def test_a_streak_trails_to_one_side_as_a_half_gaussian() -> None:
    """Mean and direction by hand: the points at 0, 1, 2 ... of exp(-i^2 / 2 sigma^2), along 30 degrees."""
    kernel = streak(10, 3, 30, steps=20).astype(float)
    weights = np.exp(-0.5 * (np.arange(21) / 3) ** 2)
    far = (weights * np.arange(21)).sum() / weights.sum()
    place = np.arange(len(kernel)) - len(kernel) // 2
    assert (kernel * place).sum() == pytest.approx(far * np.cos(np.pi / 6), abs=1e-5)
    assert (kernel * place[:, None]).sum() == pytest.approx(far * np.sin(np.pi / 6), abs=1e-5)


def test_a_convolution_is_the_sum_it_stands_for() -> None:
    """One pixel becomes the kernel, and the border is a mirror, by the sum written out."""
    rng = np.random.default_rng(0)
    image, kernel = rng.random((9, 9, 2)).astype(np.float32), rng.random((5, 5)).astype(np.float32)
    mirrored = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="reflect")
    expected = np.zeros_like(image)
    for down in range(5):
        for across in range(5):
            expected += kernel[down, across] * mirrored[4 - down :, 4 - across :][:9, :9]
    assert np.allclose(convolve(image, kernel), expected, atol=1e-5)


def test_glass_moves_pixels_as_far_as_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 224, severity 3: three steps of up to two pixels in each direction, seen without the blur around."""
    monkeypatch.setattr(blur, "_gaussian", lambda values, _sigma: values)
    place = np.arange(224, dtype=np.uint8)
    image = np.stack(np.broadcast_arrays(place[:, None], place, np.uint8(0)), axis=-1)
    walks = (blur.glass_blur(image, 3, np.random.default_rng(0)) - image)[6:-6, 6:-6, :2]
    assert (walks.min(), walks.max()) == (-6, 6)
    assert abs(walks.mean()) < 0.05
    assert walks.std() == pytest.approx(6**0.5, rel=0.02)


@pytest.mark.parametrize("side", [32, 224])
def test_elastic_displaces_as_far_as_published(side: int) -> None:
    """Uniform noise smoothed over 2.44 pixels keeps 1 / (2 sqrt(pi) 2.44) of its root of 1/3, times 12.2."""
    size = side / 224
    rngs = [np.random.default_rng(number) for number in range(8)]
    moved = np.array([digital._displacement(side, 12.2 * size, 2.44 * size, rng) for rng in rngs])
    assert moved.std() == pytest.approx(12.2 / 3**0.5 / (2 * np.pi**0.5 * 2.44) * size, rel=0.05)
    assert abs(np.corrcoef(moved[:, 0].ravel(), moved[:, 1].ravel())[0, 1]) < 0.05


def test_a_place_between_pixels_is_their_mixture_and_beyond_the_border_a_mirror() -> None:
    """Every place by hand: a pixel, halfway to the next, one before the first, one behind the last."""
    image = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    across = np.array([[0, 1.5, -1, 4]], np.float32)
    down = np.array([[2, 2.5, 0, 1]], np.float32)
    expected = [
        image[2, 0],
        (image[2, 1] / 4 + image[2, 2] / 4 + image[3, 1] / 4 + image[3, 2] / 4),
        image[0, 1],
        image[1, 2],
    ]
    assert np.allclose(digital._sampled(image, across, down), [expected])


def test_snow_falls() -> None:
    """Its streaks are steep: two values above each other are more alike than two side by side."""
    night = np.zeros((224, 224, 3), np.uint8)
    snow = corrupt(night, "snow", 4, seed=0)[..., 0].astype(float)
    assert np.abs(np.diff(snow, axis=0)).mean() < 0.6 * np.abs(np.diff(snow, axis=1)).mean()


def test_brightness_adds_to_the_value_of_a_colour() -> None:
    """Against the standard library's hue, saturation and value; black becomes grey."""
    colours = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    colours[0, 0] = 0
    for severity in SEVERITIES:
        spoilt = corrupt(colours, "brightness", severity, seed=0)
        for before, after in zip(colours.reshape(-1, 3) / 255, spoilt.reshape(-1, 3), strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*before)
            brighter = colorsys.hsv_to_rgb(hue, saturation, min(value + severity / 10, 1))
            assert after == pytest.approx(255 * np.array(brighter), abs=0.51)


def test_fog_hides_by_its_thickness() -> None:
    """On white, what is between no fog and the whole of it: 255 / (1 + 3) and 255 at severity 5."""
    white = corrupt(np.full((224, 224, 3), 255, np.uint8), "fog", 5, seed=0)
    assert 255 / 4 <= white.min() < 100
    assert white.max() > 200


def test_an_unknown_corruption_is_answered_with_the_nearest() -> None:
    """By name."""
    with pytest.raises(UsageError, match="unknown corruption 'gausian_noise'") as caught:
        corrupt(scene(32)[0], "gausian_noise", 1, seed=0)
    assert "gaussian_noise" in caught.value.hint


@pytest.mark.parametrize("severity", [0, 6, -1])
def test_an_unknown_severity_is_answered_with_the_known_ones(severity: int) -> None:
    """No severity is taken for another."""
    with pytest.raises(UsageError, match=f"unknown severity {severity} of fog") as caught:
        corrupt_batch(scene(32), range(4), "fog", severity, seed=0)
    assert "1, 2, 3, 4, 5" in caught.value.hint


def test_a_batch_has_a_number_for_each_image() -> None:
    """One too few is no image left out."""
    with pytest.raises(ValueError, match="zip"):
        corrupt_batch(scene(32), range(3), "fog", 1, seed=0)
