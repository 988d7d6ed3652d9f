"""The runtimes that exist: what each runs, at which precisions, and why it may not run here.

A new runtime is one file with a `Runner` and one entry in this table. Nothing here imports
a runtime; `open_runner` does, when an engine is about to be opened.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bobrt.artifacts import version
from bobrt.registry import Registry
from bobrt.spec import Batch, Frozen, Placement, Precision
from bobrt.system import ask_gpu, no_driver
from engines import libraries

if TYPE_CHECKING:
    from engines.runner import Runner


RTX = {(7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1)}
"""Compute capabilities TensorRT for RTX builds for. Source: its `ComputeCapability` in 1.7."""


@cache
def compute_capability() -> tuple[int, int] | None:
    """Return the compute capability of the GPU that may be used, as the driver tells it, or None."""
    found = None if _hidden() else re.match(r"(\d+)\.(\d+)", ask_gpu("compute_cap"))
    return (int(found[1]), int(found[2])) if found else None


def not_for_rtx() -> str:
    """Return why TensorRT for RTX has no use for the GPU that is here; an empty string if there is none."""
    here = compute_capability()
    if here is None or here in RTX:
        return ""
    return "TensorRT for RTX does not run on a GPU of compute capability {}.{}".format(*here)


def no_compiler() -> str:
    """Return why torch.compile cannot work on this machine, or an empty string."""
    if sysconfig.get_config_var("Py_GIL_DISABLED") and sys.version_info < (3, 13, 3):
        return "torch.compile does not support a Python without the GIL before 3.13.3"
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        return f"torch.compile needs a C++ compiler, and there is no {compiler} here (apt install g++)"
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.is_file():
        return f"torch.compile needs Python's headers, and there is no {header} (apt install python3-dev)"
    if not no_gpu_for_torch() and not _importable("triton"):
        return "torch.compile needs triton on a GPU (pip install triton)"
    return ""


def no_cuda_provider() -> str:
    """Return why ONNX Runtime's CUDA provider cannot load here, or an empty string."""
    if provider("cuda") is None:
        return "this build of ONNX Runtime has no CUDA provider (pip install onnxruntime-gpu)"
    built = (_capi() / "build_and_package_info.py").read_text(encoding="utf-8")
    found = re.search(r"cuda_version = '(\d+)", built)
    cuda = found[1] if found else "13"
    needed = [f"libcudart.so.{cuda}", f"libcublas.so.{cuda}", "libcudnn.so.9"]
    if missing := [name for name in needed if not libraries.find(name)]:
        return (
            f"ONNX Runtime's CUDA provider needs {', '.join(missing)}, found nowhere "
            "(pip install 'onnxruntime-gpu[cuda,cudnn]')"
        )
    return ""


def no_tensorrt_provider() -> str:
    """Return why ONNX Runtime's TensorRT provider cannot load here, or an empty string."""
    if provider("tensorrt") is None:
        return "this build of ONNX Runtime has no TensorRT provider (pip install onnxruntime-gpu)"
    for name in tensorrt_libraries():
        if not libraries.find(name):
            major = name.rpartition(".")[2]
            other = version("tensorrt")
            beside = f"TensorRT {other} is installed" if other else "none is installed"
            return (
                f"ONNX Runtime's TensorRT provider is built for TensorRT {major} ({name}), and {beside} "
                f"(pip install 'tensorrt=={major}.*')"
            )
    return no_cuda_provider()


def provider(word: str) -> Path | None:
    """Return the shared library of one of ONNX Runtime's providers, or None if the build has none."""
    return next(iter(sorted(_capi().glob(f"*onnxruntime_providers_{word}.*"))), None)


@cache
def tensorrt_libraries() -> tuple[str, ...]:
    """Return the names of TensorRT's libraries that ONNX Runtime's provider is linked to, parents first."""
    library = provider("tensorrt")
    linked = re.findall(rb"libnv(?:infer|onnxparser)\.so\.\d+", library.read_bytes()) if library else []
    return tuple(sorted({name.decode() for name in linked}))


