"""What is made is made once, found on sight, and never half there."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import msgspec
import pytest
from support import install_package

from bobrt import artifacts
from bobrt.artifacts import MANIFEST, Target, Workshop
from bobrt.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Damage = Callable[[Path], object]

HERE = Path(__file__).parent
pytestmark = pytest.mark.usefixtures("own_locks")


@pytest.fixture(autouse=True)
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the fake stages on the path, and return the log of what they really did."""
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)
    monkeypatch.setenv("FAKE_STAGES_LOG", str(tmp_path / "log"))
    return tmp_path / "log"


@pytest.fixture
def shop(tmp_path: Path, log: Path) -> Workshop:
    """A workshop with the fake stages and an empty cache."""
    del log  # first: it makes them importable
    from fake_stages import STAGES  # noqa: PLC0415

    return Workshop(tmp_path / "cache", STAGES)


def text(words: str = "hello", **more: object) -> Target:
    """Return the target of a text."""
    return Target(stage="text", options={"text": words, **more})


def capitals(words: str = "hello", **more: object) -> Target:
    """Return the target of a text in capitals, made from the text."""
    return Target(stage="capitals", source=text(words, **more))


def times(log: Path) -> list[str]:
    """Return the stages that really worked, in order."""
    return log.read_text(encoding="utf-8").split() if log.exists() else []


def test_a_file_is_made_once_and_found_again(shop: Workshop, log: Path) -> None:
    """The first time the stage works, then the file is found, by another workshop too."""
    assert shop.look(text()) == (None, "no text yet")
    made = shop.make(text())
    assert made.path.read_text(encoding="utf-8") == "hello"
    assert made.sha256 == hashlib.sha256(b"hello").hexdigest()
    assert shop.make(text()) == made
    assert Workshop(shop.cache, shop.stages).find(text()) == made
    assert times(log) == ["text"]


def test_a_manifest_says_how_its_file_was_made(shop: Workshop) -> None:
    """Stage, options, source, tools, size and what was learned stand beside the file."""
    source = shop.make(text())
    made = shop.make(capitals())
    said = msgspec.json.decode((made.path.parent / MANIFEST).read_bytes())
    assert said["stage"] == "capitals"
    assert said["source_sha256"] == source.sha256
    assert said["bytes"] == 5
    assert said["detail"] == {"letters": 5}
    assert set(said["tools"]) == {"bobrt"}
    assert sorted(path.name for path in made.path.parent.iterdir()) == ["made.txt", MANIFEST]


def test_making_a_file_makes_its_sources_first(shop: Workshop, log: Path) -> None:
    """What is missing on the way is made, in order; the reason names the first that is missing."""
    assert shop.look(capitals())[1] == "no text yet"
    assert shop.make(capitals()).path.read_text(encoding="utf-8") == "HELLO"
    assert times(log) == ["text", "capitals"]
    assert [step.stage for step in capitals().chain()] == ["text", "capitals"]


def test_a_caller_hears_of_the_work(shop: Workshop) -> None:
    """Phases are reported, and the beginning of the work; for a file that is there, nothing."""
    heard: list[str] = []
    for _ in range(2):
        shop.make(
            text(), lambda phase, detail: heard.append(f"{phase} {detail}"), lambda: heard.append("running")
        )
    assert heard == ["running", "writing 5 letters"]


def test_other_options_make_another_file(shop: Workshop) -> None:
    """A file is named by what was asked."""
    assert shop.make(text("a")).path.parent != shop.make(text("b")).path.parent


def test_the_same_source_makes_the_same_file_whatever_it_was_called(shop: Workshop, log: Path) -> None:
    """Further down only the bytes of the source count, not how they were asked for."""
    first, second = shop.make(capitals("a", note=1)), shop.make(capitals("a", note=2))
    assert first == second
    assert times(log) == ["text", "capitals", "text"]
    assert shop.make(capitals("b")).path.parent != first.path.parent


