"""Read JSON and TOML strictly: a wrong file is named, with the key and the line.

msgspec does the checking; this file turns its errors into lines a user can act on.
"""

from __future__ import annotations

import re
import tomllib
from difflib import get_close_matches
from typing import TYPE_CHECKING, TypeVar

import msgspec

from bobrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from msgspec.inspect import Type

T = TypeVar("T")


def require_utf8(words: Iterable[str]) -> None:
    """Raise `UsageError` naming the first word that is not UTF-8: a record could not hold it."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            shown = word.encode(errors="surrogateescape").decode(errors="backslashreplace")
            raise UsageError(f"{shown} is not UTF-8", "give the file or folder another name: mv") from None


def read_text(path: Path, what: str) -> str:
    """Return the text of `path`; raise `UsageError` that names `what` if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"{what} {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{what} {path} cannot be read: {error}") from None


def parse_json(text: str, kind: type[T], name: str) -> T:
    """Decode JSON into `kind`; raise `UsageError` with `name` and the key if it is not one."""
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError as error:
        raise UsageError(f"{name} is damaged: {_plain(str(error))}") from None
    except RecursionError:
        raise UsageError(f"{name} is damaged: nested too deeply") from None


def read_toml(path: Path, kind: type[T], what: str) -> T:
    """Decode a TOML file into `kind`; raise `UsageError` naming file, key and line if it is not one."""
    text = read_text(path, what)
    try:
        data = tomllib.loads(text)
    except ValueError as error:  # a number of thousands of digits, too
        raise UsageError(f"{what} {path} is not TOML: {error}") from None
    except RecursionError:
        raise UsageError(f"{what} {path} is nested too deeply") from None
    try:
        return msgspec.convert(data, type=kind)
    except msgspec.ValidationError as error:
        key = _key(str(error))
        hint = _near(kind, key) if "unknown field" in str(error) else ""
        raise UsageError(f"{what} {path}{_at(text, key)}: {_plain(str(error))}", hint) from None


def line_of(text: str, key: str) -> int | None:
    """Return the 1-based line that sets a dotted TOML `key`, else its nearest table, or None."""
    wanted = _parts(re.sub(r"\[.*?\]", "", key))
    table: list[str] = []
    best, line_number = 0, None
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[+([^\]]+)\]", line):
            here = table = _parts(header[1])
        elif assigned := re.match(r"\s*([\w.\"' -]+?)\s*=", line):
            here = [*table, *_parts(assigned[1])]
        else:
            continue
        if best < len(here) and here == wanted[: len(here)]:
            best, line_number = len(here), number
    return line_number


def _parts(key: str) -> list[str]:
    return [part.strip(" \t\"'") for part in key.split(".")]


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


def _near(kind: type, key: str) -> str:
    """Return the keys of `kind` that come closest to one it does not have, as a question."""
    from msgspec.inspect import type_info  # noqa: PLC0415 - only for who mistyped

    near = get_close_matches(key, _keys(type_info(kind)), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else ""


def _keys(kind: Type) -> list[str]:
    """Return the dotted keys of a record, those of its tables included."""
    found = []
    for part in getattr(kind, "types", [kind]):
        for field in getattr(part, "fields", []):
            found += [field.encode_name, *(f"{field.encode_name}.{key}" for key in _keys(field.type))]
    return found


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
