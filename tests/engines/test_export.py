"""A checkpoint as one ONNX file: its contract, and the proof that it is PyTorch's equal."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from support import TINY, install_package

from bobrt.artifacts import Artifact, Job
from bobrt.catalogue import backbone
from bobrt.errors import BobrtError
from bobrt.spec import FileCard, Precision, Protocol, Transform
from engines import export, onnx_file
from engines.ort_cpu import OrtCpuRunner
from engines.runner import answers
from train import model
from train.seeding import seed_everything

if TYPE_CHECKING:
    from collections.abc import Callable

    from support import Ran

    Find = Callable[..., Artifact]


def sides(value: onnx.ValueInfoProto) -> list[int | str]:
    return [side.dim_value or side.dim_param for side in value.type.tensor_type.shape.dim]


@pytest.fixture(scope="session")
def tuned(made: Find) -> tuple[model.Model, FileCard]:
    """The tiny run's checkpoint, opened."""
    return model.load(made("checkpoint").path)


@pytest.fixture(scope="session")
def photos() -> np.ndarray:
    """Real images at the size of the digits: `uint8 [16, 32, 32, 3]`."""
    entry = model.transform_of(backbone("test_resnet"), None)
    return export.proof_images(
        FileCard(
            bobrt="",
            backbone=backbone("test_resnet"),
            weights="random",
            task="digits",
            protocol=Protocol.FINETUNE,
            seed=0,
            labels=[],
            transform=msgspec.structs.replace(entry, size=32),
        )
    )


def test_the_graph_takes_bytes_and_answers_features_and_logits(made: Find) -> None:
    """Opset 20 and nothing else; `images uint8 [batch, 32, 32, 3]` in, cast first; two float outputs."""
    file = onnx.load(made("onnx").path)
    graph = file.graph
    first = [node.op_type for node in graph.node if "images" in node.input]

    onnx.checker.check_model(file, full_check=True)
    assert [(used.domain, used.version) for used in file.opset_import] == [("", 20)]
    assert [value.name for value in graph.input] == ["images"]
    assert graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert sides(graph.input[0]) == ["batch", 32, 32, 3]
    assert first == ["Cast"]
    assert {value.name: sides(value) for value in graph.output} == {
        "features": ["batch", 96],
        "logits": ["batch", 10],
    }
    assert {value.type.tensor_type.elem_type for value in graph.output} == {TensorProto.FLOAT}


def test_the_file_says_what_it_is_and_what_it_was_made_from(made: Find) -> None:
    """The one metadata key decodes to a card that names the checkpoint's sha256."""
    metadata = {prop.key: prop.value for prop in onnx.load(made("onnx").path).metadata_props}
    card = msgspec.json.decode(metadata.pop("bobrt"), type=FileCard)

    assert metadata == {}
    assert (card.backbone, card.weights, card.seed) == (backbone("test_resnet"), "random", 0)
    assert (card.task, card.protocol, card.labels) == ("digits", Protocol.FINETUNE, list("0123456789"))
    assert card.transform == Transform(size=32, interpolation="bilinear")
    assert (card.precision, card.batch) == (Precision.FP32, "dynamic")
    assert card.checkpoint_sha256 == made("checkpoint").sha256


def test_exporting_again_in_another_process_gives_the_same_bytes(made: Find, tmp_path: Path) -> None:
    """Nothing of the process, the machine or the hour is in the file."""
    produced = export.make(Job({"batch": "dynamic"}, made("checkpoint"), tmp_path, lambda *_: None))
    content = (tmp_path / produced.file).read_bytes()

    assert hashlib.sha256(content).hexdigest() == made("onnx").sha256
    assert str(Path(torch.__file__).parent).encode() not in content
    assert str(Path(export.__file__).parent).encode() not in content


def test_the_batch_axis_is_free(made: Find, tuned: tuple[model.Model, FileCard], photos: np.ndarray) -> None:
    """One, three or seventeen images: the file answers as PyTorch does, each image on its own."""
    with OrtCpuRunner(made("onnx").path, 1) as runner, torch.inference_mode():
        for count in (1, 3, 17):
            images = np.resize(photos, (count, 32, 32, 3))
            got = runner.infer({"images": images})
            want = tuned[0](torch.from_numpy(images))
            for name, expected in zip(("features", "logits"), want, strict=True):
                np.testing.assert_allclose(got[name], expected, atol=1e-4 * float(expected.abs().max()))


