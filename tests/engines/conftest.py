"""What the tests of engines share: the files of the tiny run, untrained exports, and graphs made by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import onnx
import pytest
from onnx import TensorProto, helper

from bobrt.artifacts import Artifact, read_artifact
from bobrt.catalogue import TASKS, backbone
from bobrt.spec import FileCard, Protocol
from engines import export
from train import model
from train.seeding import seed_everything

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from support import Ran, Workspace

QUICK = ["test_resnet", "test_convnext2", "test_vit_patch8", "test_efficientnet", "test_coatnet"]


class Untrained(NamedTuple):
    """A network as it was initialised, its twin with every parameter moved, and the twin's ONNX file."""

    net: model.Model
    twin: model.Model
    card: FileCard
    path: Path


@pytest.fixture(scope="session")
def made(tiny_run: tuple[Workspace, Ran]) -> Callable[..., Artifact]:
    """Find a file of the tiny run by its stage, and an engine by its precision too."""

    def find(stage: str, precision: str = "") -> Artifact:
        found = [read_artifact(path.parent) for path in tiny_run[0].cache.glob(f"{stage}/*/manifest.json")]
        (one,) = [a for a in found if not precision or a.manifest.options["precision"] == precision]
        return one

    return find


@pytest.fixture(scope="session")
def card() -> Callable[..., FileCard]:
    """Write the card of an untrained backbone for the digits."""

    def describe(name: str = "test_resnet") -> FileCard:
        entry, task = backbone(name), TASKS.get("digits")
        return model.card_of(entry, "random", Protocol.FINETUNE, 0, model.transform_of(entry, task), task)

    return describe


@pytest.fixture(scope="session", params=QUICK)
def untrained(
    request: pytest.FixtureRequest, card: Callable[..., FileCard], tmp_path_factory: pytest.TempPathFactory
) -> Untrained:
    """Each backbone of the quick plan before any training, exported as its twin."""
    seed_everything(0)
    net = model.build(backbone(request.param), classes=10, size=32).eval()
    twin = export.moved_twin(net, export.proof_images(card(request.param)))
    assert twin is not None
    path = tmp_path_factory.mktemp(request.param) / "twin.onnx"
    export.export(twin, card(request.param), path)
    return Untrained(net, twin, card(request.param), path)


@pytest.fixture(scope="session")
def graph() -> Callable[..., onnx.ModelProto]:
    """Put nodes between `images` and `y`, with a cast of the images to float, `x`, before them."""

    def assemble(
        nodes: Sequence[onnx.NodeProto],
        initializers: Sequence[onnx.TensorProto] = (),
        inputs: Sequence[onnx.ValueInfoProto] | None = None,
        opset: int = 20,
    ) -> onnx.ModelProto:
        images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 4, 4, 3])
        whole = helper.make_graph(
            [helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT), *nodes],
            "by hand",
            [images] if inputs is None else inputs,
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4)],
            initializers,
        )
        return helper.make_model(whole, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)

    return assemble
