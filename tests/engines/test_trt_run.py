"""Engines on the GPU: what is asked of the device, in which order, and what is said when it cannot."""

from __future__ import annotations

import importlib
import json
import threading
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from fake_gpu import COPY_MS, DeviceAllocation, FakeGpu, installed
from fake_trt import RUN_MS, SIDE, Library, engine_file, expected

from bobrt.artifacts import Manifest
from bobrt.errors import BobrtError, UsageError
from bobrt.paths import read_sealed
from engines import trt_identity
from engines.runner import IMAGES, DeviceClock, answers, out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    Open = Callable[..., Any]

MANIFEST = Manifest(
    stage="engine-tensorrt",
    options={},
    source_sha256=None,
    tools={},
    file="engine.bin",
    sha256="",
    bytes=0,
    seconds=0.0,
    detail={},
)
PLACE = trt_identity.Place(
    library="tensorrt 11.4.0.106",
    compute_capability="9.0",
    gpu="NVIDIA Pretend 9000",
    cuda="13.2",
)


@pytest.fixture
def gpu() -> FakeGpu:
    """A GPU with a megabyte."""
    return FakeGpu()


@pytest.fixture
def library(gpu: FakeGpu) -> Library:
    """TensorRT 11 on it."""
    return Library(gpu)


@pytest.fixture
def rtx(gpu: FakeGpu) -> Library:
    """TensorRT for RTX on it."""
    return Library(gpu, "tensorrt_rtx", "1.7.1.116")


@pytest.fixture
def runner(gpu: FakeGpu, library: Library, rtx: Library, tmp_path: Path) -> Iterator[Open]:
    """Make a runner of an engine that is as told."""
    with installed(gpu, library, rtx):
        module = importlib.import_module("engines.trt_run")

        def make(kind: str = "TensorRtRunner", *, graphs: bool = True, **changes: Any) -> Any:
            return getattr(module, kind)(engine_file(tmp_path / "engine.bin", **changes), 1, graphs=graphs)

        yield make


