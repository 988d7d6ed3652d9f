"""Where the user's data sets are: each folder named once, and remembered.

Asked in this order: what was remembered, in `places.toml` beside the user's config file, then a folder
of the data set's name in the one that `BOBRT_DATA` names. A remembered folder that is gone is not looked
for elsewhere: other images under the same name would be another data set.
"""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

from bobrt.errors import MachineError, UsageError
from bobrt.paths import lock, write_atomic
from bobrt.strict import read_text

FILE = "places.toml"
_HEAD = "# Where data sets are on this machine; --data writes it.\n"


def remember(name: str, folder: Path) -> None:
    """Keep where a data set is, as an absolute path; a name that was kept before is moved.

    Raises:
        UsageError: There is no such folder, its name is not UTF-8, or the file of places is damaged.
        MachineError: The file of places cannot be written.

    """
    place = folder.expanduser().absolute()
    if _trouble(place):
        raise UsageError(f"the folder {place} {_trouble(place)}", "name the folder that holds the images")
    path = _path()
    with lock(str(path)):
        known = {**_read(path), name: str(place)}
        lines = "".join(f"{_quoted(key)} = {_quoted(value)}\n" for key, value in sorted(known.items()))
        try:
            write_atomic(path, (_HEAD + lines).encode())
        except UnicodeEncodeError:
            raise UsageError(f"the name of the folder {place!a} is not UTF-8", "rename it") from None
        except MachineError as error:
            raise MachineError(error.message, "set XDG_CONFIG_HOME to a folder you can write") from error


def names() -> list[str]:
    """Return the data sets that were remembered, in order of their names."""
    return sorted(_read(_path()))


def place_of(name: str) -> Path | None:
    """Return where a data set is, or None: `why_absent` says why.

    Raises:
        UsageError: The file of places is damaged.

    """
    found, trouble = _look(name)
    return None if trouble else found


def why_absent(name: str) -> str:
    """Say why `place_of` finds nothing; an empty string where it does.

    Raises:
        UsageError: The file of places is damaged.

    """
    return _look(name)[1]


def _look(name: str) -> tuple[Path, str]:
    """Return the first place to look in, and what is wrong with it."""
    if (kept := _read(_path()).get(name)) is not None:
        place = Path(kept)
        return place, (trouble := _trouble(place)) and f"its folder {place} {trouble}"
    root = os.environ.get("BOBRT_DATA")
    if not root:
        return Path(), "nobody has said where it is"
    place = Path(root).expanduser().absolute() / name
    return place, (trouble := _trouble(place)) and f"nobody has said where it is, and {place} {trouble}"


def _trouble(place: Path) -> str:
    """Return what keeps a folder from being read, or an empty string."""
    try:
        with os.scandir(place):
            return ""
    except FileNotFoundError:
        return "is gone" if place.parent.is_dir() else "is gone, and so is the one it was in"
    except OSError as error:
        return f"cannot be opened: {error.strerror}"


def _quoted(text: str) -> str:
    """Return text as TOML writes it: JSON does it alike, but for one character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _path() -> Path:
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return home / "bobrt" / FILE


def _read(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    try:
        found = tomllib.loads(read_text(path, "file"))
        if wrong := [name for name, place in found.items() if not isinstance(place, str)]:
            raise UsageError(f"{path}: {wrong[0]} is no path")  # noqa: TRY301 - one hint for all
    except (UsageError, ValueError, RecursionError) as error:
        raise UsageError(
            f"the file of places {path} is damaged: {error}", f"mend it, or remove it: rm {path}"
        ) from error
    return found
