"""The device: nothing before it is entered, nothing left after, and CUDA's errors in one line."""

from __future__ import annotations

import importlib
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from cuda.bindings import runtime
from fake_gpu import COPY_MS, FakeGpu, Stream, installed

from bobrt.errors import BobrtError, MachineError
from engines.runner import out_of_memory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType


@pytest.fixture
def gpu() -> FakeGpu:
    """A GPU with a megabyte."""
    return FakeGpu()


@pytest.fixture
def cuda(gpu: FakeGpu) -> Iterator[ModuleType]:
    """`engines.cuda` on it."""
    with installed(gpu):
        yield importlib.import_module("engines.cuda")


def busy(gpu: FakeGpu, device: Any, ms: float) -> None:
    """Give the stream some work."""

    def work() -> None:
        gpu.now_ms += ms

    Stream.by_handle[device.stream]._give(work)


def test_nothing_is_touched_before_and_nothing_is_left_after(gpu: FakeGpu, cuda: ModuleType) -> None:
    """Memory on both sides, stream, events, graph and context: all of it is given back on leaving."""
    device = cuda.Device()
    assert not gpu.touched

    with device:
        device.buffer(1000)
        device.pinned((10, 10), np.float32)
        device.capture(lambda: busy(gpu, device, 1))
        assert gpu.left() == {
            "stream": 1,
            "event": 2,
            "pinned": 1,
            "executable": 1,
            "bytes": 1000,
            "retained": 1,
        }

    assert gpu.left() == {}
    assert gpu.stack == []


def test_fifty_times_is_like_once(gpu: FakeGpu, cuda: ModuleType) -> None:
    """One device can be entered again and again."""
    device = cuda.Device()

    for _ in range(50):
        with device:
            device.buffer(900_000)

    assert gpu.left() == {}


def test_an_error_inside_leaves_nothing_either(gpu: FakeGpu, cuda: ModuleType) -> None:
    """The error comes through as it was."""

    def fail() -> None:
        with cuda.Device() as device:
            raise KeyError(device.buffer(10).ptr)

    with pytest.raises(KeyError):
        fail()

    assert gpu.left() == {}
    assert gpu.stack == []


