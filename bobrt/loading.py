"""Does a runtime's library really load? Tried in a child, where a crash or a hang is an answer.

That a package is installed says little: its CUDA libraries may be missing or of another
version, its binary may be for another CPU. Only loading it tells.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bobrt.spec import Frozen
from engines.runtimes import RUNTIMES, Runtime, cannot_run, open_runner

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

LIMIT_S = 60.0
"""How long one library may take: the first `import torch` from a slow disk takes half a minute."""

SEES_A_GPU = "sees a GPU"

_COMMAND = "from bobrt.loading import main; main()"


class Loaded(Frozen, frozen=True, kw_only=True):
    """What became of one runtime's library."""

    runtime: str
    version: str = ""
    """As the library says it."""
    detail: str = ""
    """What else it says of itself."""
    error: str = ""
    """Why it does not load, in one line; empty if it does."""
    missing: str = ""
    """The module that was not found, if that was why."""


def load(runtimes: Iterable[Runtime]) -> dict[str, Loaded]:
    """Load every runtime's library, each library in a child of its own; return the answers by name.

    A runtime that can run here and opens ONNX files also answers one small file, so that its
    provider and all that this needs is loaded too; one that opens engines has its runner imported.
    """
    shared: dict[str, list[str]] = {}
    for runtime in runtimes:
        shared.setdefault(runtime.module, []).append(runtime.name)
    with ThreadPoolExecutor() as pool:
        answers = [answer for group in pool.map(_load, shared.values()) for answer in group]
    return {answer.runtime: answer for answer in answers}


def _load(names: list[str]) -> list[Loaded]:
    """Return an answer for each name; the one at which a child ends has ended it, the rest get another."""
    answers: list[Loaded] = []
    while len(answers) < len(names):
        told, ending = _child(names[len(answers) :])
        answers += told
        if len(answers) < len(names):
            answers.append(Loaded(runtime=names[len(answers)], error=ending))
    return answers


def _child(names: list[str]) -> tuple[list[Loaded], str]:
    """Return what a child told, and how it ended if it told less than it was asked."""
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and command
            [sys.executable, "-P", "-c", _COMMAND, *names],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LIMIT_S,
            env={"ORT_DISABLE_TELEMETRY": "1"} | os.environ,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        told, ending = error.stdout or b"", f"gave up after {LIMIT_S:g} s"
    else:
        told, ending = done.stdout, _ending(done.returncode, done.stderr)
    return [msgspec.json.decode(line, type=Loaded) for line in told.splitlines()], ending


def _ending(code: int, talk: bytes) -> str:
    if code < 0:
        return f"its process crashed ({signal.Signals(-code).name})"
    last = talk.decode(errors="replace").strip().rpartition("\n")[2]
    return f"its process ended with exit code {code}" + (f": {last}" if last else "")


def main() -> None:
    """Be the child: load the runtimes named on the command line, and tell of each when it is done."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a library prints is not an answer
    for name in sys.argv[1:]:
        answers.write(msgspec.json.encode(_try(RUNTIMES.get(name))) + b"\n")


def _try(runtime: Runtime) -> Loaded:
    version = detail = ""
    try:
        library = importlib.import_module(runtime.module)
        version = str(getattr(library, "__version__", ""))
        detail = _detail(library)
        if not cannot_run(runtime):
            _open(runtime)
    except Exception as error:  # noqa: BLE001 - whatever a library raises is the answer
        line = " ".join(f"{type(error).__name__}: {error}".split())
        missing = error.name or "" if isinstance(error, ModuleNotFoundError) else ""
        return Loaded(runtime=runtime.name, version=version, detail=detail, error=line, missing=missing)
    return Loaded(runtime=runtime.name, version=version, detail=detail)


def _open(runtime: Runtime) -> None:
    """Go as far as a runner can without a model of the user's."""
    if runtime.artifact == "engine":
        open_runner(runtime, Path(), threads=1)
    elif runtime.artifact == "onnx":
        import numpy as np  # noqa: PLC0415 - only the child needs it

        from engines.runner import IMAGES  # noqa: PLC0415 - the same

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "sum.onnx"
            path.write_bytes(_small_file())
            with open_runner(runtime, path, threads=1) as runner:
                runner.infer({IMAGES: np.zeros((1, 8, 8, 3), np.uint8)})


def _small_file() -> bytes:
    """Return an ONNX file that takes images as ours do, and answers their sums."""
    from onnx import TensorProto, helper  # noqa: PLC0415 - only the child needs it

    from engines.runner import IMAGES  # noqa: PLC0415 - the same

    cast = helper.make_node("Cast", [IMAGES], ["pixels"], to=TensorProto.FLOAT)
    total = helper.make_node("ReduceSum", ["pixels", "axes"], ["features"], keepdims=0)
    graph = helper.make_graph(
        [cast, total],
        "sum",
        [helper.make_tensor_value_info(IMAGES, TensorProto.UINT8, ["batch", 8, 8, 3])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    content: bytes = model.SerializeToString()
    return content


def _detail(library: ModuleType) -> str:
    """Return what PyTorch says of CUDA: built without it, or with a driver too old, it runs on the CPU."""
    if library.__name__ != "torch":
        return ""
    cuda = library.version.cuda
    built = f"built for CUDA {cuda}" if cuda else "built without CUDA"
    return f"{built}, {SEES_A_GPU if library.cuda.is_available() else 'sees no GPU'}"
