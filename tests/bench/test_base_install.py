"""The base install: no torch, and files made elsewhere are benched all the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support import TINY, Ran, Workspace, environment

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
WHEELS = Path(sys.prefix) / "wheels"


class Light:
    """The command line of an environment of its own that has the base install and nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "venv" / "bin"

    def __call__(self, space: Workspace, *args: str | Path) -> Ran:
        """Run it as a box would, with none of this environment's paths."""
        ended = subprocess.run(
            [str(self.bin / "bobrt"), *map(str, args)],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env={k: v for k, v in environment(space.env()).items() if not k.startswith("PYTHON")},
            timeout=300,
            check=False,
        )
        return Ran(ended.returncode, ended.stdout, ended.stderr)

    def package(self) -> Path:
        """Return where bobrt is installed in it."""
        (found,) = self.folder.glob("venv/lib/python*/site-packages/bobrt")
        return found


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Light:
    """A box without torch: made once, from the wheels that `make` fetched."""
    assert list(WHEELS.glob("*.whl")), f"no wheels in {WHEELS}: `make` fetches them"
    box = Light(tmp_path_factory.mktemp("light"))
    source = box.folder / "source"
    source.mkdir()
    for name in ("bobrt", "bench", "engines", "train"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    venv.create(box.folder / "venv", symlinks=True)
    install = [sys.executable, "-m", "pip", f"--python={box.bin / 'python'}", "install", "--quiet"]
    install += ["--no-index", f"--find-links={WHEELS}", "--no-compile", "--disable-pip-version-check"]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTHON"))}
    done = subprocess.run(
        [*install, str(source)],
        capture_output=True,
        text=True,
        env=clean,
        cwd=box.folder,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return box


@pytest.fixture
def no_digits(light: Light) -> Iterator[None]:
    """Take the source of the task's images away from the box."""
    source = light.package() / "data" / "digits.py"
    hidden = source.rename(source.with_suffix(".gone"))
    yield
    hidden.rename(source)


def results(ran: Ran) -> list[dict[str, Any]]:
    """Return the records of a run that was asked for JSON."""
    found: list[dict[str, Any]] = json.loads(ran.out)["results"]
    return found


def test_it_lists_without_torch(light: Light, space: Workspace) -> None:
    """Names are data: every list is there, and says what is not installed."""
    ran = light(space, "list", "backbones", "--json")
    assert ran.code == 0, ran.err
    assert "test_resnet" in {entry["name"] for entry in json.loads(ran.out)["backbones"]}
    runtimes = {
        entry["name"]: entry
        for entry in json.loads(light(space, "list", "runtimes", "--json").out)["runtimes"]
    }
    assert runtimes["ort-cpu"]["here"] == "runs"
    assert runtimes["torch"]["here"] == "torch is not installed (pip install 'bobrt[train]')"


def test_doctor_says_what_is_missing_and_that_benching_works(light: Light, space: Workspace) -> None:
    """Nothing is in the way: exit code 0, each missing library with the line that installs it."""
    ran = light(space, "doctor", "--json")
    assert ran.code == 0, ran.err
    checks = {check["name"]: check for check in json.loads(ran.out)["checks"]}
    assert checks["torch"]["status"] == "bang"
    assert checks["torch"]["hint"] == "pip install 'bobrt[train]'"
    assert checks["nvidia-modelopt"]["hint"] == "pip install 'bobrt[quant]'"
    assert checks["runtime ort-cpu"]["status"] == "ok"


def test_a_file_made_elsewhere_is_benched_and_reported(
    light: Light, space: Workspace, tiny_run: tuple[Workspace, Ran], tmp_path: Path
) -> None:
    """Accuracy and latency of the file, as on the machine that made it; the report can be read again."""
    for stage in ("onnx", "int8-onnxruntime"):
        (file,) = (tiny_run[0].cache / stage).glob("*/model.onnx")
        shutil.copyfile(file, tmp_path / f"{stage}.onnx")
    files = [tmp_path / "onnx.onnx", tmp_path / "int8-onnxruntime.onnx"]
    ran = light(space, "bench", "--plan", TINY, *files, "--json")
    assert ran.code == 0, ran.err
    assert [record["cell"]["precision"] for record in results(ran)] == ["fp32", "int8"]
    made = {
        (r["cell"]["runtime"], r["cell"]["precision"]): r
        for r in results(tiny_run[0].here("report", "--json"))
    }
    for record in results(ran):
        twin = made["ort-cpu", record["cell"]["precision"]]
        assert record["state"] == "complete"
        assert record["artifact"]["sha256"] == twin["artifact"]["sha256"]
        assert record["accuracy"]["value"] == twin["accuracy"]["value"]
        assert record["latency"][0]["p50_ms"] > 0
        assert record["system"]["torch"] is None
        assert "no-reference" in record["caveats"]
    ran = light(space, "report")
    assert ran.code == 0, ran.err
    assert "Of 2 verified engines for digits" in ran.out


def test_the_default_plan_names_the_extra_it_needs(light: Light, space: Workspace) -> None:
    """Nothing can be made here: exit code 3, one line, the install line, and no column of failures."""
    ran = light(space, "bench")
    assert ran.code == 3
    assert ran.out == ""
    error, _, hint = ran.err.rstrip("\n").split("\n")
    assert error.startswith("error: making its checkpoint needs torch, ")
    assert hint == "hint: pip install 'bobrt[train]'"
    assert not list(space.results.rglob("*.json"))


@pytest.mark.usefixtures("no_digits")
def test_a_box_without_torch_benches_a_bundle(
    light: Light, space: Workspace, tiny_run: tuple[Workspace, Ran], bundle: Path
) -> None:
    """Base install, none of the task's own images: the record is that of the machine that made it."""
    ran = light(space, "bench", "--plan", TINY, bundle, "--json")
    assert ran.code == 0, ran.err
    (record,) = results(ran)
    made = results(tiny_run[0].here("report", "--json"))
    (twin,) = [r for r in made if r["cell"]["runtime"] == "ort-cpu" and r["cell"]["precision"] == "fp32"]
    assert record["state"] == "complete"
    assert record["cell"] == twin["cell"]
    assert record["artifact"]["sha256"] == twin["artifact"]["sha256"]
    for key in ("metric", "value", "higher_is_better", "n", "ci95", "reference", "drop", "extra"):
        assert record["accuracy"][key] == twin["accuracy"][key], key
    assert record["accuracy"]["drop"] == record["accuracy"]["reference"] - record["accuracy"]["value"]
    assert (record["parity"]["n"], record["parity"]["agreement"]) == (269, 1.0)
    assert 0 < record["parity"]["max_abs"] < 1e-3
    assert record["latency"][0]["p50_ms"] > 0
    assert record["throughput"][0]["images_per_s"] > 0
    assert (record["system"]["torch"], record["system"]["timm"], record["system"]["modelopt"]) == (None,) * 3
    assert record["system"]["onnxruntime"]
    assert "no-reference" not in record["caveats"]
    ran = light(space, "report")
    assert "Of 1 verified engines for digits, test_resnet fp32 on ort-cpu" in ran.out or "unstable" in ran.out


@pytest.mark.usefixtures("no_digits")
def test_the_box_of_that_test_cannot_find_the_images_itself(
    light: Light, space: Workspace, bundle: Path
) -> None:
    """The same file without its bundle has nothing to be asked."""
    ran = light(space, "bench", "--plan", TINY, bundle / "model.onnx", "--json")
    assert ran.code == 70
    assert "cannot import name 'digits'" in json.loads(ran.out)["error"]["message"]
