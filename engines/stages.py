"""The table of stages, and which of them a cell needs: every road from a backbone to a file.

Loads no heavy library: whether a file is already there can be asked by anyone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from bobrt.artifacts import Artifact, Stage, Target, Workshop
from bobrt.catalogue import backbone
from bobrt.errors import BobrtError, UnsupportedError, UsageError
from bobrt.spec import EngineSpec, FileCard, Placement, Precision, Protocol
from bobrt.system import this_system
from bobrt.tasks import cards
from engines.runtimes import RUNTIMES, Runtime, beyond, no_gpu
from train.options import CheckpointOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bobrt.spec import Cell, Json, Recipe, Search

_TRAIN = ("torch", "torchvision", "timm", "safetensors", "numpy", "pillow")
_EXPORT = ("torch", "timm", "onnx", "onnxscript", "onnxruntime")
_QUANT = ("nvidia-modelopt", "onnx", "onnxruntime")
_WHERE = ("compute_capability", "device", "cuda")

STAGES = {
    "checkpoint": Stage("train.checkpoint:make", _TRAIN, "train"),
    "reference": Stage("engines.reference:make", _TRAIN, "train"),
    "attack": Stage("train.attack:make", _TRAIN, "train"),
    "onnx": Stage("engines.export:make", _EXPORT, "train"),
    "fp16": Stage("engines.precision:make_fp16", _QUANT, "quant"),
    "bf16-tensorrt": Stage("engines.precision:make_bf16_for_tensorrt", _QUANT, "quant"),
    "bf16-onnxruntime": Stage("engines.precision:make_bf16_for_onnxruntime", _QUANT, "quant"),
    "fp8": Stage("engines.precision:make_fp8", _QUANT, "quant"),
    "int8-tensorrt": Stage("engines.precision:make_int8_for_tensorrt", _QUANT, "quant"),
    # ModelOpt replaces parts of ONNX Runtime's quantizer when it is imported.
    "int8-onnxruntime": Stage(
        "engines.precision:make_int8_for_onnxruntime", ("onnx", "onnxruntime"), "quant", worker="onnxruntime"
    ),
    "file": Stage("engines.given:make", (), "", worker="tensorrt", lies=("path",)),
    "engine-tensorrt": Stage("engines.trt_build:make", ("tensorrt",), "tensorrt", "tensorrt", _WHERE),
    "engine-tensorrt-rtx": Stage("engines.trt_build:make", ("tensorrt-rtx",), "rtx", "tensorrt", _WHERE),
}

HALF = 0.5
"""Share of the multiply-adds at a precision, below which a file or a row would claim what it is not."""

TRAINED = {Protocol.FINETUNE, Protocol.LOWSHOT}
"""Protocols with a recipe."""

_SET_ON_IMAGES = {Precision.FP16, Precision.INT8, Precision.FP8}

DEFAULT_CAPABILITY = "8.6"
"""What TensorRT-RTX builds for where there is no GPU: the oldest with every precision but fp8."""
FP8_CAPABILITY = "8.9"
"""The oldest with fp8."""

PROFILES = {
    "tensorrt": ((1, 1, 1), (2, 8, 16), (17, 64, 256)),
    # Its kernels are made for the batch that is asked, where they run.
    "tensorrt-rtx": ((1, 8, 256),),
}
"""What an engine with a free batch axis is tuned for: one image, a few, many."""


def workshop(cache: Path) -> Workshop:
    """Return the workshop of a cache folder."""
    return Workshop(cache, STAGES)


def checkpoint_target(
    cell: Cell, recipe: Recipe | None, weights_path: Path | None, search: Search | None = None
) -> Target:
    """Return the checkpoint a cell starts from.

    Raises:
        AbsentDataError: The task's data is not on this machine.

    """
    task = cards.resolved(cell.task) if cell.task else None
    options = CheckpointOptions(
        backbone=backbone(cell.backbone),
        weights=cell.weights,
        weights_path=str(weights_path) if weights_path else None,
        task=task,
        protocol=cell.protocol,
        recipe=recipe if cell.protocol in TRAINED else None,
        search=search if cell.protocol in TRAINED else None,
        seed=cell.seed,
    )
    return Target(stage="checkpoint", options=msgspec.to_builtins(options))


def artifact_target(cell: Cell, checkpoint: Target, max_drop: float) -> Target:
    """Return the file a cell measures, with every stage on the way to it.

    Args:
        cell: What is asked.
        checkpoint: What it starts from.
        max_drop: Points of the metric that eight bits may lose on validation.

    Raises:
        UnsupportedError: The runtime has no such precision, or the device; the message is the reason.

    """
    runtime = RUNTIMES.get(cell.runtime)
    _require_precision(runtime, cell.precision)
    if runtime.artifact == "checkpoint":
        return checkpoint
    model = _at_precision(cell, onnx_target(cell, checkpoint), runtime, max_drop)
    return model if runtime.artifact == "onnx" else _engine_target(cell, runtime, model)


def given_target(cell: Cell, file: Artifact) -> Target | None:
    """Return what a cell measures of an ONNX file made elsewhere, or None where that is the file itself.

    Raises:
        UnsupportedError: The runtime does not take the file as it is; the message is the reason.

    """
    runtime = RUNTIMES.get(cell.runtime)
    _require_precision(runtime, cell.precision)
    card = msgspec.convert(file.manifest.detail["card"], type=FileCard)
    if card.placement is Placement.ORT and runtime.placement is Placement.TENSORRT:
        anew = f"bobrt build NAME --task TASK --precision {cell.precision} --runtime {runtime.name}"
        raise UnsupportedError(
            f"the file's Q/DQ are placed for ONNX Runtime's CPU kernels, and {runtime.name} takes "
            f"TensorRT's placement ({anew})"
        )
    if runtime.artifact == "onnx" and not runtime.keeps:
        return None
    given = Target(stage="file", options={"path": str(file.path), "sha256": file.sha256})
    return given if runtime.artifact == "onnx" else _engine_target(cell, runtime, given)


def onnx_target(cell: Cell, checkpoint: Target) -> Target:
    """Return the fp32 ONNX file of a checkpoint."""
    return Target(stage="onnx", options={"batch": cell.batch}, source=checkpoint)


def require_share(share: float | None, precision: Precision, kept: Sequence[str]) -> None:
    """Raise `BobrtError` if a file would be called by a precision that is not most of its arithmetic's.

    Args:
        share: Fraction of its multiply-adds at the precision; None for a graph that has none.
        precision: What it is called by.
        kept: Blocks that were kept out of it.

    """
    if share is not None and share < HALF:
        blocks = f"; {len(kept)} blocks were kept out to hold the drop" if kept else ""
        raise BobrtError(
            f"precision-not-realised: the file has {100 * share:.0f} % of its multiply-adds at {precision}"
            f"{blocks}",
            f"{'raise --max-drop, or ' if kept else ''}choose another precision: bobrt list precisions",
        )


def share_of(artifact: Artifact, precision: Precision) -> float | None:
    """Return the fraction of a file's multiply-adds at a precision, or None for a file that has none."""
    shares = msgspec.convert(artifact.manifest.detail.get("shares") or {}, type=dict[str, float])
    asked = Precision.FP32 if precision is Precision.TF32 else precision  # other arithmetic, the same file
    return shares.get(asked, 0.0) if shares else None