class Runtime(Frozen, frozen=True, kw_only=True):
    """One way to run a model file."""

    name: str
    artifact: Literal["checkpoint", "onnx", "engine"]
    """What it opens."""
    module: str
    """The library it needs, as imported."""
    extra: str
    """The install extra that brings it; empty for the base install."""
    precisions: tuple[Precision, ...]
    others: str = ""
    """Why it has no other precision."""
    placement: Placement
    """By whose rules its files of low precision are made: where Q/DQ are placed, what has no bf16 kernel."""
    runner: str | None
    """`module:class` of the runner, or None for a runtime that is built for and not yet run."""
    runs_with: tuple[str, ...] = ()
    """More modules that its runner needs, and its builder does not."""
    tools: tuple[str, ...]
    """Distributions that decide its speed: a result is re-used only while they are the same."""
    needs_gpu: bool = False
    likes_gpu: bool = False
    """It runs on a GPU where PyTorch is built for one, and on the CPU elsewhere."""
    lacks: Callable[[], str] | None = None
    """Tells what else is missing on this machine, or returns an empty string; loads no library."""
    keeps: bool = False
    """It keeps what it makes beside the file it opens, which must lie in the cache then."""
    note: str = ""

    def __post_init__(self) -> None:
        """Raise `ValueError` if a runtime takes int8 and does not say by whose rules."""
        if Precision.INT8 in self.precisions and self.placement is Placement.NONE:
            raise ValueError("takes int8, and placement says by nobody's rules: it is ORT or TENSORRT")


_FLOATS = (Precision.FP32, Precision.TF32, Precision.FP16, Precision.BF16)
_ALL = (*_FLOATS, Precision.INT8, Precision.FP8)
_CHECKPOINT = "a checkpoint has no Q/DQ nodes: eight bits are a property of the ONNX file"
_CUDA = ("pycuda", "cuda.bindings")

RUNTIMES = Registry(
    "runtime",
    {
        runtime.name: runtime
        for runtime in (
            Runtime(
                name="torch",
                artifact="checkpoint",
                module="torch",
                extra="train",
                precisions=_FLOATS,
                others=_CHECKPOINT,
                placement=Placement.NONE,
                runner="engines.torch_eager:TorchRunner",
                tools=("torch", "timm"),
                likes_gpu=True,
                note="eager PyTorch, on the GPU where there is one; in fp32 the reference",
            ),
            Runtime(
                name="torch-compile",
                artifact="checkpoint",
                module="torch",
                extra="train",
                precisions=_FLOATS,
                others=_CHECKPOINT,
                placement=Placement.NONE,
                runner="engines.torch_compile:TorchCompileRunner",
                tools=("torch", "timm", "triton"),
                likes_gpu=True,
                lacks=no_compiler,
                note="torch.compile, once for each batch; with CUDA graphs on a GPU",
            ),
            Runtime(
                name="ort-cpu",
                artifact="onnx",
                module="onnxruntime",
                extra="",
                precisions=(Precision.FP32, Precision.INT8),
                others="its CPU kernels compute 16-bit floats in fp32, and have no fp8",
                placement=Placement.ORT,
                runner="engines.ort_cpu:OrtCpuRunner",
                tools=("onnxruntime",),
                note="ONNX Runtime on the CPU, the embedded default",
            ),
            Runtime(
                name="ort-cuda",
                artifact="onnx",
                module="onnxruntime",
                extra="",
                precisions=_FLOATS,
                others="its CUDA kernels of Conv, Gemm and MatMul are floats: Q/DQ would only add work",
                placement=Placement.ORT,
                runner="engines.ort_cuda:OrtCudaRunner",
                tools=("onnxruntime", "nvidia-cudnn-cu13", "pycuda"),
                needs_gpu=True,
                lacks=no_cuda_provider,
                note="ONNX Runtime on the GPU, bound to buffers of the device",
            ),
            Runtime(
                name="ort-trt",
                artifact="onnx",
                module="onnxruntime",
                extra="",
                precisions=_ALL,
                placement=Placement.TENSORRT,
                runner="engines.ort_trt:OrtTrtRunner",
                tools=("onnxruntime", "tensorrt", "pycuda"),
                needs_gpu=True,
                lacks=no_tensorrt_provider,
                keeps=True,
                note="TensorRT 10 inside ONNX Runtime; builds when first opened",
            ),
            Runtime(
                name="tensorrt",
                artifact="engine",
                module="tensorrt",
                extra="tensorrt",
                precisions=_ALL,
                placement=Placement.TENSORRT,
                runner="engines.trt_run:TensorRtRunner",
                runs_with=_CUDA,
                tools=("tensorrt",),
                needs_gpu=True,
                note="TensorRT 10 or 11: built on the GPU it runs on",
            ),
            Runtime(
                name="tensorrt-rtx",
                artifact="engine",
                module="tensorrt_rtx",
                extra="rtx",
                precisions=_ALL,
                placement=Placement.TENSORRT,
                runner="engines.trt_run:RtxRunner",
                runs_with=_CUDA,
                tools=("tensorrt-rtx",),
                needs_gpu=True,
                lacks=not_for_rtx,
                note="TensorRT for RTX: builds anywhere, runs on a GeForce or RTX GPU",
            ),
        )
    },
    Runtime,
)

