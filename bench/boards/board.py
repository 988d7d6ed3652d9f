"""Scores of backbones in everything they were asked, as one array: what standings are made of.

A setting is a task, how backbones were adapted to it, and a metric; each question of the gauntlet is a
setting too. A board holds the scores of one engine kind on one machine, or a table somebody published.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, NamedTuple, TypeVar

import numpy as np
from msgspec import Meta

from bobrt.catalogue import TASKS
from bobrt.errors import UsageError
from bobrt.spec import Frozen, Kind, Precision, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from bobrt.result import Result
    from bobrt.spec import Batch, Protocol

    _Asked = tuple[str, Protocol, str, str, str, bool]
    """Task, protocol, question and its kind (both empty for the task itself), metric, and whether more is
    better."""

T = TypeVar("T")

_KINDS = {"top1": Kind.CLASSIFICATION, "auroc": Kind.MULTILABEL, "map": Kind.RETRIEVAL}
"""What a task outside the catalogue is taken for, by its metric."""
_AT_THE_TASKS_CHANCE = {Kind.CORRUPTION, Kind.ATTACK}
"""Questions about a task's own classes: guessing scores in them what it scores in the task."""


class Setting(NamedTuple):
    """One column of a board."""

    name: str
    group: str
    """What the study calls a task: the kind of what is asked. Within a group settings weigh the same."""
    metric: str
    higher_is_better: bool
    random: float | None
    """What guessing scores; None where nobody says."""
    perfect: float | None
    """The best there can be; None where that is not known."""


class Origin(NamedTuple):
    """The weights a row stands for."""

    backbone: str
    """Name in the catalogue; empty where it has none."""
    weights: str
    """As in a cell: `pretrained`, `random` or `file:<sha256>`."""


class Engines(NamedTuple):
    """What the engines of one board have in common."""

    system: str
    runtime: str
    precision: str
    batch: str

    @classmethod
    def of(cls, result: Result) -> Engines:
        """Return the kind of engine a record is about."""
        cell = result.cell
        return cls(result.system.id, cell.runtime, str(cell.precision), str(cell.batch))

    def __str__(self) -> str:
        batch = "" if self.batch == "dynamic" else f", batch {self.batch}"
        return f"{self.runtime} {self.precision}{batch}, on {self.system}"


@dataclass(frozen=True, eq=False)
class Board:
    """Scores of backbones in settings.

    Raises:
        UsageError: Two rows have one name, or two settings; or a weight is below 0.

    """

    title: str
    backbones: list[str]
    settings: list[Setting]
    scores: NDArray[np.float64]
    """`[backbones, settings, seeds]`; NaN where nothing was measured."""
    pool: NDArray[np.bool_]
    """`[backbones]`: the reference. Mean and deviation of a setting are those of these, so a backbone outside
    moves nobody."""
    origins: list[Origin] = field(default_factory=list)
    """Of each backbone; empty where nothing is known of any."""
    weights: dict[str, float] = field(default_factory=dict)
    """Of groups; 1 for one that is not named."""
    engines: Engines | None = None
    """None for a published table."""
    source: str = ""
    notes: list[str] = field(default_factory=list)
    """What a reader must know of these numbers, a line each."""

    def __post_init__(self) -> None:
        for what, names in (("backbone", self.backbones), ("setting", [s.name for s in self.settings])):
            if twice := [name for name in names if names.count(name) > 1]:
                raise UsageError(f"{self.title}: two {what}s are called {twice[0]!r}", "name each once")
        for group, weight in self.weights.items():
            if not 0 <= weight < math.inf:
                raise UsageError(f"{self.title}: weight {weight:g} of {group}", "weights are 0 or more")

    @property
    def signs(self) -> NDArray[np.float64]:
        """1 for each setting in which more is better, else -1: `[settings]`."""
        return np.array([1.0 if setting.higher_is_better else -1.0 for setting in self.settings])

    @property
    def values(self) -> NDArray[np.float64]:
        """Mean over seeds, `[backbones, settings]`; NaN where nothing was measured."""
        return mean(self.scores, axis=2)

    @property
    def groups(self) -> list[str]:
        """Groups in the order of the settings."""
        return list(dict.fromkeys(setting.group for setting in self.settings))