def test_a_fixed_batch_is_in_the_file_and_proven_too(made: Find, photos: np.ndarray, tmp_path: Path) -> None:
    """Asked for 3, the axis is 3 and takes no other; any number of images is still answered, as when free."""
    produced = export.make(Job({"batch": 3}, made("checkpoint"), tmp_path, lambda *_: None))
    path = tmp_path / produced.file
    file = onnx.load(path)

    assert sides(file.graph.input[0]) == [3, 32, 32, 3]
    assert onnx_file.require_card(file, path).batch == 3
    assert max(produced.detail["parity"].values()) <= 1e-4
    with OrtCpuRunner(path, 1) as fixed, OrtCpuRunner(made("onnx").path, 1) as free:
        with pytest.raises(Exception, match="Got: 4 Expected: 3"):
            fixed.infer({"images": photos[:4]})
        got, want = answers(fixed, photos, 32), answers(free, photos, 32)
    assert len(got["logits"]) == len(photos)
    np.testing.assert_allclose(got["logits"], want["logits"], atol=1e-4)


def test_a_trained_file_is_proven_as_it_is(made: Find) -> None:
    """Every parameter moved in training, so no twin is needed; every output agrees to 1e-4."""
    detail = made("onnx").manifest.detail

    assert detail["proven_by_twin"] is False
    assert detail["parity"].keys() == {"features", "logits"}
    assert 0 < max(detail["parity"].values()) <= export.parity.FP32_TOLERANCE == 1e-4


def test_the_proof_sees_every_parameter(
    made: Find, tuned: tuple[model.Model, FileCard], photos: np.ndarray, tmp_path: Path
) -> None:
    """The negative control: with any one constant of the file a tenth off, the proof fails."""
    whole = made("onnx").path
    names = [init.name for init in onnx.load(whole).graph.initializer if init.data_type == TensorProto.FLOAT]
    unseen = []
    for name in names:
        file = onnx.load(whole)
        (tensor,) = [init for init in file.graph.initializer if init.name == name]
        value = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(value + np.float32(0.1) * np.abs(value).max(), name))
        onnx.save(file, tmp_path / "perturbed.onnx")
        try:
            export.prove(tuned[0], tmp_path / "perturbed.onnx", photos)
        except BobrtError as error:
            assert "perturbed.onnx differs from PyTorch in" in error.message  # noqa: PT017 - in a loop
        else:
            unseen.append(name)

    assert len(names) > 20
    assert unseen == []
    export.prove(tuned[0], whole, photos)


def test_a_network_that_answers_a_constant_proves_nothing(
    made: Find, photos: np.ndarray, card: Callable[..., FileCard], tmp_path: Path
) -> None:
    """A head of zeros agrees with every file, and is refused for it."""
    net, _ = model.load(made("checkpoint").path)
    torch.nn.init.zeros_(net.head.weight)
    export.export(net, card(), tmp_path / "zero.onnx")

    with pytest.raises(BobrtError, match=r"parity of zero\.onnx proves nothing: output logits"):
        export.prove(net, tmp_path / "zero.onnx", photos)


class Branches(torch.nn.Module):  # type: ignore[misc]  # torch is too heavy to check ours against
    """Goes one way or the other by its values, which no graph can hold."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


def test_a_network_that_pytorch_cannot_export_is_one_line(
    made: Find, card: Callable[..., FileCard], tmp_path: Path
) -> None:
    """The cause, without the exporter's steps and colours; the hint shows it in full."""
    net, _ = model.load(made("checkpoint").path)
    net.backbone.layer1 = Branches()
    with pytest.raises(BobrtError, match=r"^PyTorch cannot export test_resnet: [A-Za-z]+: ") as caught:
        export.export(net, card(), tmp_path / "it.onnx")
    assert "\x1b" not in caught.value.message
    assert len(caught.value.message) < 600
    assert "torch.export.export(timm.create_model('test_resnet.r160_in1k')" in caught.value.hint


