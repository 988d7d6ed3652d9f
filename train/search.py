"""A recipe tried with several values: the same trials for every backbone, selected on validation.

Each trial is one fine-tuning from the same start; what it told is written when it is over, so that a search
that was cut off goes on with the trial it was in.
"""

from __future__ import annotations

import shutil
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import torch

from bobrt.errors import BobrtError
from bobrt.paths import sha256_of, write_atomic
from bobrt.spec import Json, Record
from train import finetune

if TYPE_CHECKING:
    from pathlib import Path

    from bobrt.artifacts import Job
    from bobrt.spec import Recipe, Search, TaskCard, Transform
    from train.model import Model

TOLD = "told.json"
NET = "net.pt"


class Trial(Record, frozen=True, kw_only=True):
    """How one trial ended."""

    values: dict[str, float]
    told: dict[str, Json] = {}
    """What `finetune.run` returned; empty if the training diverged."""
    sha256: str = ""
    """Of the network it left."""
    problem: str = ""

    @property
    def score(self) -> float:
        """The validation score; less than any if there is none."""
        return float(self.told.get("validation", float("-inf")))


def run(  # noqa: PLR0913, PLR0917 - what a training is made of
    net: Model,
    card: TaskCard,
    transform: Transform,
    recipe: Recipe,
    search: Search,
    seed: int,
    job: Job,
) -> dict[str, Json]:
    """Fine-tune `net` in place by the best of a search's trials.

    Args:
        net: The model, initialised; every trial begins from it.
        card: The task; trials are compared on its `validation` split.
        transform: Preprocessing of the engine that will be measured.
        recipe: Hyper-parameters that are not searched.
        search: Those that are.
        seed: Seeds every trial alike.
        job: Where to keep what the trials left, and whom to tell.

    Returns:
        What the best trial told, every trial with its score, and which of its values end their list.

    Raises:
        UsageError: timm refuses a recipe.
        BobrtError: Every trial diverged.

    """
    begin = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    chance = torch.get_rng_state()
    values = search.trials()
    trials = _kept(job.folder, values)
    for number, chosen in enumerate(values):
        if number in trials:
            continue
        net.load_state_dict(begin)
        torch.set_rng_state(chance)
        told = f"trial {number + 1}/{len(values)} " + ", ".join(f"{k} {v:g}" for k, v in chosen.items())
        own = job._replace(folder=_place(job.folder, number), report=partial(_report, job, told))
        own.folder.mkdir(exist_ok=True)
        tried = msgspec.structs.replace(recipe, **chosen)
        trials[number] = _trial(net, card, transform, tried, seed, own, chosen)
        for loser in sorted(trials.keys() - {_best(trials)}):
            (_place(job.folder, loser) / NET).unlink(missing_ok=True)
    best = _best(trials)
    if not trials[best].told:
        raise BobrtError(
            f"every trial of the search diverged: {trials[best].problem}", "search lower values of lr"
        )
    net.load_state_dict(torch.load(_place(job.folder, best) / NET, weights_only=True))
    for number in trials:
        shutil.rmtree(_place(job.folder, number))
    tried_all = [_line(trials[number]) for number in sorted(trials)]
    chosen = trials[best].values
    return {**trials[best].told, "search": tried_all, "chosen": chosen, "at_edge": search.at_edge(chosen)}


def _report(job: Job, told: str, phase: str, detail: str) -> None:
    job.report(phase, f"{told} {detail}".rstrip())


def _trial(  # noqa: PLR0913, PLR0917 - what a training is made of
    net: Model,
    card: TaskCard,
    transform: Transform,
    recipe: Recipe,
    seed: int,
    job: Job,
    values: dict[str, float],
) -> Trial:
    """Fine-tune once, and write how it ended."""
    try:
        told = finetune.run(net, card, transform, recipe, seed, job)
    except finetune.DivergedError as error:  # a learning rate that is too high is an answer too
        trial = Trial(values=values, problem=error.message)
    else:
        torch.save(net.state_dict(), job.folder / NET)
        trial = Trial(values=values, told=told, sha256=sha256_of(job.folder / NET))
    (job.folder / finetune.RESUME).unlink(missing_ok=True)
    write_atomic(job.folder / TOLD, msgspec.json.encode(trial))
    return trial


def _kept(folder: Path, values: list[dict[str, float]]) -> dict[int, Trial]:
    """Return the trials an interrupted search has done; not the best of them if its network is gone."""
    trials = {}
    for number, chosen in enumerate(values):
        try:
            trial = msgspec.json.decode((_place(folder, number) / TOLD).read_bytes(), type=Trial)
        except (OSError, msgspec.MsgspecError, RecursionError):
            continue
        if trial.values == chosen:
            trials[number] = trial
    if trials:
        best = _best(trials)
        net = _place(folder, best) / NET
        if trials[best].told and not (net.is_file() and sha256_of(net) == trials[best].sha256):
            del trials[best]
    return trials


def _best(trials: dict[int, Trial]) -> int:
    """Return the trial with the best validation score, of equal ones the first."""
    return max(sorted(trials), key=lambda number: trials[number].score)


def _place(folder: Path, number: int) -> Path:
    return folder / f"trial-{number}"


def _line(trial: Trial) -> dict[str, Json]:
    """Return a trial for the manifest."""
    told = {key: trial.told.get(key) for key in ("validation", "loss")}
    return {**trial.values, **told, **({"problem": trial.problem} if trial.problem else {})}