def test_another_version_of_a_tool_makes_another_file(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Path
) -> None:
    """An upgrade is never served what the old tool made, and going back finds it again."""
    target = Target(stage="versioned", options={"text": "x"})
    folders = []
    for number in ("1.0", "2.0", "1.0"):
        site = install_package(tmp_path / number, "faketool", "", version=number)
        with monkeypatch.context() as path:
            path.syspath_prepend(site)
            path.setattr(artifacts, "version", artifacts.version.__wrapped__)  # a process has one version
            made = shop.make(target)
            assert made.manifest.tools["faketool"] == number
            folders.append(made.path.parent)
    assert folders[0] == folders[2] != folders[1]
    assert times(log) == ["versioned", "versioned"]


def test_a_missing_tool_is_named_with_the_line_that_installs_it(shop: Workshop, log: Path) -> None:
    """Nothing is started; the error says what to install."""
    with pytest.raises(MachineError) as caught:
        shop.make(Target(stage="versioned", options={"text": "x"}))
    assert caught.value.message == "making the versioned needs faketool, not installed here"
    assert caught.value.hint == "pip install 'bobrt[fake]'"
    assert not times(log)


def _truncate(folder: Path) -> None:
    (folder / "made.txt").write_text("hel", encoding="utf-8")


def _edit(folder: Path) -> None:
    (folder / "made.txt").write_text("hallo", encoding="utf-8")


def _remove(folder: Path) -> None:
    (folder / "made.txt").unlink()


def _in_manifest(old: bytes, new: bytes) -> Damage:
    def edit(folder: Path) -> None:
        content = (folder / MANIFEST).read_bytes()
        assert old in content
        (folder / MANIFEST).write_bytes(content.replace(old, new))

    return edit


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_truncate, "made.txt was cut or edited: 3 bytes, not 5"),
        (_edit, "made.txt was edited: sha256 "),
        (_remove, "made.txt is missing"),
        (_in_manifest(b'"letters": 5', b'"letters": 6'), "manifest.json was edited"),
        (_in_manifest(b'"text": "hello"', b'"text": "hallo"'), "manifest.json was edited"),
        (_in_manifest(b'"made.txt"', b'"../../x"'), "manifest.json was edited"),
        (_in_manifest(b'"bytes"', b'"bites"'), "manifest.json is damaged: unknown key 'bites'"),
        (_in_manifest(b'"bytes": 5', b'"bytes": "5"'), "manifest.json is damaged: key 'bytes'"),
        (_in_manifest(b"}", b""), "manifest.json is damaged: Input data was truncated"),
        (lambda folder: (folder / MANIFEST).write_bytes(b"\xff"), "manifest.json cannot be read"),
        (lambda folder: (folder / MANIFEST).unlink(), "the manifest of the text in "),
    ],
    ids=["cut", "edited", "missing", "detail", "options", "file", "key", "type", "half", "bytes", "none"],
)
def test_what_is_damaged_is_named_and_made_again(
    shop: Workshop, log: Path, damage: Damage, says: str
) -> None:
    """A file or manifest that is not what it was is never used: `look` says why, `make` repairs it."""
    folder = shop.make(text()).path.parent
    damage(folder)
    found, why = shop.look(text())
    assert found is None
    assert says in why
    assert str(folder) in why
    assert shop.look(capitals()) == (None, why)
    assert shop.make(text()).path.read_text(encoding="utf-8") == "hello"
    assert shop.find(text()) is not None
    assert times(log) == ["text", "text"]


def test_an_edited_source_is_made_again_and_what_came_of_it_is_still_good(shop: Workshop, log: Path) -> None:
    """The repaired source has its old bytes, so nothing further down is redone."""
    made = shop.make(capitals())
    _edit(shop.make(text()).path.parent)
    assert shop.make(capitals()) == made
    assert times(log) == ["text", "capitals", "text"]


def test_a_stage_that_fails_leaves_no_file_but_the_room_it_worked_in(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own error comes through, nothing is found, and the next attempt goes on in the same room."""
    folder = shop.folder(text(), None)
    with monkeypatch.context() as trouble:
        trouble.setenv("FAKE_STAGES_TROUBLE", "raise")
        with pytest.raises(ValueError, match="trouble half way"):
            shop.make(text())
    assert shop.look(text()) == (None, "no text yet")
    assert not folder.exists()
    assert (folder.with_suffix(".partial") / "made.txt").read_text(encoding="utf-8") == "he"
    assert shop.make(text()).path.read_text(encoding="utf-8") == "hello"
    assert not folder.with_suffix(".partial").exists()


@contextmanager
def making(shop: Workshop, trouble: Path) -> Iterator[subprocess.Popen[str]]:
    """Make the text in another process."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "fake_stages.py"), str(shop.cache), "hello"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"FAKE_STAGES_TROUBLE": str(trouble)},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def next_line(process: subprocess.Popen[str]) -> str:
    """Return the next line another process says."""
    stream: IO[str] | None = process.stdout
    assert stream is not None
    return stream.readline().rstrip("\n")


class Gate(NamedTuple):
    """A FIFO that a stage waits at."""

    path: Path
    end: int

    def let_one_through(self) -> None:
        os.write(self.end, b"go on\n")


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """A gate that opens for one process at a time."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    end = os.open(path, os.O_RDWR)
    yield Gate(path, end)
    os.close(end)


def test_two_processes_that_want_the_same_file_make_it_once(shop: Workshop, log: Path, gate: Gate) -> None:
    """The second says that it waits, and finds what the first made."""
    with making(shop, gate.path) as first, making(shop, gate.path) as second:
        said = {next_line(first), next_line(second)}
        assert said == {"running", "waiting"}
        gate.let_one_through()
        ends = {process.communicate(timeout=60)[0].splitlines()[-1] for process in (first, second)}
    assert ends == {f"made {hashlib.sha256(b'hello').hexdigest()}"}
    assert times(log) == ["text"]


def test_a_killed_process_leaves_nothing_that_is_found(shop: Workshop, log: Path, gate: Gate) -> None:
    """After kill -9 in the middle of the work the lock is free, nothing is found, and it is made anew."""
    with making(shop, gate.path) as process:
        assert next_line(process) == "running"
        while not times(log):
            assert process.poll() is None
        process.kill()
    assert shop.look(text()) == (None, "no text yet")
    assert shop.make(text()).path.read_text(encoding="utf-8") == "hello"
    assert times(log) == ["text", "text"]


@pytest.mark.parametrize("limit", [2000, 100], ids=["the-file", "the-manifest"])
def test_a_full_disk_is_said_and_leaves_nothing_half_made(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """Whether it is the file or its manifest that does not fit, nothing is found; with room it is made."""
    words = "x" * (5000 if limit > 1000 else 50)
    with monkeypatch.context() as small:
        small.setenv("FAKE_STAGES_FILE_LIMIT", str(limit))
        command = [sys.executable, str(HERE / "fake_stages.py"), str(shop.cache), words]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[-1].startswith("machine: cannot write ")
    assert "File too large" in said[-1]
    assert str(shop.cache) in said[-1]
    assert "BOBRT_CACHE" in said[-1]
    assert shop.look(text(words)) == (None, "no text yet")
    assert shop.make(text(words)).path.read_text(encoding="utf-8") == words


def test_a_cache_that_cannot_be_made_is_said(tmp_path: Path, shop: Workshop) -> None:
    """A cache below a regular file is no cache, for root neither."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(MachineError, match=r"cannot write the text into .*Not a directory") as caught:
        Workshop(tmp_path / "file" / "cache", shop.stages).make(text())
    assert caught.value.hint == "free some space, or set BOBRT_CACHE to another folder"


def test_either_name_of_onnx_runtime_answers_for_its_version() -> None:
    """It is one library under two names; a distribution that is not installed has no version."""
    import onnxruntime  # noqa: PLC0415

    assert artifacts.version("onnxruntime") == onnxruntime.__version__
    assert artifacts.version("no-such-distribution") is None
