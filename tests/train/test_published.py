"""What timm and torch say of a damaged file of the hub becomes one line that names it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from bobrt.errors import UsageError
from bobrt.spec import Backbone
from train import published

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Damage = Callable[[bytes], bytes]

ENTRY = Backbone(name="test_resnet.r160_in1k", timm="test_resnet.r160_in1k", family="resnet")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of PyTorch's in a hub's cache, which is where the entry's weights are looked for."""
    path = tmp_path / "a home" / "models--timm--it" / "snapshots" / "abc" / "pytorch_model.bin"
    path.parent.mkdir(parents=True)
    torch.save({"weight": torch.zeros(1000)}, path)
    monkeypatch.setattr(published, "cached", lambda _: path)
    return path


@pytest.mark.parametrize(
    "damage",
    [lambda _: b"", lambda _: b"PK", lambda told: told[:-500], lambda _: b"no weights at all"],
    ids=["empty", "begun", "cut", "text"],
)
def test_a_damaged_file_of_pytorch_is_named(file: Path, damage: Damage) -> None:
    """Each way to be damaged has an error of its own; the hint can be pasted."""
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UsageError) as caught, published.loading(ENTRY):
        torch.load(file, map_location="cpu", weights_only=True)
    assert caught.value.message.startswith(f"checkpoint {file} ")
    assert caught.value.hint == f"fetch it anew: rm -r '{file.parents[2]}'"


def test_another_error_is_not_the_file_s(file: Path) -> None:
    """What timm says of its arguments stays what it is."""
    assert file.is_file()
    with pytest.raises(TypeError, match="wobble"), published.loading(ENTRY):
        raise TypeError("unexpected argument 'wobble'")