def test_a_network_that_answers_nan_is_refused(
    made: Find, photos: np.ndarray, card: Callable[..., FileCard], tmp_path: Path
) -> None:
    """NaN in both is no agreement, and no fault of the export."""
    net, _ = model.load(made("checkpoint").path)
    torch.nn.init.constant_(net.head.bias, torch.nan)
    export.export(net, card(), tmp_path / "nan.onnx")

    with pytest.raises(BobrtError, match="PyTorch itself answers NaN or infinity in logits"):
        export.prove(net, tmp_path / "nan.onnx", photos)


def test_every_backbone_of_the_quick_plan_is_proven_untrained(untrained: Any, photos: np.ndarray) -> None:
    """With its closed LayerScales, zero biases and last norms moved, the file agrees to 1e-4."""
    relative = export.prove(untrained.twin, untrained.path, photos)

    assert relative.keys() == {"features", "logits"}
    assert max(relative.values()) <= 1e-4


def test_a_twin_differs_in_what_no_training_moved_and_in_nothing_else(
    untrained: Any, photos: np.ndarray
) -> None:
    """The network itself is left alone, and making a twin again gives the same one."""
    before, twin = dict(untrained.net.named_parameters()), dict(untrained.twin.named_parameters())
    changed = {name for name, value in before.items() if not torch.equal(value, twin[name])}
    kept = {name: value.clone() for name, value in untrained.net.state_dict().items()}
    again = dict(export.moved_twin(untrained.net, photos).named_parameters())

    assert changed
    assert all(before[name].abs().max() < export.UNMOVED for name in changed)
    assert all(value.abs().max() > export.UNMOVED for value in twin.values())
    assert all(torch.equal(value, again[name]) for name, value in twin.items())
    assert all(torch.equal(value, kept[name]) for name, value in untrained.net.state_dict().items())
    assert export.moved_twin(untrained.twin, photos) is None


@pytest.mark.parametrize("name", ["efficientnet_b0", "repvit_m0_9", "test_efficientnet", "test_vit_patch8"])
@torch.inference_mode()
def test_a_twin_s_answers_move_with_the_image_however_deep_it_is(name: str, photos: np.ndarray) -> None:
    """Untrained BatchNorms let a signal fade to a ten-thousandth of the answer; the twin's do not."""
    seed_everything(0)
    net = model.build(backbone(name), classes=10, size=32).eval()

    twin = export.moved_twin(net, photos)

    assert twin is not None
    for answer in twin(torch.from_numpy(photos)):
        assert answer.std(dim=0).max() > 0.01 * answer.abs().max()


def test_a_wrong_weight_behind_a_closed_layer_scale_is_seen_through_the_twin(
    photos: np.ndarray, card: Callable[..., FileCard], tmp_path: Path
) -> None:
    """Untrained, a wrong block agrees all the same: that is the trap. Its twin's file is refused."""
    seed_everything(0)
    net = model.build(backbone("test_convnext2"), classes=10, size=32).eval()
    twin = export.moved_twin(net, photos)
    assert twin is not None
    for network, name in ((net, "net.onnx"), (twin, "twin.onnx")):
        wrong = export.copy.deepcopy(network)
        with torch.no_grad():
            wrong.get_parameter("backbone.stages.1.blocks.0.mlp.fc2.weight").mul_(1.5)
        export.export(wrong, card("test_convnext2"), tmp_path / name)

    export.prove(net, tmp_path / "net.onnx", photos)
    with pytest.raises(BobrtError, match=r"twin\.onnx differs from PyTorch"):
        export.prove(twin, tmp_path / "twin.onnx", photos)


@pytest.fixture
def fresh(made: Find, card: Callable[..., FileCard], tmp_path: Path) -> Job:
    """The export of an untrained network, to be made."""
    seed_everything(0)
    net = model.build(backbone("test_resnet"), classes=10, size=32)
    model.save(net, card(), tmp_path / "it.safetensors")
    source = Artifact(tmp_path / "it.safetensors", made("checkpoint").manifest)
    (tmp_path / "made").mkdir()
    return Job({"batch": "dynamic"}, source, tmp_path / "made", lambda *_: None)


