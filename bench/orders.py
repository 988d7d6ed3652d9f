"""What is said between a run and its workers: one order in, one event per line out."""

from __future__ import annotations

from typing import Literal

from bobrt.artifacts import Target
from bobrt.errors import ErrorKind
from bobrt.result import Artifact, Published, Searched
from bobrt.spec import Cell, FileCard, Frozen, TaskCard
from bobrt.speed import Timing

EVENTS_FD = "BOBRT_EVENTS_FD"
"""Names the descriptor a worker writes its events to."""


class CellOrder(Frozen, frozen=True, kw_only=True):
    """Everything a process needs to answer one cell."""

    cell: Cell
    card: FileCard
    artifact: Artifact
    file: str
    reference: str | None
    """Path of the checkpoint's fp32 answers, or None where the checkpoint is not known."""
    validation: float | None
    published: Published | None = None
    search: Searched | None = None
    notes: list[str] = []
    """What of the checkpoint a reader of the record should know."""
    timing: Timing
    limit: int | None
    threads: int
    record: str
    """Where the result is written."""
    round: int = 1
    """The first round asks for everything; a later one times once more and adds to the record."""
    gauntlet: list[TaskCard] = []
    """What else the engine is asked, a question each."""
    attack: str | None = None
    """Path of the images made to mislead the checkpoint, where a question is about them."""
    features: str
    """Folder where passes over whole splits are kept."""
    bundle: str | None = None
    """Folder that brings the images along, where the file came in one; the task's own source is not asked."""
    task: TaskCard | None = None
    """The task with what its data says: as the bundle says it, where the file came in one."""


class Order(Frozen, frozen=True, kw_only=True):
    """What a worker is to do: make files one after another, or measure one cell."""

    cache: str
    targets: list[Target] = []
    cell: CellOrder | None = None
    memory_gb: float | None = None


class Event(Frozen, frozen=True, kw_only=True):
    """One line from a worker to its run."""

    kind: Literal["phase", "waiting", "running", "done", "error"]
    phase: str = ""
    detail: str = ""
    error_kind: ErrorKind = "failed"
    message: str = ""
    hint: str = ""