SINCE = {Precision.TF32: (8, 0), Precision.BF16: (8, 0), Precision.FP8: (8, 9)}
"""The first compute capability that computes at a precision. Source: the CUDA programming guide."""


def cannot_build(runtime: Runtime) -> str:
    """Return why this machine cannot make the runtime's artifact, or an empty string."""
    if runtime.artifact != "engine":
        return ""
    if not _importable(runtime.module):
        return _absent(runtime)
    if runtime.name == "tensorrt":
        return no_gpu()
    return not_for_rtx() if runtime.name == "tensorrt-rtx" else ""


def cannot_run(runtime: Runtime) -> str:
    """Return why this machine cannot run the runtime's artifact, or an empty string."""
    if not _importable(runtime.module):
        return _absent(runtime)
    if runtime.needs_gpu and (reason := no_gpu()):
        return reason
    if missing := [module for module in runtime.runs_with if not _importable(module)]:
        names = [module.replace(".", "-") for module in missing]
        is_not = "is not" if len(names) == 1 else "are not"
        return f"{' and '.join(names)} {is_not} installed (pip install {' '.join(names)})"
    if runtime.runner is None:
        return f"this version builds {runtime.name} engines and does not yet run them"
    if runtime.lacks and (reason := runtime.lacks()):
        return reason
    return ""


def beyond(runtime: Runtime, precision: Precision) -> str:
    """Return why the device that is here cannot compute at a precision, or an empty string.

    Whether the runtime is there is not asked: for such a device no file is worth making.
    """
    here, first = compute_capability(), SINCE.get(precision)
    if not on_gpu(runtime) or here is None or first is None or here >= first:
        return ""
    return "{} needs a GPU of compute capability {}.{}, and this one has {}.{}".format(
        precision, *first, *here
    )


def wants_gpu(runtime: Runtime, precision: Precision) -> str:
    """Return why a runtime that computes on the CPU here has no use for a precision, or an empty string."""
    if precision is not Precision.TF32 or on_gpu(runtime):
        return ""
    return f"tf32 is arithmetic of a GPU: {no_gpu_for_torch()}"


def on_gpu(runtime: Runtime) -> bool:
    """Tell whether a runtime computes on a GPU here: that is what is locked and watched while it does."""
    return runtime.needs_gpu or (runtime.likes_gpu and not no_gpu_for_torch())


def no_gpu_for_torch() -> str:
    """Return why PyTorch computes on the CPU here, or an empty string; loads nothing."""
    if reason := no_gpu():
        return reason
    told = [folder / "version.py" for folder in libraries.folders_of("torch")]
    if not any(re.search(r"^cuda: .* = '", path.read_text(encoding="utf-8"), re.MULTILINE) for path in told):
        return "this PyTorch is built without CUDA (pip install torch)"
    return ""


def no_gpu() -> str:
    """Return why no NVIDIA GPU can be used, or an empty string if one can."""
    return _hidden() or no_driver()


def _hidden() -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return f"CUDA_VISIBLE_DEVICES={visible} hides every GPU" if visible in {"", "-1"} else ""


def versions(runtime: Runtime) -> dict[str, str | None]:
    """Return the versions of the distributions that decide a runtime's speed, null where absent."""
    return {tool: version(tool) for tool in runtime.tools}


def open_runner(
    runtime: Runtime,
    path: Path,
    threads: int,
    precision: Precision = Precision.FP32,
    batch: Batch = "dynamic",
) -> Runner:
    """Return a runner for a file, not yet entered; imports the runtime's library.

    Args:
        runtime: What opens it.
        path: The file.
        threads: CPU threads it may use.
        precision: What the cell asks for: `tf32` is the fp32 file, and a checkpoint has none of its own.
        batch: The engine's own batch axis, where the file leaves it open.

    """
    if runtime.runner is None:
        raise NotImplementedError(runtime.name)
    module, _, name = runtime.runner.partition(":")
    runner: Runner = getattr(importlib.import_module(module), name)(path, threads, precision, batch)
    return runner


def _capi() -> Path:
    """Return the folder of ONNX Runtime's libraries."""
    return libraries.folders_of("onnxruntime")[0] / "capi"


def _importable(module: str) -> bool:
    """Tell whether a module can be found, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a dotted name, the parent is looked for by importing it
        return False


def _absent(runtime: Runtime) -> str:
    extra = f" (pip install 'bobrt[{runtime.extra}]')" if runtime.extra else ""
    return f"{runtime.module} is not installed{extra}"
