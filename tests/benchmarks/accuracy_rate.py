"""What feeding costs an accuracy evaluation: `bench.passes` against the engine alone.

    make bench-accuracy-rate

The engine is held to one thread, so that on two cores the other one resizes; with more cores
than that, every other one does. Both sides answer the same images at the same batch, in blocks
that take turns in one process and in a shuffled order: the evaluation from images as a data
source gives them, in memory or as JPEG files, what it answers kept on disk; the engine alone from batches
that are ready. Printed for each model: the
ratio of the two rates, images per second over all blocks of a side. Goal: 0.95.
"""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageFilter

from bench.passes import Passes
from bobrt import console
from bobrt.data import Split, feed
from bobrt.data.images import Files
from bobrt.data.resize import resize
from bobrt.paths import CPU, lock
from bobrt.spec import Transform
from engines.ort_cpu import OrtCpuRunner
from engines.runner import IMAGES

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

CHANNELS = 32
BATCH = 32
BLOCKS = 6
"""Blocks of each side."""
BLOCK_S = 6.0
"""Seconds of a block, about: as a split of some size takes, so that the first batch's wait is in it."""
DIFFERENT = 64
"""Different images; they take turns."""


class Case(NamedTuple):
    """Images of one size, and an engine of about one cost."""

    image_ms: float
    height: int
    width: int
    transform: Transform
    files: bool = False
    """JPEG files rather than arrays."""


CASES = (
    Case(0.1, 8, 8, Transform(size=32)),
    Case(0.3, 32, 32, Transform(size=32)),
    Case(5.0, 375, 500, Transform(size=224, crop_pct=0.875)),
    Case(20.0, 375, 500, Transform(size=224, crop_pct=0.875)),
    Case(20.0, 375, 500, Transform(size=224, crop_pct=0.875), files=True),
)
"""Digits and small photos on small backbones; photos as ImageNet's on a small and a larger one."""


def main() -> None:
    """Print one line per case."""
    with lock(CPU, lambda: console.note("waiting: another bobrt uses this machine")):
        for case in CASES:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.onnx"
                _model_of(case, path)
                alone, fed = _interleaved(case, path)
            console.data(
                f"{case.width} x {case.height}{' JPEG files' if case.files else ''} "
                f"to {case.transform.size} px, batch {BATCH}: "
                f"engine alone {alone:.1f} images/s ({1000 / alone:.3f} ms each), "
                f"evaluation {fed:.1f} images/s, ratio {fed / alone:.3f} ({BLOCKS} blocks each)"
            )


def _interleaved(case: Case, path: Path) -> tuple[float, float]:
    """Return images per second of the engine alone and of the evaluation."""
    rng = np.random.default_rng(0)
    few = rng.integers(0, 256, (DIFFERENT, case.height, case.width, 3), dtype=np.uint8)
    batches = max(1, round(BLOCK_S * 1000 / case.image_ms / BATCH))
    images = [few[i % DIFFERENT] for i in range(batches * BATCH)]
    ready = resize(few, case.transform)
    seen = _as_files(images, path.parent) if case.files else images
    split = Split([str(i) for i in range(len(images))], seen, np.zeros(len(images), np.int64))
    prepared = [ready[i : i + BATCH] for i in range(0, DIFFERENT, BATCH)]
    seconds = {"alone": 0.0, "fed": 0.0}
    order = [*seconds] * BLOCKS
    random.Random(0).shuffle(order)  # noqa: S311 - an order, not a secret
    with OrtCpuRunner(path, 1) as runner:
        passes = Passes(runner, case.transform, {}, feed.spare(1), path.parent / "features")

        def alone() -> None:
            for i in range(batches):
                runner.infer({IMAGES: prepared[i % len(prepared)]})

        def fed() -> None:
            passes.over(split, "photos", fresh=True)

        sides: dict[str, Callable[[], None]] = {"alone": alone, "fed": fed}
        runner.infer({IMAGES: prepared[0]})
        for which in order:
            began = time.perf_counter()
            sides[which]()
            seconds[which] += time.perf_counter() - began
    count = BLOCKS * len(images)
    return count / seconds["alone"], count / seconds["fed"]


def _as_files(images: list[NDArray[np.uint8]], folder: Path) -> Files:
    """Write each different image once, smoothed as a photograph is, and return them in their turn."""
    written: dict[int, Path] = {}
    for image in images:
        if id(image) not in written:
            file = folder / f"{len(written)}.jpg"
            Image.fromarray(image).filter(ImageFilter.GaussianBlur(2)).save(file, quality=90)
            written[id(image)] = file
    return Files([written[id(image)] for image in images])


def _model_of(case: Case, path: Path) -> None:
    """Write a stack of convolutions that takes about so long for an image of a batch, on one thread."""
    side = case.transform.size
    rows: NDArray[np.uint8] = np.zeros((BATCH, side, side, 3), np.uint8)
    took = []
    for depth in (2, 6):
        _write(path, side, depth)
        with OrtCpuRunner(path, 1) as runner:
            times = []
            for _ in range(8):
                began = time.perf_counter()
                runner.infer({IMAGES: rows})
                times.append((time.perf_counter() - began) * 1000 / BATCH)
        took.append(min(times))
    layer = (took[1] - took[0]) / 4
    _write(path, side, max(1, round(2 + (case.image_ms - took[0]) / layer)))


def _write(path: Path, side: int, depth: int) -> None:
    """Write patches of four pixels, then convolutions on them."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Cast", [IMAGES], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["pixels"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["pixels", "stem"], ["x0"], strides=[4, 4]),
    ]
    shapes = {"stem": (CHANNELS, 3, 4, 4)}
    for layer in range(depth):
        shapes[f"w{layer}"] = (CHANNELS, CHANNELS, 3, 3)
        nodes.append(helper.make_node("Conv", [f"x{layer}", f"w{layer}"], [f"x{layer + 1}"], pads=[1] * 4))
    nodes.append(helper.make_node("GlobalAveragePool", [f"x{depth}"], ["features"]))
    weights = {
        name: rng.normal(0, np.prod(shape[1:]) ** -0.5, shape).astype(np.float32)
        for name, shape in shapes.items()
    }
    graph = helper.make_graph(
        nodes,
        "stack",
        [helper.make_tensor_value_info(IMAGES, TensorProto.UINT8, ["batch", side, side, 3])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", CHANNELS, 1, 1])],
        [numpy_helper.from_array(kernel, name) for name, kernel in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


if __name__ == "__main__":
    main()