def test_a_device_that_cannot_be_opened_is_left_as_it_was(
    gpu: FakeGpu, cuda: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The context is released when the events cannot be made."""

    def fail(_: object) -> None:
        raise cuda.driver.LogicError("cuEventCreate failed: not supported")

    monkeypatch.setattr(type(cuda.driver), "Event", fail)

    with pytest.raises(BobrtError, match="cuEventCreate failed"):
        cuda.Device().__enter__()

    assert gpu.left() == {}
    assert gpu.stack == []


def test_who_had_a_context_before_has_it_again(gpu: FakeGpu, cuda: ModuleType) -> None:
    """Two devices at once, in any order, and another library's context under them."""
    gpu.stack.append("another library's")
    first, second = cuda.Device().__enter__(), cuda.Device().__enter__()

    first.__exit__(None, None, None)
    second.buffer(10)
    second.__exit__(None, None, None)

    assert gpu.stack == ["another library's"]
    assert gpu.retained == 0


def test_copies_and_work_are_done_in_turn_and_when_they_are_waited_for(
    gpu: FakeGpu, cuda: ModuleType
) -> None:
    """What was sent comes back, after `sync` and not before; the device's clock leaves the copies out."""
    with cuda.Device() as device:
        there, back = device.pinned((4, 5), np.float32), device.pinned((4, 5), np.float32)
        buffer = device.buffer(there.nbytes)
        there[:] = np.arange(20).reshape(4, 5)
        back[:] = 0

        device.upload(buffer, there)
        device.start()
        busy(gpu, device, 3.0)
        device.stop()
        device.download(back, buffer)
        early = back.copy()
        device.sync()

        assert not early.any()
        np.testing.assert_array_equal(back, there)
        assert device.elapsed_ns() == 3_000_000
        assert gpu.now_ms == 3.0 + 2 * COPY_MS


def test_a_graph_does_again_what_was_captured(gpu: FakeGpu, cuda: ModuleType) -> None:
    """Capturing does nothing by itself; each launch does it all."""
    with cuda.Device() as device:
        graph = device.capture(lambda: busy(gpu, device, 2.0))
        device.sync()
        assert gpu.now_ms == 0

        graph.launch()
        graph.launch()
        device.sync()

        assert gpu.now_ms == 4.0
        assert "graph" not in gpu.left()  # the template of the executable


@pytest.mark.parametrize("broken", ["the capture", "the work"])
def test_what_cannot_be_captured_says_why_and_breaks_nothing(
    gpu: FakeGpu, cuda: ModuleType, broken: str
) -> None:
    """The reason is the error's, the stream goes on, and no later call finds the old error."""

    def work() -> None:
        if broken == "the work":
            raise BobrtError("it allocates")

    gpu.captures_fail = broken == "the capture"
    with cuda.Device() as device:
        with pytest.raises((RuntimeError, BobrtError)) as caught:
            device.capture(work)
        busy(gpu, device, 1.0)
        device.sync()

        assert (
            str(caught.value)
            == {
                "the work": "it allocates",
                "the capture": "CUDA error: operation failed due to a previous error during capture",
            }[broken]
        )
        assert (gpu.now_ms, gpu.last_error) == (1.0, 0)

    assert gpu.left() == {}


def test_a_full_device_is_told_from_a_broken_one(gpu: FakeGpu, cuda: ModuleType) -> None:
    """What does not fit ends a climb over batches; what is there already stays."""
    with cuda.Device() as device, device.work():
        device.buffer(1_000_000)
        with pytest.raises(Exception, match="out of memory") as caught:
            device.buffer(1_000_000)

    assert out_of_memory(caught.value)
    assert not isinstance(caught.value, BobrtError)
    assert gpu.left() == {}


def test_a_gpu_that_vanishes_is_one_line(gpu: FakeGpu, cuda: ModuleType) -> None:
    """The first error is told, not those of cleaning up after it."""

    def vanish() -> None:
        with cuda.Device() as device, device.work():
            device.buffer(100)
            gpu.lost = True
            device.sync()

    with pytest.raises(BobrtError) as caught:
        vanish()

    assert caught.value.message == "the GPU failed: cuStreamSynchronize failed: GPU is lost"
    assert caught.value.hint


def test_memory_given_back_early_is_free(gpu: FakeGpu, cuda: ModuleType) -> None:
    """Buffers, pinned arrays and graphs, once and no second time."""
    with cuda.Device() as device:
        held = [device.buffer(100), device.pinned((3,), np.uint8), device.capture(lambda: None)]
        device.free(*held)
        assert gpu.left() == {"stream": 1, "event": 2, "retained": 1}
        held[0].free()

    assert gpu.left() == {}


def test_another_thread_works_on_it_too(gpu: FakeGpu, cuda: ModuleType) -> None:
    """Inside `work`; outside, that thread has no device, which is why it is there."""
    found: list[object] = []

    def elsewhere(device: Any) -> None:
        try:
            device.buffer(10)
        except Exception as error:  # noqa: BLE001
            found.append(str(error))
        with device.work():
            found.append(device.buffer(10).ptr in gpu.held)
        found.append(list(gpu.stack))

    with cuda.Device() as device:
        thread = threading.Thread(target=elsewhere, args=[device])
        thread.start()
        thread.join()

    assert found == ["cuMemAlloc failed: invalid device context", True, []]
    assert gpu.left() == {}


def test_a_gpu_is_known_without_being_opened(gpu: FakeGpu, cuda: ModuleType) -> None:
    """Name, compute capability and the driver's CUDA; no context is made."""
    assert cuda.gpu_here() == ("NVIDIA Pretend 9000", "9.0", "13.2")
    assert gpu.retained == 0

    gpu.lost = True
    with pytest.raises(MachineError, match="no GPU answers CUDA: cuInit failed: no CUDA-capable device"):
        cuda.gpu_here()


def test_the_runtime_s_words_are_the_real_ones() -> None:
    """The doubles replace calls alone: codes and their texts are those of cuda-bindings."""
    code = runtime.cudaError_t.cudaErrorMemoryAllocation

    assert runtime.cudaGetErrorString(code)[1] == b"out of memory"
