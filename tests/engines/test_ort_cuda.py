"""The runtime `ort-cuda`: its road through bound buffers, driven on the CPU where there is no GPU."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from bobrt.errors import BobrtError
from bobrt.spec import Precision
from bobrt.system import no_driver
from engines import ort_cuda
from engines.ort_cpu import CPU, OrtCpuRunner
from engines.ort_cuda import CUDA, OrtCudaRunner, strays
from engines.ort_memory import OrtMemory
from engines.runner import DeviceClock, ReadBack, TensorMeta, answers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class HostDevice:
    """A GPU's `Device` whose memory is the host's: real pointers, a false clock."""

    stream = 7

    def __init__(self) -> None:
        self.did: list[str] = []
        self.open = False

    def __enter__(self) -> Self:
        self.open = True
        return self

    def __exit__(self, *_: object) -> None:
        self.open = False

    @contextmanager
    def work(self) -> Iterator[None]:
        assert self.open
        yield

    def buffer(self, nbytes: int) -> Any:
        class Buffer:
            memory = np.zeros(nbytes, np.uint8)
            ptr = memory.ctypes.data

        return Buffer()

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return np.zeros(shape, dtype)

    def upload(self, buffer: Any, host: np.ndarray) -> None:
        self.did.append("upload")
        buffer.memory[:] = host.reshape(-1).view(np.uint8)

    def download(self, host: np.ndarray, buffer: Any) -> None:
        self.did.append("download")
        host[...] = buffer.memory.view(host.dtype).reshape(host.shape)

    def start(self) -> None:
        self.did.append("start")

    def stop(self) -> None:
        self.did.append("stop")

    def sync(self) -> None:
        self.did.append("sync")

    def elapsed_ns(self) -> int:
        return 1234


class OnTheCpu(OrtCudaRunner):
    """The runner with the one difference that the device is the CPU."""

    kind = "cpu"
    provider = CPU
    device: Any = None

    def _preload(self) -> None:
        pass

    def _memory(self) -> Any:
        return self.device or OrtMemory(self.kind)

    def _providers(self, stream: int | None) -> list[tuple[str, dict[str, Any]]]:
        del stream
        return [(CPU, {})]


class Queued(OnTheCpu):
    """The same on a device with a stream and a clock."""

    def _memory(self) -> Any:
        self.device = HostDevice()
        return self.device


node = helper.make_node
NETWORK = [
    node("Cast", ["images"], ["x"], to=TensorProto.FLOAT),
    node("Transpose", ["x"], ["c"], perm=[0, 3, 1, 2]),
    node("Conv", ["c", "kernel"], ["d"]),
    node("GlobalAveragePool", ["d"], ["p"]),
    node("Flatten", ["p"], ["f"]),
    node("Shape", ["f"], ["s"]),
    node("ConstantOfShape", ["s"], ["nothing"]),
    node("Add", ["f", "nothing"], ["features"]),
    node("Softmax", ["features"], ["likely"]),
    node("Cast", ["likely"], ["logits"], to=TensorProto.FLOAT16),
]
TYPES = {"features": TensorProto.FLOAT, "logits": TensorProto.FLOAT16}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network of two outputs of two types, with a free batch axis that it reads to shape them."""
    kernel = np.random.default_rng(0).normal(0, 1e-2, (5, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        NETWORK,
        "small",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 8, 8, 3])],
        [helper.make_tensor_value_info(name, kind, ["batch", 5]) for name, kind in TYPES.items()],
        [numpy_helper.from_array(kernel, "kernel")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path = tmp_path_factory.mktemp("ort") / "it.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """As a camera gives them."""
    return np.random.default_rng(1).integers(0, 256, (100, 8, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize("runner", [OnTheCpu, Queued])
def test_bound_buffers_answer_what_plain_calls_do(
    file: Path, images: np.ndarray, runner: type[OnTheCpu]
) -> None:
    """Batch after batch, sizes in turn, each in buffers of its own: the very answers of the same kernels."""
    with OrtCpuRunner(file, 1) as plain:
        want = answers(plain, images, 48)
    with runner(file, 1) as bound:
        assert bound.inputs() == {"images": TensorMeta("uint8", (None, 8, 8, 3))}
        got = answers(bound, images, 48)
        alone = {name: value.copy() for name, value in bound.infer({"images": images[:1]}).items()}
        again = answers(bound, images, 48)

    assert want.keys() == got.keys() == {"features", "logits"}
    for name, value in want.items():
        assert got[name].dtype == np.float32
        np.testing.assert_array_equal(got[name], value)
        np.testing.assert_array_equal(again[name], value)
        np.testing.assert_allclose(alone[name], value[:1], rtol=1e-5)


def test_what_it_computes_in_is_read_back(file: Path) -> None:
    """From the kernels of a run of its own, which leaves the buffers as they were."""
    runner = Queued(file, 1)
    with runner:
        assert isinstance(runner, ReadBack)
        assert runner.realised() == {"fp32": 1.0}
        assert runner.device.did == []


def test_copies_are_outside_the_device_s_clock(file: Path, images: np.ndarray) -> None:
    """Up, the clock, the network, the clock, down, and one wait at the end; the clock is the device's."""
    with Queued(file, 1) as runner:
        runner.infer({"images": images[:2]})
        runner.device.did.clear()
        runner.infer({"images": images[2:4]})

        assert runner.device.did == ["upload", "start", "stop", "download", "download", "sync"]
        assert isinstance(runner, DeviceClock)
        assert runner.device_ns() == 1234
        assert runner.notes() == []


def test_without_pycuda_there_is_no_device_clock(file: Path, images: np.ndarray) -> None:
    """The row is full all the same, by the wall clock."""
    with OnTheCpu(file, 1) as runner:
        runner.infer({"images": images[:2]})

        assert not isinstance(runner, DeviceClock)
        assert runner.notes() == ["pycuda or cuda-bindings is not installed: no clock of the device"]


def test_it_may_be_asked_from_another_thread(file: Path, images: np.ndarray) -> None:
    """As LoadGen does."""
    with Queued(file, 1) as runner:
        want = {name: value.copy() for name, value in runner.infer({"images": images[:4]}).items()}
        got: dict[str, np.ndarray] = {}
        worker = threading.Thread(target=lambda: got.update(runner.infer({"images": images[:4]})))
        worker.start()
        worker.join()

    for name, value in want.items():
        np.testing.assert_array_equal(got[name], value)


def test_everything_is_let_go_of_before_the_device(file: Path) -> None:
    """Nothing before it is entered, nothing after it is left."""
    runner = Queued(file, 1)
    assert not hasattr(runner, "_session")

    with runner:
        assert runner.device.open
        assert runner._placed[CPU].total() > 0

    assert not runner.device.open
    assert not hasattr(runner, "_session")


def test_every_node_is_counted_where_it_is(file: Path) -> None:
    """By its type, as ONNX Runtime divided the graph; only bookkeeping may be elsewhere."""
    with OnTheCpu(file, 1) as runner:
        nodes = runner._placed

    assert nodes.keys() == {CPU}
    assert nodes[CPU]["Conv"] == nodes[CPU]["Shape"] == nodes[CPU]["ConstantOfShape"] == 1
    assert strays(nodes, CPU) == {}
    assert strays(nodes, CUDA) == {
        "Transpose": 1,
        "Conv": 1,
        "GlobalAveragePool": 1,
        "Flatten": 1,
        "Softmax": 1,
    }


def test_a_network_that_would_run_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    """The line says how many nodes of which kind, and the hint leads to another precision."""
    nodes = {CPU: Counter(Conv=2, Gelu=1, Shape=9), CUDA: Counter(MatMul=5)}
    monkeypatch.setattr(ort_cuda, "placed", lambda _: nodes)
    monkeypatch.setattr(ort.InferenceSession, "get_providers", lambda _: [CUDA, CPU])
    monkeypatch.setattr(OnTheCpu, "provider", CUDA)

    with pytest.raises(BobrtError) as caught:
        OnTheCpu(file, 1).__enter__()
    nodes[CPU] = Counter(Shape=9, Gather=2)
    with OnTheCpu(file, 1) as runner:
        assert runner.notes()[0] == "11 nodes that compute shapes are not on CUDAExecutionProvider"

    assert caught.value.message == (
        f"CUDAExecutionProvider does not take 3 nodes of {file} (2 Conv, 1 Gelu): they would run elsewhere"
    )
    assert "bobrt list runtimes" in caught.value.hint


@pytest.mark.skipif(not no_driver(), reason="a GPU is here: its provider loads")
def test_a_provider_that_does_not_load_is_no_cpu_row(file: Path) -> None:
    """ONNX Runtime goes on with the CPU in silence; the runner does not."""
    runner = OrtCudaRunner(file, 1)

    with pytest.raises(BobrtError) as caught:
        runner.__enter__()

    assert "\n" not in caught.value.message
    assert "CUDA" in caught.value.message
    assert not hasattr(runner, "_stack")


def test_tf32_is_what_the_precision_says(tmp_path: Path) -> None:
    """Off for fp32, on for tf32; and the stream is the one that the events are on."""
    options = {
        precision: OrtCudaRunner(tmp_path / "it.onnx", 1, precision)._providers(42)
        for precision in (Precision.FP32, Precision.TF32, Precision.FP16)
    }

    assert [providers[0][0] for providers in options.values()] == [CUDA] * 3
    assert [providers[0][1]["use_tf32"] for providers in options.values()] == [0, 1, 0]
    assert {providers[0][1]["user_compute_stream"] for providers in options.values()} == {42}
    assert "user_compute_stream" not in OrtCudaRunner(tmp_path / "it.onnx", 1)._providers(None)[0][1]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    """As by the other providers."""
    (tmp_path / "it.onnx").write_bytes(b"half")

    with pytest.raises(BobrtError, match=r"it\.onnx is not a whole ONNX file"):
        OnTheCpu(tmp_path / "it.onnx", 1).__enter__()


def test_a_broken_pycuda_is_not_taken_for_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Absent, it costs a clock; there and broken, it is an error."""
    (tmp_path / "pycuda").mkdir()
    (tmp_path / "pycuda" / "__init__.py").touch()
    (tmp_path / "pycuda" / "driver.py").write_text("raise ImportError('libcurand.so.9 is not there')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("pycuda", "engines.cuda"):
        monkeypatch.delitem(sys.modules, name, raising=False)

    with pytest.raises(BobrtError, match=r"pycuda does not load: libcurand\.so\.9 is not there"):
        OrtCudaRunner(tmp_path / "it.onnx", 1)._memory()
    sys.modules.pop("pycuda", None)
