"""Shared libraries are found by their exact names, wherever a loader would be led to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engines import libraries

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_library_of_a_wheel_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """NVIDIA's lie in folders of one namespace, TensorRT's in a package of their own."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "nvidia" / "cu99" / "lib").mkdir(parents=True)
    (tmp_path / "nvidia" / "cu99" / "lib" / "libcudart.so.99").touch()
    (tmp_path / "tensorrt_libs").mkdir()
    (tmp_path / "tensorrt_libs" / "__init__.py").touch()
    (tmp_path / "tensorrt_libs" / "libnvinfer.so.99").touch()

    assert libraries.find("libcudart.so.99") == tmp_path / "nvidia" / "cu99" / "lib" / "libcudart.so.99"
    assert libraries.find("libnvinfer.so.99") == tmp_path / "tensorrt_libs" / "libnvinfer.so.99"
    assert libraries.find("libnvinfer.so") is None


def test_a_library_of_the_system_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a folder that the environment names, or in the loader's own cache."""
    (tmp_path / "libmine.so.3").touch()
    assert libraries.find("libmine.so.3") is None

    monkeypatch.setenv("LD_LIBRARY_PATH", f"/nowhere:{tmp_path}")

    assert libraries.find("libmine.so.3") == tmp_path / "libmine.so.3"
    assert libraries.find("libc.so.6") is not None


def test_a_package_is_found_and_not_imported() -> None:
    """One that is not there has no folder."""
    assert libraries.folders_of("onnxruntime")[0].name == "onnxruntime"
    assert libraries.folders_of("no_such_package") == []
