"""What is asked of every runtime, and what every runtime is asked with."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Self

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bobrt.errors import BobrtError
from engines.ort_cpu import OrtCpuRunner
from engines.runner import (
    IMAGES,
    GpuFailure,
    TensorMeta,
    answers,
    out_of_memory,
    require_answers,
    require_images,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

IMAGE = TensorMeta("uint8", (None, 32, 32, 3))


class Echo:
    """A runner that answers each image's first value, in a buffer it uses again."""

    def __init__(self, batch: int | None) -> None:
        self.batch = batch
        self.asked: list[int] = []
        self._buffer = np.zeros((64, 1), np.float32)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def inputs(self) -> Mapping[str, TensorMeta]:
        return {IMAGES: TensorMeta("uint8", (self.batch, 2, 2, 3))}

    def infer(self, feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        images = feeds[IMAGES]
        self.asked.append(len(images))
        out = self._buffer[: len(images)]
        out[:, 0] = images[:, 0, 0, 0]
        return {"first": out, "twice": 2 * out}


def pictures(count: int) -> np.ndarray:
    """Return pictures that tell which is which: `uint8 [n, 2, 2, 3]`."""
    return np.arange(count, dtype=np.uint8).repeat(12).reshape(count, 2, 2, 3)


@pytest.mark.parametrize(
    ("fixed", "count", "asked"),
    [
        (None, 10, [4, 4, 4]),
        (None, 8, [4, 4]),
        (None, 1, [4]),
        (4, 10, [4, 4, 4]),
        (4, 8, [4, 4]),
        (16, 3, [16]),
        (1, 3, [1, 1, 1]),
    ],
)
def test_every_image_is_answered_once_and_in_order(fixed: int | None, count: int, asked: list[int]) -> None:
    """Every call asks a whole batch, the last filled up; a buffer used again harms nothing."""
    runner = Echo(fixed)

    got = answers(runner, pictures(count), batch=4)

    assert runner.asked == asked
    np.testing.assert_array_equal(got["first"][:, 0], np.arange(count))
    np.testing.assert_array_equal(got["twice"][:, 0], 2 * np.arange(count))


@pytest.mark.parametrize("shape", [(), (1, 2), (5, 2)])
def test_an_engine_that_answers_no_row_for_each_image_is_refused(shape: tuple[int, ...]) -> None:
    """Whatever the file promised: a scalar, or rows that do not depend on how many images there are."""
    runner = Echo(None)
    runner.infer = lambda _: {"logits": np.zeros(shape, np.float32)}  # type: ignore[method-assign]
    with pytest.raises(BobrtError) as caught:
        answers(runner, pictures(4), batch=4)
    assert caught.value.message == f"the engine answers logits {list(shape)} for 4 images, not a row for each"


@pytest.mark.parametrize(
    ("meta", "batch"),
    [
        (TensorMeta("float32", (None, 10)), None),
        (TensorMeta("float16", (8, 10)), 8),
        (TensorMeta("int64", (None,)), None),
        (TensorMeta("float32", ()), None),
    ],
)
def test_a_row_of_numbers_for_each_image_is_let_pass(meta: TensorMeta, batch: int | None) -> None:
    """Of no known shape it may be one."""
    require_answers({"logits": meta}, batch, "it.onnx")


@pytest.mark.parametrize(
    ("meta", "batch", "had"),
    [
        (TensorMeta("bfloat16", (None, 10)), None, "bfloat16 [?, 10]"),
        (TensorMeta("string", (None,)), None, "string [?]"),
        (TensorMeta("float32", (1, 10)), None, "float32 [1, 10]"),
        (TensorMeta("float32", (1, 10)), 8, "float32 [1, 10]"),
    ],
)
def test_an_answer_that_is_no_row_of_numbers_is_refused(meta: TensorMeta, batch: int, had: str) -> None:
    """Before an engine is built of it: numpy has no such number, or the batch makes no difference."""
    with pytest.raises(BobrtError) as caught:
        require_answers({"features": TensorMeta("float32", (None, 4)), "logits": meta}, batch, "it.onnx")
    asked = "a bobrt engine answers numbers, a row for each image"
    assert caught.value.message == f"it.onnx answers logits {had}; {asked}"
    assert "Cast to float32" in caught.value.hint


def test_an_engine_that_takes_images_is_let_pass() -> None:
    """The one input, with a free batch axis or a fixed one."""
    fixed = TensorMeta("uint8", (8, 224, 224, 3))

    assert require_images({IMAGES: IMAGE}, "it.onnx") == IMAGE
    assert require_images({IMAGES: fixed}, "it.onnx") == fixed


@pytest.mark.parametrize(
    ("inputs", "had"),
    [
        ({IMAGES: TensorMeta("float32", (None, 32, 32, 3))}, "images float32 [?, 32, 32, 3]"),
        ({IMAGES: TensorMeta("uint8", (None, 3, 32, 32))}, "images uint8 [?, 3, 32, 32]"),
        ({IMAGES: TensorMeta("uint8", (1, 32, 48, 3))}, "images uint8 [1, 32, 48, 3]"),
        ({IMAGES: TensorMeta("uint8", (None, 3072))}, "images uint8 [?, 3072]"),
        ({"input": IMAGE}, "input uint8 [?, 32, 32, 3]"),
        (
            {IMAGES: IMAGE, "scale": TensorMeta("float32", (1,))},
            "images uint8 [?, 32, 32, 3], scale float32 [1]",
        ),
        ({}, ""),
    ],
    ids=["float", "channels first", "not square", "flat", "another name", "two", "none"],
)
def test_an_engine_that_takes_anything_else_is_refused(inputs: dict[str, TensorMeta], had: str) -> None:
    """The line names what the file takes and what it should take, the hint a command."""
    with pytest.raises(BobrtError) as caught:
        require_images(inputs, "it.onnx")

    expected = "a bobrt engine takes images uint8 [batch, side, side, 3]"
    assert caught.value.message == f"it.onnx takes {had}; {expected}"
    assert "bobrt export" in caught.value.hint


@pytest.mark.parametrize(
    ("shape", "how"),
    [
        (
            (None, None, None, 3),
            (
                "fix its height and width: python -m onnxruntime.tools.make_dynamic_shape_fixed "
                "--input_name images --input_shape 1,224,224,3 IN.onnx OUT.onnx"
            ),
        ),
        ((32, 32, 3), "it takes one image and no batch: export it again with a batch axis in front"),
    ],
)
def test_an_engine_that_nearly_takes_images_says_how(shape: tuple[int | None, ...], how: str) -> None:
    """Free sides can be fixed in the file; a batch axis cannot be added to it."""
    with pytest.raises(BobrtError, match="a bobrt engine takes images") as caught:
        require_images({IMAGES: TensorMeta("uint8", shape)}, "it.onnx")
    assert caught.value.hint == how


def test_the_hint_for_free_sides_fixes_them(graph: Callable[..., onnx.ModelProto], tmp_path: Path) -> None:
    """The command of the hint, on a file with free sides."""
    odd, fixed = tmp_path / "odd.onnx", tmp_path / "fixed.onnx"
    images = helper.make_tensor_value_info(IMAGES, TensorProto.UINT8, ["batch", "h", "w", 3])
    onnx.save(graph([helper.make_node("Add", ["x", "x"], ["y"])], inputs=[images]), odd)
    module = "onnxruntime.tools.make_dynamic_shape_fixed"
    asked = ["--input_name", "images", "--input_shape", "1,32,32,3", str(odd), str(fixed)]
    subprocess.run([sys.executable, "-m", module, *asked], check=True, capture_output=True)
    with OrtCpuRunner(fixed, 1) as runner:
        assert require_images(runner.inputs(), fixed).shape == (1, 32, 32, 3)


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be reported later",
        "CUDA failure 719: unspecified launch failure ; GPU=0 ; hostname=box",
        "CUDNN failure 5003: CUDNN_STATUS_EXECUTION_FAILED_CUDART",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        "cuMemcpyHtoDAsync failed: unknown error",
        "Triton Error [CUDA]: device-side assert triggered",
    ],
    ids=["PyTorch", "ONNX Runtime", "its cuDNN", "PyTorch's cuDNN", "pycuda", "Triton"],
)
def test_a_gpu_that_vanishes_is_one_line(said: str) -> None:
    """Whoever notices: what the library said, and where to look."""
    with pytest.raises(BobrtError) as caught, GpuFailure():
        raise RuntimeError(said)

    assert caught.value.message == f"the GPU failed: {' '.join(said.split())}"
    assert "nvidia-smi" in caught.value.hint
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA failure 2: out of memory ; GPU=0"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        ValueError("customer failed"),
        BobrtError("the engine takes no such batch: CUDA error"),
    ],
    ids=["PyTorch", "ONNX Runtime", "cuBLAS", "another matter", "said already"],
)
def test_what_is_no_failure_of_the_gpu_passes_as_it_is(error: Exception) -> None:
    """Above all want of memory, which ends a climb and not a cell."""
    with pytest.raises(type(error)) as caught, GpuFailure():
        raise error

    assert caught.value is error
    assert out_of_memory(error) == isinstance(error, RuntimeError)