def mean(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Return the mean along an axis of what is not NaN, and NaN where nothing is."""
    here = ~np.isnan(values)
    count = here.sum(axis=axis)
    total = np.where(here, values, 0.0).sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


class Reference(Frozen, frozen=True, kw_only=True):
    """What a results folder measures its backbones against; kept with the results, so that it stays."""

    pool: list[str] = []
    """Backbones whose mean and deviation are the scale; empty for all that there are."""
    weights: dict[str, Annotated[float, Meta(ge=0)]] = {}
    """Of groups, such as `classification`; 1 for what is not named."""


def from_results(
    results: Sequence[Result], against: Reference | None = None, least: tuple[int, int] = (0, 0)
) -> list[Board]:
    """Return a board for each machine, runtime, precision and batch axis.

    Complete records over the whole test split are used, whether or not their speed is known: a standing is
    about scores. Of several records of one cell the newest is.

    Args:
        results: Any records.
        against: Pool and weights; all backbones, and every group alike, if None. One of the pool that a
            board lacks is named in its notes.
        least: Backbones and settings of a board; one with fewer is not made.

    """
    kinds: dict[tuple[str, str, Precision, Batch], list[Result]] = {}
    for result in results:
        if result.state is State.COMPLETE and result.limit is None:
            cell = result.cell
            kind = result.system.id, cell.runtime, cell.precision, cell.batch
            kinds.setdefault(kind, []).append(result)
    groups = {Engines.of(group[0]): group for group in kinds.values()}
    ordered = sorted(groups, key=lambda e: (e.system, e.runtime, Precision(e.precision).place, e.batch))
    boards = (_board(engines, groups[engines], against or Reference(), least) for engines in ordered)
    return [board for board in boards if board]


def _board(engines: Engines, group: list[Result], against: Reference, least: tuple[int, int]) -> Board | None:
    """Return the board of records that differ in backbone, task, protocol and seed, if it has enough."""
    newest = {r.cell.key: r for r in sorted(group, key=lambda r: r.started)}
    if not _enough(newest.values(), least):
        return None
    found = [
        ((result.cell.backbone, result.cell.weights), asked, result.cell.seed, value)
        for result in newest.values()
        for asked, value in _asked(result)
    ]
    known = {asked: _setting(asked) for asked in dict.fromkeys(asked for _, asked, _, _ in found)}
    settings = sorted({s.name: s for s in reversed(known.values())}.values(), key=lambda s: (s.group, s.name))
    columns = places([setting.name for setting in settings])
    column = {asked: columns[setting.name] for asked, setting in known.items()}
    origins = sorted({key for key, *_ in found})
    rows, seeds = places(origins), places(sorted({seed for _, _, seed, _ in found}))
    scores = np.full((len(rows), len(columns), len(seeds)), np.nan)
    if found:
        at = np.array([(rows[key], column[asked], seeds[seed]) for key, asked, seed, _ in found])
        scores[tuple(at.T)] = [value for *_, value in found]
    several = Counter(backbone for backbone, _ in origins)
    names = [_label(Origin(*key), several) for key in origins]
    notes = [f"{name} is of the pool and not here" for name in against.pool if name not in names]
    if older := len(group) - len(newest):
        notes.append(f"{older} records have a newer one of the same cell")
    return Board(
        title=str(engines),
        backbones=names,
        settings=settings,
        scores=scores,
        pool=np.array([not against.pool or name in against.pool for name in names], dtype=bool),
        origins=[Origin(*key) for key in origins],
        weights=dict(against.weights),
        engines=engines,
        notes=notes,
    )


def _enough(group: Iterable[Result], least: tuple[int, int]) -> bool:
    """Tell whether records are of so many backbones and settings; no more are looked at than it takes."""
    origins: set[tuple[str, str]] = set()
    settings: set[tuple[str, ...]] = set()
    for result in group:
        if len(origins) >= least[0] and len(settings) >= least[1]:
            return True
        for (task, protocol, question, _, metric, higher), _ in _asked(result):
            origins.add((result.cell.backbone, result.cell.weights))
            settings.add((task, protocol, question, metric, str(higher)))
    return len(origins) >= least[0] and len(settings) >= least[1]


def places(keys: Sequence[T]) -> dict[T, int]:
    """Return the index of each key."""
    return {key: place for place, key in enumerate(keys)}


def _label(origin: Origin, several: Mapping[str, int]) -> str:
    """Return a backbone's name, with its weights where the board has several of it."""
    return f"{origin.backbone} ({origin.weights[:17]})" if several[origin.backbone] > 1 else origin.backbone


def _asked(result: Result) -> Iterator[tuple[_Asked, float]]:
    """Yield what a record has a finite score in, and the score."""
    cell, accuracy = result.cell, result.accuracy
    if accuracy and math.isfinite(accuracy.value):
        asked = cell.task, cell.protocol, "", "", accuracy.metric, accuracy.higher_is_better
        yield asked, accuracy.value
    for answer in result.gauntlet:
        if answer.value is not None and math.isfinite(answer.value):
            higher = answer.higher_is_better
            yield (
                (cell.task, cell.protocol, answer.question, answer.kind, answer.metric, higher),
                answer.value,
            )


def _setting(asked: _Asked) -> Setting:
    """Return the setting of what records were asked; the cards say the rest."""
    task, protocol, question, kind, metric, higher = asked
    card = TASKS.find(task.partition("@")[0])
    beside = card if not question or kind in _AT_THE_TASKS_CHANCE else TASKS.find(question)
    random = beside.random_score if beside else None
    name = " ".join(part for part in (task, str(protocol), question, metric) if part)
    return Setting(
        name=name if higher else f"{name} (lower)",
        group=kind or str(card.kind if card else _KINDS.get(metric, metric)),
        metric=metric,
        higher_is_better=higher,
        random=random,
        # A metric of a card is a fraction; of one nobody described neither end is known.
        perfect=None if random is None else float(higher),
    )
