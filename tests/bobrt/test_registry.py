"""Names are looked up in the tables first, then in installed plugins; a bad plugin is one warning."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import pytest

from bobrt.errors import ExitCode, UsageError
from bobrt.registry import Registry
from bobrt.spec import Backbone

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support import Ran

    Install = Callable[..., Path]

CODE = """
from bobrt.spec import Backbone

ONE = Backbone(name="acme/one", timm="test_resnet", family="acme")
TAKEN = Backbone(name="test_resnet", timm="test_vit", family="acme")
ALIEN = {"name": "acme/alien"}

def two():
    return Backbone(name="acme/two", timm="test_resnet", family="acme")

def broken():
    raise ZeroDivisionError("acme has a bug")
"""


@pytest.fixture
def acme(plugin: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Install a plugin with the given backbones, on the path of this process and of its children."""

    def install(*points: str) -> Path:
        folder = plugin(CODE, "\n".join(["[bobrt.backbones]", *points, ""]))
        monkeypatch.syspath_prepend(folder)
        monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        monkeypatch.delitem(sys.modules, "acme", raising=False)
        return folder

    return install


def registry() -> Registry[Backbone]:
    """Return a registry with one built-in backbone."""
    built_in = Backbone(name="test_resnet", timm="test_resnet.r160_in1k", family="resnet")
    return Registry("backbone", {"test_resnet": built_in}, Backbone)


def test_plugins_are_listed_with_the_built_in(bobrt: Callable[..., Ran], acme: Install) -> None:
    """An object and a factory, each an entry point of an installed distribution, can be named."""
    acme("acme/one = acme:ONE", "acme/two = acme:two")
    ran = bobrt("list", "backbones", "--json")
    assert ran.code == ExitCode.OK
    assert not ran.err
    families = {entry["name"]: entry["family"] for entry in json.loads(ran.out)["backbones"]}
    assert families["acme/one"] == families["acme/two"] == "acme"
    assert families["test_resnet"] == "resnet"


def test_a_plugins_backbone_is_a_backbone_like_any_other(bobrt: Callable[..., Ran], acme: Install) -> None:
    """A plan can name it."""
    acme("acme/one = acme:ONE")
    ran = bobrt("bench", "acme/one", "--runtime", "ort-cpu", "--precision", "fp32", "--dry-run", "--json")
    assert ran.code == ExitCode.OK
    assert {row["cell"]["backbone"] for row in json.loads(ran.out)["plan"]} == {"acme/one"}


@pytest.mark.parametrize(
    ("point", "says"),
    [
        ("acme/x = acme:broken", "does not load: ZeroDivisionError('acme has a bug')"),
        ("acme/x = acme:ABSENT", "does not load: AttributeError("),
        ("acme/x = no_such_module:X", "does not load: ModuleNotFoundError("),
        ("acme/x = acme:ALIEN", "does not load: TypeError("),
        ("acme/x = builtins:dict", "is not a Backbone"),
        ("acme/x = acme:ONE", "is installed as 'acme/x' and calls itself 'acme/one'"),
        ("test_resnet = acme:TAKEN", "may not take the built-in name 'test_resnet'"),
    ],
)
def test_a_plugin_that_is_no_use_is_one_warning(
    bobrt: Callable[..., Ran], acme: Install, point: str, says: str
) -> None:
    """One line names it and says why; everything else is listed, the built-in of its name unchanged."""
    acme(point, "acme/two = acme:two")
    ran = bobrt("list", "backbones", "--json")
    assert ran.code == ExitCode.OK
    warning = f"warning: plugin '{point.partition(' = ')[2]}' (bobrt.backbones) {says}"
    assert ran.err.startswith(warning)
    assert ran.err.endswith("; left out\n")
    assert ran.err.count("\n") == 1
    families = {entry["name"]: entry["family"] for entry in json.loads(ran.out)["backbones"]}
    assert families["test_resnet"] == "resnet"
    assert "acme/two" in families
    assert "acme/x" not in families


def test_a_plugin_is_left_alone_while_built_in_names_are_used(
    acme: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing of a plugin runs for a name the table has; it is loaded once when it is needed."""
    acme("acme/x = acme:broken", "acme/one = acme:ONE")
    names = registry()
    assert names.get("test_resnet").family == "resnet"
    assert "acme" not in sys.modules
    assert names.get("acme/one").family == "acme"
    assert names.names() == ["acme/one", "test_resnet"]
    assert capsys.readouterr().err.count("warning: ") == 1


def test_did_you_mean_knows_the_plugins_too(acme: Install) -> None:
    """A plugin's name is among the nearest."""
    acme("acme/one = acme:ONE")
    with pytest.raises(UsageError) as caught:
        registry().get("acme/on", "plan p.toml, line 1")
    assert caught.value.message == "plan p.toml, line 1: unknown backbone 'acme/on'"
    assert "did you mean acme/one?" in caught.value.hint


def test_find_answers_none_for_an_unknown_name() -> None:
    """To ask is not to insist."""
    assert registry().find("acme/none") is None


def test_a_runtime_can_be_a_plugin(bobrt: Callable[..., Ran], plugin: Callable[[str, str], Path]) -> None:
    """A runtime is one entry point, listed with whether it runs here."""
    code = """
from bobrt.spec import Placement, Precision
from engines.runtimes import Runtime

SLOW = Runtime(
    name="acme/slow", artifact="onnx", module="acme_slow", extra="slow", precisions=(Precision.FP32,),
    placement=Placement.NONE, runner="acme_slow:Runner", tools=(),
)
"""
    folder = plugin(code, "[bobrt.runtimes]\nacme/slow = acme:SLOW\n")
    ran = bobrt("list", "runtimes", "--json", env={"PYTHONPATH": str(folder)})
    assert ran.code == ExitCode.OK
    here = {entry["name"]: entry["here"] for entry in json.loads(ran.out)["runtimes"]}
    assert here["acme/slow"] == "acme_slow is not installed (pip install 'bobrt[slow]')"
    assert here["ort-cpu"] == "runs"
