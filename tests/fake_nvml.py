"""NVML without a card: a library whose answers a test gives, and may take away."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pynvml

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


class Driver:
    """Stands for the NVML library; `answers` says what it knows."""

    def __init__(self) -> None:
        self.refused: dict[str, int] = {}

    def answers(self) -> dict[str, Callable[..., Any]]:
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        real = getattr(pynvml, name)  # a name that the installed library lacks ends the test
        if not name.startswith("nvml") or not callable(real):
            return real

        def call(*args: Any) -> Any:
            if name in self.refused:
                raise pynvml.NVMLError(self.refused[name])
            return self.answers()[name](*args)

        return call


def names_asked_by(module: ModuleType) -> set[str]:
    """Return what a module takes from `pynvml`: a fake would take any name, the library has only its own."""
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pynvml"
    }
