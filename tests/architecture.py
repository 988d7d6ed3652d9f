"""One architecture on its whole way, untrained: export, proof, every precision, every TensorRT-RTX build.

What `make matrix` runs over the catalogue and `make test` over cut-down families. Weights are random,
with those that a training would have moved drawn anew, so that no block is invisible to the proof.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from bobrt import data
from bobrt.artifacts import Artifact, Job, Manifest
from bobrt.catalogue import TASKS
from bobrt.data.resize import resize
from bobrt.paths import sha256_of
from bobrt.spec import EngineSpec, Precision, Protocol
from engines import export, macs, onnx_file, parity, precision, trt_build
from engines.ort_cpu import OrtCpuRunner
from engines.runner import answers
from train import model
from train.seeding import seed_everything

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from bobrt.artifacts import Produced
    from bobrt.spec import Backbone, FileCard

IMAGES = 4
CALIBRATION = 8
"""Calibration images: enough to set ranges for a build, not to claim an accuracy."""
CAPABILITY = {Precision.FP8: "8.9"}
"""What TensorRT-RTX builds for: the first with fp8 units, else 8.6."""
CONVERSIONS = {
    Precision.FP16: precision.make_fp16,
    Precision.BF16: precision.make_bf16_for_tensorrt,
    Precision.INT8: precision.make_int8_for_tensorrt,
    Precision.FP8: precision.make_fp8,
}


class Exported(NamedTuple):
    """The fp32 file, and how far it is from PyTorch."""

    path: Path
    card: FileCard
    params_m: float
    parity: float
    """Largest difference over the largest answer."""


def exported(entry: Backbone, folder: Path, size: int | None = None, images: int = IMAGES) -> Exported:
    """Write `model.onnx`, proven against PyTorch; raise if the proof fails or proves nothing."""
    seed_everything(0)
    task = TASKS.get("digits")
    transform = model.transform_of(entry, None)
    if size is not None:
        transform = msgspec.structs.replace(transform, size=size)
    net = model.build(entry, classes=len(task.labels), size=transform.size).eval()
    card = model.card_of(entry, "random", Protocol.FINETUNE, 0, transform, task)
    shown = _images(card, images)
    net = export.moved_twin(net, shown) or net
    path = folder / "model.onnx"
    export.export(net, card, path)
    relative = export.prove(net, path, shown)
    params = sum(p.numel() for p in net.backbone.parameters()) / 1e6
    return Exported(path, card, params, max(relative.values()))


def converted(fp32: Path, low: Precision, folder: Path) -> tuple[Path, float]:
    """Write `folder/model.onnx` at a precision; return it, and the share of its multiply-adds there."""
    folder.mkdir(exist_ok=True)
    source = Artifact(fp32, manifest_of(fp32))
    made: Produced = CONVERSIONS[low](Job({"images": CALIBRATION}, source, folder, lambda *_: None))
    path = folder / made.file
    return path, macs.shares(onnx_file.load(path)).get(str(low), 0.0)


def elsewhere(path: Path, low: Precision) -> str:
    """Say which operators hold the multiply-adds that are not at a file's precision."""
    left = macs.elsewhere(onnx_file.load(path), low)
    return "not at the precision: " + ", ".join(f"{name} {100 * share:.0f} %" for name, share in left.items())


def gap(fp32: Path, low: Path, at: Precision) -> float:
    """Return how far a file is from the fp32 one in ONNX Runtime: mean difference over mean spread."""
    card = onnx_file.require_card(onnx_file.load(fp32), fp32)
    images = _images(card)
    found = []
    for path, plain in ((fp32, False), (low, at is Precision.FP8)):
        with OrtCpuRunner(path, 2, plain=plain) as runner:
            found.append(answers(runner, images, 1)["features"])
    want, got = found
    return parity.difference(got, want).mean_abs / float(np.abs(want - want.mean(axis=0)).mean())


def built(path: Path, at: Precision) -> int:
    """Build for TensorRT-RTX in this process; return the engine's bytes."""
    spec = EngineSpec(
        runtime="tensorrt-rtx", precision=at, batch="dynamic", compute_capability=CAPABILITY.get(at, "8.6")
    )
    trt = importlib.import_module(trt_build.MODULES[spec.runtime])
    return len(trt_build.build(trt, path.read_bytes(), spec, []))


def _images(card: FileCard, count: int = IMAGES) -> NDArray[np.uint8]:
    split = data.load(TASKS.get("digits"), "validation").head(count)
    return resize(split.images, card.transform)


def manifest_of(path: Path) -> Manifest:
    """Return a manifest for a file that no workshop made."""
    return Manifest(
        stage="onnx", options={}, source_sha256=None, tools={}, file=path.name,
        sha256=sha256_of(path), bytes=path.stat().st_size, seconds=0.0, detail={},
    )  # fmt: skip
