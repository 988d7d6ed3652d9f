"""Where settings come from: flags > BOBRT_* > ./bobrt.toml > ~/.config/bobrt/config.toml > defaults.

A plan says what to measure; this file only says where things live. `bobrt doctor` shows
each value with its origin.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from bobrt.spec import Frozen
from bobrt.strict import read_toml


class ConfigFile(Frozen, frozen=True, kw_only=True):
    """The keys of `bobrt.toml`; relative paths start at the file's own folder."""

    cache: str | None = None
    results: str | None = None


class Setting(NamedTuple):
    """A folder, and what set it."""

    path: Path
    origin: str


class Config(NamedTuple):
    """The two folders bobrt writes to."""

    cache: Setting
    """Disposable: checkpoints, ONNX files, engines, each named by a hash."""
    results: Setting
    """The user's: one JSON file per cell."""


def load(cache: Path | None = None, results: Path | None = None) -> Config:
    """Return the settings in force.

    Args:
        cache: The value of a flag, if one was given.
        results: The value of a flag, if one was given.

    Raises:
        UsageError: A config file is damaged or has an unknown key.

    """
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    files = [Path("bobrt.toml").absolute(), home / "bobrt" / "config.toml"]
    settings = [(file, read_toml(file, ConfigFile, "config file")) for file in files if file.is_file()]
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Config(
        cache=_first("cache", cache, [(f, s.cache) for f, s in settings], cache_home / "bobrt"),
        results=_first("results", results, [(f, s.results) for f, s in settings], Path("results")),
    )


def _first(name: str, flag: Path | None, files: list[tuple[Path, str | None]], default: Path) -> Setting:
    if flag is not None:
        return Setting(flag.absolute(), f"--{name}")
    variable = f"BOBRT_{name.upper()}"
    if value := os.environ.get(variable):
        return Setting(Path(value).absolute(), variable)
    for file, value in files:
        if value is not None:
            return Setting(file.parent / Path(value).expanduser(), str(file))
    return Setting(default.absolute(), "default")
