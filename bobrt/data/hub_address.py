"""The address of a data set on the hub, in the hub's own form, and what is chosen of it."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode

from bobrt.errors import UsageError, unknown
from bobrt.spec import digest

SCHEME = "hf://"
PREFIX = f"{SCHEME}datasets/"
FORM = f"the form is '{PREFIX}ORG/NAME@REVISION?config=NAME&label=COLUMN', from the @ on where needed"

_CHOICES = ("config", "image", "label")
_PART = r"[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?"
_REPO = re.compile(f"(?!.*(--|\\.\\.)){_PART}/{_PART}", re.ASCII)
"""What the hub allows in a name: it can be a folder's name, and `--` can join two of them."""
_COMMIT = re.compile(r"[0-9a-f]{40}")


class Address(NamedTuple):
    """A data set of the hub."""

    repo: str
    """`ORG/NAME`."""
    revision: str | None = None
    """A branch, a tag, a commit; None for what the hub takes by default."""
    config: str | None = None
    """Of a data set with several configurations, the one that is meant."""
    image: str | None = None
    """Of several columns with images, the one that is meant."""
    label: str | None = None
    """Of several columns with labels, the one that is meant."""

    def __str__(self) -> str:
        at = f"@{quote(self.revision, safe='/')}" if self.revision else ""
        chosen = urlencode(self._chosen(), quote_via=quote)
        return f"{PREFIX}{self.repo}{at}{'?' if chosen else ''}{chosen}"

    @property
    def task(self) -> str:
        """What the task is called."""
        words = [*self.repo.split("/"), *self._chosen().values()]
        return "--".join(re.sub(r"[^A-Za-z0-9._-]+", "-", word).strip("-.") for word in words)

    @property
    def folder(self) -> str:
        """The name of the folder it is laid out in; another revision or choice has another one."""
        chosen = f"--{digest(self._chosen())[:8]}" if self._chosen() else ""
        return f"{self.repo.replace('/', '--')}@{self.revision}{chosen}"

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, which never holds anything else."""
        return is_commit(self.revision)

    def option(self, **chosen: str) -> str:
        """Return what is typed for this address with other choices."""
        return f"--data '{self._replace(**chosen)}'"

    def _chosen(self) -> dict[str, str]:
        return {name: value for name in _CHOICES if (value := getattr(self, name)) is not None}


def is_commit(revision: str | None) -> bool:
    """Tell a whole commit from a branch, a tag and a part of a commit."""
    return bool(revision and _COMMIT.fullmatch(revision))


def parse(text: str) -> Address:
    """Return the parts of an address.

    Raises:
        UsageError: It has not the form, or something is chosen that there is not.

    """
    place, _, query = text.removeprefix(PREFIX).partition("?")
    repo, at, revision = place.partition("@")
    try:
        chosen = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    except ValueError:
        chosen = {query: ""}
    if strange := [name for name in chosen if name not in _CHOICES]:
        raise unknown("choice", strange[0], _CHOICES, text)
    if not text.startswith(PREFIX) or not _REPO.fullmatch(repo) or bool(at) > bool(revision):
        raise UsageError(f"--data {text} names no data set of the hub", FORM)
    if empty := [name for name, value in chosen.items() if not value]:
        raise UsageError(f"--data {text} chooses no {empty[0]}", FORM)
    return Address(repo, unquote(revision) or None, **chosen)
