"""Every command of the docs runs, or carries the reason it is not run; every link leads somewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from support import BOBRT, Ran, Workspace, environment

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("docker/*.md")])
BLOCK = re.compile(
    r"(<!-- not run: (?P<why>[^>]+) -->\n)?^```sh\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    """The commands of one page, in order."""

    page: Path
    commands: list[str]


def _shell(command: str, folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/bash", "-c", command],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def _pages_with_commands() -> list[Block]:
    found = []
    for page in PAGES:
        blocks = [match for match in BLOCK.finditer(page.read_text(encoding="utf-8")) if not match["why"]]
        commands = [line for block in blocks for line in block["text"].splitlines() if line.strip()]
        if commands:
            found.append(Block(page, commands))
    return found


@pytest.mark.parametrize("block", _pages_with_commands(), ids=lambda block: block.page.name)
def test_the_commands_of_a_page_run_in_order(
    block: Block, tiny_run: tuple[Workspace, Ran], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """All commands of a page end with 0 and print something; pages share a cache, as a reader's would."""
    results = tmp_path_factory.mktemp("docs-results")
    shutil.copytree(tiny_run[0].results, results, dirs_exist_ok=True)
    env = environment(
        {
            "PATH": f"{BOBRT.parent}:{os.environ['PATH']}",
            "BOBRT_CACHE": str(tmp_path_factory.getbasetemp() / "docs-cache"),
            "BOBRT_RESULTS": str(results),
        }
    )
    folder = tmp_path_factory.mktemp(block.page.stem)
    for command in block.commands:
        done = _shell(command, folder, env)
        assert done.returncode == 0, f"{block.page.name}: {command}\n{done.stderr}"
        assert done.stdout, f"{block.page.name}: {command} printed nothing"


def test_commands_that_are_not_run_say_why() -> None:
    """A block that is skipped carries a reason of more than one word."""
    reasons = [
        m["why"] for page in PAGES for m in BLOCK.finditer(page.read_text(encoding="utf-8")) if m["why"]
    ]

    assert reasons
    assert all(len(reason.split()) > 1 for reason in reasons)


def test_links_to_files_lead_somewhere() -> None:
    """Every relative link of every page names a file or folder that exists."""
    broken = [
        f"{page.name}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]

    assert broken == []


def test_the_tree_of_the_readme_names_every_module() -> None:
    """No module is missing from the annotated tree, and none is named that is gone."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = text.partition("## Where things are")[2]
    named = set(re.findall(r"\b(\w+\.py)\b", tree))
    files = [
        path for package in ("bobrt", "train", "engines", "bench") for path in (ROOT / package).glob("*.py")
    ]
    modules = {path.name for path in files if path.name != "__init__.py"}

    assert named == modules


def test_every_caveat_and_key_of_the_record_is_documented() -> None:
    """results-format.md names every top-level key of a record."""
    from bobrt.result import Result  # noqa: PLC0415

    text = (ROOT / "docs" / "results-format.md").read_text(encoding="utf-8")

    assert [field for field in Result.__struct_fields__ if f"`{field}`" not in text] == []


def test_nothing_speaks_of_a_machine_or_a_registry() -> None:
    """No tracked text holds an absolute home or work path."""
    listed = _shell("git ls-files", ROOT, dict(os.environ))
    names = listed.stdout.split() if listed.returncode == 0 else [str(p.relative_to(ROOT)) for p in PAGES]
    marks = ["/" + "root/", "/" + "work/", "files.python" + "hosted.org"]
    found = [
        f"{name}: {mark}"
        for name in names
        if (ROOT / name).is_file()
        for mark in marks
        if mark in (ROOT / name).read_text(encoding="utf-8", errors="ignore")
    ]

    assert found == []


def test_every_test_a_page_names_is_there() -> None:
    """A page that points at a proof points at one."""
    named = re.findall(r"`(tests/[\w/.]+\.py)(?:::(\w+))?`", "\n".join(p.read_text("utf-8") for p in PAGES))
    assert any(test for _, test in named)
    for file, test in named:
        assert (ROOT / file).is_file(), file
        assert not test or f"\ndef {test}(" in (ROOT / file).read_text("utf-8"), f"{file}::{test}"
