"""One way to look a name up: built-in entries first, then installed plugins.

A plugin is an entry point in the group `bobrt.<kind>s`; plugins are loaded only when a
name is not built in, or when names are listed. A broken plugin is a warning, not a crash.
"""

from __future__ import annotations

from functools import cached_property
from importlib import metadata
from typing import TYPE_CHECKING, Generic, TypeVar

from bobrt import console
from bobrt.errors import unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")


class Registry(Generic[T]):
    """Names of one kind and what they stand for.

    Args:
        kind: What an entry is called, in the singular; the plugin group is `bobrt.<kind>s`.
        entries: The built-in entries.
        entry_type: The type a plugin's object must have.

    """

    def __init__(self, kind: str, entries: Mapping[str, T], entry_type: type[T]) -> None:
        self.kind = kind
        self.group = f"bobrt.{kind}s"
        self._entries = dict(entries)
        self._type = entry_type

    def get(self, name: str, where: str = "") -> T:
        """Return the entry called `name`; raise `UsageError` with the nearest names if none is."""
        if (entry := self.find(name)) is not None:
            return entry
        raise unknown(self.kind, name, self.all(), where)

    def find(self, name: str) -> T | None:
        """Return the entry called `name`, or None; plugins are loaded only if it is not built in."""
        return self._entries[name] if name in self._entries else self._plugins.get(name)

    def is_built_in(self, name: str) -> bool:
        """Tell whether an entry is of our own table."""
        return name in self._entries

    def names(self) -> list[str]:
        """Return every name, plugins included, in the catalogue's order."""
        return list(self.all())

    def all(self) -> dict[str, T]:
        """Return every entry, plugins included. A built-in name cannot be taken by a plugin."""
        return {**self._plugins, **self._entries}

    @cached_property
    def _plugins(self) -> dict[str, T]:
        """What installed plugins add; each is loaded once, and one that is no use is one warning."""
        found: dict[str, T] = {}
        for point in metadata.entry_points(group=self.group):
            try:
                loaded = point.load()
                entry = loaded if isinstance(loaded, self._type) else loaded()
            except Exception as error:  # noqa: BLE001 - a plugin may raise anything; it must not end a run
                self._leave_out(point, f"does not load: {error!r}")
                continue
            if not isinstance(entry, self._type):
                self._leave_out(point, f"is not a {self._type.__name__}")
            elif point.name in self._entries:
                self._leave_out(point, f"may not take the built-in name {point.name!r}")
            elif (own := getattr(entry, "name", point.name)) != point.name:
                self._leave_out(point, f"is installed as {point.name!r} and calls itself {own!r}")
            else:
                found[point.name] = entry
        return found

    def _leave_out(self, point: metadata.EntryPoint, why: str) -> None:
        console.warn(f"plugin {point.value!r} ({self.group}) {why}; left out")
