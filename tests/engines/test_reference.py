"""What the checkpoint answers in fp32 PyTorch, kept to compare engines with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from bobrt import data
from bobrt.artifacts import Artifact, Job
from bobrt.catalogue import TASKS, backbone
from bobrt.data.resize import resize
from bobrt.errors import BobrtError
from bobrt.spec import Protocol
from engines import reference
from train import model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_the_answers_kept_are_the_checkpoint_s_own(made: Callable[..., Artifact]) -> None:
    """Every output on every image of validation and test, and none of train."""
    net, card = model.load(made("checkpoint").path)
    with np.load(made("reference").path) as kept:
        assert set(kept.files) == {
            f"{split}.{output}" for split in ("validation", "test") for output in ("features", "logits")
        }
        for split, count in (("validation", 269), ("test", 450)):
            content = data.load(TASKS.get("digits"), split)
            with torch.inference_mode():
                features, logits = net(torch.from_numpy(resize(content.images, card.transform)))
            assert kept[f"{split}.logits"].shape == (count, 10)
            np.testing.assert_allclose(kept[f"{split}.features"], features, atol=1e-4)
            np.testing.assert_allclose(kept[f"{split}.logits"], logits, atol=1e-4)
            right = float((logits.numpy().argmax(axis=1) == content.targets).mean())
            assert made("reference").manifest.detail[split] == pytest.approx(right)


def test_a_checkpoint_that_answers_no_task_has_no_reference(
    made: Callable[..., Artifact], tmp_path: Path
) -> None:
    """A backbone as published is compared with nothing; the line names the file."""
    entry = backbone("test_resnet")
    net = model.build(entry, classes=0, size=32, own_head=True)
    transform = model.transform_of(entry, None)
    model.save(
        net,
        model.card_of(entry, "random", Protocol.PUBLISHED, 0, transform, None),
        tmp_path / "it.safetensors",
    )
    source = Artifact(tmp_path / "it.safetensors", made("checkpoint").manifest)

    with pytest.raises(BobrtError, match=r"it\.safetensors answers no task"):
        reference.make(Job({}, source, tmp_path, lambda *_: None))
