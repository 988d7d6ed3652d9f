"""The stages `fp16` and `int8-*`: the fp32 file brought to another precision, in the file itself.

Calibrated on real training images, never on noise: a ViT calibrated on noise is wrong by a
third. ModelOpt places Q/DQ for TensorRT; ONNX Runtime places its own for its CPU kernels,
where ModelOpt's placement is slower than fp32.
"""

from __future__ import annotations

import logging
import shutil
from itertools import cycle, islice
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from bobrt.artifacts import Job, Produced
from bobrt.catalogue import TASKS
from bobrt.data import bundle
from bobrt.data.resize import resize
from bobrt.errors import BobrtError
from bobrt.spec import FileCard, Placement, Precision
from engines import macs, onnx_file
from engines.runner import IMAGES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

CALIBRATION_BATCH = 32


def make_fp16(job: Job) -> Produced:
    """Write `model.onnx` with the arithmetic in fp16 and fp32 inputs and outputs (ModelOpt AutoCast)."""
    from modelopt.onnx.autocast import convert_to_mixed_precision  # noqa: PLC0415 - seven seconds to import

    source, card = _source(job)
    calibration = source.with_name("calibration.npz")
    np.savez(calibration, images=calibration_images(card))
    job.report("converting", "fp16")
    _quiet()
    model = convert_to_mixed_precision(
        str(source),
        low_precision_type="fp16",
        keep_io_types=True,
        calibration_data=str(calibration),
        providers=["cpu"],
    )
    return _finish(job, model, card, Precision.FP16, Placement.NONE)


def make_int8_for_tensorrt(job: Job) -> Produced:
    """Write `model.onnx` with ModelOpt's Q/DQ placement and the rest in fp16."""
    from modelopt.onnx.quantization import quantize  # noqa: PLC0415 - seven seconds to import

    source, card = _source(job)
    job.report("calibrating", "int8 for TensorRT")
    _quiet()
    quantized = source.with_name("quantized.onnx")
    quantize(
        str(source),
        quantize_mode="int8",
        calibration_data={IMAGES: calibration_images(card)},
        calibration_method="max",
        calibration_eps=["cpu"],
        high_precision_dtype="fp16",
        output_path=str(quantized),
        log_level="ERROR",
    )
    model = onnx_file.load(quantized)
    return _finish(job, model, card, Precision.INT8, Placement.TENSORRT)


def make_int8_for_onnxruntime(job: Job) -> Produced:
    """Write `model.onnx` with ONNX Runtime's Q/DQ placement around Conv, Gemm and MatMul."""
    from onnxruntime import quantization  # noqa: PLC0415
    from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: PLC0415

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, images: NDArray[np.uint8]) -> None:
            size = CALIBRATION_BATCH if card.batch == "dynamic" else card.batch
            self._batches: Iterator[NDArray[np.uint8]] = iter(
                np.split(images, range(size, len(images), size))
            )

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            batch = next(self._batches, None)
            return None if batch is None else {IMAGES: batch}

    source, card = _source(job)
    job.report("calibrating", "int8 for ONNX Runtime")
    prepared, quantized = source.with_name("prepared.onnx"), source.with_name("quantized.onnx")
    quant_pre_process(str(source), str(prepared))
    quantization.quantize_static(
        str(prepared),
        str(quantized),
        Reader(calibration_images(card)),
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "Gemm", "MatMul"],
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        calibrate_method=quantization.CalibrationMethod.MinMax,
        # Seven bits of the weights: a CPU without VNNI adds two products in sixteen, and eight bits overflow.
        reduce_range=True,
    )
    model = onnx_file.load(quantized)
    return _finish(job, model, card, Precision.INT8, Placement.ORT)


def calibration_images(card: FileCard) -> NDArray[np.uint8]:
    """Return the task's calibration images at the model's size: of `train`, evenly spread.

    A file with a batch of its own gets whole batches, the last one filled up from the start.

    Raises:
        BobrtError: The model answers no task, so there are no images it was trained on.

    """
    if not card.task:
        raise BobrtError(
            "a low precision is calibrated on a task's training images, and a published backbone has none",
            f"bobrt build {card.backbone.name} --task digits",
        )
    task = TASKS.get(card.task)
    images = bundle.calibration(task).images
    if card.batch != "dynamic":
        count = -(-len(images) // card.batch) * card.batch
        images = list(islice(cycle(images), count))
    return resize(images, card.transform)


def _source(job: Job) -> tuple[Path, FileCard]:
    """Return a copy of the fp32 file to work on, and its card: ModelOpt rewrites the file it is given."""
    if job.source is None:
        raise BobrtError("a precision is made from an ONNX file, and none was given")
    copy = job.folder / "source" / "model.onnx"
    copy.parent.mkdir(exist_ok=True)
    shutil.copyfile(job.source.path, copy)
    return copy, onnx_file.require_card(onnx_file.load(copy), job.source.path)


def _finish(
    job: Job, model: onnx.ModelProto, card: FileCard, precision: Precision, placement: Placement
) -> Produced:
    path = job.folder / "model.onnx"
    card = msgspec.structs.replace(card, precision=precision, placement=placement)
    onnx_file.save(model, card, path)
    shutil.rmtree(job.folder / "source")
    return Produced(path.name, {"card": msgspec.to_builtins(card), "shares": macs.shares(model)})


def _quiet() -> None:
    """ModelOpt tells of every node it looks at; its errors come as exceptions all the same."""
    logging.getLogger("modelopt").setLevel(logging.ERROR)
