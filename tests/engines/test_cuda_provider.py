"""ONNX Runtime's CUDA provider itself, over a CUDA that computes nothing: does it take our files?

It opens real sessions and says who takes which node. What needs cuDNN to be computed is not asked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from typing import TYPE_CHECKING

import architecture
import msgspec
import pytest
import shells
from families import FAMILIES, entry

from bobrt.artifacts import Artifact, Job
from bobrt.errors import UnsupportedError
from bobrt.spec import FileCard, Precision
from engines import precision, runtimes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from families import Member

    Opened = Callable[[Path, Precision], dict[str, object]]

OPEN = """
import json, sys
from pathlib import Path
import onnxruntime as ort
from bobrt.errors import BobrtError
from bobrt.spec import Precision
from engines.ort_cuda import OrtCudaRunner

ort.preload_dlls = lambda **_: None  # a real CUDA runtime would look for a GPU
try:
    with OrtCudaRunner(Path(sys.argv[1]), 1, Precision(sys.argv[2])) as runner:
        told = {"inputs": list(runner.inputs()), "notes": runner.notes()}
except BobrtError as error:
    told = {"kind": error.kind, "error": error.message}
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    """Open a file with the runner in a process of its own, ask it, and return what became of it."""
    provider = runtimes.provider("cuda")
    if provider is None:
        pytest.skip("this build of ONNX Runtime has no CUDA provider (pip install onnxruntime-gpu)")
    if missing := shells.absent_tools():
        pytest.skip(f"{', '.join(missing)} not installed (apt install gcc binutils)")
    folder = tmp_path_factory.mktemp("shells")
    cuda = {"libcudart.so.13": shells.CUDA_RUNTIME}
    shells.make(provider, folder, r"lib(?:cu\w+)\.so\.\d+", r"cu[A-Z]\w+", cuda)

    def ask(path: Path, at: Precision) -> dict[str, object]:
        done = subprocess.run(
            [sys.executable, "-P", "-c", OPEN, path, at],
            capture_output=True,
            text=True,
            env={**os.environ, "LD_LIBRARY_PATH": str(folder), "ORT_DISABLE_TELEMETRY": "1"},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        told: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
        return told

    return ask


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Export a small member of a family, once."""

    @cache
    def export(family: str) -> Path:
        member: Member = FAMILIES[family][0]
        return architecture.exported(entry(member), tmp_path_factory.mktemp(family), member.size).path

    return export


def _job(path: Path, folder: Path) -> Job:
    folder.mkdir()
    return Job({"images": 8}, Artifact(path, architecture.manifest_of(path)), folder, lambda *_: None)


def test_a_bf16_file_opens_on_the_gpu(
    opened: Opened, exported: Callable[[str], Path], tmp_path: Path
) -> None:
    """What has no kernel is fp32 in it, sums, norms and clips, and the products are bf16."""
    made = precision.make_bf16_for_onnxruntime(job := _job(exported("edgenext"), tmp_path / "bf16"))

    told = opened(job.folder / made.file, Precision.BF16)

    assert told.get("error") is None
    assert told["inputs"] == ["images"]
    assert made.detail["shares"] == {"bf16": 1.0}
    islands = msgspec.convert(made.detail["card"], FileCard).islands
    assert {name.rpartition("/")[2].partition("_")[0] for name in islands} == {"CumSum", "ReduceL2", "Clip"}


def test_a_graph_that_no_bf16_file_can_hold_is_told_before(
    opened: Opened, exported: Callable[[str], Path], tmp_path: Path
) -> None:
    """ONNX Runtime has pools for the opset of fp32 and fp16 files, and none for bf16's."""
    path = exported("resnet")
    with pytest.raises(UnsupportedError, match="no MaxPool in the opset that bf16 needs"):
        precision.make_bf16_for_onnxruntime(_job(path, tmp_path / "none"))
    made = precision.make_fp16(job := _job(path, tmp_path / "fp16"))

    assert "error" not in opened(path, Precision.FP32)
    assert "error" not in opened(job.folder / made.file, Precision.FP16)


def test_a_file_with_nodes_it_has_no_kernel_of_is_unsupported(
    opened: Opened, exported: Callable[[str], Path], tmp_path: Path
) -> None:
    """A bf16 file for TensorRT names what is missing."""
    made = precision.make_bf16_for_tensorrt(job := _job(exported("edgenext"), tmp_path / "bf16"))

    told = opened(job.folder / made.file, Precision.BF16)

    assert told["kind"] == "unsupported"
    assert "of the types that node backbone." in str(told["error"])
