"""Install bobrt into the Python of an image, and keep what the image came with.

NVIDIA's images carry PyTorch and TensorRT of their own build, and a file of the versions they were
tested with (`PIP_CONSTRAINT`). Both stay: the versions before and after are compared, and a change is an
error. Of the file's pins only those are given up that contradict what bobrt itself requires, each with
a line that says so; what the file does not name gets the version of our `constraints.txt`.

    python3 docker/install.py train,quant,rtx
    python3 docker/install.py --tensorrt 11 --torch train,quant,tensorrt
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

try:
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name
except ModuleNotFoundError:  # before the install an image may have nothing but pip, which has a copy
    from pip._vendor.packaging.requirements import InvalidRequirement, Requirement
    from pip._vendor.packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PROJECT = Path(__file__).resolve().parent.parent
KEPT = re.compile(r"(pytorch-)?triton|torch|torchvision|torch-tensorrt|tensorrt(?!-rtx).*")
"""Distributions that must be after the install what they were before it."""


class Pins(NamedTuple):
    """The constraints of an install."""

    lines: list[str]
    given_up: list[str]
    """Pins of the image that bobrt cannot live with."""


def kept() -> dict[str, str]:
    """Return name and version of the installed distributions that must not change."""
    return {name: version for name, version in installed().items() if KEPT.fullmatch(name)}


def installed() -> dict[str, str]:
    """Return name and version of every installed distribution."""
    importlib.invalidate_caches()
    return {canonicalize_name(found.metadata["Name"]): found.version for found in metadata.distributions()}


def requirements(extras: Iterable[str]) -> list[Requirement]:
    """Return what bobrt requires with these extras, on this machine."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"]]
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    found = [Requirement(line) for line in lines]
    return [each for each in found if each.marker is None or each.marker.evaluate()]


def pins(
    image: Iterable[str], own: Iterable[str], needs: Iterable[Requirement], here: Mapping[str, str]
) -> Pins:
    """Return the versions to install.

    Args:
        image: The lines of the image's own constraint files.
        own: The lines of our `constraints.txt`.
        needs: What bobrt requires; a pin of the image that contradicts it is given up.
        here: Name and version of what is installed; what must not change is pinned to it.

    """
    lines = {name: f"{name}=={version}" for name, version in here.items() if KEPT.fullmatch(name)}
    given_up = []
    for pin in _parsed(image):
        name = canonicalize_name(pin.name)
        wanted = [need.specifier for need in needs if canonicalize_name(need.name) == name]
        if name not in lines and any(_contradict(pin, specifier) for specifier in wanted):
            given_up.append(str(pin))
        else:
            lines.setdefault(name, str(pin))
    dropped = {canonicalize_name(Requirement(line).name) for line in given_up}
    for pin in _parsed(own):
        name = canonicalize_name(pin.name)
        if name in dropped or name not in here:
            lines.setdefault(name, str(pin))
    return Pins(list(lines.values()), given_up)


def _parsed(lines: Iterable[str]) -> list[Requirement]:
    """Return the pins of a file; its options are left out, and so is what is no pin, with a line."""
    found = []
    for line in lines:
        text = line.partition(" #")[0].strip()
        if text and not text.startswith(("#", "-")):
            try:
                found.append(Requirement(text))
            except InvalidRequirement:
                print(f"not a pin, left out: {text}", file=sys.stderr)
    return found


def _contradict(pin: Requirement, specifier: object) -> bool:
    exact = [each.version for each in pin.specifier if each.operator == "==" and "*" not in each.version]
    return bool(exact) and not specifier.contains(exact[0], prereleases=True)


def main() -> None:
    """Install, and end with an error if what had to stay did not."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("extras", help="extras of pyproject.toml, separated by commas; may be empty")
    parser.add_argument("--tensorrt", help="the major version the image must have, and keep")
    parser.add_argument("--torch", action="store_true", help="the image must have a PyTorch, and keep it")
    asked = parser.parse_args()
    extras = [extra for extra in asked.extras.split(",") if extra]

    before = kept()
    found = before.get("tensorrt", "none")
    if asked.tensorrt and found.partition(".")[0] != asked.tensorrt:
        sys.exit(f"the image was to have TensorRT {asked.tensorrt} and has {found}: choose another base")
    if asked.torch and "torch" not in before:
        sys.exit("the image was to have its own PyTorch and has none: choose another base")
    image = [
        line
        for path in os.environ.get("PIP_CONSTRAINT", "").split()
        if Path(path).is_file()
        for line in Path(path).read_text(encoding="utf-8").splitlines()
    ]
    own = (PROJECT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    chosen = pins(image, own, requirements(extras), installed())
    for pin in chosen.given_up:
        print(f"the image's pin {pin} contradicts what bobrt requires: given up", flush=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write("\n".join(chosen.lines) + "\n")
        file.flush()
        env = os.environ | {"PIP_CONSTRAINT": file.name}
        what = f"{PROJECT}[{','.join(extras)}]" if extras else str(PROJECT)
        command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", what]
        code = subprocess.run(command, env=env, check=False).returncode  # noqa: S603 - pip
    if code:
        sys.exit(code)
    after = kept()
    changed = [
        f"{name} {before[name]} -> {after.get(name)}" for name in before if after.get(name) != before[name]
    ]
    if changed:
        sys.exit(f"the install changed what the image came with: {', '.join(changed)}")
    print("kept: " + (", ".join(f"{n} {v}" for n, v in sorted(before.items())) or "nothing to keep"))


if __name__ == "__main__":
    main()
