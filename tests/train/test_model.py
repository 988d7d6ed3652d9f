"""Backbone + head: what goes in and out, and which files it is read from."""

from __future__ import annotations

import contextlib
import pickle
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data import resolve_data_config
from timm.utils import CheckpointSaver

from bobrt.catalogue import TASKS, backbone
from bobrt.errors import UsageError
from bobrt.spec import Backbone, Input, Protocol, Transform
from train import model, weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from bobrt.spec import FileCard

    Damage = Callable[[Path], object]


def normalised(images: torch.Tensor, own: torch.nn.Module) -> torch.Tensor:
    """Return images as timm wants them: `float32 [n, 3, height, width]`, by its own mean and std."""
    config = resolve_data_config({}, model=own)
    mean, std = torch.tensor(config["mean"]), torch.tensor(config["std"])
    return ((images / 255 - mean) / std).permute(0, 3, 1, 2)


def card(labels: int = 10, protocol: Protocol = Protocol.FINETUNE) -> FileCard:
    """Return the card of a `test_resnet` on the digits."""
    task = TASKS.get("digits") if protocol is Protocol.FINETUNE else None
    entry = backbone("test_resnet")
    made = model.card_of(entry, "random", protocol, 0, model.transform_of(entry, TASKS.get("digits")), task)
    return msgspec.structs.replace(made, labels=made.labels[:labels])


@torch.inference_mode()
def test_as_published_a_backbone_answers_with_its_own_classifier(photos: torch.Tensor) -> None:
    """With its own head the logits are those of timm's model, and the features what it classifies."""
    net = model.build(backbone("test_resnet"), classes=0, size=32, own_head=True).eval()
    own = timm.create_model("test_resnet").eval()
    own.load_state_dict(net.backbone.state_dict())

    features, logits = net(photos)

    assert logits.shape == (3, 1000)
    torch.testing.assert_close(logits, own(normalised(photos, own)))
    torch.testing.assert_close(own.get_classifier()(features), logits)


def test_without_a_head_there_are_features_alone(photos: torch.Tensor) -> None:
    """A backbone with no classifier answers one output, and names one."""
    net = model.build(backbone("test_resnet"), classes=0, size=32).eval()

    assert net.outputs == ["features"]
    assert [tuple(out.shape) for out in net(photos)] == [(3, net.backbone.num_features)]


def test_what_timm_cannot_build_is_a_usage_error_with_its_name() -> None:
    """An argument the model does not take names the backbone, the size and the argument."""
    entry = Backbone(name="odd", timm="test_resnet", family="resnet", args={"wheels": 4})

    with pytest.raises(UsageError, match=r"timm cannot build odd at 32 px: .*wheels"):
        model.build(entry, classes=10, size=32)


def test_the_task_says_how_images_are_prepared_or_else_the_backbone() -> None:
    """A task's transform goes before; a task that leaves it open gets the checkpoint's own."""
    digits, entry = TASKS.get("digits"), backbone("convnext")
    left_open = msgspec.structs.replace(digits, transform=None)

    assert model.transform_of(entry, digits) == digits.transform
    assert model.transform_of(entry, left_open) == Transform(
        size=224, crop_pct=0.875, interpolation="bicubic"
    )
    assert model.transform_of(entry, None) == model.transform_of(entry, left_open)


def test_an_entry_says_what_its_images_are_like_before_timm_does() -> None:
    """Size, crop and filter of the transform, and the normalisation inside the model, are the entry's own."""
    own = Input(size=48, crop_pct=0.8, interpolation="bilinear", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    timm_s = backbone("test_resnet")
    entry = msgspec.structs.replace(timm_s, input=own)

    assert model.transform_of(entry, None) == Transform(size=48, crop_pct=0.8, interpolation="bilinear")
    net = model.build(entry, classes=0, size=32)
    assert net.mean.flatten().tolist() == pytest.approx([25.5, 51.0, 76.5])
    assert net.std.flatten().tolist() == pytest.approx([102.0, 127.5, 153.0])
    same = model.build(msgspec.structs.replace(timm_s, input=None), classes=0, size=32)
    assert same.mean.flatten().tolist() != net.mean.flatten().tolist()


def test_layer_decay_goes_by_timm_s_layers_with_the_head_last() -> None:
    """Stem, blocks in their order, the head behind them all; what timm keeps from weight decay is kept."""
    net = model.build(backbone("test_vit_patch8"), classes=10, size=32)
    layer = net.group_matcher()
    names = {name for name, _ in net.named_parameters()}

    assert layer("backbone.patch_embed.proj.weight") < layer("backbone.blocks.0.mlp.fc1.weight")
    assert layer("backbone.blocks.0.mlp.fc1.weight") < layer("backbone.blocks.5.attn.qkv.weight")
    last = max(layer(name) for name in names if name.startswith("backbone."))
    assert last < layer("head.weight") == layer("head.bias")
    assert "backbone.pos_embed" in net.no_weight_decay() & names


@torch.inference_mode()
def test_a_saved_model_comes_back_with_its_card_and_its_answers(
    net: model.Model, photos: torch.Tensor, tmp_path: Path
) -> None:
    """Saving and loading changes no bit of the outputs and no word of the card."""
    model.save(net, card(), tmp_path / "it.safetensors")

    loaded, read = model.load(tmp_path / "it.safetensors")

    assert read == card()
    assert not loaded.training
    for got, want in zip(loaded(photos), net(photos), strict=True):
        assert torch.equal(got, want)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def cut_in_the_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def edit_the_header(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"finetune", b"fineturn"))


