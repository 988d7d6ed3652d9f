"""The feature is the model's own pooled pre-logits, in each family: never logits, never an untrained head's.

Every member is timm's architecture, cut down through timm's own arguments.
"""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from families import FAMILIES, MEMBERS, Member, entry
from timm.data import resolve_data_config
from torch import nn

from bobrt.catalogue import BACKBONES
from train import model
from train.seeding import seed_everything


def own(member: Member, net: model.Model, **more: Any) -> nn.Module:
    """Return timm's own model with the weights of ours."""
    config = timm.get_pretrained_cfg(member.timm)
    sized = {"img_size": member.size} if config.fixed_input_size else {}
    twin = timm.create_model(member.timm, **member.args, **sized, **more)
    twin.load_state_dict(net.backbone.state_dict())
    return twin.eval()


def pictures(member: Member, twin: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images as we take them, and as timm does, by its own mean and standard deviation."""
    images = torch.randint(0, 256, (2, member.size, member.size, 3), dtype=torch.uint8)
    config = resolve_data_config({}, model=twin)
    mean, std = torch.tensor(config["mean"]), torch.tensor(config["std"])
    return images, ((images / 255 - mean) / std).permute(0, 3, 1, 2)


def classified(found: Any, features: torch.Tensor) -> torch.Tensor:
    """Return what a model's own classifier says of its features."""
    if isinstance(found, nn.ModuleList):  # CrossViT: one for each branch, whose features stand side by side
        parts = features.split([classifier.in_features for classifier in found], dim=1)
        return sum(classifier(part) for classifier, part in zip(found, parts, strict=True)) / len(found)
    if isinstance(found, tuple):  # a distilled model has two
        return sum(classifier(features) for classifier in found) / len(found)
    if isinstance(found, nn.Conv2d):
        return found(features[:, :, None, None]).flatten(1)
    return getattr(found, "fc", found)(features)


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.timm)
@torch.inference_mode()
def test_a_task_s_head_stands_on_timm_s_pooled_pre_logits(member: Member) -> None:
    """With a new head the features are those of timm's model without a classifier."""
    seed_everything(0)
    net = model.build(entry(member), classes=10, size=member.size).eval()
    twin = own(member, net, num_classes=0)
    images, x = pictures(member, twin)

    features, logits = net(images)

    want = twin.forward_head(twin.forward_features(x), pre_logits=True)
    assert features.ndim == 2
    assert features.shape[1] == (twin.head_hidden_size or twin.num_features)
    assert features.std(dim=0).max() > 0  # they answer to the picture
    torch.testing.assert_close(features, want, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(features, twin(x), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(logits, features @ net.head.weight.T + net.head.bias)


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.timm)
@torch.inference_mode()
def test_as_published_the_logits_are_the_classifier_s_of_the_features(member: Member) -> None:
    """A model published with a classifier answers with it, and the features are what it classifies."""
    seed_everything(0)
    net = model.build(entry(member), classes=0, size=member.size, own_head=True).eval()
    twin = own(member, net)
    images, x = pictures(member, twin)

    features, *logits = net(images)

    assert net.outputs == ["features", "logits"][: 1 + len(logits)]
    assert len(logits) == (twin.num_classes > 0)
    want = twin.forward_head(twin.forward_features(x), pre_logits=True)
    torch.testing.assert_close(features, want, rtol=1e-3, atol=1e-4)
    if logits:
        torch.testing.assert_close(logits[0], twin(x), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(
            logits[0], classified(twin.get_classifier(), features), rtol=1e-3, atol=1e-4
        )


def test_every_family_of_the_catalogue_is_here() -> None:
    """Whoever adds a family adds a member."""
    assert {backbone.family for backbone in BACKBONES.all().values()} - {"diffusion"} <= set(FAMILIES)
