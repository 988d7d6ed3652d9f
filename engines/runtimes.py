"""The runtimes that exist: what each runs, at which precisions, and why it may not run here.

A new runtime is one file with a `Runner` and one entry in this table. Nothing here imports
a runtime; `open_runner` does, when an engine is about to be opened.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Literal

from bobrt.artifacts import version
from bobrt.registry import Registry
from bobrt.spec import Frozen, Placement, Precision
from bobrt.system import no_driver

if TYPE_CHECKING:
    from pathlib import Path

    from engines.runner import Runner


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
    placement: Placement
    """Whose int8 placement it wants."""
    runner: str | None
    """`module:class` of the runner, or None for a runtime that is built for and not yet run."""
    tools: tuple[str, ...]
    """Distributions that decide its speed: a result is re-used only while they are the same."""
    needs_gpu: bool = False
    note: str = ""


_LOW = (Precision.FP32, Precision.FP16, Precision.INT8)

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
                precisions=(Precision.FP32,),
                placement=Placement.NONE,
                runner="engines.torch_eager:TorchRunner",
                tools=("torch", "timm"),
                note="eager PyTorch, the reference",
            ),
            Runtime(
                name="ort-cpu",
                artifact="onnx",
                module="onnxruntime",
                extra="",
                precisions=_LOW,
                placement=Placement.ORT,
                runner="engines.ort_cpu:OrtCpuRunner",
                tools=("onnxruntime",),
                note="ONNX Runtime on the CPU, the embedded default",
            ),
            Runtime(
                name="tensorrt",
                artifact="engine",
                module="tensorrt",
                extra="tensorrt",
                precisions=(*_LOW, Precision.TF32),
                placement=Placement.TENSORRT,
                runner=None,
                tools=("tensorrt",),
                needs_gpu=True,
                note="TensorRT 10 or 11: built on the GPU it runs on",
            ),
            Runtime(
                name="tensorrt-rtx",
                artifact="engine",
                module="tensorrt_rtx",
                extra="rtx",
                precisions=(*_LOW, Precision.TF32),
                placement=Placement.TENSORRT,
                runner=None,
                tools=("tensorrt-rtx",),
                needs_gpu=True,
                note="TensorRT for RTX: builds anywhere, runs on a GeForce or RTX GPU",
            ),
        )
    },
    Runtime,
)


def cannot_build(runtime: Runtime) -> str:
    """Return why this machine cannot make the runtime's artifact, or an empty string."""
    if runtime.artifact != "engine":
        return ""
    if not _importable(runtime.module):
        return _absent(runtime)
    return no_driver() if runtime.name == "tensorrt" else ""


def cannot_run(runtime: Runtime) -> str:
    """Return why this machine cannot run the runtime's artifact, or an empty string."""
    if not _importable(runtime.module):
        return _absent(runtime)
    if runtime.needs_gpu and (reason := no_driver()):
        return reason
    if runtime.runner is None:
        return f"this version builds {runtime.name} engines and does not yet run them"
    return ""


def versions(runtime: Runtime) -> dict[str, str | None]:
    """Return the versions of the distributions that decide a runtime's speed, null where absent."""
    return {tool: version(tool) for tool in runtime.tools}


def open_runner(runtime: Runtime, path: Path, threads: int) -> Runner:
    """Return a runner for a file, not yet entered; imports the runtime's library."""
    if runtime.runner is None:
        raise NotImplementedError(runtime.name)
    module, _, name = runtime.runner.partition(":")
    runner: Runner = getattr(importlib.import_module(module), name)(path, threads)
    return runner


def _importable(module: str) -> bool:
    """Tell whether a module can be found, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a dotted name, the parent is looked for by importing it
        return False


def _absent(runtime: Runtime) -> str:
    extra = f" (pip install 'bobrt[{runtime.extra}]')" if runtime.extra else ""
    return f"{runtime.module} is not installed{extra}"
