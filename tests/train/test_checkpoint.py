"""The stage `checkpoint`: a backbone, the weights it starts from, and what the file says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from bobrt import __version__
from bobrt.catalogue import backbone
from bobrt.errors import UsageError
from bobrt.paths import sha256_of
from bobrt.spec import FileCard, Precision, Protocol, Transform
from train import model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bobrt.artifacts import Artifact, Target, Workshop

STILL = {"lr": 1e-12, "min_lr": 0.0, "weight_decay": 0.0}
"""A recipe that leaves every parameter where it was."""


def published(describe: Callable[..., Target], **more: Any) -> Target:
    """Describe a backbone as it is published."""
    return describe(protocol=Protocol.PUBLISHED, task=None, **more)


def from_file(path: Path) -> dict[str, str]:
    """Return the options of a checkpoint that starts from a local file."""
    return {"weights": f"file:{sha256_of(path)}", "weights_path": str(path)}


def test_the_file_s_header_says_what_it_is(trained: Artifact) -> None:
    """Carried anywhere, a checkpoint names its backbone, task, labels, preprocessing and seed."""
    with safe_open(trained.path, "pt") as file:
        card = msgspec.json.decode(file.metadata()["bobrt"], type=FileCard)

    assert card == FileCard(
        bobrt=__version__,
        backbone=backbone("test_resnet"),
        weights="random",
        task="digits",
        protocol=Protocol.FINETUNE,
        seed=0,
        labels=list("0123456789"),
        transform=Transform(size=32, interpolation="bilinear"),
        precision=Precision.FP32,
    )
    assert card == msgspec.convert(trained.manifest.detail["card"], type=FileCard)


def test_a_backbone_as_published_keeps_its_classifier_and_its_own_size(
    shop: Workshop, wanted: Callable[..., Target], photos: torch.Tensor
) -> None:
    """Nothing is trained: no task, the size that timm publishes, and a manifest that counts the weights."""
    made = shop.make(published(wanted))
    net, card = model.load(made.path)

    assert (card.task, card.labels, card.protocol) == ("", [], Protocol.PUBLISHED)
    assert card.transform == Transform(size=160, crop_pct=0.95, interpolation="bilinear")
    assert made.manifest.detail["params"] == sum(p.numel() for p in net.parameters())
    assert net(photos)[1].shape == (3, 1000)


@pytest.mark.parametrize("whose", ["ours", "timm's"])
def test_a_local_file_can_be_started_from(
    shop: Workshop, wanted: Callable[..., Target], trained: Artifact, tmp_path: Path, whose: str
) -> None:
    """With `--weights PATH` the backbone starts from the file, the head anew, and the card names the file."""
    start = model.load(trained.path)[0]
    path = trained.path
    if whose == "timm's":
        path = tmp_path / "timm.safetensors"
        save_file(start.backbone.state_dict(), path)

    made = shop.make(wanted(recipe=STILL, **from_file(path)))
    end, card = model.load(made.path)
    moved = [
        name
        for name, value in end.named_parameters()
        if not torch.allclose(value, start.state_dict()[name], atol=1e-6)
    ]

    assert moved == ["head.weight", "head.bias"]
    assert card.weights == f"file:{sha256_of(path)}"


def test_another_file_of_the_same_name_is_another_checkpoint(
    shop: Workshop, wanted: Callable[..., Target], tmp_path: Path
) -> None:
    """What is started from is known by its bytes, not by its path."""
    folders = set()
    for seed in (0, 1):
        torch.manual_seed(seed)
        net = model.build(backbone("test_resnet"), classes=0, size=32, own_head=True)
        torch.save(net.backbone.state_dict(), tmp_path / "start.pth")
        folders.add(shop.make(published(wanted, **from_file(tmp_path / "start.pth"))).path)

    assert len(folders) == 2


def test_fine_tuning_without_a_task_is_a_usage_error(shop: Workshop, wanted: Callable[..., Target]) -> None:
    """There is nothing to learn; the hint says how to name something."""
    with pytest.raises(UsageError, match="needs a task") as caught:
        shop.make(wanted(task=None))

    assert "--task" in caught.value.hint


def test_truncated_weights_end_a_command_in_one_line(
    bobrt: Callable[..., Any], trained: Artifact, tmp_path: Path
) -> None:
    """`--weights PATH` with half a file: exit code 2, the file named, no traceback, nothing made."""
    half = tmp_path / "half.safetensors"
    half.write_bytes(trained.path.read_bytes()[: trained.manifest.bytes // 2])

    done = bobrt("train", "test_resnet", "--weights", half)

    assert done.code == 2
    assert f"error: checkpoint {half} is damaged or truncated" in done.err
    assert "Traceback" not in done.err
    assert done.out == ""
