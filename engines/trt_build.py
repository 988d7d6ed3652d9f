"""The stages `engine-*`: an ONNX file built into a TensorRT engine. Written once for three libraries.

TensorRT 10, TensorRT 11 and TensorRT-RTX share the strongly typed network: the precision is
the file's, no builder flag says otherwise. What differs is asked of the library itself.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import msgspec

from bobrt.artifacts import Job, Produced
from bobrt.errors import BobrtError
from bobrt.spec import EngineSpec, Precision
from engines import macs, onnx_file
from engines.runner import IMAGES

if TYPE_CHECKING:
    from types import ModuleType

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
MAX_BATCH, BEST_BATCH = 64, 8
"""The optimization profile of an engine with a free batch axis: 1 .. 64, tuned for 8."""


def make(job: Job) -> Produced:
    """Write `engine.bin` and `build.log` into the job's folder."""
    if job.source is None:
        raise BobrtError("an engine is built from an ONNX file, and none was given")
    spec = msgspec.convert(job.options, type=EngineSpec)
    job.report("building", f"{spec.runtime} for compute capability {spec.compute_capability}")
    trt = importlib.import_module(MODULES[spec.runtime])
    model = onnx_file.load(job.source.path)
    card = onnx_file.require_card(model, job.source.path)
    log: list[str] = []
    try:
        plan = build(trt, model.SerializeToString(), spec, log)
    finally:
        (job.folder / "build.log").write_text("\n".join(log) + "\n", encoding="utf-8")
    (job.folder / "engine.bin").write_bytes(plan)
    card = msgspec.structs.replace(card, precision=spec.precision)
    detail = {"card": msgspec.to_builtins(card), "shares": macs.shares(model), "library": trt.__version__}
    return Produced("engine.bin", detail)


def build(trt: ModuleType, model: bytes, spec: EngineSpec, log: list[str]) -> bytes:
    """Return a serialized engine.

    Args:
        trt: `tensorrt` 10 or 11, or `tensorrt_rtx`.
        model: The ONNX file's bytes; its `images` axis 0 is free or fixed as in `spec`.
        spec: Precision, batch and compute capability.
        log: Receives the library's messages.

    Raises:
        BobrtError: The parser or the builder refuses the file; the message is the library's.

    """
    builder = trt.Builder(_logger(trt, log))
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, _logger(trt, log))
    if not parser.parse(model):
        raise BobrtError(
            f"{spec.runtime} cannot parse the file: {_first_error(parser)}",
            "choose another runtime: bobrt list runtimes",
        )
    config = builder.create_builder_config()
    # TensorRT allows TF32 unless told otherwise; fp32 here means fp32.
    set_flag = config.set_flag if spec.precision is Precision.TF32 else config.clear_flag
    set_flag(trt.BuilderFlag.TF32)
    config.add_optimization_profile(_profile(builder, network, spec))
    if spec.compute_capability != "current":
        _aim(trt, config, spec.compute_capability)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        reason = next((line for line in reversed(log) if line.startswith("ERROR")), "no reason given")
        raise BobrtError(f"{spec.runtime} cannot build the file: {reason}")
    return bytes(plan)


def _first_error(parser: Any) -> str:  # noqa: ANN401 - the library is untyped
    if not parser.num_errors:
        return "no reason given"
    error = parser.get_error(0)
    node = f"node {error.node_operator()}: " if error.node_operator() else ""
    return node + " ".join(error.desc().split())


def _network_flags(trt: ModuleType) -> int:
    """Strongly typed: a flag in TensorRT 10, the only way in 11, where the flag is accepted and ignored."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _profile(builder: Any, network: Any, spec: EngineSpec) -> Any:  # noqa: ANN401 - the library is untyped
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if tensor.name != IMAGES:
            raise BobrtError(f"the file has an input {tensor.name}; a bobrt engine takes only {IMAGES}")
        sides = tuple(tensor.shape)[1:]
        low, best, high = (1, BEST_BATCH, MAX_BATCH) if spec.batch == "dynamic" else (spec.batch,) * 3
        profile.set_shape(tensor.name, (low, *sides), (best, *sides), (high, *sides))
    return profile


def _aim(trt: ModuleType, config: Any, capability: str) -> None:  # noqa: ANN401 - the library is untyped
    """Build for a GPU that is not here; TensorRT-RTX alone can."""
    known = getattr(trt, "ComputeCapability", None)
    aim = getattr(known, f"SM{capability.replace('.', '')}", None)
    if aim is None:
        raise BobrtError(
            f"{trt.__name__} {trt.__version__} cannot build for compute capability {capability}",
            "build on the GPU itself",
        )
    config.num_compute_capabilities = 1
    config.set_compute_capability(aim, 0)


def _logger(trt: ModuleType, log: list[str]) -> Any:  # noqa: ANN401 - the library is untyped
    class Logger(trt.ILogger):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:  # noqa: ANN401
            log.append(f"{str(severity).rpartition('.')[2]}: {message}")

    return Logger()
