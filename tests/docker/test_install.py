"""How an image is installed into: what its base came with stays, and the rest is what was tested together."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[2]


def _loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install", ROOT / "docker" / "install.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


install = _loaded()
OWN = ["# ours", "torch==2.14.1", "numpy==2.4.6", "rich==15.0.0", "safetensors==0.8.0", "timm==1.0.31"]
NEEDS = [
    Requirement(line)
    for line in ("torch>=2.11", "numpy>=2.0", "rich>=14", "safetensors>=0.6", "timm>=1.0.24")
]


def test_on_an_empty_base_the_versions_are_ours() -> None:
    """Nothing to keep: all of constraints.txt."""
    assert install.pins([], OWN, NEEDS, {"pip": "24.0"}) == (OWN[1:], [])


def test_what_the_base_built_itself_is_pinned_to_itself() -> None:
    """PyTorch and TensorRT stay, though ours are other versions and theirs come before a release."""
    here = {
        "torch": "2.14.0a0+5de1c5c.nv26.9",
        "tensorrt": "11.3.0.99",
        "torch-tensorrt": "2.14.0a0",
        "pip": "24.0",
    }
    chosen = install.pins(["torch==2.14.0a0+5de1c5c.nv26.9"], OWN, NEEDS, here)
    assert set(chosen.lines) == {
        "torch==2.14.0a0+5de1c5c.nv26.9",
        "tensorrt==11.3.0.99",
        "torch-tensorrt==2.14.0a0",
        *OWN[2:],
    }
    assert chosen.given_up == []


def test_a_pin_of_the_base_is_kept_while_it_is_good_enough() -> None:
    """Ours stands back for it, installed or only named; one that is too old is given up for ours."""
    image = ["rich==14.1.0", "safetensors==0.5.3  # tested", "", "--no-binary :all:", "regex==2024.11.6"]
    chosen = install.pins(image, OWN, NEEDS, {"numpy": "2.1.0", "safetensors": "0.5.3"})
    assert set(chosen.lines) == {
        "rich==14.1.0",
        "regex==2024.11.6",
        "torch==2.14.1",
        "safetensors==0.8.0",
        "timm==1.0.31",
    }
    assert chosen.given_up == ["safetensors==0.5.3"]


def test_what_the_base_has_without_a_pin_is_pips_to_keep() -> None:
    """numpy 2.1 is enough for us: no constraint of ours makes pip replace it."""
    assert not any(
        line.startswith("numpy") for line in install.pins([], OWN, NEEDS, {"numpy": "2.1.0"}).lines
    )


@pytest.mark.parametrize(
    ("name", "stays"),
    [
        ("torch", True),
        ("torchvision", True),
        ("pytorch-triton", True),
        ("tensorrt", True),
        ("tensorrt-cu13-bindings", True),
        ("tensorrt-rtx", False),
        ("torchao", False),
        ("nvidia-modelopt", False),
    ],
)
def test_whose_version_must_not_change(name: str, *, stays: bool) -> None:
    """TensorRT for RTX is ours to bring; ModelOpt may be brought up to what bobrt needs."""
    assert bool(install.KEPT.fullmatch(name)) is stays


def test_every_extra_of_the_images_is_one_of_ours() -> None:
    """And what they require is read from pyproject.toml."""
    names = {need.name for need in install.requirements(["train", "quant", "tensorrt", "rtx", "loadgen"])}
    assert {"torch", "nvidia-modelopt", "tensorrt", "pycuda", "tensorrt-rtx", "onnx", "msgspec"} <= names


def test_a_base_without_the_tensorrt_that_was_asked_for_ends_the_build(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before anything is installed: which was asked for, and which is there."""
    monkeypatch.setattr(install, "installed", lambda: {"tensorrt": "10.16.1.11"})
    monkeypatch.setattr("sys.argv", ["install.py", "--tensorrt", "11", "tensorrt"])
    with pytest.raises(SystemExit, match=r"was to have TensorRT 11 and has 10\.16\.1\.11"):
        install.main()


def test_an_install_that_changed_pytorch_ends_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever pip thought: the versions before and after are compared."""
    seen = iter([{"torch": "2.14.0a0"}, {"torch": "2.14.0a0"}, {"torch": "2.14.1"}])
    monkeypatch.setattr(install, "installed", lambda: next(seen))
    monkeypatch.setattr(
        install.subprocess, "run", lambda *_, **__: install.subprocess.CompletedProcess([], 0)
    )
    monkeypatch.setattr("sys.argv", ["install.py", ""])
    with pytest.raises(SystemExit, match=r"changed what the image came with: torch 2\.14\.0a0 -> 2\.14\.1"):
        install.main()


def test_a_base_without_the_pytorch_that_was_asked_for_ends_the_build(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The package index's would be taken for the image's own."""
    monkeypatch.setattr(install, "installed", lambda: {"tensorrt": "11.3.0.99"})
    monkeypatch.setattr("sys.argv", ["install.py", "--tensorrt", "11", "--torch", "train,tensorrt"])
    with pytest.raises(SystemExit, match=r"was to have its own PyTorch and has none"):
        install.main()
