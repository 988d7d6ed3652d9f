"""From a task's name to its card: the catalogue's, a variant of one, or a folder the user has named."""

from __future__ import annotations

import re

import msgspec

from bobrt import data
from bobrt.catalogue import TASKS
from bobrt.data import hub, hub_address, places
from bobrt.errors import UsageError, unknown
from bobrt.spec import Kind, TaskCard

ADAPTABLE = {Kind.CLASSIFICATION, Kind.MULTILABEL, Kind.RETRIEVAL}
"""Kinds of task a cell can be about; the others are questions asked besides."""

_SHOTS = re.compile(r"([1-9][0-9]{0,5})shot")
_PERCENT = re.compile(r"([0-9]{1,2}(?:\.[0-9]+)?)pct")


def named(name: str, where: str = "") -> TaskCard:
    """Return the card of a task.

    Args:
        name: An entry of the catalogue or a folder that `--data` has named; behind an `@` how many training
            images it keeps: `digits@10shot` ten of each class, `imagenet1k@1pct` one in a hundred.
        where: File, key and line the name came from, when it came from a file.

    Raises:
        UsageError: There is no such task or variant; the hint names the nearest.

    """
    base, at, variant = name.partition("@")
    card = TASKS.find(base) or _users(base)
    if card is None:
        raise unknown("task", base, [*TASKS.all(), *places.names()], where)
    return _varied(card, name, variant) if at else card


def resolved(name: str) -> TaskCard:
    """Return a task's card with what its data says.

    Raises:
        AbsentDataError: The data is not on this machine.
        UsageError: There is no such task, or its data is damaged or not what the card pins.

    """
    return data.resolve(named(name))


def _users(name: str) -> TaskCard | None:
    """Return the card of a folder of images that the user has named, or had fetched from the hub."""
    if name not in places.names():
        return None
    card = TaskCard(
        name=name,
        kind=Kind.CLASSIFICATION,
        data=data.FOLDER,
        metric="top1",
        random_score=0.0,  # told by how many classes there are, once the folder was read
        licence="the user's own",
        source="a folder of images",
    )
    place = places.place_of(name)
    origin = hub.origin_of(place) if place else None
    if origin is None:
        return card
    return msgspec.structs.replace(
        card,
        licence=origin.licence or "none stated",
        source=origin.address,
        hub=hub_address.parse(origin.address).repo,
        revision=origin.commit,
    )


def _varied(card: TaskCard, name: str, variant: str) -> TaskCard:
    told: dict[str, int | float] = {}
    if found := _SHOTS.fullmatch(variant):
        told = {"shots": int(found[1])}
    elif (found := _PERCENT.fullmatch(variant)) and float(found[1]) > 0:
        told = {"share": float(found[1]) / 100}
    if not told or card.kind not in {Kind.CLASSIFICATION, Kind.MULTILABEL}:
        raise UsageError(
            f"task {name!r} is no variant of {card.name}, a {card.kind} task",
            f"{card.name}@10shot keeps ten training images of each class, {card.name}@1pct one in a hundred",
        )
    # The splits as published: the variant is drawn from them, always the same images.
    return msgspec.structs.replace(card, name=name, options={**card.options, **told})
