"""The runtime `ort-trt`: what its provider is told, and where its engine is kept."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from bobrt.errors import BobrtError, UsageError
from bobrt.spec import Precision
from engines import ort_cuda, ort_trt, runtimes
from engines.ort_cpu import CPU, open_session
from engines.ort_cuda import CUDA
from engines.ort_memory import OrtMemory
from engines.ort_trt import NO_TF32, TENSORRT, OrtTrtRunner
from engines.runner import ReadBack

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a file that takes images, with a batch axis that is free or fixed."""

    def make(batch: int | str = "batch") -> Path:
        graph = helper.make_graph(
            [helper.make_node("Cast", ["images"], ["y"], to=TensorProto.FLOAT)],
            "cast",
            [helper.make_tensor_value_info("images", TensorProto.UINT8, [batch, 8, 8, 3])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 8, 8, 3])],
        )
        path = tmp_path / "it.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
        return path

    return make


def test_the_providers_are_asked_in_turn_on_one_stream(write: Callable[..., Path]) -> None:
    """TensorRT first; no precision flag is set, since the file says it; one engine for every batch."""
    path = write()

    (first, options), (second, cuda), (third, _) = OrtTrtRunner(path, 1)._providers(42)

    assert (first, second, third) == (TENSORRT, CUDA, CPU)
    assert options["user_compute_stream"] == cuda["user_compute_stream"] == 42
    assert not any("fp16" in key or "int8" in key or "bf16" in key for key in options)
    assert options["trt_engine_cache_path"] == str(OrtTrtRunner(path, 1)._kept())
    assert options["trt_profile_min_shapes"] == "images:1x8x8x3"
    assert options["trt_profile_max_shapes"] == "images:256x8x8x3"


def test_the_session_is_told_to_keep_the_engine_and_its_timings(
    monkeypatch: pytest.MonkeyPatch, write: Callable[..., Path]
) -> None:
    """Or every opening would build, and measure, anew."""
    handed: dict[str, Any] = {}

    def that_far(*_: object, providers: list[tuple[str, dict[str, Any]]], **__: object) -> None:
        handed.update(dict(providers)[TENSORRT])
        raise BobrtError("that far")

    monkeypatch.setattr(runtimes, "no_tensorrt_provider", lambda: None)
    monkeypatch.setattr(ort_cuda, "open_session", that_far)
    monkeypatch.setattr(OrtTrtRunner, "_memory", lambda self: OrtMemory(self.kind))
    monkeypatch.setenv(NO_TF32, "as it was")  # and so it will be again
    runner = OrtTrtRunner(write(), 1)

    with pytest.raises(BobrtError, match="that far"):
        runner.__enter__()

    folder = str(runner._kept())
    assert handed["trt_engine_cache_enable"] is True
    assert handed["trt_engine_cache_path"] == folder
    assert handed["trt_timing_cache_enable"] is True
    assert handed["trt_timing_cache_path"] == folder


def test_onnx_runtime_takes_the_options_for_what_they_are(
    monkeypatch: pytest.MonkeyPatch, write: Callable[..., Path]
) -> None:
    """It reads them before it looks for TensorRT's libraries, and refuses a 1 where it wants a `True`."""
    # This one step before it needs the libraries.
    monkeypatch.setattr(ort.InferenceSession, "_register_ep_custom_ops", lambda *_: None)
    path = write()
    (name, options), *_ = OrtTrtRunner(path, 1)._providers(None)

    open_session(str(path), 1, providers=[(name, options), (CPU, {})])
    with pytest.raises(Exception, match="'trt_engine_cache_enable' should be 'True' or 'False'"):
        open_session(str(path), 1, providers=[(name, {**options, "trt_engine_cache_enable": 1}), (CPU, {})])


def test_a_file_with_a_batch_of_its_own_needs_no_profile(write: Callable[..., Path]) -> None:
    """Its shape is the profile."""
    assert ort_trt.profile(write(8)) == {}