def fill_with_text(path: Path) -> None:
    path.write_text("these are not weights")


@pytest.mark.parametrize("damage", [cut, cut_in_the_header, edit_the_header, fill_with_text])
def test_a_damaged_checkpoint_is_named(net: model.Model, tmp_path: Path, damage: Damage) -> None:
    """One of our own files, cut or edited, is refused in one line that names it."""
    path = tmp_path / "it.safetensors"
    model.save(net, card(), path)
    damage(path)

    with pytest.raises(UsageError) as caught:
        model.load(path)

    assert caught.value.message.startswith(f"checkpoint {path} is damaged or truncated: ")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("damage", [cut, fill_with_text, Path.mkdir], ids=["cut", "text", "folder"])
def test_a_damaged_pytorch_file_is_named(net: model.Model, tmp_path: Path, damage: Damage) -> None:
    """A `.pth` that torch cannot read is refused in one line that names it."""
    path = tmp_path / "it.pth"
    if damage is not Path.mkdir:
        torch.save(net.backbone.state_dict(), path)
    damage(path)

    with pytest.raises(UsageError) as caught:
        model.read_checkpoint(path)

    assert caught.value.message.startswith(f"checkpoint {path} ")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("content", "held"),
    [
        ([1, 2], ""),
        ({"epoch": 3, "net": {"w": torch.ones(1)}}, ": it holds 'epoch', 'net'"),
        ({"model": {"epoch": 3}}, " under 'model'"),
        ({}, ""),
    ],
)
def test_a_file_that_holds_no_state_dict_says_so(tmp_path: Path, content: object, held: str) -> None:
    """What loads but is not names and tensors is no checkpoint; what it is instead is said."""
    path = tmp_path / "it.pth"
    torch.save(content, path)

    with pytest.raises(UsageError, match=rf"it\.pth is not a state dict{held}$"):
        model.read_checkpoint(path)


def test_a_network_that_was_saved_whole_is_code(net: model.Model, tmp_path: Path) -> None:
    """It is not run, and the way out is not torch's advice to run it."""
    torch.save(net, tmp_path / "it.pth")

    with pytest.raises(
        UsageError, match=r"holds more than names and tensors, train\.model\.Model, "
    ) as caught:
        model.read_checkpoint(tmp_path / "it.pth")

    assert "weights_only" not in caught.value.message
    assert caught.value.hint == "save the names and tensors alone: torch.save(net.state_dict(), PATH)"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda state: {name: value.to(torch.int8) for name, value in state.items()}, "of another type"),
        (lambda state: {name: value + 0j for name, value in state.items()}, "of another type"),
        (lambda state: {name: value.to("meta") for name, value in state.items()}, "of another type"),
        (lambda state: {name: value.to_sparse() for name, value in state.items()}, "is no"),
        (lambda state: dict(enumerate(state.values())), "is not a state dict"),
    ],
    ids=["bytes", "complex", "nowhere", "sparse", "numbered"],
)
def test_what_is_no_parameters_of_floats_is_refused(
    net: model.Model, tmp_path: Path, change: Callable[[Any], Any], told: str
) -> None:
    """Copied over, they would be numbers all the same: others."""
    torch.save(change(net.backbone.state_dict()), tmp_path / "it.pth")

    with pytest.raises(UsageError, match=told):
        model.load_local(net, backbone("test_resnet"), tmp_path / "it.pth")


