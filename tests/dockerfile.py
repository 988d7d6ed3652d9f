"""A Dockerfile's instructions, read as far as the tests need them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docker"
IMAGES = ("gpu", "run", "cpu")


class Step(NamedTuple):
    """One instruction."""

    word: str
    text: str


def read(image: str) -> list[Step]:
    """Return the instructions of an image's file, comments left out and continued lines joined."""
    text = (FOLDER / f"{image}.Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    return [Step(*line.split(maxsplit=1)) for line in joined.splitlines()]


def copied(step: Step) -> tuple[list[str], str]:
    """Return what a COPY takes from the context, and where to."""
    *sources, target = shlex.split(step.text)
    return sources, target


def arguments(steps: list[Step]) -> dict[str, str]:
    """Return the build arguments that have a default."""
    found = {}
    for step in steps:
        name, equals, value = step.text.partition("=")
        if step.word == "ARG" and equals:
            found[name] = value
    return found
