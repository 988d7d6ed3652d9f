"""What `bobrt list` shows: one function per kind of name, each returning rows of one shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.plan import bundled, path_of
from bobrt.catalogue import ALIASES, BACKBONES, TASKS
from bobrt.spec import Json, Precision, Protocol
from engines.runtimes import RUNTIMES, cannot_run

if TYPE_CHECKING:
    from collections.abc import Callable

Entry = dict[str, Json]

_PRECISIONS = {
    Precision.FP32: "32-bit floats, TF32 off",
    Precision.TF32: "the fp32 file with TF32 math allowed",
    Precision.FP16: "16-bit floats, where the activations fit",
    Precision.BF16: "16-bit floats with fp32's range",
    Precision.INT8: "8-bit integers, calibrated on training images",
    Precision.FP8: "8-bit floats (E4M3)",
}


def backbones() -> list[Entry]:
    """Return the catalogue; timm knows many more."""
    aliases: dict[str, list[str]] = {}
    for alias, name in ALIASES.items():
        aliases.setdefault(name, []).append(alias)
    return [
        {
            "name": b.name,
            "alias": ", ".join(aliases.get(b.name, [])),
            "family": b.family,
            "params_m": b.params_m,
            "px": b.input.size if b.input else None,
            "pretraining": b.pretraining,
            "data": b.data,
            "data_m": b.data_m,
            "licence": b.licence,
        }
        for b in BACKBONES.all().values()
    ]


def tasks() -> list[Entry]:
    """Return the task cards."""
    return [
        {
            "name": card.name,
            "kind": card.kind,
            "metric": card.metric,
            "classes": len(card.labels),
            **card.splits,
            "licence": card.licence,
        }
        for card in TASKS.all().values()
    ]


def runtimes() -> list[Entry]:
    """Return the runtimes, and whether they run here."""
    return [
        {
            "name": runtime.name,
            "opens": runtime.artifact,
            "precisions": ", ".join(runtime.precisions),
            "here": cannot_run(runtime) or "runs",
            "note": runtime.note,
        }
        for runtime in RUNTIMES.all().values()
    ]


def precisions() -> list[Entry]:
    """Return the precisions, and the runtimes that take them."""
    return [
        {
            "name": str(precision),
            "meaning": meaning,
            "runtimes": ", ".join(r.name for r in RUNTIMES.all().values() if precision in r.precisions),
        }
        for precision, meaning in _PRECISIONS.items()
    ]


def protocols() -> list[Entry]:
    """Return the protocols."""
    return [
        {
            "name": str(Protocol.FINETUNE),
            "meaning": "every weight is trained on the task by the plan's recipe",
        },
        {"name": str(Protocol.PUBLISHED), "meaning": "as published: what a verb without --task exports"},
    ]


def plans() -> list[Entry]:
    """Return the plans that come with bobrt."""
    return [{"name": name, "path": str(path_of(name))} for name in bundled()]


ENTRIES: dict[str, Callable[[], list[Entry]]] = {
    "backbones": backbones,
    "tasks": tasks,
    "runtimes": runtimes,
    "precisions": precisions,
    "protocols": protocols,
    "plans": plans,
}


def text(value: Json) -> str:
    """Return a cell of the table."""
    return "" if value is None else str(value)
