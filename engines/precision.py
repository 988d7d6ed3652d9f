"""The stages `fp16`, `bf16`, `int8-*` and `fp8`: the fp32 file at another precision, in the file itself.

Set on real training images, never on noise: a ViT calibrated on noise is wrong by a third.
ModelOpt places Q/DQ for TensorRT; ONNX Runtime places its own for its CPU kernels, where
ModelOpt's placement is slower than fp32. Where eight bits lose too much, the blocks that hurt
most go back.
"""

from __future__ import annotations

import logging
import re
import shutil
from functools import cached_property
from itertools import count, cycle, islice
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from bobrt.artifacts import Job, Produced
from bobrt.data import bundle
from bobrt.data.feed import at_a_time
from bobrt.data.resize import resize
from bobrt.errors import BobrtError, UnsupportedError
from bobrt.spec import FileCard, Frozen, Kind, Placement, Precision
from bobrt.system import cores
from bobrt.tasks import cards
from engines import hybrid, macs, onnx_file, ranges
from engines.judge import Judge
from engines.runner import IMAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

    from engines.hybrid import Convert

CALIBRATION_BATCH = 32
NO_BF16 = {"HardSwish", "HardSigmoid", "ConvTranspose"}
"""Operators that TensorRT takes in fp32 and fp16 alone: its parser the first two, RTX's builder the last."""
CUDA_BF16 = {
    *("Conv", "Gemm", "MatMul", "AveragePool"),
    *("Add", "Sub", "Mul", "Div", "Pow", "Mod", "Max", "Min", "Sum"),
    *("Relu", "Gelu", "Erf", "Sigmoid", "HardSigmoid", "HardSwish", "Mish", "Softplus", "Softsign", "Tanh"),
    *("Abs", "Cos", "Exp", "Neg", "Sign", "Sin", "Sqrt", "ReduceL1", "ReduceMean", "ReduceSum"),
    *("Softmax", "LayerNormalization", "LpNormalization"),
    *("Concat", "Expand", "Flatten", "Identity", "Reshape", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
    *("Gather", "GatherElements", "GatherND", "Slice", "Split", "Trilu", "Where"),
    *("Cast", "Constant", "Shape"),
}
"""Operators of which ONNX Runtime's CUDA provider has bf16 kernels; of another neither it nor the CPU has,
and a graph with it does not open. Source: 1.31 itself, over libraries that do nothing (`tests/shells.py`)."""
NOT_IN_CUDA = {"Elu", "GRU", "InstanceNormalization", "LpPool", "MaxPool", "Selu", "ThresholdedRelu"}
"""Operators of which it has no kernels at all in opset 22, the first in which a Conv may be bf16."""
RANGE_BATCH = 4
"""Images at a time while the values of a graph are looked at: it is asked for all of them."""


class PrecisionOptions(Frozen, frozen=True, kw_only=True):
    """How a precision is set."""

    max_drop: float | None = None
    """Points of the metric that eight bits may lose on validation before blocks are kept out; None: any."""
    images: int | None = None
    """Calibration images, where fewer than the task's card says."""


class _Work:
    """A copy of the fp32 file to work on (ModelOpt rewrites what it is given), its card and its images."""

    def __init__(self, job: Job) -> None:
        if job.source is None:
            raise BobrtError("a precision is made from an ONNX file, and none was given")
        self.options = msgspec.convert(job.options, type=PrecisionOptions)
        self.folder = job.folder / "source"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.original = job.source.path
        self.model = onnx_file.load(self.original)
        self.card = onnx_file.require_card(self.model, self.original)
        self._numbers = count()

    @cached_property
    def images(self) -> NDArray[np.uint8]:
        """The calibration images, `uint8 [n, side, side, 3]`."""
        return calibration_images(self.card, self.options.images)

    def copy(self) -> Path:
        """Return a fresh copy of the fp32 file, alone in its folder."""
        folder = self.folder / str(next(self._numbers))
        folder.mkdir()
        shutil.copyfile(self.original, folder / "model.onnx")
        return folder / "model.onnx"

    def islands(self) -> list[str]:
        """Return the nodes whose values on the calibration images are beyond fp16."""
        found = ranges.largest(self.model, self.images, self.at_a_time(RANGE_BATCH), cores())
        return ranges.beyond(self.model, found)

    def at_a_time(self, most: int) -> int:
        """Return how many images go through the graph at once: its own batch, or so many at most."""
        if self.card.batch != "dynamic":
            return self.card.batch
        return at_a_time(most, self.card.transform.size)


def make_fp16(job: Job) -> Produced:
    """Write `model.onnx` with the arithmetic in fp16, islands of fp32 where values need it, fp32 outputs."""
    work = _Work(job)
    job.report("converting", "fp16")
    return _in_16_bits(job, work, Precision.FP16, work.islands())


def make_bf16_for_tensorrt(job: Job) -> Produced:
    """Write `model.onnx` with the arithmetic in bf16, which reaches as far as fp32, and fp32 outputs."""
    return _make_bf16(job, lambda kind: kind not in NO_BF16)


def make_bf16_for_onnxruntime(job: Job) -> Produced:
    """Write the same with what ONNX Runtime's CUDA provider has no bf16 kernels of in fp32.

    Raises:
        UnsupportedError: Of some operator it has no kernels in fp32 either.

    """
    return _make_bf16(job, CUDA_BF16.__contains__, NOT_IN_CUDA)


def _make_bf16(job: Job, takes: Callable[[str], bool], never: AbstractSet[str] = frozenset()) -> Produced:
    work = _Work(job)
    job.report("converting", "bf16")
    if absent := sorted(never & {node.op_type for node in work.model.graph.node}):
        raise UnsupportedError(
            f"ONNX Runtime's CUDA provider has no {', '.join(absent)} in the opset that bf16 needs",
            "choose another precision or runtime: bobrt list runtimes",
        )
    left = [node.name for node in work.model.graph.node if not takes(node.op_type)]
    return _in_16_bits(job, work, Precision.BF16, left)


def make_int8_for_tensorrt(job: Job) -> Produced:
    """Write `model.onnx` with ModelOpt's int8 Q/DQ placement and the rest in fp16."""
    return _for_tensorrt(job, Precision.INT8)


def make_fp8(job: Job) -> Produced:
    """Write `model.onnx` with ModelOpt's fp8 (E4M3) Q/DQ placement and the rest in fp16."""
    return _for_tensorrt(job, Precision.FP8)


def _in_16_bits(job: Job, work: _Work, low: Precision, left: Sequence[str]) -> Produced:
    """Convert all but the nodes that are `left` in fp32, and finish; AutoCast may have left more."""
    model = _cast(work, str(low), left)
    return _finish(job, model, work.card, low, islands=ranges.in_fp32(model))


def _cast(work: _Work, low: str, left: Sequence[str]) -> onnx.ModelProto:
    """Return the graph in 16 bits (ModelOpt AutoCast), the nodes that are `left` in fp32."""
    from modelopt.onnx.autocast import convert_to_mixed_precision  # noqa: PLC0415 - seven seconds to import

    _quiet()
    # The islands are found by us, image by image: AutoCast would hold the activations of all images at once.
    return convert_to_mixed_precision(
        str(work.copy()),
        low_precision_type=low,
        keep_io_types=True,
        nodes_to_exclude=_exactly(left),
        data_max=np.inf,
        providers=["cpu"],
    )


def _for_tensorrt(job: Job, precision: Precision) -> Produced:
    from modelopt.onnx.quantization import quantize  # noqa: PLC0415 - seven seconds to import

    work = _Work(job)
    job.report("calibrating", f"{precision} for TensorRT")
    _quiet()
    islands = work.islands()
    behind = _behind_recurrent(work.model)

    def convert(kept: Sequence[str]) -> Path:
        source = work.copy()
        file = source.with_name("quantized.onnx")
        quantize(
            str(source),
            quantize_mode=str(precision),
            calibration_data={IMAGES: work.images},
            calibration_method="max",
            calibration_eps=["cpu"],
            nodes_to_exclude=_exactly([*kept, *behind]),
            # ModelOpt has no islands beside Q/DQ: with values beyond fp16 the rest stays as it is.
            high_precision_dtype="fp32" if islands else "fp16",
            output_path=str(file),
            log_level="ERROR",
        )
        return file

    return _within_goal(job, work, convert, precision, Placement.TENSORRT, islands)


def _behind_recurrent(model: onnx.ModelProto) -> list[str]:
    """Return the nodes that read what a recurrent layer made, moved about at most (Sequencer's `fc`).

    TensorRT-RTX's builder breaks down over Q/DQ between the two.
    """
    reached: set[str] = set()
    found = []
    for node in model.graph.node:  # in order: a node comes after what it reads
        if node.op_type in macs.RECURRENT:
            reached |= {*node.output}
        elif reached & {*node.input}:
            if node.op_type in macs.LAYOUT | {"Concat"}:
                reached |= {*node.output}
            elif node.op_type in macs.COUNTED:
                found.append(node.name)
    return found


def make_int8_for_onnxruntime(job: Job) -> Produced:
    """Write `model.onnx` with ONNX Runtime's Q/DQ around Conv, Gemm and MatMul, and the rest in fp32."""
    from onnxruntime import quantization  # noqa: PLC0415
    from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: PLC0415

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, images: NDArray[np.uint8]) -> None:
            size = work.at_a_time(CALIBRATION_BATCH)
            self._batches: Iterator[NDArray[np.uint8]] = iter(
                np.split(images, range(size, len(images), size))
            )

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            batch = next(self._batches, None)
            return None if batch is None else {IMAGES: batch}

    work = _Work(job)
    job.report("calibrating", "int8 for ONNX Runtime")
    prepared = work.folder / "prepared.onnx"
    quant_pre_process(str(work.copy()), str(prepared))
    work.model = onnx_file.load(prepared)

    def convert(kept: Sequence[str]) -> Path:
        file = work.copy().with_name("quantized.onnx")
        quantization.quantize_static(
            str(prepared),
            str(file),
            Reader(work.images),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Gemm", "MatMul"],
            nodes_to_exclude=list(kept),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            # Seven bits of the weights: a CPU without VNNI adds two products in sixteen, eight overflow.
            reduce_range=True,
        )
        return file

    return _within_goal(job, work, convert, Precision.INT8, Placement.ORT)