def require_calibration(cell: Cell) -> None:
    """Raise `UsageError` if a precision is to be set on a task's images and there is no task."""
    file = RUNTIMES.get(cell.runtime).artifact
    if not cell.task and file != "checkpoint" and cell.precision in _SET_ON_IMAGES:
        weights = {"pretrained": "", "random": " --weights random"}.get(cell.weights, " --weights PATH")
        raise UsageError(
            f"{cell.precision} is set on a task's training images, and a backbone as published has none",
            f"bobrt build {cell.backbone}{weights} --task digits --precision {cell.precision} "
            f"--runtime {cell.runtime}",
        )


def reference_target(checkpoint: Target) -> Target:
    """Return the answers of a checkpoint in fp32 PyTorch."""
    return Target(stage="reference", source=checkpoint)


def attack_target(checkpoint: Target, options: dict[str, Json]) -> Target:
    """Return the test images changed to mislead a checkpoint."""
    return Target(stage="attack", options=options, source=checkpoint)


def _engine_spec(cell: Cell, runtime: Runtime) -> EngineSpec:
    """Return what a builder is asked for: an engine for the GPU at hand, or else for a named one."""
    here, fp8 = not no_gpu(), cell.precision is Precision.FP8
    named = FP8_CAPABILITY if fp8 else DEFAULT_CAPABILITY
    return EngineSpec(
        runtime=runtime.name,
        precision=cell.precision,
        batch=cell.batch,
        compute_capability="current" if here else named,
        device=this_system().id if here else "",
        cuda=this_system().cuda if here else None,
        profiles=PROFILES[runtime.name] if cell.batch == "dynamic" else (),
    )