def images(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


def ask(runner: Any, batch: NDArray[np.uint8]) -> Any:
    return runner.infer({IMAGES: batch})


def write_manifest(tmp_path: Path, **detail: Any) -> None:
    manifest = msgspec.structs.replace(MANIFEST, detail=detail)
    (tmp_path / "manifest.json").write_bytes(msgspec.json.encode(manifest))


@pytest.mark.parametrize("kind", ["TensorRtRunner", "RtxRunner"])
@pytest.mark.parametrize("graphs", [True, False])
def test_the_answers_are_the_engine_s_in_fp32_and_in_memory_of_their_own(
    runner: Open, kind: str, graphs: bool
) -> None:
    """Whatever the batch and the engine's types, with and without graphs; no answer is overwritten."""
    with runner(kind, graphs=graphs) as opened:
        asked = [images(count, seed) for seed, count in enumerate((1, 1, 3, 1, 8, 3, 3))]
        got = [ask(opened, batch) for batch in asked]

    for batch, answer in zip(asked, got, strict=True):
        exact = expected(batch)
        half = exact.astype(np.float16).astype(np.float32)
        assert answer.keys() == {"logits", "features"}
        np.testing.assert_array_equal(answer["logits"], exact, strict=True)
        np.testing.assert_array_equal(answer["features"], half, strict=True)


def test_nothing_is_touched_before_it_is_entered_and_nothing_is_left_after(
    gpu: FakeGpu, runner: Open
) -> None:
    """Contexts, engine, graphs, memory on both sides: fifty times over."""
    opened = runner()
    assert not gpu.touched

    for _ in range(50):
        with opened:
            for count in (1, 2, 2, 8):
                ask(opened, images(count))
        assert gpu.used() == 0

    assert gpu.left() == {}
    assert gpu.stack == []


def test_no_memory_is_freed_under_a_context(gpu: FakeGpu, runner: Open) -> None:
    """The double refuses it, and leaving the runner does no such thing."""
    with runner() as opened:
        ask(opened, images(1))
        for address in list(gpu.held):
            with pytest.raises(AssertionError, match="freed under a context"):
                DeviceAllocation(gpu, address).free()

    assert gpu.left() == {}


def test_one_call_runs_the_kernels_and_the_later_ones_a_graph(gpu: FakeGpu, runner: Open) -> None:
    """A batch size has its kernels loaded by its first call and is captured before its second."""
    with runner() as opened:
        for count in (1, 1, 1, 4, 4):
            ask(opened, images(count))
        assert opened.notes() == []

    assert gpu.launches == ["kernels", "graph", "kernels", "graph", "kernels", "kernels", "graph", "kernels"]


def test_without_graphs_every_call_runs_the_kernels(gpu: FakeGpu, runner: Open) -> None:
    """The same work, given one by one."""
    with runner(graphs=False) as opened:
        for _ in range(3):
            ask(opened, images(2))

    assert gpu.launches == ["kernels"] * 3


def test_a_graph_that_cannot_be_had_is_said_and_done_without(gpu: FakeGpu, runner: Open) -> None:
    """Tried once for each batch size; the answers are right all the same."""
    gpu.captures_fail = True
    batch = images(2)
    with runner() as opened:
        got = [ask(opened, batch)["logits"] for _ in range(4)]
        notes = opened.notes()

    assert notes == [
        "no CUDA graph for batch 2: CUDA error: operation failed due to a previous error during capture"
    ]
    assert gpu.launches == ["kernels"] * 4
    for logits in got:
        np.testing.assert_array_equal(logits, expected(batch))
    assert gpu.left() == {}


def test_the_device_s_clock_leaves_the_copies_out(gpu: FakeGpu, runner: Open) -> None:
    """From the first kernel to the last: one input and two outputs are copied around it."""
    with runner() as opened:
        for _ in range(3):
            before = gpu.now_ms
            ask(opened, images(4))
            assert opened.device_ns() == round(4 * RUN_MS * 1e6)
            assert gpu.now_ms - before == 4 * RUN_MS + 3 * COPY_MS

        assert isinstance(opened, DeviceClock)


def test_each_batch_runs_in_the_profile_that_takes_it(library: Library, runner: Open) -> None:
    """One alone in its own, 2 to 8 in the second; each has its context made once."""
    with runner() as opened:
        for count in (1, 2, 8, 1, 2):
            ask(opened, images(count))
        assert opened.largest_batch() == 8

    assert library.profiles == [0, 1, 1]


@pytest.mark.parametrize(
    ("changes", "count", "taken"),
    [({}, 9, "1, 2 to 8"), ({}, 0, "1, 2 to 8"), ({"batch": 4, "profiles": [[4, 4, 4]]}, 5, "4")],
    ids=["too many", "none", "an engine's own batch"],
)
def test_a_batch_no_profile_takes_is_refused_with_the_range(
    runner: Open, changes: dict[str, Any], count: int, taken: str
) -> None:
    """The engine goes on with those it takes."""
    with runner(**changes) as opened:
        with pytest.raises(BobrtError) as caught:
            ask(opened, images(count))
        ask(opened, images(4))

    assert caught.value.message == f"engine.bin takes {taken} images at once, not {count}"
    assert not out_of_memory(caught.value)


def test_a_size_the_engine_was_not_built_for_is_refused(runner: Open) -> None:
    """Both shapes are named, before anything runs."""
    with runner() as opened, pytest.raises(BobrtError) as caught:
        ask(opened, np.zeros((1, SIDE + 1, SIDE, 3), np.uint8))

    assert caught.value.message == "the engine takes images of shape [1, 4, 4, 3], not [1, 5, 4, 3]"


def test_an_engine_of_its_own_batch_says_so(runner: Open) -> None:
    """The last batch of a split is filled up for it."""
    batch = images(10)
    with runner(batch=4, profiles=[[4, 4, 4]]) as opened:
        assert opened.inputs()[IMAGES] == ("uint8", (4, SIDE, SIDE, 3))
        got = answers(opened, batch, 1)

    np.testing.assert_array_equal(got["logits"], expected(batch))


def test_an_engine_with_a_free_batch_says_so(runner: Open) -> None:
    """Only the batch is free."""
    with runner() as opened:
        assert opened.inputs()[IMAGES] == ("uint8", (None, SIDE, SIDE, 3))


def test_few_batch_sizes_are_kept_at_once(gpu: FakeGpu, library: Library, runner: Open) -> None:
    """The one unused the longest goes, with everything that was its own, and can come again."""
    with runner(profiles=[[1, 4, 64]]) as opened:
        for count in (1, 2, 3, 4, 1, 5, 1):
            ask(opened, images(count))
        assert len(library.profiles) == 5
        assert gpu.alive["context"] == 4

        np.testing.assert_array_equal(ask(opened, images(2))["logits"], expected(images(2)))
        assert len(library.profiles) == 6
        assert gpu.alive["context"] == 4

    assert gpu.left() == {}


def test_what_does_not_fit_beside_the_others_gets_their_room(gpu: FakeGpu, runner: Open) -> None:
    """Smaller batches are given up before a batch is called too large."""
    gpu.memory = 1000 * (100 + 48 + 12 + 6)
    with runner(profiles=[[1, 4, 2000]], scratch=100) as opened:
        ask(opened, images(600))
        np.testing.assert_array_equal(ask(opened, images(900))["logits"], expected(images(900)))
        assert gpu.alive["context"] == 1


def test_a_batch_that_does_not_fit_ends_the_climb_and_not_the_engine(gpu: FakeGpu, runner: Open) -> None:
    """An error that is known for what it is, and nothing of the attempt stays."""
    gpu.memory = 100_000
    with runner(profiles=[[1, 4, 2000]], scratch=100) as opened:
        ask(opened, images(4))
        with pytest.raises(Exception, match="out of memory") as caught:
            ask(opened, images(900))
        assert out_of_memory(caught.value)
        assert gpu.used() == 0
        np.testing.assert_array_equal(ask(opened, images(4))["logits"], expected(images(4)))

    assert gpu.left() == {}


@pytest.mark.parametrize("kind", ["TensorRtRunner", "RtxRunner"])
def test_a_gpu_that_vanishes_is_one_line(gpu: FakeGpu, runner: Open, kind: str) -> None:
    """Leaving the runner adds no error of its own."""

    def vanish() -> None:
        with runner(kind) as opened:
            ask(opened, images(2))
            gpu.lost = True
            ask(opened, images(2))

    with pytest.raises(BobrtError) as caught:
        vanish()

    assert "\n" not in caught.value.message
    assert caught.value.message.startswith("the GPU failed: ")
    assert caught.value.hint


def test_a_run_the_library_refuses_is_told_in_its_words(runner: Open) -> None:
    """The last error of its log."""
    with runner(refuses=True) as opened, pytest.raises(BobrtError) as caught:
        ask(opened, images(1))

    message = "the engine could not be run: ERROR: IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime"
    assert caught.value.message == message


def test_another_thread_may_ask(gpu: FakeGpu, runner: Open) -> None:
    """LoadGen's server answers from a thread of its own; a new batch size too."""
    found: list[Any] = []
    with runner() as opened:
        ask(opened, images(1))
        asked = [images(1, 1), images(5, 2)]
        thread = threading.Thread(
            target=lambda: found.extend(ask(opened, batch)["logits"] for batch in asked)
        )
        thread.start()
        thread.join()
        ask(opened, images(5))

    for batch, logits in zip(asked, found, strict=True):
        np.testing.assert_array_equal(logits, expected(batch))
    assert gpu.left() == {}


def test_what_the_library_tells_beside_warnings_is_not_kept(runner: Open) -> None:
    """It would cost time and memory where both are measured."""
    with runner() as opened:
        ask(opened, images(1))

        assert opened._log.lines == []


def test_a_file_that_is_no_engine_is_refused_in_the_library_s_words(
    gpu: FakeGpu, runner: Open, tmp_path: Path
) -> None:
    """One line with the library's version and what to do; the device is left again."""
    opened = runner()
    (tmp_path / "engine.bin").write_bytes(b"\x7fgarbage")

    with pytest.raises(BobrtError) as caught:
        opened.__enter__()

    assert caught.value.message == (
        f"tensorrt 11.4.0.106 cannot load {tmp_path / 'engine.bin'}: "
        "ERROR: Error Code 1: Serialization (assertion magicTag failed.)"
    )
    assert "bobrt build" in caught.value.hint
    assert gpu.left() == {}


def test_an_engine_that_is_not_there_is_named(gpu: FakeGpu, runner: Open, tmp_path: Path) -> None:
    """Before the device is touched."""
    opened = runner()
    (tmp_path / "engine.bin").unlink()

    with pytest.raises(UsageError, match=r"engine\.bin does not exist"):
        opened.__enter__()

    assert not gpu.touched


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"library": "tensorrt 10.16.1.11"}, "library tensorrt 10.16.1.11, and here is tensorrt 11.4.0.106"),
        ({"gpu": "NVIDIA L4"}, "gpu NVIDIA L4, and here is NVIDIA Pretend 9000"),
        ({"compute_capability": "8.6", "gpu": None}, "compute capability 8.6, and here is 9.0"),
        ({"cuda": "12.8"}, "cuda 12.8, and here is 13.2"),
    ],
    ids=["library", "gpu", "built without a GPU, for another", "driver"],
)
def test_an_engine_built_for_elsewhere_is_refused_with_what_to_do(
    gpu: FakeGpu, runner: Open, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    """Another library might load it and be wrong: it is not even tried, and no context is made."""
    opened = runner()
    place = msgspec.structs.replace(PLACE, **changes)
    identity = trt_identity.Identity(onnx_sha256="0", place=place, profiles=(), options={})
    write_manifest(tmp_path, identity=msgspec.to_builtins(identity))

    with pytest.raises(BobrtError) as caught:
        opened.__enter__()

    assert caught.value.message == f"{tmp_path / 'engine.bin'} was built for {said}"
    assert "bobrt build" in caught.value.hint
    assert gpu.retained == 0


def test_an_engine_built_for_here_is_opened(runner: Open, tmp_path: Path) -> None:
    """What it was not built for is not compared."""
    opened = runner()
    identity = trt_identity.Identity(onnx_sha256="0", place=PLACE, profiles=(), options={})
    write_manifest(tmp_path, identity=msgspec.to_builtins(identity))

    with opened:
        ask(opened, images(1))


def test_a_damaged_manifest_is_named(runner: Open, tmp_path: Path) -> None:
    """An engine whose origin cannot be read is not opened in the hope that it is right."""
    opened = runner()
    (tmp_path / "manifest.json").write_text('{"stage": "engine')

    with pytest.raises(UsageError, match=r"manifest\.json"):
        opened.__enter__()


def test_the_precision_it_came_to_is_read_from_the_engine(
    runner: Open, library: Library, tmp_path: Path
) -> None:
    """By the multiply-adds of the file's own nodes, which the manifest has; nothing without it."""
    library.inspected = {
        "Layers": [
            {"Name": "a", "Metadata": "[ONNX Layer: conv1]", "Inputs": [{"Format/Datatype": "Half"}]},
            {"Name": "b", "Metadata": "[ONNX Layer: conv2]", "Inputs": [{"Format/Datatype": "Float"}]},
        ]
    }
    with runner() as opened:
        assert opened.realised() is None

    write_manifest(tmp_path, macs={"conv1": 300, "conv2": 100})
    with runner() as opened:
        assert opened.realised() == {"fp16": 0.75, "fp32": 0.25}


def test_rtx_keeps_the_kernels_it_made_beside_the_engine(gpu: FakeGpu, runner: Open, tmp_path: Path) -> None:
    """The first process makes them and says so, the second finds them; what cannot be read is made anew."""
    kernels = tmp_path / "engine.kernels"
    made = "kernels were made for this GPU before the first answers"

    def notes() -> list[str]:
        with runner("RtxRunner") as opened:
            ask(opened, images(1))
            found: list[str] = opened.notes()
        return found

    assert notes() == [made]
    assert read_sealed(kernels) == b"kernels of the fake GPU"
    assert notes() == []
    for edited in (b"something else", b"", kernels.read_bytes().replace(b"fake", b"last")):
        kernels.write_bytes(edited)
        assert notes() == [made]
        assert read_sealed(kernels) == b"kernels of the fake GPU"
    assert gpu.left() == {}


def test_rtx_without_a_place_for_its_kernels_runs_all_the_same(runner: Open, tmp_path: Path) -> None:
    """They are made anew each time, and the runner says that they could not be kept."""
    with runner("RtxRunner") as opened:
        ask(opened, images(1))
        (tmp_path / "engine.kernels").mkdir()

    assert [note.partition(":")[0] for note in opened.notes()][1:] == ["the kernels were not kept"]


def test_the_fake_engine_is_the_only_one_here(tmp_path: Path) -> None:
    """The doubles read JSON, so that no test depends on a real engine's bytes."""
    assert json.loads(engine_file(tmp_path / "e").read_text())["side"] == SIDE
