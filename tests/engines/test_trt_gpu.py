"""On a GPU: TensorRT's engines with and without CUDA graphs, from any thread, and what they came to."""

from __future__ import annotations

import importlib
import threading
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bobrt.artifacts import Artifact, Job, Manifest
from bobrt.errors import BobrtError
from bobrt.spec import EngineSpec, FileCard, Precision
from engines import trt_build
from engines.ort_cpu import OrtCpuRunner
from engines.runner import IMAGES, answers
from engines.runtimes import RUNTIMES, cannot_build, cannot_run, no_gpu

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Open = Callable[..., Any]

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(no_gpu()), reason=no_gpu() or "a GPU is here")]

SIDE, CHANNELS = 32, 64
PROFILES = ((1, 1, 1), (2, 8, 64))
CLASSES = {"tensorrt": "TensorRtRunner", "tensorrt-rtx": "RtxRunner"}


def network(path: Path, card: FileCard, kind: int) -> Path:
    """Write two convolutions in a type, and what they come to in fp32."""
    draw = np.random.default_rng(0)
    numpy = np.float16 if kind == TensorProto.FLOAT16 else np.float32
    weights = {"w1": (CHANNELS, 3, 3, 3), "w2": (CHANNELS, CHANNELS, 3, 3)}
    initializers = [
        onnx.numpy_helper.from_array(
            (draw.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(numpy), name
        )
        for name, shape in weights.items()
    ]
    initializers.append(onnx.numpy_helper.from_array(np.array(1 / 255, numpy), "scale"))
    node = helper.make_node
    nodes = [
        node("Cast", ["images"], ["a"], to=kind),
        node("Transpose", ["a"], ["b"], perm=[0, 3, 1, 2]),
        node("Mul", ["b", "scale"], ["c"]),
        node("Conv", ["c", "w1"], ["d"], name="first"),
        node("Relu", ["d"], ["e"]),
        node("Conv", ["e", "w2"], ["f"], name="second"),
        node("GlobalAveragePool", ["f"], ["g"]),
        node("Flatten", ["g"], ["h"]),
        node("Cast", ["h"], ["features"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "two convolutions",
        [helper.make_tensor_value_info(IMAGES, TensorProto.UINT8, ["batch", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", CHANNELS])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {"bobrt": msgspec.json.encode(card).decode()})
    onnx.save(model, path)
    return path


def build(folder: Path, runtime: str, precision: Precision, card: FileCard) -> None:
    """Build the network into a folder, with its manifest."""
    half = precision is Precision.FP16
    folder.mkdir(parents=True)
    path = network(folder / "model.onnx", card, TensorProto.FLOAT16 if half else TensorProto.FLOAT)
    spec = EngineSpec(
        runtime=runtime, precision=precision, batch="dynamic", compute_capability="current", profiles=PROFILES
    )
    plain = Manifest(
        stage="", options={}, source_sha256=None, tools={}, file="", sha256="", bytes=0, seconds=0,
        detail={"card": msgspec.to_builtins(card)},
    )  # fmt: skip
    made = trt_build.make(Job(msgspec.to_builtins(spec), Artifact(path, plain), folder, lambda *_: None))
    manifest = msgspec.structs.replace(plain, file=made.file, detail=made.detail)
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))


@pytest.fixture(params=CLASSES)
def opened(request: pytest.FixtureRequest, card: Callable[..., FileCard], tmp_path: Path) -> Open:
    """Build the network for this GPU, and return a runner for it."""
    runtime = RUNTIMES.get(request.param)
    if reason := cannot_run(runtime) or cannot_build(runtime):
        pytest.skip(reason)

    def make(precision: Precision = Precision.FP32, **options: bool) -> Any:
        folder = tmp_path / "engine" / str(precision)
        if not folder.exists():  # built once: two builds may choose other kernels
            build(folder, runtime.name, precision, card())
        module = importlib.import_module("engines.trt_run")
        return getattr(module, CLASSES[runtime.name])(folder / "engine.bin", 1, **options)

    return make


def images(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


def test_with_and_without_graphs_the_answers_are_the_same(opened: Open, tmp_path: Path) -> None:
    """To the last bit, in every profile, first call and later ones; and ONNX Runtime's nearly."""
    asked = [images(count, count) for count in (1, 3, 8, 64)]

    def ask(*, graphs: bool) -> list[NDArray[np.float32]]:
        with opened(graphs=graphs) as runner:
            got = [runner.infer({IMAGES: batch})["features"] for _ in range(3) for batch in asked]
            assert runner.notes() == [] or not graphs or "kernels were made" in runner.notes()[0]
        return got

    plain, graphs = ask(graphs=False), ask(graphs=True)

    with OrtCpuRunner(tmp_path / "engine" / "fp32" / "model.onnx", 1) as reference:
        want = [answers(reference, batch, len(batch))["features"] for batch in asked] * 3
    for without, with_one, right in zip(plain, graphs, want, strict=True):
        np.testing.assert_array_equal(without, with_one)
        np.testing.assert_allclose(without, right, atol=1e-4 * np.abs(right).max())


def test_another_thread_gets_the_same_answers(opened: Open) -> None:
    """For a batch size that is there, and for one that is made in that thread and given back in this one."""
    found: list[NDArray[np.float32]] = []
    with opened() as runner:
        want = [runner.infer({IMAGES: images(count)})["features"] for count in (1, 4)]
        runner.infer({IMAGES: images(4)})
        thread = threading.Thread(
            target=lambda: found.extend(runner.infer({IMAGES: images(n)})["features"] for n in (1, 4, 5))
        )
        thread.start()
        thread.join()

    np.testing.assert_array_equal(found[0], want[0])
    np.testing.assert_array_equal(found[1], want[1])
    assert len(found) == 3


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
def test_the_engine_tells_the_precision_it_was_asked_for(opened: Open, precision: Precision) -> None:
    """By its inspector: all of the two convolutions."""
    with opened(precision) as runner:
        runner.infer({IMAGES: images(1)})

        assert runner.realised() == {str(precision): 1.0}


def test_a_batch_above_the_profiles_is_refused(opened: Open) -> None:
    """And the engine goes on."""
    with opened() as runner:
        with pytest.raises(BobrtError, match="takes 1, 2 to 64 images at once, not 65"):
            runner.infer({IMAGES: images(65)})
        assert runner.infer({IMAGES: images(2)})["features"].shape == (2, CHANNELS)


def test_an_engine_cut_off_is_refused_in_one_line(opened: Open, tmp_path: Path) -> None:
    """In the library's words."""
    runner = opened()
    file = tmp_path / "engine" / "fp32" / "engine.bin"
    file.write_bytes(file.read_bytes()[:-1000])

    with pytest.raises(BobrtError) as caught:
        runner.__enter__()

    assert "\n" not in caught.value.message