def _within_goal(  # noqa: PLR0913, PLR0917 - what is made, and what is said of it
    job: Job,
    work: _Work,
    convert: Convert,
    precision: Precision,
    placement: Placement,
    islands: Sequence[str] = (),
) -> Produced:
    """Convert everything, or all but the fewest blocks that keep the goal, and finish."""
    # Retrieval has no images but those it is scored on.
    judged = cards.named(work.card.task).kind is not Kind.RETRIEVAL
    if work.options.max_drop is None or not judged:
        return _finish(job, onnx_file.load(convert([])), work.card, precision, placement, islands=islands)
    judge = Judge(work.original, work.card, work.images, precision)
    job.report("judging", f"{precision} on validation")
    found = hybrid.search(hybrid.blocks(work.model), convert, judge.harm, judge.drop, work.options.max_drop)
    model = onnx_file.load(found.file)
    kept, drop = found.kept, found.drop
    return _finish(job, model, work.card, precision, placement, islands=islands, kept=kept, drop=drop)


def calibration_images(card: FileCard, count: int | None = None) -> NDArray[np.uint8]:
    """Return the task's calibration images at the model's size: of `train`, evenly spread.

    A file with a batch of its own gets whole batches, the last one filled up from the start.

    Args:
        card: The file's card.
        count: How many, where fewer are wanted than the task's card says.

    Raises:
        BobrtError: The model answers no task, so there are no images it was trained on.

    """
    if not card.task:
        raise BobrtError(
            "a low precision is calibrated on a task's training images, and a published backbone has none",
            f"bobrt build {card.backbone.name} --task digits",
        )
    task = cards.resolved(card.task)
    images = bundle.calibration(task).images
    if count is not None:
        images = images[:: max(1, len(images) // count)][:count]
    if card.batch != "dynamic":
        whole = -(-len(images) // card.batch) * card.batch
        images = list(islice(cycle(images), whole))
    return resize(images, card.transform)


def _finish(  # noqa: PLR0913 - what is said of a file
    job: Job,
    model: onnx.ModelProto,
    card: FileCard,
    precision: Precision,
    placement: Placement = Placement.NONE,
    *,
    islands: Sequence[str] = (),
    kept: Sequence[str] = (),
    drop: float | None = None,
) -> Produced:
    path = job.folder / "model.onnx"
    card = msgspec.structs.replace(
        card, precision=precision, placement=placement, islands=list(islands), kept=list(kept)
    )
    onnx_file.save(model, card, path)
    shutil.rmtree(job.folder / "source")
    judged = {} if drop is None else {"validation_drop": drop}
    return Produced(path.name, {"card": msgspec.to_builtins(card), "shares": macs.shares(model), **judged})


def _exactly(names: Sequence[str]) -> list[str]:
    """Return patterns that match these node names and no others, as ModelOpt wants them."""
    return [f"^{re.escape(name)}$" for name in names]


def _quiet() -> None:
    """ModelOpt tells of every node it looks at; its errors come as exceptions all the same."""
    logging.getLogger("modelopt").setLevel(logging.ERROR)
