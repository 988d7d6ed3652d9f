"""What every test shares: the real command line, one small plan run once for real, locks of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock
from support import TINY, Ran, Workspace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def pytest_configure() -> None:
    """Give each of several workers its share of the cores: threads of two on the same ones only wait."""
    name, count = os.environ.get("PYTEST_XDIST_WORKER"), os.environ.get("PYTEST_XDIST_WORKER_COUNT")
    if name and count and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        first, share = int(name.removeprefix("gw")), len(cores) // int(count)
        if share:
            os.sched_setaffinity(0, cores[first * share :][:share])


FIRST = (
    "test_docs.py",
    "test_families.py",
    "test_gauntlet.py",
    "test_rounds.py",
    "test_run.py",
    "test_resume.py",
    "test_stable_diffusion.py",
)
"""The longest files: at the end one worker would wait for the other. While the docs make the tiny run
that many files share, the families ask for none of it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files."""
    order = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(scope="session", autouse=True)
def locks(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Locks of this worker's own: nobody waits for another worker, or for another bobrt on the machine."""
    os.environ["TMPDIR"] = tempfile.tempdir = str(tmp_path_factory.mktemp("locks"))


@pytest.fixture(scope="session", autouse=True)
def ctrl_c() -> None:
    """Hear Ctrl-C even if a script started the tests in the background, where a shell turns it off."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    """An empty cache and an empty results folder, neither there yet."""
    return Workspace(tmp_path / "cache", tmp_path / "results")


@pytest.fixture
def bobrt(space: Workspace) -> Callable[..., Ran]:
    """The installed command line with an empty cache and an empty results folder."""
    return space.bobrt


@pytest.fixture
def here(space: Workspace) -> Callable[..., Ran]:
    """The same, in this process."""
    return space.here


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Ran]:
    """The tiny plan, run once for every worker; nobody may write into it."""
    ours = tmp_path_factory.getbasetemp()
    folder = (ours.parent if "PYTEST_XDIST_WORKER" in os.environ else ours) / "tiny"
    space, said = Workspace(folder / "cache", folder / "results"), folder.with_suffix(".json")
    with FileLock(folder.with_suffix(".lock")):
        if not said.is_file():
            said.write_text(json.dumps(space.bobrt("bench", "--plan", TINY, timeout=600)))
    return space, Ran(*json.loads(said.read_text()))


@pytest.fixture
def workspace(tiny_run: tuple[Workspace, Ran], tmp_path: Path) -> Workspace:
    """A copy of the tiny run's cache and results that a test may damage."""
    space = Workspace(tmp_path / "cache", tmp_path / "results")
    shutil.copytree(tiny_run[0].cache, space.cache)
    shutil.copytree(tiny_run[0].results, space.results)
    return space
