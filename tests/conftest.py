"""What every test shares: the real command line, and one small plan run once for real."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from support import TINY, Ran, Workspace, run_bobrt

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["TINY", "Ran", "Workspace", "run_bobrt"]


@pytest.fixture
def bobrt(tmp_path: Path) -> Callable[..., Ran]:
    """The command line with an empty cache and an empty results folder."""
    return Workspace(tmp_path / "cache", tmp_path / "results").bobrt


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Ran]:
    """The tiny plan, run once for the whole session; nobody may write into it."""
    folder = tmp_path_factory.mktemp("tiny")
    space = Workspace(folder / "cache", folder / "results")
    return space, space.bobrt("bench", "--plan", TINY, timeout=600)


@pytest.fixture
def workspace(tiny_run: tuple[Workspace, Ran], tmp_path: Path) -> Workspace:
    """A copy of the tiny run's cache and results that a test may damage."""
    space = Workspace(tmp_path / "cache", tmp_path / "results")
    shutil.copytree(tiny_run[0].cache, space.cache)
    shutil.copytree(tiny_run[0].results, space.results)
    return space
