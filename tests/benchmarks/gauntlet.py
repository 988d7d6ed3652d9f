"""What a gauntlet costs beside the pass it is made of, and whether a probe is worth ten epochs of SGD.

    make bench-gauntlet

An ONNX model of about 20 ms on one thread is asked 5,000 images once, through `bench.passes`. Then a probe
is fitted, neighbours vote, look-alikes are searched, outliers told and probabilities judged, all from what
was kept. Printed: seconds of each, and all of it over the bare pass (goal: 1.3); the probe's accuracy beside
that of a linear head after ten epochs of SGD on the same frozen features, at its best learning rate on
validation (goal: at least that).
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bench.passes import Passes
from bobrt import console
from bobrt.data import Relevant, Split, feed
from bobrt.paths import CPU, lock
from bobrt.spec import Transform
from bobrt.tasks import neighbours, outliers, probabilities, reliability, retrieval
from engines.ort_cpu import OrtCpuRunner
from engines.runner import IMAGES
from train import probe

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE, CHANNELS, WIDTH, CLASSES = 224, 32, 512, 10
IMAGE_MS = 20.0
SIZES = {"train": 3000, "validation": 500, "test": 1000, "outside": 500}
RATES = (0.003, 0.01, 0.03, 0.1, 0.3)
EPOCHS, BATCH = 10, 32


def main() -> None:
    """Print the two lines."""
    with (
        lock(CPU, lambda: console.note("waiting: another bobrt uses this machine")),
        tempfile.TemporaryDirectory() as folder,
    ):
        path = _model(Path(folder) / "model.onnx")
        splits = {name: _images(name, count) for name, count in SIZES.items()}
        with OrtCpuRunner(path, 1) as runner:
            passes = Passes(runner, Transform(size=SIDE), {}, feed.spare(1), Path(folder) / "features")
            began = time.perf_counter()
            seen = {name: passes.over(split, name).outputs["features"] for name, split in splits.items()}
            bare = time.perf_counter() - began
    targets = {name: split.targets for name, split in splits.items()}
    seconds, fitted = _asked(seen, targets)
    told = ", ".join(f"{name} {taken:.2f} s" for name, taken in seconds.items())
    total = (bare + sum(seconds.values())) / bare
    count = sum(SIZES.values())
    console.data(
        f"{count} images of {1000 * bare / count:.1f} ms: pass {bare:.1f} s, {told}; together {total:.3f} x"
    )
    console.data(
        f"probe {100 * _right(fitted, seen['test'], targets['test']):.2f} % of {SIZES['test']} test images, "
        f"{EPOCHS} epochs of SGD {100 * _sgd(seen, targets):.2f} %"
    )


def _asked(
    seen: dict[str, NDArray[np.float32]], targets: dict[str, NDArray[np.int64]]
) -> tuple[dict[str, float], probe.Probe]:
    """Return the seconds of each question of the kept features, and the probe."""
    taken: dict[str, float] = {}

    def timed(name: str, call: Any) -> Any:
        began = time.perf_counter()
        found = call()
        taken[name] = time.perf_counter() - began
        return found

    train, validation, test = (seen[name] for name in ("train", "validation", "test"))
    fitted = timed(
        "probe",
        lambda: probe.fit(train, targets["train"], validation, targets["validation"], CLASSES),
    )
    timed(
        "k-NN",
        lambda: neighbours.knn(train, targets["train"], validation, targets["validation"], test),
    )
    same = [np.flatnonzero(targets["test"] == label) for label in targets["test"]]
    relevant = [Relevant(rows[rows != i], np.array([i])) for i, rows in enumerate(same)]
    timed("retrieval", lambda: retrieval.score(test, test, {"all": relevant}, {}))
    logits = {name: seen[name] @ fitted.weight.T + fitted.bias for name in seen}
    both = {name: {"features": seen[name], "logits": logits[name]} for name in ("test", "outside")}
    timed("outliers", lambda: outliers.outliers(both["test"], both["outside"], train))
    timed(
        "reliability",
        lambda: reliability.reliability(
            logits["test"], targets["test"], logits["validation"], targets["validation"]
        ),
    )
    return taken, fitted


def _sgd(seen: dict[str, NDArray[np.float32]], targets: dict[str, NDArray[np.int64]]) -> float:
    """Return the test accuracy of a head after ten epochs of SGD, at the rate best on validation."""
    mean, std = seen["train"].mean(axis=0), seen["train"].std(axis=0) + 1e-6
    rows = {name: (features - mean) / std for name, features in seen.items()}
    best = (-1.0, 0.0)
    for rate in RATES:
        rng = np.random.default_rng(0)
        weight, bias = np.zeros((CLASSES, WIDTH)), np.zeros(CLASSES)
        for _ in range(EPOCHS):
            order = rng.permutation(len(rows["train"]))
            for start in range(0, len(order), BATCH):
                some = order[start : start + BATCH]
                gap = probabilities.softmax(rows["train"][some] @ weight.T + bias)
                gap[np.arange(len(some)), targets["train"][some]] -= 1
                weight -= rate * gap.T @ rows["train"][some] / len(some)
                bias -= rate * gap.mean(axis=0)
        on = {
            name: float(((rows[name] @ weight.T + bias).argmax(axis=1) == targets[name]).mean())
            for name in ("validation", "test")
        }
        best = max(best, (on["validation"], on["test"]), key=lambda pair: pair[0])
    return best[1]


def _right(fitted: probe.Probe, features: NDArray[np.float32], targets: NDArray[np.int64]) -> float:
    return float(((features @ fitted.weight.T + fitted.bias).argmax(axis=1) == targets).mean())


def _images(name: str, count: int) -> Split:
    """Return images whose class is a faint pattern under noise; those of `outside` have others."""
    rng = np.random.default_rng([ord(letter) for letter in name])
    patterns = np.random.default_rng(1 if name == "outside" else 0).integers(-30, 31, (CLASSES, 14, 14, 3))
    targets = rng.integers(0, CLASSES, count)
    images = []
    for label in targets:
        coarse = rng.integers(60, 196, (14, 14, 3)) + patterns[label]
        images.append(np.repeat(np.repeat(coarse, 16, axis=0), 16, axis=1).clip(0, 255).astype(np.uint8))
    return Split([f"{name}/{row}" for row in range(count)], images, targets.astype(np.int64))


def _model(path: Path) -> Path:
    """Write a stack of convolutions that takes about so long for an image of a batch, on one thread."""
    rows = np.zeros((BATCH, SIDE, SIDE, 3), np.uint8)
    took = []
    for depth in (2, 6):
        _write(path, depth)
        with OrtCpuRunner(path, 1) as runner:
            times = []
            for _ in range(5):
                began = time.perf_counter()
                runner.infer({IMAGES: rows})
                times.append((time.perf_counter() - began) * 1000 / BATCH)
        took.append(min(times))
    layer = (took[1] - took[0]) / 4
    _write(path, max(1, round(2 + (IMAGE_MS - took[0]) / layer)))
    return path


def _write(path: Path, depth: int) -> None:
    """Write patches of four pixels, residual convolutions on them, and a wide pooled projection."""
    rng = np.random.default_rng(0)
    shapes = {"stem": (CHANNELS, 3, 4, 4), "wide": (WIDTH, CHANNELS, 16, 16)}
    nodes = [
        helper.make_node("Cast", [IMAGES], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["floats", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["pixels"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["pixels", "stem"], ["x0"], strides=[4, 4]),
    ]
    for layer in range(depth):
        shapes[f"w{layer}"] = (CHANNELS, CHANNELS, 3, 3)
        nodes += [
            helper.make_node("Conv", [f"x{layer}", f"w{layer}"], [f"c{layer}"], pads=[1] * 4),
            helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"]),
            helper.make_node("Add", [f"x{layer}", f"r{layer}"], [f"s{layer}"]),
            helper.make_node("Mul", [f"s{layer}", "half"], [f"x{layer + 1}"]),
        ]
    nodes += [
        helper.make_node("Conv", [f"x{depth}", "wide"], ["maps"], strides=[8, 8]),
        helper.make_node("Relu", ["maps"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["features"]),
    ]
    weights = [
        numpy_helper.from_array(rng.normal(0, np.prod(shape[1:]) ** -0.5, shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    scalars = {"scale": 64.0, "half": 0.6}
    weights += [numpy_helper.from_array(np.float32(value), name) for name, value in scalars.items()]
    graph = helper.make_graph(
        nodes,
        "stack",
        [helper.make_tensor_value_info(IMAGES, TensorProto.UINT8, ["batch", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", WIDTH])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


if __name__ == "__main__":
    main()
