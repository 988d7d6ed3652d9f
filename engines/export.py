"""The stage `onnx`: a checkpoint as one standard ONNX graph, proven against PyTorch.

The proof runs on real images through ONNX Runtime. Parameters a training never moved (the
zeros and 1e-6s of a fresh network) hide whole blocks from it, so such a model is proven a
second time through a twin in which those parameters are drawn at random.
"""

from __future__ import annotations

import ast
import copy
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import torch
from torch import nn

from bobrt import data
from bobrt.artifacts import Job, Produced
from bobrt.data.resize import resize
from bobrt.errors import BobrtError, one_line
from bobrt.spec import Batch, FileCard, Frozen, Kind
from bobrt.system import cores
from bobrt.tasks import cards
from engines import macs, onnx_file, parity, rewrites
from engines.ort_cpu import OrtCpuRunner
from engines.runner import IMAGES, answers
from train import model

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

OPSET = 20
"""LayerNormalization and Gelu are single ops; Attention, which TensorRT may not decompose, is not yet one."""

_SCOPES = "pkg.torch.onnx.name_scopes"
"""Where torch's exporter writes the modules a node is in, outermost first, as a Python list."""

PROOF_IMAGES = 16
UNMOVED = 1e-4


class ExportOptions(Frozen, frozen=True, kw_only=True):
    """How a checkpoint is exported."""

    batch: Batch


def make(job: Job) -> Produced:
    """Write `model.onnx` into the job's folder, checked by onnx and by numbers."""
    if job.source is None:
        raise BobrtError("an ONNX file is made from a checkpoint, and none was given")
    options = msgspec.convert(job.options, type=ExportOptions)
    job.report("exporting", "")
    net, card = model.load(job.source.path)
    card = msgspec.structs.replace(card, batch=options.batch, checkpoint_sha256=job.source.sha256)
    path = job.folder / "model.onnx"
    export(net, card, path)
    job.report("proving", "against PyTorch")
    images = proof_images(card)
    twin = moved_twin(net, images)
    if twin is None:
        relative = prove(net, path, images)
    else:
        prove(net, path, images, moving=False)
        with tempfile.TemporaryDirectory(dir=job.folder) as folder:
            export(twin, card, Path(folder) / "twin.onnx")
            relative = prove(twin, Path(folder) / "twin.onnx", images)
    detail = {
        "card": msgspec.to_builtins(card),
        "shares": macs.shares(onnx_file.load(path)),
        "opset": OPSET,
        "parity": relative,
        "proven_by_twin": twin is not None,
    }
    return Produced(path.name, detail)


def export(net: model.Model, card: FileCard, path: Path) -> None:
    """Write `net` as an ONNX file with the input `images` and the outputs it names.

    Raises:
        BobrtError: PyTorch cannot export the network.

    """
    graph = _program(net, card).model_proto
    rewrites.keep_pads_apart(graph)
    rewrites.fold_constants(graph)
    name_by_module(graph)
    onnx_file.save(graph, card, path)


def _program(net: model.Model, card: FileCard) -> Any:  # noqa: ANN401 - torch's `ONNXProgram`
    size = card.transform.size
    fixed = None if card.batch == "dynamic" else card.batch
    example = torch.zeros(fixed or 2, size, size, 3, dtype=torch.uint8)
    with warnings.catch_warnings(), rewrites.fold_by_convolution():
        # torch's exporter warns about its own internals; what is wrong with the file, the proof finds.
        warnings.simplefilter("ignore")
        try:
            return torch.onnx.export(
                net,
                (example,),
                input_names=[IMAGES],
                output_names=net.outputs,
                dynamic_shapes=None if fixed else ({0: "batch"},),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            cause = error.__cause__ or error
            alone = (
                f"import timm, torch; torch.export.export(timm.create_model('{card.backbone.timm}').eval(), "
                f"(torch.zeros(1, 3, {size}, {size}),))"
            )
            raise BobrtError(
                f"PyTorch cannot export {card.backbone.name}: {type(cause).__name__}: {one_line(cause)}",
                f'python -c "{alone}"',
            ) from error


def name_by_module(model_proto: onnx.ModelProto) -> None:
    """Call each node by the module it comes from: `backbone.blocks.3.mlp.fc1/MatMul_9`."""
    for number, node in enumerate(model_proto.graph.node):
        told = {entry.key: entry.value for entry in node.metadata_props}.get(_SCOPES, "[]")
        modules = ["", *ast.literal_eval(told)[:-1]]  # the last is the operation
        node.name = f"{modules[-1]}/{node.op_type}_{number}".removeprefix("/")


def moved_twin(net: model.Model, images: NDArray[np.uint8]) -> model.Model | None:
    """Return a copy whose near-zero parameters are random, or None if training moved them all.

    Its BatchNorms take the statistics of `images`: with those of no data the answers of a deep
    network fade until they are the same for every image.
    """
    unmoved = [name for name, p in net.named_parameters() if p.numel() and p.abs().max() < UNMOVED]
    if not unmoved:
        return None
    twin = copy.deepcopy(net)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in twin.named_parameters():
        if name in unmoved:
            nn.init.normal_(parameter, std=0.2, generator=generator)
    norms = [m for m in twin.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)]
    hooks = [norm.register_forward_pre_hook(_settle) for norm in norms]
    with torch.no_grad():
        twin(torch.from_numpy(images))
    for hook in hooks:
        hook.remove()
    return twin


def _settle(norm: nn.Module, inputs: tuple[torch.Tensor]) -> None:
    """Give a BatchNorm the statistics of its input; a channel that hardly moves is not blown up."""
    (x,) = inputs
    variance, mean = torch.var_mean(x, dim=[0, *range(2, x.ndim)], correction=0)
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance.clamp(min=float(variance.mean()) / 10))


def prove(
    net: model.Model, path: Path, images: NDArray[np.uint8], *, moving: bool = True
) -> dict[str, float]:
    """Compare the file in ONNX Runtime with `net` in PyTorch; return each output's relative difference.

    Args:
        net: What the file was made from.
        path: The ONNX file.
        images: `uint8 [n, side, side, 3]`, at least two different ones.
        moving: Refuse a comparison that would prove nothing.

    Raises:
        BobrtError: They differ, the network itself answers no numbers, or the comparison would prove nothing.

    """
    with torch.inference_mode():
        outputs = net(torch.from_numpy(images))
    want = {name: out.numpy() for name, out in zip(net.outputs, outputs, strict=True)}
    if broken := [name for name, values in want.items() if not np.isfinite(values).all()]:
        raise BobrtError(
            f"PyTorch itself answers NaN or infinity in {', '.join(broken)}: the weights do",
            "train them anew with a lower lr, or name others: --weights PATH",
        )
    with OrtCpuRunner(path, cores()) as runner:
        got = answers(runner, images, len(images))

    def exact() -> dict[str, NDArray[np.float64]]:
        with torch.inference_mode():
            outputs = copy.deepcopy(net).double()(torch.from_numpy(images))
        return {name: out.numpy() for name, out in zip(net.outputs, outputs, strict=True)}

    return parity.require_fp32(got, want, path.name, moving=moving, exact=exact)


def proof_images(card: FileCard) -> NDArray[np.uint8]:
    """Return real images at the model's size: the task's validation split, or the bundled digits."""
    task = cards.resolved(card.task or data.DIGITS)
    split = data.load(task, "query" if task.kind is Kind.RETRIEVAL else "validation").head(PROOF_IMAGES)
    return resize(split.images, card.transform)