def _require_precision(runtime: Runtime, precision: Precision) -> None:
    """Raise if a runtime has no such precision, or the device that is here: no file is worth making then."""
    if precision not in runtime.precisions:
        have = ", ".join(runtime.precisions)
        why = f"; {runtime.others}" if runtime.others else ""
        raise UnsupportedError(
            f"{runtime.name} has no {precision}: it takes {have}{why}", "bobrt list runtimes"
        )
    if reason := beyond(runtime, precision):
        raise UnsupportedError(reason, "bobrt list precisions")


def _engine_target(cell: Cell, runtime: Runtime, model: Target) -> Target:
    if runtime.name not in PROFILES:
        raise UnsupportedError(
            f"{runtime.name} opens an engine, and nothing here builds one for it: a runtime from another "
            "package opens the ONNX file, and keeps what it makes of it"
        )
    spec = _engine_spec(cell, runtime)
    return Target(stage=f"engine-{runtime.name}", options=msgspec.to_builtins(spec), source=model)


def _at_precision(cell: Cell, model: Target, runtime: Runtime, max_drop: float) -> Target:
    if cell.precision in {Precision.FP32, Precision.TF32}:
        return model
    if cell.precision is Precision.FP16:
        return Target(stage="fp16", source=model)
    if cell.precision is Precision.BF16:
        ours = Placement.ORT if runtime.placement is Placement.ORT else Placement.TENSORRT
        return Target(stage=f"bf16-{ours}", source=model)
    stage = "fp8"
    if cell.precision is Precision.INT8:
        stage = f"int8-{runtime.placement}"
    return Target(stage=stage, options={"max_drop": max_drop}, source=model)


def summary(artifact: Artifact) -> list[str]:
    """Return what a person wants to know of a file, a line each."""
    manifest = artifact.manifest
    size, took = f"{manifest.bytes / 1e6:.2f} MB", f"made in {manifest.seconds:.1f} s"
    lines = [f"{manifest.stage}: {size}, sha256 {manifest.sha256[:12]}, {took}"]
    detail = manifest.detail
    if left_out := left_out_of(detail):
        lines.append(left_out)
    if isinstance(validation := detail.get("validation"), float):
        lines.append(f"validation: {100 * validation:.1f} %")
    if isinstance(chosen := detail.get("chosen"), dict):
        said = ", ".join(f"{name} {float(str(value)):g}" for name, value in chosen.items())
        lines.append(f"of {len(detail['search'])} trials the best on validation: {said}")
    if isinstance(parity := detail.get("parity"), dict):
        worst = max(float(str(value)) for value in parity.values())
        lines.append(f"parity with PyTorch: max |diff| {worst:.1e} of max |y|, in {', '.join(parity)}")
    if isinstance(shares := detail.get("shares"), dict) and shares:
        lines.append(
            "multiply-adds: " + ", ".join(f"{100 * float(str(v)):.0f} % {k}" for k, v in shares.items())
        )
    if isinstance(drop := detail.get("validation_drop"), float):
        card = msgspec.convert(detail["card"], type=FileCard)
        kept = f", with {', '.join(card.kept)} kept out" if card.kept else ""
        lines.append(f"drop on validation: {drop:+.1f} points{kept}")
    return lines


def left_out_of(detail: Mapping[str, Json]) -> str:
    """Return which keys of its file of weights a checkpoint did not want, a classifier's say, or nothing."""
    # A user's file is told by its keys alone; a published one by where it is from as well.
    published = detail.get("weights")
    keys = published.get("keys") if isinstance(published, dict) else detail.get("keys")
    found = keys.get("left_out") if isinstance(keys, dict) else None
    said = ", ".join(f"{pattern} ({n})" for pattern, n in found.items()) if isinstance(found, dict) else ""
    return f"keys of the weights left out: {said}" if said else ""
