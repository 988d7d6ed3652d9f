"""What our stopwatch costs: `bench.measure` against a bare loop over the same ONNX Runtime session.

    make bench-overhead

Both time the same model on the same images, in blocks that take turns in one process and
in a shuffled order, so that whatever the machine does, it does to both. Printed: the ratio
of the two medians at batch 1, for a model of about 1 ms and one of about 50 ms. Goal: 1.01.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bench import measure
from bobrt import console
from bobrt.paths import CPU, lock
from bobrt.system import cores
from engines.ort_cpu import OrtCpuRunner
from engines.runner import IMAGES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Feeds = Sequence[dict[str, NDArray[np.uint8]]]

SIDE, CHANNELS = 32, 32
BLOCKS = 20
"""Blocks of each loop; about 15 s a model."""


def main() -> None:
    """Print one line per model."""
    with lock(CPU, lambda: console.note("waiting: another bobrt uses this machine")):
        for target_ms in (1.0, 50.0):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.onnx"
                _model_of(target_ms, path)
                bare, ours = _interleaved(path, seconds=0.35 if target_ms < 10 else 0.75)
            ratio = statistics.median(ours) / statistics.median(bare)
            console.data(
                f"model of {target_ms:g} ms: bare {statistics.median(bare) / 1e6:.4f} ms, "
                f"bobrt {statistics.median(ours) / 1e6:.4f} ms, ratio of medians {ratio:.4f} "
                f"({len(bare)} and {len(ours)} runs, {BLOCKS} blocks each)"
            )


def _interleaved(path: Path, seconds: float) -> tuple[list[int], list[int]]:
    """Return the times of the bare loop and of ours, in nanoseconds."""
    images = np.random.default_rng(0).integers(0, 256, (8, 1, SIDE, SIDE, 3), dtype=np.uint8)
    feeds: Feeds = [{IMAGES: image} for image in images]
    times: dict[str, list[int]] = {"bare": [], "ours": []}
    order = ["bare", "ours"] * BLOCKS
    random.Random(0).shuffle(order)  # noqa: S311 - an order, not a secret
    with OrtCpuRunner(path, cores()) as runner:
        for which in order:
            if which == "bare":
                times[which] += _bare(runner, feeds, seconds)
            else:
                window = measure.Window(warmup_s=0, min_s=seconds, min_n=1)
                times[which] += measure.closed_loop(runner.infer, feeds, window).times_ns.tolist()
    return times["bare"], times["ours"]


def _bare(runner: OrtCpuRunner, feeds: Feeds, seconds: float) -> list[int]:
    """Time the session itself, with as little around it as Python allows."""
    run, clock, times = runner._session.run, time.perf_counter_ns, []
    for feed in [*feeds, *feeds][: measure.STRETCHES * measure.STRETCH_RUNS]:
        run(None, feed)
    deadline = clock() + int(seconds * 1e9)
    stop = index = 0
    while stop < deadline:
        feed = feeds[index % len(feeds)]
        index += 1
        start = clock()
        run(None, feed)
        stop = clock()
        times.append(stop - start)
    return times


def _model_of(target_ms: float, path: Path) -> None:
    """Write a stack of convolutions that takes about `target_ms` at batch 1 on this machine."""
    _write(path, probe := 8)
    with OrtCpuRunner(path, cores()) as runner:
        feeds: Feeds = [{IMAGES: np.zeros((1, SIDE, SIDE, 3), np.uint8)}]
        took = measure.closed_loop(runner.infer, feeds, measure.Window(0.2, 0.5, 20)).times_ns
    _write(path, max(1, round(probe * target_ms * 1e6 / float(np.median(took)))))


def _write(path: Path, depth: int) -> None:
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Cast", [IMAGES], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["x0"], perm=[0, 3, 1, 2]),
    ]
    weights = []
    for layer in range(depth):
        inputs = 3 if layer == 0 else CHANNELS
        kernel = rng.normal(0, (9 * inputs) ** -0.5, (CHANNELS, inputs, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"w{layer}"))
        nodes.append(
            helper.make_node(
                "Conv", [f"x{layer}", f"w{layer}"], [f"x{layer + 1}"], pads=[1] * 4, name=f"c{layer}"
            )
        )
    nodes.append(helper.make_node("GlobalAveragePool", [f"x{depth}"], ["features"]))
    graph = helper.make_graph(
        nodes,
        "stack",
        [helper.make_tensor_value_info(IMAGES, TensorProto.UINT8, ["batch", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", CHANNELS, 1, 1])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    onnx.save(model, path)


if __name__ == "__main__":
    main()
