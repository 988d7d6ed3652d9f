"""The machine's own speed: one fixed small network, timed beside every round of every row.

A machine that becomes slower or faster in the course of a plan (heat, a neighbour, clocks) moves this
network's time too, whatever engine the row is about: its drift is the machine's and not the engine's.
"""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from bench import measure
from bobrt.speed import Drift
from engines.ort_cpu import CPU, open_session

WHAT = "eight 3x3 convolutions of 32 channels on 32x32 pixels, fp32, ONNX Runtime on the "
CUDA = "CUDAExecutionProvider"
DEPTH, CHANNELS, SIDE = 8, 32, 32
WINDOW = measure.Window(warmup_s=0.1, min_s=0.3, min_n=20, max_s=2.0)
LEVEL = 10
"""The percentile that is compared. The machine's level is what its undisturbed calls take; what disturbs
some calls and not others (an interrupt, a neighbour's burst) is in the row's own times already."""


class Level(NamedTuple):
    """How fast the machine is here and now."""

    what: str
    """What was timed, and on which device."""
    ms: float


def level(threads: int, *, gpu: bool = False) -> Level:
    """Return the network's time here and now; takes about half a second.

    Args:
        threads: Of the CPU.
        gpu: Time it on the GPU, where ONNX Runtime's CUDA provider loads; else the CPU stands for it.

    """
    session = _session(threads, gpu=gpu)
    image = np.random.default_rng(0).normal(size=(1, CHANNELS, SIDE, SIDE)).astype(np.float32)
    timed = measure.closed_loop(lambda feed: session.run(None, feed), [{"x0": image}], WINDOW)
    where = "GPU" if CUDA in session.get_providers() else "CPU"
    return Level(WHAT + where, float(np.percentile(timed.times_ns, LEVEL)) / measure.NS_PER_MS)


def _session(threads: int, *, gpu: bool) -> ort.InferenceSession:
    if gpu and CUDA in ort.get_available_providers():
        with suppress(Exception):  # whatever keeps the provider from loading, the CPU is there
            ort.preload_dlls(directory="")
            asked = open_session(network(), threads, providers=[(CUDA, {"use_tf32": "0"}), CPU])
            if CUDA in asked.get_providers():
                return asked
    return open_session(network(), threads)


def drift_of(what: str, repeats_ms: list[float]) -> Drift:
    """Return how far apart the rounds' times of the network are, relative to their median."""
    relative = None
    if len(repeats_ms) > 1:
        relative = (max(repeats_ms) - min(repeats_ms)) / float(np.median(repeats_ms))
    return Drift(what=what, repeats_ms=repeats_ms, relative=relative)


def network() -> bytes:
    """Return the network as an ONNX file; it takes `x0`, `float32 [1, 32, 32, 32]`."""
    rng = np.random.default_rng(0)
    kernels = rng.normal(0, (9 * CHANNELS) ** -0.5, (DEPTH, CHANNELS, CHANNELS, 3, 3)).astype(np.float32)
    shape = [1, CHANNELS, SIDE, SIDE]
    graph = helper.make_graph(
        [helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"x{i + 1}"], pads=[1] * 4) for i in range(DEPTH)],
        "reference",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"x{DEPTH}", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(kernel, f"w{i}") for i, kernel in enumerate(kernels)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    content: bytes = model.SerializeToString()
    return content