def test_a_file_that_lists_its_weights_as_inputs_has_its_profile_all_the_same(
    write: Callable[..., Path],
) -> None:
    """Files of the first years of ONNX do; what is fed is the images."""
    path = write()
    model = onnx.load(path)
    model.graph.initializer.append(helper.make_tensor("w", TensorProto.FLOAT, [1], [0.0]))
    model.graph.input.insert(0, helper.make_tensor_value_info("w", TensorProto.FLOAT, [1]))
    onnx.save(model, path)
    assert ort_trt.profile(path)["trt_profile_opt_shapes"] == "images:8x8x8x3"


@pytest.mark.parametrize("edit", ["engine", "another", "seal", "no seal"])
def test_an_engine_that_was_edited_is_built_anew(write: Callable[..., Path], edit: str) -> None:
    """The provider finds none in its place, and the row says why it was built."""
    runner = OrtTrtRunner(write(), 1)
    folder = runner._kept()
    (folder / "it.engine").write_bytes(b"an engine")
    ort_trt._seal(folder)
    runner._providers(None)
    assert not runner._new
    assert not runner._edited
    if edit == "no seal":
        (folder / ort_trt.SEAL).unlink()
    else:
        (folder / {"engine": "it.engine", "another": "other.engine", "seal": ort_trt.SEAL}[edit]).write_bytes(
            b"x"
        )
    runner._providers(None)
    assert not list(folder.glob("*.engine"))
    assert (runner._new, runner._edited) == (True, True)


def test_an_engine_is_kept_beside_its_file_and_named_by_all_that_made_it(
    monkeypatch: pytest.MonkeyPatch, write: Callable[..., Path]
) -> None:
    """The same again for the same; another for another file, TF32, driver or ONNX Runtime."""
    path = write()
    first = OrtTrtRunner(path, 1)._kept()
    assert first.is_dir()
    assert first.parent == path.parent / "ort-trt"
    assert OrtTrtRunner(path, 1, Precision.FP16)._kept() == first
    others = {OrtTrtRunner(path, 1, Precision.TF32)._kept()}

    monkeypatch.setattr(ort_trt, "version", lambda _: "9.9")
    others.add(OrtTrtRunner(path, 1)._kept())
    monkeypatch.undo()
    others.add(OrtTrtRunner(write(4), 1)._kept())

    assert len({first, *others}) == 4


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_nobody_may_write_into_is_one_line(write: Callable[..., Path]) -> None:
    """The engine has to go somewhere; the hint says what to do."""
    path = write()
    path.parent.chmod(0o500)

    with pytest.raises(BobrtError, match="cannot be kept beside it"):
        OrtTrtRunner(path, 1)._kept()


def test_a_file_in_the_way_is_one_line(write: Callable[..., Path]) -> None:
    """As a full disk is."""
    path = write()
    (path.parent / "ort-trt").touch()

    with pytest.raises(BobrtError, match=r"it\.onnx cannot be kept beside it: ") as caught:
        OrtTrtRunner(path, 1)._kept()

    assert "copy the file" in caught.value.hint


def test_tf32_is_forbidden_unless_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """NVIDIA's libraries read it from the environment; the provider has no option for it."""
    monkeypatch.setattr(runtimes, "no_tensorrt_provider", lambda: "that far")
    monkeypatch.setenv(NO_TF32, "as it was")  # and so it will be again
    seen = []
    for precision in (Precision.FP32, Precision.TF32, Precision.INT8):
        with pytest.raises(BobrtError, match="that far"):
            OrtTrtRunner(tmp_path / "it.onnx", 1, precision).__enter__()
        seen.append(os.environ.get(NO_TF32))

    assert seen == ["0", None, "0"]


def test_it_does_not_tell_what_it_computes_in(write: Callable[..., Path]) -> None:
    """Its kernels are TensorRT's: a row of it says so, and no share is made up."""
    assert not isinstance(OrtTrtRunner(write(), 1), ReadBack)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Before anything is built."""
    with pytest.raises(UsageError, match=r"gone\.onnx does not exist"):
        OrtTrtRunner(tmp_path / "gone.onnx", 1)._providers(None)


def test_the_provider_is_linked_to_tensorrt_10() -> None:
    """Read from the library itself, so that a build for another TensorRT needs no change here."""
    assert runtimes.tensorrt_libraries() == ("libnvinfer.so.10", "libnvonnxparser.so.10")
