"""Whether a library loads is found out in a child, whatever becomes of the child."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from bobrt import loading
from bobrt.loading import Loaded, load
from engines.runtimes import RUNTIMES, Runtime

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAMES = ("sound", "raises", "crashes", "leaves", "hangs", "absent", "half")
PLUGIN = f"""
from bobrt.spec import Placement, Precision
from engines.runtimes import Runtime

def runtime(name, module):
    return Runtime(
        name=f"lab/{{name}}", artifact="checkpoint", module=module, extra="", precisions=(Precision.FP32,),
        placement=Placement.NONE, runner="lab:Runner", tools=(),
    )

{", ".join(NAMES)} = (runtime(name, f"lab_{{name}}") for name in {NAMES})
after_a_crash = runtime("after_a_crash", "lab_crashes")
"""
MODULES = {
    "sound": "__version__ = '1.2'\nprint('a banner')",
    "raises": "raise ImportError('libfoo.so.9: cannot open shared object file,\\n  or so')",
    "crashes": "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)",
    "leaves": "import os, sys\nprint('no licence', file=sys.stderr, flush=True)\nos._exit(5)",
    "hangs": "import time\ntime.sleep(600)",
    "half": "import lab_not_there",
}


@pytest.fixture
def lab(plugin: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Runtime]]:
    """Install runtimes whose libraries misbehave; return them by name."""
    points = "".join(f"lab/{name} = acme:{name}\n" for name in (*NAMES, "after_a_crash"))
    site = plugin(PLUGIN, f"[bobrt.runtimes]\n{points}")
    for name, code in MODULES.items():
        (site / f"lab_{name}.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.delitem(sys.modules, "acme", raising=False)
    monkeypatch.delitem(RUNTIMES.__dict__, "_plugins", raising=False)

    def named(*names: str) -> list[Runtime]:
        return [RUNTIMES.get(f"lab/{name}") for name in names]

    return named


def test_a_library_that_loads_says_its_version(lab: Callable[..., list[Runtime]]) -> None:
    """What it prints while it is imported is no answer."""
    assert load(lab("sound")) == {"lab/sound": Loaded(runtime="lab/sound", version="1.2")}


@pytest.mark.parametrize(
    ("name", "error", "missing"),
    [
        ("raises", "ImportError: libfoo.so.9: cannot open shared object file, or so", ""),
        ("crashes", "its process crashed (SIGSEGV)", ""),
        ("leaves", "its process ended with exit code 5: no licence", ""),
        ("absent", "ModuleNotFoundError: No module named 'lab_absent'", "lab_absent"),
        ("half", "ModuleNotFoundError: No module named 'lab_not_there'", "lab_not_there"),
    ],
)
def test_why_it_does_not_is_one_line(
    lab: Callable[..., list[Runtime]], name: str, error: str, missing: str
) -> None:
    """An error, a crash, an exit, and a module that is not there, its own or another."""
    answers = load(lab(name))
    assert answers == {f"lab/{name}": Loaded(runtime=f"lab/{name}", error=error, missing=missing)}


def test_a_library_that_hangs_is_given_up(
    lab: Callable[..., list[Runtime]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its process is ended."""
    monkeypatch.setattr(loading, "LIMIT_S", 1.0)
    assert load(lab("hangs"))["lab/hangs"].error == "gave up after 1 s"


def test_one_that_crashes_takes_no_other_with_it(lab: Callable[..., list[Runtime]]) -> None:
    """Each has its own answer, also those that share a library with it."""
    answers = load(lab("crashes", "after_a_crash", "sound"))
    assert {name: bool(answer.error) for name, answer in answers.items()} == {
        "lab/crashes": True,
        "lab/after_a_crash": True,
        "lab/sound": False,
    }


def test_onnx_runtime_answers_a_file() -> None:
    """Its provider is loaded, not only its package: a session is opened and asked."""
    import onnxruntime  # noqa: PLC0415 - not needed to find the tests

    (answer,) = load([RUNTIMES.get("ort-cpu")]).values()
    assert answer == Loaded(runtime="ort-cpu", version=onnxruntime.__version__)


def test_a_runner_that_cannot_open_the_file_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a provider's own library is missing: the reason is the runner's."""
    from engines import ort_cpu  # noqa: PLC0415 - not needed to find the tests

    def refuse(*_: object, **__: object) -> None:
        raise OSError("libcudnn.so.9: cannot open shared object file")

    monkeypatch.setattr(ort_cpu.OrtCpuRunner, "__enter__", refuse)
    answer = loading._try(RUNTIMES.get("ort-cpu"))
    assert answer.error == "OSError: libcudnn.so.9: cannot open shared object file"
