"""The tables: which backbones and tasks exist. Data in TOML beside this file, no code.

A backbone that is not in the table is looked up in timm itself, so every timm id works.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources

import msgspec

from bobrt.artifacts import version
from bobrt.errors import MachineError, unknown
from bobrt.registry import Registry
from bobrt.spec import Backbone, Frozen, TaskCard


class _BackboneTable(Frozen, frozen=True, kw_only=True):
    aliases: dict[str, str] = {}
    backbone: list[Backbone]


class _TaskTable(Frozen, frozen=True, kw_only=True):
    task: list[TaskCard] = []


def _read(name: str) -> dict[str, object]:
    return tomllib.loads(resources.files(__name__).joinpath(name).read_text(encoding="utf-8"))


_timm, _elsewhere = (
    msgspec.convert(_read(name), type=_BackboneTable) for name in ("backbones.toml", "elsewhere.toml")
)

ALIASES = _timm.aliases
"""A family's word, and the default member it stands for."""

BACKBONES = Registry("backbone", {b.name: b for b in [*_timm.backbone, *_elsewhere.backbone]}, Backbone)

_TASK_TABLES = ("tasks.toml", "questions.toml", "classification.toml", "shift.toml", "retrieval.toml")

TASKS = Registry(
    "task",
    {card.name: card for name in _TASK_TABLES for card in msgspec.convert(_read(name), type=_TaskTable).task},
    TaskCard,
)


def backbone(name: str, where: str = "") -> Backbone:
    """Return the catalogue entry, the default member of an alias, or any model timm knows.

    Args:
        name: An entry, an alias such as `convnext`, or a timm id.
        where: File, key and line the name came from, when it came from a file.

    Raises:
        UsageError: Neither the catalogue nor timm knows it; the hint names the nearest.
        MachineError: It is not in the catalogue and timm is not installed to ask.

    """
    name = ALIASES.get(name, name)
    if entry := BACKBONES.find(name):
        return entry
    entries = BACKBONES.all()
    near = unknown("backbone", name, [*entries, *ALIASES], where)
    if version("timm") is None:
        if unknown("backbone", name, ALIASES).hint.startswith("did you mean"):
            raise near  # a family's word, misspelt; of an id only timm knows whether it is one
        install, meant = "pip install 'bobrt[train]'", near.hint.startswith("did you mean")
        raise MachineError(
            f"{near.message}, and timm is not here to ask", f"{install} ({near.hint})" if meant else install
        )
    if name in _timm_names():
        exact = _tagged(name)
        for entry in entries.values():  # one checkpoint has one name
            if entry.timm == exact and not entry.args and entry.weights is None:
                return entry
        return Backbone(name=exact, timm=exact, family=exact.split(".")[0].split("_")[0])
    raise unknown("backbone", name, [*entries, *ALIASES, *_timm_names()], where)


def _tagged(name: str) -> str:
    """Return a timm id with its weights tag: one id means one checkpoint."""
    import timm  # noqa: PLC0415

    config = timm.get_pretrained_cfg(name)
    return f"{config.architecture}.{config.tag}" if config and config.has_weights and config.tag else name


@cache
def _timm_names() -> frozenset[str]:
    """Return every model id of timm. Imports timm, which takes seconds: only for a name we do not know."""
    import timm  # noqa: PLC0415

    return frozenset(timm.list_models()) | frozenset(timm.list_pretrained())
