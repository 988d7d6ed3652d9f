"""The road from image files to answers: what it says of itself, and that its answers are the engine's."""

from __future__ import annotations

import threading
import time
from itertools import cycle, islice
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from bench import pipeline
from bobrt.data import feed
from bobrt.data.resize import resize
from bobrt.errors import BobrtError
from bobrt.spec import Transform
from engines.ort_cpu import OrtCpuRunner
from engines.runner import answers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

CHANNELS = 32


def write_engine(path: Path, side: int, depth: int, batch: int | str = "batch") -> Path:
    """Write convolutions over every fourth pixel and take their mean as logits; none, and the colours'."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Transpose", ["images"], ["bytes"], perm=[0, 3, 1, 2]),
        helper.make_node("MaxPool", ["bytes"], ["fewer"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Cast", ["fewer"], ["x0"], to=TensorProto.FLOAT),
    ]
    weights = []
    for layer in range(depth):
        inputs = CHANNELS if layer else 3
        kernel = rng.normal(0, (9 * inputs) ** -0.5, (CHANNELS, inputs, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"w{layer}"))
        nodes.append(helper.make_node("Conv", [f"x{layer}", f"w{layer}"], [f"x{layer + 1}"], pads=[1] * 4))
    nodes += [
        helper.make_node("GlobalAveragePool", [f"x{depth}"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "stack",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, [batch, side, side, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, CHANNELS if depth else 3])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def photos(count: int, height: int, width: int) -> list[np.ndarray]:
    """Return different images that compress as badly as can be."""
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]


def save(images: list[np.ndarray], folder: Path, ending: str) -> list[Path]:
    """Write one file each; a JPEG is progressive, the slowest to decode."""
    files = [folder / f"{number}.{ending}" for number in range(len(images))]
    for image, file in zip(images, files, strict=True):
        Image.fromarray(image).save(file, quality=95, progressive=True)
    return files


def logits(outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    return outputs["logits"].argmax(axis=1)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("bobrt-feed")]


@pytest.mark.parametrize("batch", ["batch", 4], ids=["free batch", "batch of 4"])
def test_the_road_answers_what_the_engine_does(tmp_path: Path, batch: int | str) -> None:
    """Files in their turn without end: what was decoded is what the engine answers to those images."""
    transform = Transform(size=32)
    images = photos(10, 40, 50)
    files = pipeline.write_files(images, tmp_path)
    decoded: list[np.ndarray] = []

    def answer(outputs: Mapping[str, np.ndarray]) -> None:
        decoded.append(logits(outputs).copy())

    with OrtCpuRunner(write_engine(tmp_path / "e.onnx", 32, 1, batch), 1) as runner:
        want = logits(answers(runner, resize(images, transform), 4))
        row = pipeline.run(runner, files, transform, answer, 4, 0.2, 1)
    road = row.n // 4 + feed.ahead(4, 1) + 1
    assert row.n > len(images)
    assert len(set(want.tolist())) > 1
    assert np.concatenate(decoded[-road:]).tolist() == list(islice(cycle(want.tolist()), 4 * road))
    assert not threads()


def test_the_record_says_what_was_driven(tmp_path: Path) -> None:
    """Files, batch, threads; rates that are those of the stages, and a road no faster than its engine."""
    files = save(photos(6, 30, 40), tmp_path, "jpg") + pipeline.write_files(photos(1, 30, 40), tmp_path)
    with OrtCpuRunner(write_engine(tmp_path / "e.onnx", 32, 4, 4), 1) as runner:
        row = pipeline.run(runner, files, Transform(size=32), logits, 64, 0.5, 2)
    assert row.files == "JPEG and PNG, 40 x 30 px"
    assert (row.batch, row.workers) == (4, 2)
    assert list(row.stage_ms) == ["decode", "resize", "engine", "answer"]
    assert all(cost > 0 for cost in row.stage_ms.values())
    assert row.engine_images_per_s == pytest.approx(1000 / row.stage_ms["engine"])
    alone = row.stage_ms["engine"] + row.stage_ms["answer"]
    shared = sum(row.stage_ms.values()) / 3
    assert row.expected_images_per_s == pytest.approx(1000 / max(alone, shared))
    assert 0 < row.waited < 1
    assert row.images_per_s < 1.5 * row.engine_images_per_s
    assert row.n % 4 == 0
    assert row.n / row.images_per_s >= 0.5


@pytest.mark.parametrize(
    ("bound", "ending", "shape", "size", "depth", "pause"),
    [
        ("decode", "jpg", (600, 800), 32, 0, 0.0),
        ("resize", "bmp", (64, 64), 512, 0, 0.0),
        ("engine", "png", (32, 32), 128, 24, 0.0),
        ("answer", "png", (32, 32), 32, 0, 0.05),
    ],
    ids=["decode", "resize", "engine", "answer"],
)
def test_the_stage_that_limits_the_road_is_named(  # noqa: PLR0913, PLR0917 - a road of each kind
    tmp_path: Path, bound: str, ending: str, shape: tuple[int, int], size: int, depth: int, pause: float
) -> None:
    """Large files, large engine inputs, a slow engine, slow answers: whichever takes longest by far."""
    files = save(photos(5, *shape), tmp_path, ending)

    def answer(outputs: Mapping[str, np.ndarray]) -> None:
        time.sleep(pause)
        logits(outputs)

    with OrtCpuRunner(write_engine(tmp_path / "e.onnx", size, depth), 1) as runner:
        row = pipeline.run(runner, files, Transform(size=size), answer, 4, 0.5, 1)
    assert row.bound == bound
    assert max(row.stage_ms, key=lambda stage: row.stage_ms[stage]) == bound
    assert (row.waited > 0.05) == (bound in {"decode", "resize"})


def test_the_wait_is_what_the_engine_waited_and_the_first_batches_are_not_timed() -> None:
    """On a clock of its own: two dear batches go by, then each takes three to come and one to answer."""
    now = 0
    answered: list[int] = []

    def ready() -> Iterator[np.ndarray]:
        nonlocal now
        for cost in [100, 100, *[3] * 100]:
            now += cost * 10**9
            yield np.zeros((4, 2, 2, 3), np.uint8)

    def answer(rows: np.ndarray) -> None:
        nonlocal now
        now += 10**9
        answered.append(len(rows))

    road = pipeline._drive(ready(), answer, 2, 10.0, lambda: now)
    assert road == (12, 12.0, 9.0)
    assert answered == [4] * 5


@pytest.mark.parametrize(("waited", "bound"), [(0.05, "engine"), (0.051, "decode")])
def test_an_engine_may_wait_for_a_twentieth(waited: float, bound: str) -> None:
    """What the road showed decides which side limits it; the longer stage of that side is named."""
    cost = {"decode": 9.0, "resize": 1.0, "engine": 3.0, "answer": 2.0}
    assert pipeline._bound(cost, waited) == bound
    assert (
        pipeline._bound({**cost, "resize": 10.0, "answer": 4.0}, waited)
        == {
            "engine": "answer",
            "decode": "resize",
        }[bound]
    )


@pytest.mark.parametrize("damage", ["cut off jpg", "cut off png", "text", "empty", "missing", "a folder"])
def test_a_file_that_is_no_image_is_named(tmp_path: Path, damage: str) -> None:
    """The road stops with its path, and nothing of it goes on."""
    files = pipeline.write_files(photos(20, 40, 50), tmp_path)
    bad = tmp_path / "bad.jpg"
    if damage.startswith("cut off"):
        (whole,) = save(photos(1, 40, 50), tmp_path, damage[-3:])
        bad.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    elif damage == "a folder":
        bad.mkdir()
    elif damage != "missing":
        bad.write_text("no image" if damage == "text" else "")
    files[13] = bad
    with (
        OrtCpuRunner(write_engine(tmp_path / "e.onnx", 32, 0), 1) as runner,
        pytest.raises(BobrtError, match=r"bad\.jpg") as caught,
    ):
        pipeline.run(runner, files, Transform(size=32), logits, 4, 0.1, 2)
    assert str(bad) in caught.value.message
    assert not threads()


@pytest.mark.parametrize(
    ("mode", "ending"),
    [
        ("L", "png"),
        ("P", "png"),
        ("RGBA", "png"),
        ("1", "png"),
        ("L", "jpg"),
        ("CMYK", "jpg"),
    ],
)
def test_any_colours_become_three_channels(tmp_path: Path, mode: str, ending: str) -> None:
    """A grey, palette, transparent or print image is read as the same three channels as any other."""
    file = tmp_path / f"odd.{ending}"
    Image.new("RGB", (5, 4), (255, 255, 255)).convert(mode).save(file)
    pixels = pipeline.decode(file)
    assert (pixels.dtype, pixels.shape) == (np.uint8, (4, 5, 3))
    assert pixels.min() >= 250


def test_written_files_are_the_images_in_order(tmp_path: Path) -> None:
    """Lossless, one file each; their names sort as the images do."""
    images = [*photos(11, 8, 8), *photos(1, 30, 20)]
    files = pipeline.write_files(images, tmp_path)
    assert files == sorted(tmp_path.iterdir())
    assert all(
        np.array_equal(pipeline.decode(file), image) for file, image in zip(files, images, strict=True)
    )
