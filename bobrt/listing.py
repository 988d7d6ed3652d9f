"""What `bobrt list` shows: one function per kind of name, each returning rows of one shape."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bobrt.catalogue import ALIASES, BACKBONES, TASKS
from bobrt.spec import Json, Kind, Precision, Protocol
from engines.runtimes import RUNTIMES, cannot_run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from bobrt.spec import TaskCard

Entry = dict[str, Json]

_PRECISIONS = {
    Precision.FP32: "32-bit floats, TF32 off",
    Precision.TF32: "the fp32 file with TF32 math allowed",
    Precision.FP16: "16-bit floats, where the activations fit",
    Precision.BF16: "16-bit floats with fp32's range",
    Precision.INT8: "8-bit integers, calibrated on training images",
    Precision.FP8: "8-bit floats (E4M3)",
}

_PROTOCOLS = {
    Protocol.FINETUNE: "every weight is trained on the task by the plan's recipe",
    Protocol.PROBE: "the weights are frozen, a linear classifier is fitted to their features",
    Protocol.KNN: "the weights are frozen, the nearest training images vote",
    Protocol.LOWSHOT: "every weight is trained on a few images of each class, as the plan's shots say",
    Protocol.PUBLISHED: "as published: what a verb without --task exports, and what retrieval is asked of",
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
    """Return what a backbone can be adapted to, or searched with, and whether its images are here."""
    from bobrt.data import places  # noqa: PLC0415 - loads numpy, which no other list needs
    from bobrt.tasks import cards  # noqa: PLC0415

    known = TASKS.all()
    listed = [card for card in known.values() if card.kind in cards.ADAPTABLE and card.data]
    own = [cards.named(name) for name in places.names() if name not in known and name not in _shared(known)]
    return [_card(card) for card in [*listed, *own]]


def questions() -> list[Entry]:
    """Return what else an engine can be asked, and of which task it has to be."""
    alone = {Kind.CLASSIFICATION, Kind.MULTILABEL}
    return [
        {
            "name": card.name,
            "kind": card.kind,
            "of": card.of or "any",
            "metric": card.metric,
            "here": _here(card),
        }
        for card in TASKS.all().values()
        if card.kind not in alone
    ]


def _shared(known: Mapping[str, TaskCard]) -> set[str]:
    """Return the names of folders that several tasks share."""
    from bobrt import data  # noqa: PLC0415

    return {data.place_name(card) for card in known.values()}


def _card(card: TaskCard) -> Entry:
    count = len(card.labels) or card.classes or ""
    return {
        "name": card.name,
        "kind": card.kind,
        "metric": card.metric,
        "classes": count,
        **{name: card.splits.get(name) for name in ("train", "validation", "test")},
        "here": _here(card),
        "licence": card.licence,
    }


def _here(card: TaskCard) -> str:
    from bobrt import data  # noqa: PLC0415
    from bobrt.data import places  # noqa: PLC0415

    if card.data in {"", data.DIGITS}:
        return "yes"
    place = places.place_of(data.place_name(card))
    return str(place) if place else "no"


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
    return [{"name": str(word), "meaning": meaning} for word, meaning in _PROTOCOLS.items()]


def plans() -> list[Entry]:
    """Return the plans that come with bobrt."""
    from bench.plan import bundled, path_of  # noqa: PLC0415

    return [{"name": name, "path": str(path_of(name))} for name in bundled()]


def cache() -> list[Entry]:
    """Return the folders of the cache: what is in them, how much it takes, and when it was last used.

    Each of them, and all, can be removed: what is needed again is made again.
    """
    from bobrt import config  # noqa: PLC0415

    root = config.load().cache.path
    folders = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    return [_folder(path) for path in folders]


def _folder(folder: Path) -> Entry:
    sizes, times = [0], [folder.stat().st_mtime]
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # another bobrt is at work
            status = path.lstat()
            times.append(status.st_mtime)
            sizes.append(0 if path.is_dir() else status.st_size)
    return {
        "name": folder.name,
        "entries": sum(1 for _ in folder.iterdir()),
        "mb": round(sum(sizes) / 1e6, 1),
        "used": datetime.fromtimestamp(max(times), UTC).date().isoformat(),
        "folder": str(folder),
    }


ENTRIES: dict[str, Callable[[], list[Entry]]] = {
    "backbones": backbones,
    "tasks": tasks,
    "questions": questions,
    "runtimes": runtimes,
    "precisions": precisions,
    "protocols": protocols,
    "plans": plans,
    "cache": cache,
}


def text(value: Json) -> str:
    """Return a cell of the table."""
    return "" if value is None else str(value)
