"""Whether LoadGen's clock and ours tell the same: SingleStream against `bench.measure` on one open session.

    make bench-loadgen

Both ask the same ONNX Runtime session, one thread, in blocks that take turns in one process and
begin with the other one each time, so that whatever the machine does, it does to both. Printed: the
90th percentile of each block - LoadGen's line, not the early-stopping estimate, which is higher
on purpose - and the ratio of the medians over the blocks. Goal: within 3 %.
"""

from __future__ import annotations

import runpy
import statistics
import tempfile
from pathlib import Path

import numpy as np

from bench import loadgen, measure
from bobrt import console
from bobrt.paths import CPU, lock
from engines.ort_cpu import OrtCpuRunner
from engines.runner import IMAGES

OVERHEAD = runpy.run_path(str(Path(__file__).with_name("overhead.py")))
"""The neighbour that makes models of a wanted duration: files here are run, not imported."""
SIDE, write = OVERHEAD["SIDE"], OVERHEAD["_write"]
TARGET_MS = 8.0
PAIRS, SECONDS = 6, 4.0


def main() -> None:
    """Print a line for each pair of blocks, and the ratio."""
    images = np.random.default_rng(0).integers(0, 256, (8, SIDE, SIDE, 3), dtype=np.uint8)
    with (
        lock(CPU, lambda: console.note("waiting: another bobrt uses this machine")),
        tempfile.TemporaryDirectory() as name,
    ):
        path = Path(name) / "model.onnx"
        _model_of(TARGET_MS, path)
        theirs: list[float] = []
        ours: list[float] = []
        with OrtCpuRunner(path, 1) as runner:
            for pair in range(PAIRS):
                for loadgens in (pair % 2 == 0, pair % 2 == 1):
                    if loadgens:
                        theirs.append(_theirs(runner, images, Path(name)))
                    else:
                        ours.append(_ours(runner, images))
                console.data(f"pair {pair + 1}: LoadGen {theirs[-1]:.3f} ms, bobrt {ours[-1]:.3f} ms")
    ratio = statistics.median(theirs) / statistics.median(ours)
    console.data(
        f"p90 of a model of {TARGET_MS:g} ms: LoadGen {statistics.median(theirs):.3f} ms, "
        f"bobrt {statistics.median(ours):.3f} ms, ratio of medians {ratio:.4f} ({PAIRS} blocks each)"
    )


def _theirs(runner: OrtCpuRunner, images: np.ndarray, folder: Path) -> float:
    asked = loadgen.Asked(SECONDS, 1, None, 0.0, (loadgen.SINGLE_STREAM,))
    (run,) = loadgen.run(runner, images, None, folder / "logs", asked)
    return run.metrics["90.00 percentile latency (ns)"] / measure.NS_PER_MS


def _ours(runner: OrtCpuRunner, images: np.ndarray) -> float:
    times = measure.closed_loop(runner.infer, _feeds(images), measure.Window(0, SECONDS, 1)).times_ns
    return float(np.percentile(times, 90, method="inverted_cdf")) / measure.NS_PER_MS


def _feeds(images: np.ndarray) -> list[dict[str, np.ndarray]]:
    return [{IMAGES: image[None]} for image in images]


def _model_of(target_ms: float, path: Path) -> None:
    """Write a stack of convolutions that takes one thread about `target_ms` an image on this machine."""
    write(path, probe := 32)
    with OrtCpuRunner(path, 1) as runner:
        feeds = _feeds(np.zeros((1, SIDE, SIDE, 3), np.uint8))
        took = measure.closed_loop(runner.infer, feeds, measure.Window(0.2, 1.0, 20)).times_ns
    write(path, max(1, round(probe * target_ms * measure.NS_PER_MS / float(np.median(took)))))


if __name__ == "__main__":
    main()
