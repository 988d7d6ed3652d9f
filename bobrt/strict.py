"""Read JSON and TOML strictly: a wrong file is named, with the key and the line.

msgspec does the checking; this file turns its errors into lines a user can act on.
"""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, TypeVar

import msgspec

from bobrt.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

T = TypeVar("T")


def read_text(path: Path, what: str) -> str:
    """Return the text of `path`; raise `UsageError` that names `what` if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"{what} {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{what} {path} cannot be read: {error}") from None


def read_json(path: Path, kind: type[T], what: str) -> T:
    """Decode a JSON file into `kind`; raise `UsageError` naming file and key if it is not one."""
    text = read_text(path, what)
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError as error:
        raise UsageError(f"{what} {path} is damaged: {_plain(str(error))}") from None


def read_toml(path: Path, kind: type[T], what: str) -> T:
    """Decode a TOML file into `kind`; raise `UsageError` naming file, key and line if it is not one."""
    text = read_text(path, what)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{what} {path} is not TOML: {error}") from None
    try:
        return msgspec.convert(data, type=kind)
    except msgspec.ValidationError as error:
        where = f"{path}{_at(text, _key(str(error)))}"
        raise UsageError(f"{what} {where}: {_plain(str(error))}") from None


def line_of(text: str, key: str) -> int | None:
    """Return the 1-based line on which a dotted TOML `key` is set, or None if none does."""
    *tables, name = [re.sub(r"\[.*?\]", "", part) for part in key.split(".")]
    table = ".".join(tables)
    current = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[+\s*([^\]]+?)\s*\]", line):
            current = header[1]
            if current == key or current.endswith(f".{name}"):
                return number
        elif current == table and re.match(rf"\s*[\"']?{re.escape(name)}[\"']?\s*=", line):
            return number
    return None


def _at(text: str, key: str) -> str:
    line = line_of(text, key) if key else None
    return f", line {line}" if line else ""


def _key(message: str) -> str:
    """Return the dotted key a msgspec message is about."""
    path = re.search(r" - at `(?:key in )?\$\.?(.*?)`", message)
    prefix = path[1].replace("[...]", "") if path else ""
    field = re.search(r"(?:unknown|required) field `(.+?)`", message)
    if not field:
        return prefix
    return f"{prefix}.{field[1]}" if prefix else field[1]


def _plain(message: str) -> str:
    """Say a msgspec message in the user's words."""
    key = _key(message)
    what = re.sub(r" - at `.*`$", "", message)
    if "unknown field" in message:
        return f"unknown key {key!r}"
    if "required field" in message:
        return f"key {key!r} is missing"
    what = what.replace("Expected `array` of length >= 1", "Expected a list with at least one entry")
    return f"key {key!r}: {what}" if key else what
