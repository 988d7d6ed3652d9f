"""What several tests of the shared words need: real plugins, and locks of their own."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

import pytest
from support import install_package

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[[str, str], Path]:
    """Install a distribution, as an installer would leave it; return the folder to put on the path."""

    def install(code: str, entry_points: str) -> Path:
        return install_package(tmp_path / "site", "acme", entry_points, code)

    return install


@pytest.fixture
def own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep this test's locks apart from those of any other bobrt on the machine."""
    folder = tmp_path / "locks"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder
