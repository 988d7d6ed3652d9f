"""A machine is identified by its hardware and driver alone; its versions stand beside."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from bobrt import __version__, system
from bobrt.result import System

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    """Forget what earlier tests learned of this machine, and what this one pretended."""
    caches: list[Any] = [system.this_system, system._gpu, system.no_driver]
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put an `nvidia-smi` with the given script on the path: a stand-in for a GPU."""

    def put(script: str, *, anew: bool = True) -> None:
        command = tmp_path / "nvidia-smi"
        command.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        command.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        if anew:
            system._gpu.cache_clear()
            system.this_system.cache_clear()

    return put


def test_this_machine_is_described() -> None:
    """Hardware and versions are those of this machine and this environment."""
    here = system.this_system()
    assert here.cores == len(os.sched_getaffinity(0))
    assert here.memory_gb > 0
    assert here.python == platform.python_version()
    assert here.bobrt == __version__
    import onnxruntime  # noqa: PLC0415

    assert here.onnxruntime == onnxruntime.__version__
    assert msgspec.json.decode(msgspec.json.encode(here), type=System) == here


def test_the_id_is_a_name_for_a_folder() -> None:
    """Results are filed under it: small letters, digits and dashes, with the core count and a hash."""
    here = system.this_system()
    assert re.fullmatch(rf"[a-z0-9-]+-{here.cores}c-[0-9a-f]{{8}}", here.id)


def test_the_id_does_not_change_with_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """An upgrade keeps the machine's results together."""
    before = system.this_system()
    system.this_system.cache_clear()
    monkeypatch.setattr(system, "version", lambda _: "99.0")
    monkeypatch.setattr(system, "__version__", "99.0")
    after = system.this_system()
    assert (after.torch, after.bobrt) == ("99.0", "99.0")
    assert after.id == before.id


def test_instruction_sets_make_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two CPUs of one name, of which one has int8 kernels that the other lacks, are two machines."""
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr(system, "_CPUINFO", cpuinfo)
    ids = set()
    for flags, simd in (("fpu avx2 sse", ["avx2"]), ("fpu avx2 avx512_vnni", ["avx2", "avx512_vnni"])):
        cpuinfo.write_text(f"model name\t: Some CPU\nflags\t\t: {flags}\n", encoding="utf-8")
        system.this_system.cache_clear()
        assert system.this_system().cpu == "Some CPU"
        assert system.this_system().simd == simd
        ids.add(system.this_system().id)
    assert len(ids) == 2


def test_a_gpu_and_its_driver_make_another_machine(nvidia_smi: Callable[[str], None]) -> None:
    """The first GPU names the machine; a new driver is a new machine."""
    cpu = system.this_system().id
    nvidia_smi('echo "NVIDIA RTX 4090, GPU-a, 570.1"; echo "NVIDIA RTX 3090, GPU-b, 570.1"')
    old = system.this_system()
    assert (old.gpu, old.driver) == ("NVIDIA RTX 4090", "570.1")
    assert old.id.startswith("nvidia-rtx-4090-")
    nvidia_smi('echo "NVIDIA RTX 4090, GPU-a, 580.2"')
    new = system.this_system()
    assert len({cpu, old.id, new.id}) == 3


@pytest.mark.parametrize(
    ("now", "lost"),
    [
        ("echo 'NVIDIA L4, GPU-L4, 580.2'", False),
        ("echo 'NVIDIA L4, GPU-L4, 580.2'; echo 'NVIDIA T4, GPU-T4, 580.2'", False),
        ("echo 'NVIDIA T4, GPU-T4, 580.2'", True),
        ("echo '[GPU is lost], [GPU is lost], [GPU is lost]'", True),
        ("echo 'Unable to determine the device handle'; exit 15", True),
        ("exit 0", True),
    ],
)
def test_a_gpu_is_lost_when_it_does_not_answer_as_it_did(
    nvidia_smi: Callable[..., None], now: str, lost: bool
) -> None:
    """It is asked anew, and the answer it gave first is kept."""
    nvidia_smi("echo 'NVIDIA L4, GPU-L4, 580.2'")
    assert system.this_system().gpu == "NVIDIA L4"
    nvidia_smi(now, anew=False)
    assert system.gpu_is_lost() is lost
    assert system.this_system().gpu == "NVIDIA L4"


TWO_CARDS = """
case "$1" in
  *index,uuid*) echo "0, GPU-aaaa"; echo "1, GPU-bbbb" ;;
  *compute_cap*) echo "8.0"; echo "9.0" ;;
  -L) echo "GPU 0: NVIDIA A100 (UUID: GPU-aaaa)"; echo "GPU 1: NVIDIA H100 (UUID: GPU-bbbb)"
    echo "  MIG 1g.10gb     Device  0: (UUID: MIG-cccc)"
    echo "  MIG 1c.3g.40gb  Device  1: (UUID: MIG-dddd)" ;;
  *) echo "NVIDIA A100, GPU-aaaa, 580.2"; echo "NVIDIA H100, GPU-bbbb, 580.2" ;;
esac
"""
"""The second is cut in slices."""


@pytest.mark.parametrize(
    ("visible", "name", "capability"),
    [
        (None, "NVIDIA A100", "8.0"),
        ("0", "NVIDIA A100", "8.0"),
        ("1", "NVIDIA H100 MIG 1g.10gb", "9.0"),
        ("1,0", "NVIDIA H100 MIG 1g.10gb", "9.0"),
        ("GPU-bb", "NVIDIA H100 MIG 1g.10gb", "9.0"),
        ("MIG-cc", "NVIDIA H100 MIG 1g.10gb", "9.0"),
        ("MIG-dddd", "NVIDIA H100 MIG 1c.3g.40gb", "9.0"),
        ("MIG-eeee", None, ""),
        ("2", None, ""),
        ("GPU-cc", None, ""),
        ("-1", "NVIDIA A100", "8.0"),
    ],
)
def test_the_gpu_is_the_one_that_cuda_may_see(
    nvidia_smi: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    visible: str | None,
    name: str | None,
    capability: str,
) -> None:
    """Of several, or a slice of one. Where all are hidden the machine is still what it is."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    nvidia_smi(TWO_CARDS)
    assert system.this_system().gpu == name
    assert system.ask_gpu("compute_cap") == capability


def test_where_there_was_no_gpu_none_is_lost(nvidia_smi: Callable[[str], None]) -> None:
    """A machine without one is as it was."""
    nvidia_smi("exit 9")
    assert not system.gpu_is_lost()


@pytest.mark.parametrize(
    "script",
    ["exit 9", "exit 0", "echo 'no devices were found'; exit 6", "echo '[GPU is lost], [N/A], 580.2'"],
)
def test_an_nvidia_smi_that_finds_nothing_is_no_gpu(nvidia_smi: Callable[[str], None], script: str) -> None:
    """A driver in trouble, or one without a GPU, does not end a run."""
    nvidia_smi(script)
    assert (system.this_system().gpu, system.this_system().driver) == (None, None)
    assert system.no_driver()


def test_without_nvidia_smi_there_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Why no GPU can be used is one sentence."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert re.match(r"no NVIDIA (driver|GPU) .*on this machine", system.no_driver())


@pytest.mark.skipif(shutil.which("git") is None, reason="asks git about a repository")
def test_the_commit_is_that_of_the_source_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commit and changes are read from the tree bobrt runs from; installed without one, they are null."""
    source = tmp_path / "bobrt" / "system.py"
    source.parent.mkdir()
    source.write_text("", encoding="utf-8")
    monkeypatch.setattr(system, "__file__", str(source))
    assert system._git() == (None, None)

    def git(*args: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = [str(shutil.which("git")), *who, *args]
        return subprocess.run(
            command, cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "--quiet")
    assert system._git() == (None, None)
    git("add", ".")
    git("commit", "--quiet", "-m", "first")
    commit = git("rev-parse", "HEAD")
    assert system._git() == (commit, False)
    (tmp_path / "notes").write_text("not of the tree", encoding="utf-8")
    assert system._git() == (commit, False)
    source.write_text("# changed", encoding="utf-8")
    assert system._git() == (commit, True)
