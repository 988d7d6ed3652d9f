"""Runtime `ort-trt`: ONNX Runtime's TensorRT provider. It is built for TensorRT 10 and loads no other.

No precision flag is set: the provider's network is strongly typed then (its pull request 19695), as in
`engines.trt_build`, and the file says it all. An engine is kept in a folder beside the file, so that only
the first opening builds it.
"""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Any, ClassVar, Self

from bobrt.artifacts import version
from bobrt.errors import BobrtError
from bobrt.spec import Precision, digest
from bobrt.system import this_system
from engines import libraries, onnx_file, runtimes
from engines.ort_cuda import OrtCudaRunner
from engines.runner import IMAGES

if TYPE_CHECKING:
    from pathlib import Path

PROFILE = {"min": 1, "opt": 8, "max": 256}
"""Images at once that an engine with a free batch axis takes, and those it is tuned for."""
TENSORRT = "TensorrtExecutionProvider"
NO_TF32 = "NVIDIA_TF32_OVERRIDE"
"""The provider has no option for TF32: NVIDIA's libraries read this once in a process."""


class OrtTrtRunner(OrtCudaRunner):
    """An ONNX file in ONNX Runtime's TensorRT provider; arguments as of `OrtCudaRunner`."""

    provider: ClassVar[str] = TENSORRT
    realised: ClassVar[None] = None  # type: ignore[assignment]
    """The provider's kernels are TensorRT's, and ONNX Runtime does not see into them."""

    def _preload(self) -> None:
        super()._preload()
        for name in runtimes.tensorrt_libraries():
            if found := libraries.find(name):
                ctypes.CDLL(str(found), ctypes.RTLD_GLOBAL)

    def __enter__(self) -> Self:
        if self._precision is Precision.TF32:
            os.environ.pop(NO_TF32, None)
        else:
            os.environ[NO_TF32] = "0"
        if reason := runtimes.no_tensorrt_provider():  # ONNX Runtime would say so in a paragraph
            raise BobrtError(reason)
        return super().__enter__()

    def largest_batch(self) -> int:
        """Return the most images the engine takes at once."""
        return self.inputs()[IMAGES].shape[0] or PROFILE["max"]

    def notes(self) -> list[str]:
        """Return what is not as a reader would expect."""
        built = ["the engine was built while the file was opened"] if self._new else []
        return [*super().notes(), *built]

    def _providers(self, stream: int | None) -> list[tuple[str, dict[str, Any]]]:
        shapes = profile(self._path)
        folder = self._kept()
        self._new = not any(folder.glob("*.engine"))
        options: dict[str, Any] = {
            "device_id": 0,
            "trt_engine_cache_enable": 1,
            "trt_engine_cache_path": str(folder),
            "trt_timing_cache_enable": 1,
            "trt_timing_cache_path": str(folder),
            **shapes,
        }
        if stream is not None:
            options["user_compute_stream"] = stream
        return [(TENSORRT, options), *super()._providers(stream)]

    def _kept(self) -> Path:
        """Return the folder of this file's engine on this machine, made if need be."""
        system = this_system()
        made_by = {
            "file": onnx_file.identity(self._path),
            "onnxruntime": version("onnxruntime"),
            "tensorrt": [version("tensorrt"), *_tensorrt()],
            "gpu": system.gpu,
            "driver": system.driver,
            "tf32": self._precision is Precision.TF32,
        }
        folder = self._path.parent / "ort-trt" / digest(made_by)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BobrtError(
                f"the engine of {self._path} cannot be kept beside it: {error.strerror or error}",
                "copy the file into a folder you can write",
            ) from error
        return folder


def _tensorrt() -> list[str]:
    """Return TensorRT's libraries by the names that hold their versions, where links lead to such."""
    found = [libraries.find(name) for name in runtimes.tensorrt_libraries()]
    return [str(path.resolve()) for path in found if path]


def profile(path: Path) -> dict[str, str]:
    """Return the provider's options for a free batch axis, one engine for 1 to 256 images; else none."""
    dims = onnx_file.load(path).graph.input[0].type.tensor_type.shape.dim
    if dims[0].dim_value:
        return {}
    sides = "x".join(str(dim.dim_value) for dim in dims[1:])
    return {f"trt_profile_{name}_shapes": f"{IMAGES}:{size}x{sides}" for name, size in PROFILE.items()}
