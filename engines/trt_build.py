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
from bobrt.garbage import uncollected
from bobrt.spec import EngineSpec, FileCard, Precision
from engines import macs, onnx_file, trt_identity
from engines.runner import IMAGES
from engines.trt_log import Log
from engines.trt_timing import TimingCache

if TYPE_CHECKING:
    from types import ModuleType

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}


def make(job: Job) -> Produced:
    """Write `engine.bin` and `build.log` into the job's folder."""
    if job.source is None:
        raise BobrtError("an engine is built from an ONNX file, and none was given")
    spec = msgspec.convert(job.options, type=EngineSpec)
    job.report("building", f"{spec.runtime} for compute capability {spec.compute_capability}")
    trt = importlib.import_module(MODULES[spec.runtime])
    model = onnx_file.load(job.source.path)
    identity = trt_identity.of(trt, spec, job.source.sha256)
    log: list[str] = []
    # TensorRT for RTX times nothing when it builds; its kernels are chosen where they run.
    timing = (
        TimingCache.of(job.folder.parents[1], identity.place, log) if spec.runtime == "tensorrt" else None
    )
    try:
        plan = build(trt, model.SerializeToString(), spec, log, timing)
    finally:
        (job.folder / "build.log").write_text("\n".join(log) + "\n", encoding="utf-8")
    (job.folder / "engine.bin").write_bytes(plan)
    card = msgspec.convert(job.source.manifest.detail["card"], type=FileCard)
    card = msgspec.structs.replace(card, precision=spec.precision)
    detail = {
        "card": msgspec.to_builtins(card),
        "shares": macs.shares(model),
        "macs": macs.by_node(model),
        "identity": msgspec.to_builtins(identity),
        **{key: value for key, value in job.source.manifest.detail.items() if key == "validation_drop"},
    }
    return Produced("engine.bin", detail)


# The library logs with a lock held that a builder's destructor takes too: a collection that began in our
# logger, and came across an old builder, would never end.
@uncollected()
def build(
    trt: ModuleType, model: bytes, spec: EngineSpec, log: list[str], timing: TimingCache | None = None
) -> bytes:
    """Return a serialized engine.

    Args:
        trt: `tensorrt` 10 or 11, or `tensorrt_rtx`.
        model: The ONNX file's bytes; its `images` axis 0 is free or fixed as in `spec`.
        spec: Precision, batch and compute capability.
        log: Receives the library's messages.
        timing: What earlier builds measured; receives what this one does.

    Raises:
        BobrtError: The parser or the builder refuses the file; the message is the library's.

    """
    messages = Log(log)
    builder = trt.Builder(messages.logger(trt))
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, messages.logger(trt))
    if not parser.parse(model):
        raise BobrtError(
            f"{spec.runtime} cannot parse the file: {_first_error(parser)}",
            "choose another runtime: bobrt list runtimes",
        )
    _let_attention_be_taken_apart(trt, network)
    config = builder.create_builder_config()
    # TensorRT allows TF32 unless told otherwise; fp32 here means fp32.
    set_flag = config.set_flag if spec.precision is Precision.TF32 else config.clear_flag
    set_flag(trt.BuilderFlag.TF32)
    if spec.runtime == "tensorrt-rtx":
        _take_no_memory(trt, config)
    config.builder_optimization_level = spec.level
    # So that the engine can be asked which precision each of its layers came to.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    for batches in trt_identity.profiles(spec):
        config.add_optimization_profile(_profile(builder, network, batches))
    if spec.compute_capability != "current":
        _aim(trt, config, spec.compute_capability)
    if timing:
        timing.give(config)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise messages.error(f"{spec.runtime} cannot build the file")
    if timing:
        timing.keep(config)
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


def _let_attention_be_taken_apart(trt: ModuleType, network: Any) -> None:  # noqa: ANN401 - untyped
    """Allow an Attention node several kernels: left alone, the builder refuses where none is fused."""
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type == trt.LayerType.ATTENTION_INPUT:
            layer.__class__ = trt.IAttentionInputLayer
            layer.attention.decomposable = True


def _profile(builder: Any, network: Any, batches: tuple[int, int, int]) -> Any:  # noqa: ANN401 - untyped
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if tensor.name != IMAGES:
            raise BobrtError(f"the file has an input {tensor.name}; a bobrt engine takes only {IMAGES}")
        sides = tuple(tensor.shape)[1:]
        profile.set_shape(tensor.name, *((batch, *sides) for batch in batches))
    return profile


def _take_no_memory(trt: ModuleType, config: Any) -> None:  # noqa: ANN401 - the library is untyped
    """Have TensorRT for RTX need no memory but ours while it runs: with its own it would be no CUDA graph."""
    config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)


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