def test_the_stage_says_when_a_twin_was_needed(fresh: Job) -> None:
    """An untrained network is exported as it is, proven by its twin, and the twin is not left behind."""
    produced = export.make(fresh)

    assert produced.detail["proven_by_twin"] is True
    assert max(produced.detail["parity"].values()) <= 1e-4
    assert [file.name for file in fresh.folder.iterdir()] == ["model.onnx"]
    file = onnx.load(fresh.folder / "model.onnx")
    weights = {init.name: numpy_helper.to_array(init) for init in file.graph.initializer}
    net = model.load(fresh.source.path)[0]
    np.testing.assert_array_equal(weights["head.weight"], net.head.weight.detach())


def test_a_twin_does_not_excuse_the_file_itself(fresh: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a right twin and a wrong file the stage fails, and the file is named."""
    real = export.export

    def export_wrongly(net: model.Model, card: FileCard, path: Path) -> None:
        if path.name == "model.onnx":
            net = export.copy.deepcopy(net)
            net.head.weight.data.mul_(1.01)
        real(net, card, path)

    monkeypatch.setattr(export, "export", export_wrongly)

    with pytest.raises(BobrtError, match=r"model\.onnx differs from PyTorch in logits"):
        export.make(fresh)


def test_an_export_needs_a_checkpoint(tmp_path: Path) -> None:
    """Asked for nothing to export, it says so."""
    with pytest.raises(BobrtError, match="made from a checkpoint, and none was given"):
        export.make(Job({"batch": "dynamic"}, None, tmp_path, lambda *_: None))


MYLAB = """
from timm.models import build_model_with_cfg, register_model
from timm.models.resnet import BasicBlock, ResNet
from bobrt.spec import Backbone, Input

@register_model
def mylab_net(pretrained=False, **options):
    small = {"block": BasicBlock, "layers": (1, 1, 1, 1), "channels": (16, 16, 32, 32)}
    return build_model_with_cfg(ResNet, "mylab_net", pretrained, **small, **options)

THREE = (0.5, 0.5, 0.5)
OWN = Backbone(
    name="mylab/own", timm="mylab_net", family="mylab",
    input=Input(size=32, crop_pct=1.0, interpolation="bicubic", mean=THREE, std=THREE),
)
"""


def test_an_architecture_of_another_package_is_exported(bobrt: Callable[..., Ran], tmp_path: Path) -> None:
    """The package registers it with timm when it is imported: in the process that builds the network too."""
    site = install_package(tmp_path / "site", "mylab", "[bobrt.backbones]\nmylab/own = mylab:OWN\n", MYLAB)

    done = bobrt("export", "mylab/own", "--weights", "random", env={"PYTHONPATH": str(site)})

    assert done.code == 0, done.err
    graph = onnx.load(done.out.removesuffix("\n")).graph
    assert sides(graph.input[0]) == ["batch", 32, 32, 3]


def test_a_state_dict_of_timm_s_is_trained_and_exported_by_its_path(
    bobrt: Callable[..., Ran], tmp_path: Path
) -> None:
    """`--weights PATH`: one command makes the checkpoint and the file, which names the weights' sha256.

    That the file's classifier is left out is told then, and in the record of a row; it is no published file.
    """
    net = model.build(backbone("test_resnet"), classes=0, size=32, own_head=True)
    torch.save(net.backbone.state_dict(), tmp_path / "mine.pth")
    asked = ["--weights", tmp_path / "mine.pth", "--task", "digits", "--plan", TINY]

    done = bobrt("export", "test_resnet", *asked, "--json")
    row = ("--runtime", "ort-cpu", "--precision", "fp32")
    benched = bobrt("bench", "test_resnet", *asked, *row, "--limit", "50", "--json")

    assert done.code == 0, done.err
    assert "keys of the weights left out: fc.* (2)" in done.err
    records = json.loads(benched.out)["results"]
    assert {record["published"] for record in records} == {None}
    assert all("keys of the weights left out: fc.* (2)" in record["notes"] for record in records)
    artifact = json.loads(done.out)["artifact"]
    sha256 = hashlib.sha256((tmp_path / "mine.pth").read_bytes()).hexdigest()
    assert artifact["detail"]["card"]["weights"] == f"file:{sha256}"
    assert artifact["detail"]["card"]["task"] == "digits"
    assert max(artifact["detail"]["parity"].values()) <= 1e-4
    assert onnx_file.load(Path(artifact["path"])).graph.output[1].name == "logits"