@pytest.mark.parametrize("content", [b"hello", b"{}", b"\x80"])
def test_what_is_no_file_of_weights_is_called_so(tmp_path: Path, content: bytes) -> None:
    """Whatever Python's unpickler makes of it, the line is one that can be read."""
    path = tmp_path / "it.pth"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=rf"checkpoint {path} is (no file of weights|damaged or truncated)"):
        model.read_checkpoint(path)


def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A missing file is called missing, not damaged."""
    with pytest.raises(UsageError, match=r"gone\.safetensors does not exist"):
        model.load(tmp_path / "gone.safetensors")


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("write", [torch.save, lambda trap, path: path.write_bytes(pickle.dumps(trap))])
def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, write: Callable[[object, Path], object]) -> None:
    """A pickle that would run something when loaded is refused and has run nothing."""
    path, marker = tmp_path / "it.pth", tmp_path / "marker"
    write({"weight": torch.ones(1), "trap": Trap(marker)}, path)

    with pytest.raises(UsageError, match=r"it\.pth"):
        model.read_checkpoint(path)

    assert not marker.exists()
    with contextlib.suppress(RuntimeError):
        torch.load(path, weights_only=False)
    assert marker.exists()  # the trap works


def test_a_checkpoint_of_someone_else_says_how_to_use_it(net: model.Model, tmp_path: Path) -> None:
    """A plain state dict is no checkpoint of ours; the hint is to start from it."""
    path = tmp_path / "it.safetensors"
    save_file(net.backbone.state_dict(), path)

    with pytest.raises(UsageError, match="has no bobrt header") as caught:
        model.load(path)

    assert caught.value.hint == f"pass it as --weights {path}"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"args": {"num_heads": 4}}, "of arguments {'num_heads': 4}, and test_resnet has {}"),
        (
            {"timm": "test_resnet2.mine"},
            "of architecture test_resnet2, and test_resnet has test_resnet",
        ),
        ({"std": (0.1, 0.1, 0.1)}, "of mean and deviation "),
    ],
)
def test_a_checkpoint_of_ours_is_not_taken_for_another_network_s(
    net: model.Model, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    """Keys and shapes are the same with another head count; the card tells."""
    path = tmp_path / "it.safetensors"
    saved = card()
    entry = model.described(saved.backbone, net)
    assert entry.input is not None
    std = {"input": msgspec.structs.replace(entry.input, std=changes.pop("std"))} if "std" in changes else {}
    other = msgspec.structs.replace(entry, name="mylab/it", **std, **changes)
    model.save(net, msgspec.structs.replace(saved, backbone=entry), path)
    model.load_local(net, saved.backbone, path)
    model.save(net, msgspec.structs.replace(saved, backbone=other), path)
    with pytest.raises(UsageError) as caught:
        model.load_local(net, saved.backbone, path)
    assert f"checkpoint {path} was saved as mylab/it, {words}" in caught.value.message
    assert caught.value.hint == f"name what it was saved as: mylab/it --weights {path}"


def test_a_head_of_another_width_than_the_card_says_is_refused(net: model.Model, tmp_path: Path) -> None:
    """Seven labels and ten logits do not fit; both shapes are named."""
    path = tmp_path / "it.safetensors"
    model.save(net, card(labels=7), path)

    with pytest.raises(UsageError, match=r"head\.weight is \(10, 96\), not \(7, 96\)"):
        model.load(path)


def test_every_key_that_does_not_fit_is_counted_and_the_first_are_named(net: model.Model) -> None:
    """Missing, extra and misshapen keys are told apart."""
    state = net.state_dict()
    kept = state.pop("backbone.conv1.0.weight")
    state["backbone.conv9.weight"] = kept
    state["head.bias"] = torch.zeros(3)

    with pytest.raises(UsageError) as caught:
        weights.load_strictly(net, state, Path("it.pth"))

    assert caught.value.message == (
        "checkpoint it.pth does not fit: keys 1 missing (backbone.conv1.0.weight); "
        "1 extra (backbone.conv9.weight); 1 of another shape (head.bias is (3,), not (10,))"
    )


def test_a_checkpoint_for_another_class_count_says_how_to_use_it(tmp_path: Path) -> None:
    """As published it has a classifier of its own; a task brings another."""
    other = model.build(backbone("test_resnet"), classes=0, size=32, own_head=True)
    other.backbone.reset_classifier(7)
    torch.save(other.backbone.state_dict(), tmp_path / "seven.pth")
    wanted = model.build(backbone("test_resnet"), classes=0, size=32, own_head=True)

    with pytest.raises(UsageError, match=r"2 of another shape \(fc\.bias is \(7,\), not \(1000,\)") as caught:
        model.load_local(wanted, backbone("test_resnet"), tmp_path / "seven.pth")

    assert caught.value.hint == "--task NAME brings a classifier of its own, and leaves the file's out"
    tuned = model.build(backbone("test_resnet"), classes=10, size=32)
    keys = model.load_local(tuned, backbone("test_resnet"), tmp_path / "seven.pth")
    assert keys["loaded"] == keys["expected"] == len(other.backbone.state_dict()) - 2
    assert keys["left_out"] == {"fc.*": 2}
    assert torch.equal(tuned.backbone.conv1[0].weight, other.backbone.conv1[0].weight)


def test_a_wrapped_network_s_file_says_how_to_save_it(net: model.Model, tmp_path: Path) -> None:
    """Every name begins with that of the wrapper."""
    torch.save(torch.nn.DataParallel(net.backbone).state_dict(), tmp_path / "it.pth")
    with pytest.raises(UsageError, match="missing") as caught:
        model.load_local(net, backbone("test_resnet"), tmp_path / "it.pth")
    assert caught.value.hint == "save the network inside: torch.save(net.module.state_dict(), PATH)"


def as_timm_saves(net: model.Model, path: Path) -> None:
    torch.save(net.backbone.state_dict(), path)


def as_a_training_saves(net: model.Model, path: Path) -> None:
    torch.save({"state_dict": net.backbone.state_dict(), "epoch": 3}, path)


def as_timm_s_training_saves(net: model.Model, path: Path) -> None:
    """With its optimiser and its options, an `argparse.Namespace`, beside the weights."""
    steps = torch.optim.SGD(net.parameters(), lr=0.1)
    saver = CheckpointSaver(
        net.backbone, steps, Namespace(model="test_resnet", lr=0.1), checkpoint_dir=str(path.parent)
    )
    saver.save_checkpoint(3, metric=0.5)
    (path.parent / "last.pth.tar").rename(path)


def as_meta_saves(net: model.Model, path: Path) -> None:
    torch.save({"model": net.backbone.state_dict(), "optimizer": {"lr": 0.1}}, path)


def as_the_hub_has_it(net: model.Model, path: Path) -> None:
    save_file(net.backbone.state_dict(), path)


def as_we_save(net: model.Model, path: Path) -> None:
    model.save(net, card(protocol=Protocol.PUBLISHED), path)


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (as_timm_saves, "it.pth"),
        (as_a_training_saves, "it.pt"),
        (as_timm_s_training_saves, "it.pth.tar"),
        (as_meta_saves, "it.pth"),
        (as_the_hub_has_it, "it.safetensors"),
        (as_the_hub_has_it, "a-blob-of-a-cache"),
        (as_we_save, "it.safetensors"),
    ],
)
@torch.inference_mode()
def test_a_local_file_of_any_common_kind_becomes_the_backbone(
    tmp_path: Path, photos: torch.Tensor, write: Callable[[model.Model, Path], None], name: str
) -> None:
    """The published weights are taken over whole; the classifier is left out where a task brings its own."""
    published = model.build(backbone("test_resnet"), classes=0, size=32, own_head=True).eval()
    write(published, tmp_path / name)

    again = model.build(backbone("test_resnet"), classes=0, size=32, own_head=True).eval()
    model.load_local(again, backbone("test_resnet"), tmp_path / name)
    tuned = model.build(backbone("test_resnet"), classes=10, size=32).eval()
    head = tuned.head.weight.clone()
    model.load_local(tuned, backbone("test_resnet"), tmp_path / name)

    assert torch.equal(again(photos)[1], published(photos)[1])
    assert torch.equal(tuned(photos)[0], published(photos)[0])
    assert torch.equal(tuned.head.weight, head)


def test_the_weights_of_another_backbone_are_refused(net: model.Model, tmp_path: Path) -> None:
    """Nothing is loaded half way: the keys that do not fit are named, the model stays as it was."""
    other = model.build(backbone("test_efficientnet"), classes=10, size=32)
    torch.save(other.backbone.state_dict(), tmp_path / "other.pth")
    before = {name: value.clone() for name, value in net.state_dict().items()}

    with pytest.raises(UsageError, match=r"other\.pth does not fit: keys \d+ missing \(.*; \d+ extra \("):
        model.load_local(net, backbone("test_resnet"), tmp_path / "other.pth")

    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
