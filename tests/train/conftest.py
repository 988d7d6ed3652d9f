"""What the tests of training share: one way to ask for a checkpoint, and one that was trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
import torch

from bobrt.artifacts import Artifact, Stage, Target, Workshop
from bobrt.catalogue import TASKS, backbone
from bobrt.spec import Protocol, Recipe
from train import model
from train.options import CheckpointOptions
from train.seeding import seed_everything

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="session")
def wanted() -> Callable[..., Target]:
    """Describe a checkpoint: `test_resnet` on the digits for one epoch, or with what is changed."""

    def describe(name: str = "test_resnet", recipe: dict[str, Any] | None = None, **changes: Any) -> Target:
        options = {
            "backbone": backbone(name),
            "weights": "random",
            "task": TASKS.get("digits"),
            "protocol": Protocol.FINETUNE,
            "recipe": Recipe(**{"epochs": 1, "lr": 3e-3, "batch": 32, **(recipe or {})}),
            "seed": 0,
        }
        asked = CheckpointOptions(**{**options, **changes})
        return Target(stage="checkpoint", options=msgspec.to_builtins(asked))

    return describe


@pytest.fixture(scope="session")
def shop_in() -> Callable[[Path], Workshop]:
    """Open a cache that trains in this process."""
    stage = Stage("train.checkpoint:make", ("torch", "timm"), "train")
    return lambda cache: Workshop(cache, {"checkpoint": stage})


@pytest.fixture
def shop(shop_in: Callable[[Path], Workshop], tmp_path: Path) -> Workshop:
    """An empty cache of this test's own."""
    return shop_in(tmp_path / "cache")


@pytest.fixture(scope="session")
def trained(
    shop_in: Callable[[Path], Workshop],
    wanted: Callable[..., Target],
    tmp_path_factory: pytest.TempPathFactory,
) -> Artifact:
    """`test_resnet`, trained for one epoch; nobody may write into it."""
    return shop_in(tmp_path_factory.mktemp("trained")).make(wanted())


@pytest.fixture
def net() -> model.Model:
    """An untrained `test_resnet` with a head for the digits, in eval mode."""
    seed_everything(0)
    return model.build(backbone("test_resnet"), classes=10, size=32).eval()


@pytest.fixture(scope="session")
def photos() -> torch.Tensor:
    """Three pictures in which no two channels are alike: `uint8 [3, 32, 32, 3]`."""
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8))
