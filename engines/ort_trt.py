"""Runtime `ort-trt`: ONNX Runtime's TensorRT provider. It is built for TensorRT 10 and loads no other.

No precision flag is set: the provider's network is strongly typed then (its pull request 19695), as in
`engines.trt_build`, and the file says it all. An engine is kept in a folder beside the file, so that only
the first opening builds it.
"""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Any, ClassVar, Self

import msgspec

from bobrt.artifacts import version
from bobrt.errors import BobrtError
from bobrt.paths import sha256_of, write_atomic
from bobrt.spec import Precision, digest
from bobrt.system import this_system
from engines import libraries, onnx_file, runtimes
from engines.ort_cuda import OrtCudaRunner
from engines.runner import IMAGES, require_images

if TYPE_CHECKING:
    from pathlib import Path

PROFILE = {"min": 1, "opt": 8, "max": 256}
"""Images at once that an engine with a free batch axis takes, and those it is tuned for."""
TENSORRT = "TensorrtExecutionProvider"
SEAL = "engines.json"
"""What the engines of a folder were when the provider had made them."""
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
        super().__enter__()
        try:
            _seal(self._kept())
        except BaseException:
            self._stack.close()
            raise
        return self

    def largest_batch(self) -> int:
        """Return the most images the engine takes at once."""
        return self.inputs()[IMAGES].shape[0] or PROFILE["max"]

    def notes(self) -> list[str]:
        """Return what is not as a reader would expect."""
        why = ": what was kept was not what had been written" if self._edited else ""
        built = [f"the engine was built while the file was opened{why}"] if self._new else []
        return [*super().notes(), *built]

    def _providers(self, stream: int | None) -> list[tuple[str, dict[str, Any]]]:
        shapes = profile(self._path)
        folder = self._kept()
        self._edited = _drop_edited(folder)
        self._new = not any(folder.glob("*.engine"))
        options: dict[str, Any] = {
            "device_id": 0,
            "trt_engine_cache_enable": True,  # 1 is refused: for this provider a bool is `True` or `False`
            "trt_engine_cache_path": str(folder),
            "trt_timing_cache_enable": True,
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


def _seal(folder: Path) -> None:
    """Write down what the engines of a folder are."""
    write_atomic(folder / SEAL, msgspec.json.encode(_engines(folder)))


def _drop_edited(folder: Path) -> bool:
    """Remove the engines of a folder if they are not those that were sealed; tell whether there were such."""
    engines, seal = _engines(folder), folder / SEAL
    try:
        sealed = msgspec.json.decode(seal.read_bytes(), type=dict[str, str])
    except (OSError, msgspec.DecodeError):
        sealed = {}
    if not engines or engines == sealed:
        return False
    for name in engines:
        (folder / name).unlink()
    return True


def _engines(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in sorted(folder.glob("*.engine"))}


def _tensorrt() -> list[str]:
    """Return TensorRT's libraries by the names that hold their versions, where links lead to such."""
    found = [libraries.find(name) for name in runtimes.tensorrt_libraries()]
    return [str(path.resolve()) for path in found if path]


def profile(path: Path) -> dict[str, str]:
    """Return the provider's options for a free batch axis, one engine for 1 to 256 images; else none."""
    batch, *sizes = require_images(onnx_file.inputs_of(onnx_file.graph_of(path)), path).shape
    if batch:
        return {}
    sides = "x".join(map(str, sizes))
    return {f"trt_profile_{name}_shapes": f"{IMAGES}:{size}x{sides}" for name, size in PROFILE.items()}
