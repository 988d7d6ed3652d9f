"""What is said otherwise in the graph is the same to PyTorch."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import architecture
import onnx
import onnxruntime as ort
import pytest
import torch
from families import ROPE, Member, entry
from torch import Tensor, nn
from torch.nn import functional

from bobrt.spec import Precision
from engines import rewrites

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("size", "kernel", "dilation", "padding", "stride"),
    [
        (8, 3, 1, 1, 1),
        (8, 3, 1, 1, 2),
        (9, 3, 1, 1, 2),
        (8, 2, 1, 0, 2),
        ((6, 10), (3, 2), 1, (1, 0), (2, 1)),
        (9, 3, 2, 2, 1),
    ],
)
def test_folding_by_convolution_is_folding(
    size: object, kernel: object, dilation: int, padding: object, stride: object
) -> None:
    """The same sums of overlapping blocks, at every stride and padding that VOLO has and some more."""
    image = torch.randn(2, 5, *(size if isinstance(size, tuple) else (size, size)))
    how = {"kernel_size": kernel, "dilation": dilation, "padding": padding, "stride": stride}
    blocks = functional.unfold(image, **how)
    want = functional.fold(blocks, output_size=size, **how)

    with rewrites.fold_by_convolution():
        got = functional.fold(blocks, output_size=size, **how)

    assert functional.fold.__module__ == "torch.nn.functional"
    torch.testing.assert_close(got, want)


class Placed(nn.Module):
    """Adds position embeddings of 16 x 16 places, on another grid; pixels may be resized too."""

    def __init__(self, size: int, *, pixels: bool) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.randn(1, 16, 16, 64))
        self.size, self.pixels = size, pixels

    def forward(self, x: Tensor) -> Tensor:
        how = {"size": (self.size, self.size), "mode": "bicubic", "antialias": True}
        if self.pixels:
            x = functional.interpolate(x, **how)
        return x + functional.interpolate(self.places.permute(0, 3, 1, 2) * 2, **how)


@pytest.mark.parametrize(("size", "pixels"), [(8, False), (24, False), (8, True)])
def test_what_is_made_of_constants_is_put_in(size: int, *, pixels: bool) -> None:
    """Fewer places or more; a Resize of what moves stays one, and the answers are PyTorch's."""
    net = Placed(size, pixels=pixels).eval()
    x = torch.randn(2, 64, *(2 * [32 if pixels else size]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(net, (x,), opset_version=20, dynamo=True, verbose=False)
    proto = program.model_proto
    before = sum(node.op_type == "Resize" for node in proto.graph.node)
    rewrites.fold_constants(proto)

    assert (before, sum(node.op_type == "Resize" for node in proto.graph.node)) == (1 + pixels, int(pixels))
    assert {tuple(given.dims) for given in proto.graph.initializer} >= {(1, 64, size, size)}
    assert (1, 16, 16, 64) not in {tuple(given.dims) for given in proto.graph.initializer}
    onnx.checker.check_model(proto, full_check=True)
    session = ort.InferenceSession(proto.SerializeToString())
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), net(x).detach(), rtol=1e-4, atol=1e-5)


def test_position_embeddings_on_another_grid_are_built_by_tensorrt(tmp_path: Path) -> None:
    """NaFlexViT resamples its 16 x 16 places for every size, antialiased, which TensorRT refuses to parse."""
    made = architecture.exported(entry(Member("naflexvit_base_patch16_gap", 48, ROPE)), tmp_path, 48)
    assert architecture.built(made.path, Precision.FP32) > 1000


def test_standardised_weights_are_put_in(tmp_path: Path) -> None:
    """BiT's convolutions standardise their weights for every image else, and no quantizer takes them."""
    small = {"channels": (128, 128, 128, 128), "stem_chs": 32}
    made = architecture.exported(entry(Member("resnetv2_50x1_bit", 64, small)), tmp_path, 64)
    graph = onnx.load(made.path).graph
    given = {initializer.name for initializer in graph.initializer}
    assert {node.input[1] in given for node in graph.node if node.op_type == "Conv"} == {True}

    path, share = architecture.converted(made.path, Precision.INT8, tmp_path / "int8")
    assert share > 0.5
    assert architecture.built(path, Precision.INT8) > 1000
