"""The stage `checkpoint`: a backbone, the weights it starts from, and what the file says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import publishers
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from website import Site, serve

from bobrt import __version__
from bobrt.catalogue import backbone
from bobrt.errors import UsageError
from bobrt.paths import sha256_of
from bobrt.spec import Backbone, FileCard, Input, Precision, Protocol, Transform, WeightsFile
from engines import stages
from train import fetch, model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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
    left_out = {"ours": "keys of the weights left out: head.* (2)", "timm's": ""}
    assert stages.left_out_of(made.manifest.detail) == left_out[whose]


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


MOCO = Input(size=32, crop_pct=1.0, interpolation="bilinear", mean=(0.2, 0.3, 0.4), std=(0.5, 0.25, 0.125))


@pytest.fixture
def published_moco(tmp_path: Path) -> Iterator[tuple[Site, torch.nn.Module]]:
    """MoCo v3's ViT-S in small on its publisher's server, and its encoder."""
    torch.manual_seed(1)
    moco = publishers.stirred(publishers.Moco(publishers.MocoVit, "head", 3))
    torch.save(publishers.moco_file(moco, "vit_small"), tmp_path / "vit-s.pth.tar")
    moco.base_encoder.head = torch.nn.Identity()
    with serve({"/moco/vit-s.pth.tar": (tmp_path / "vit-s.pth.tar").read_bytes()}) as site:
        yield site, moco.base_encoder


def elsewhere(site: Site, **changes: Any) -> Backbone:
    """Return an entry whose weights are on that server."""
    weights = WeightsFile(layout="moco-v3-vit-small", url=f"{site.address}/moco/vit-s.pth.tar", **changes)
    args: dict[str, bool | int | float | str] = {"embed_dim": 48, "depth": 2, "num_heads": 12}
    return Backbone(
        name="moco", timm="vit_small_patch16_224", family="vit", args=args, input=MOCO, weights=weights
    )


@torch.inference_mode()
def test_weights_from_elsewhere_become_a_checkpoint_that_says_where_it_is_from(
    shop: Workshop, wanted: Callable[..., Target], published_moco: tuple[Site, torch.nn.Module]
) -> None:
    """It answers as the publisher's model does; card and manifest carry the digest that the download told."""
    site, encoder = published_moco
    made = shop.make(published(wanted, backbone=elsewhere(site), weights="pretrained"))
    net, card = model.load(made.path)
    images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    mean, std = torch.tensor(MOCO.mean), torch.tensor(MOCO.std)

    (features,) = net(images)

    want = encoder(((images / 255 - mean) / std).permute(0, 3, 1, 2))
    torch.testing.assert_close(features, want, rtol=1e-3, atol=1e-4)
    file = fetch.place_of(f"{site.address}/moco/vit-s.pth.tar", shop.cache / "weights")
    assert card.backbone.weights == WeightsFile(
        layout="moco-v3-vit-small", url=f"{site.address}/moco/vit-s.pth.tar", sha256=sha256_of(file)
    )
    assert card.transform == Transform(size=32, interpolation="bilinear")
    told = made.manifest.detail["weights"]
    assert (told["revision"], told["sha256"], told["bytes"]) == (None, sha256_of(file), file.stat().st_size)
    assert told["keys"]["expected"] == told["keys"]["loaded"] == len(net.backbone.state_dict())
    assert set(told["keys"]["left_out"]) == {
        "module.momentum_encoder.*", "module.predictor.*", "module.base_encoder.head.*"
    }  # fmt: skip


def test_a_publisher_s_file_is_fetched_once_for_every_task_and_seed(
    shop: Workshop, wanted: Callable[..., Target], published_moco: tuple[Site, torch.nn.Module]
) -> None:
    """Fine-tuning starts from the same file; what the publisher never trained is not trained either."""
    site, encoder = published_moco
    shop.make(published(wanted, backbone=elsewhere(site), weights="pretrained"))
    asked = len(site.heard)

    tuned, card = model.load(shop.make(wanted(backbone=elsewhere(site), weights="pretrained")).path)

    assert len(site.heard) == asked
    assert (card.task, len(card.labels)) == ("digits", 10)
    state = tuned.backbone.state_dict()
    assert torch.equal(state["pos_embed"], encoder.pos_embed)
    assert not torch.equal(state["norm.weight"], encoder.norm.weight)


def test_a_file_that_is_not_the_entry_s_makes_no_checkpoint(
    shop: Workshop, wanted: Callable[..., Target], published_moco: tuple[Site, torch.nn.Module]
) -> None:
    """The digest in an entry is the file's name: another file is not taken."""
    entry = elsewhere(published_moco[0], sha256="0" * 64)
    with pytest.raises(UsageError, match="not 000000000000"):
        shop.make(published(wanted, backbone=entry, weights="pretrained"))


def test_random_weights_need_no_publisher_and_have_no_classifier(
    shop: Workshop, wanted: Callable[..., Target]
) -> None:
    """The architecture of an entry from elsewhere, untrained: nothing is fetched."""
    site = Site({})
    site.address = "http://127.0.0.1:9"
    made = shop.make(published(wanted, backbone=elsewhere(site)))
    net, card = model.load(made.path)

    assert card.backbone == elsewhere(site)
    assert net.outputs == ["features"]
    assert "weights" not in made.manifest.detail
