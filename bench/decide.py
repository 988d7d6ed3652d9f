"""What will become of each cell, and why: known before anything runs, by reading files alone.

A cell is done when its record names the very file that would be measured now, timed by
the same tools for the same windows.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from bench import gauntlet, store
from bench.files import again_for, identities, identity
from bench.orders import CellOrder
from bench.passes import FOLDER
from bench.plan import Question
from bobrt import data
from bobrt.catalogue import backbone
from bobrt.data import bundle as bundles
from bobrt.errors import AbsentDataError, BobrtError, UnsupportedError, UsageError
from bobrt.result import Artifact as ArtifactRecord
from bobrt.result import Published, Result, Searched
from bobrt.spec import Backbone, FileCard, Kind, Placement, Precision, Scenario, State
from bobrt.speed import Timing
from bobrt.system import cores, this_system
from bobrt.tasks import cards
from engines.runtimes import RUNTIMES, cannot_build, cannot_run, versions, wants_gpu
from engines.stages import (
    STAGES,
    artifact_target,
    attack_target,
    checkpoint_target,
    given_target,
    left_out_of,
    reference_target,
    share_of,
    workshop,
)
from train.hub import require_pretrained

if TYPE_CHECKING:
    from pathlib import Path

    from bench.plan import Plan
    from bobrt.artifacts import Artifact, Target
    from bobrt.spec import Cell, Json, TaskCard

Action = Literal["done", "run", "skipped", "unsupported"]


class Decision(NamedTuple):
    """What will become of a cell, and why."""

    question: Question
    action: Action
    reason: str
    make: list[Target] = []
    """Files that are missing on the way to it, sources first."""
    hint: str = ""
    """What would change it, where something would."""
    again: str = ""
    """Why it is done again, where something was done before: a damaged file, other tools, a failure."""
    rounds: int = 0
    """Rounds of its record that stand, when only more of them are asked for."""


class Desk:
    """One plan's files and records on this machine.

    Args:
        plan: Recipe and windows.
        cache: Where artifacts live.
        results: Where records are written.
        limit: Test images to use, or None for all.
        rerun: Do again what is done.

    """

    def __init__(
        self, plan: Plan, cache: Path, results: Path, *, limit: int | None = None, rerun: bool = False
    ) -> None:
        self.plan = plan
        self.results = results
        self.limit = limit
        self.rerun = rerun
        self.shop = workshop(cache)
        self.system = this_system()
        self.timing = _timing(plan)
        self.threads = plan.timing.threads or cores()

    def decide(self, question: Question, *, rerun: bool | None = None) -> Decision:
        """Return what will become of a cell; `rerun` overrules the desk's own."""
        try:
            artifact, why, missing = self._look(question)
        except (UnsupportedError, AbsentDataError) as error:
            return self._without_file(question, error)
        if blocked := self._blocked(question, missing):
            return self._unless_measured(blocked)
        unable = cannot_run(RUNTIMES.get(question.cell.runtime))
        stale, rounds = (why, 0) if artifact is None else self._standing(question, artifact, unable)
        if not stale and not (self.rerun if rerun is None else rerun):
            if unable or rounds >= self.plan.rounds:
                return Decision(question, "done", "")
            reason = f"{rounds} of {self.plan.rounds} rounds timed"
            return Decision(question, "run", reason, rounds=rounds)
        again = again_for(stale)
        if unable:
            return self._unless_measured(Decision(question, "unsupported", unable, missing, again=again))
        return Decision(question, "run", stale or "asked to run again", missing, again=again)

    def order(self, question: Question, number: int = 1) -> CellOrder:
        """Return what the process of a cell's round is told. Its files must exist."""
        artifact, record = self._look(question)[0], self.describe(question)
        if artifact is None or record is None:
            raise BobrtError(f"the file of {question.cell} is gone", "run the same command again")
        reference = None if question.file else self.shop.find(self._reference(question))
        checkpoint = None if question.file else self.shop.find(self._checkpoint(question))
        trained = checkpoint.manifest.detail if checkpoint else {}
        validation = trained.get("validation")
        answers, bundle = (reference.path if reference else None), _bundle(question)
        attack = self._attack(question)
        made = self.shop.find(attack) if attack else None
        source = question.file or artifact  # an engine of a given file lies elsewhere, and knows less of it
        if bundle:
            answers, validation = source.path.with_name(bundles.REFERENCE), bundle.reference.validation
        return CellOrder(
            cell=question.cell,
            card=msgspec.convert(source.manifest.detail["card"], type=FileCard),
            artifact=record,
            file=str(artifact.path),
            reference=str(answers) if answers else None,
            validation=validation if isinstance(validation, float) else None,
            published=_published(trained),
            search=_searched(trained),
            notes=[left_out] if (left_out := left_out_of(trained)) else [],
            timing=self.timing,
            limit=self.limit,
            threads=self.threads,
            record=str(self.path(question.cell)),
            round=number,
            gauntlet=self.asked(question),
            attack=str(made.path) if made else None,
            features=str(self.shop.cache / FOLDER),
            bundle=str(source.path.parent) if bundle else None,
            task=bundle.task if bundle else self._task(question),
        )

    def describe(self, question: Question) -> ArtifactRecord | None:
        """Return what a record says of a cell's file, or None if there is no such file."""
        try:
            artifact = self._look(question)[0]
        except (UnsupportedError, AbsentDataError):
            return None
        if artifact is None:
            return None
        cell, detail = question.cell, artifact.manifest.detail
        card = msgspec.convert(detail["card"], type=FileCard)
        target = artifact.manifest.options.get("compute_capability")
        inside = artifact.path.is_relative_to(self.shop.cache)
        return ArtifactRecord(
            kind=RUNTIMES.get(cell.runtime).artifact,
            path=str(artifact.path.relative_to(self.shop.cache)) if inside else artifact.path.name,
            sha256=artifact.sha256,
            bytes=artifact.manifest.bytes,
            build_s=artifact.manifest.seconds,
            precision_share=share_of(artifact, cell.precision),
            placement=card.placement if cell.precision is Precision.INT8 else Placement.NONE,
            target=target if isinstance(target, str) else None,
        )

    def asked(self, question: Question) -> list[TaskCard]:
        """Return what else the plan asks of a cell's engine: what is about its task, or about any."""
        task = question.cell.task.partition("@")[0]
        if not task or _bundle(question):
            return []
        named = [self._by_surrogate(cards.named(name)) for name in self.plan.gauntlet]
        return [card for card in named if card.of in {"", task} and gauntlet.can_answer(card, question.cell)]

    def _by_surrogate(self, card: TaskCard) -> TaskCard:
        """Return an attack's card under the name of the backbone it is made on, where that is another's."""
        if card.kind is not Kind.ATTACK or not self.plan.surrogate:
            return card
        return msgspec.structs.replace(card, name=f"{card.name} by {backbone(self.plan.surrogate).name}")

    def _task(self, question: Question) -> TaskCard | None:
        name = question.cell.task
        return cards.resolved(name) if name else None

    def _attack(self, question: Question) -> Target | None:
        """Return the images made to mislead a cell's checkpoint, if it is asked about any."""
        asked = [card for card in self.asked(question) if card.kind is Kind.ATTACK]
        if not asked or question.file:
            return None
        victim = question
        if self.plan.surrogate:
            # A local file is of the engine's own architecture; another begins from what is published of it.
            begin = "random" if question.cell.weights == "random" else "pretrained"
            name = backbone(self.plan.surrogate).name
            victim = Question(msgspec.structs.replace(question.cell, backbone=name, weights=begin))
        return attack_target(self._checkpoint(victim), asked[0].options)

    def missing(self, decisions: list[Decision]) -> dict[str, str]:
        """Return what keeps cells from being run or questions from being asked, and what would bring it."""
        found = {decision.reason: decision.hint for decision in decisions if decision.hint}
        for card in {card.name: card for d in decisions for card in self.asked(d.question)}.values():
            try:
                data.require_here(card)
            except AbsentDataError as error:
                found[error.message] = error.hint
        return found

    def identities(self, question: Question) -> set[str]:
        """Return the identities of every file a cell depends on."""
        try:
            return {name for target in self._wanted(question) for name in identities(target)}
        except (UnsupportedError, AbsentDataError):
            return set()

    def path(self, cell: Cell) -> Path:
        """Return where a cell's record lives."""
        return store.path_of(self.results, self.system.id, cell, self.limit)

    def _wanted(self, question: Question) -> list[Target]:
        """Return what a cell measures, then what it is compared with and asked about.

        Nothing has to be made for a file that is measured as it is.

        Raises:
            UnsupportedError: The runtime has no such precision, or the device that is here.

        """
        if question.file:
            given = given_target(question.cell, question.file)
            return [given] if given else []
        attack = self._attack(question)
        return [self._target(question), self._reference(question), *([attack] if attack else [])]

    def before(self, question: Question) -> Result | None:
        """Return the record of a cell, whatever it was made of; None if there is none that can be read."""
        try:
            return store.read(self.path(question.cell))
        except UsageError:
            return None

    def _look(self, question: Question) -> tuple[Artifact | None, str, list[Target]]:
        """Return a cell's file, or why there is none and what must be made, the reference included."""
        wanted = self._wanted(question)
        if not wanted:
            return question.file, "", []
        artifact, why = self.shop.look(wanted[0])
        steps = {identity(step): step for target in wanted for step in target.chain()}
        missing = [step for step in steps.values() if self.shop.find(step) is None]
        # A cell that will not run needs its engine, not the answers to compare it with.
        if missing == wanted[1:2] and cannot_run(RUNTIMES.get(question.cell.runtime)):
            missing = []
        return artifact, why, missing

    def _blocked(self, question: Question, missing: list[Target]) -> Decision | None:
        """Return the decision for a cell that is no question here, or whose files cannot be made, if so."""
        runtime = RUNTIMES.get(question.cell.runtime)
        if reason := wants_gpu(runtime, question.cell.precision):
            return self._unless_told(Decision(question, "unsupported", reason))
        for target in missing:
            stage = STAGES[target.stage]
            if absent := self.shop.absent(target.stage):
                reason = f"making its {target.stage} needs {', '.join(absent)}, not installed here"
                return Decision(question, "unsupported", reason, hint=f"pip install 'bobrt[{stage.extra}]'")
        if missing and (reason := cannot_build(runtime)):
            return Decision(question, "unsupported", reason)
        if question.cell.weights == "pretrained" and any(t.stage == "checkpoint" for t in missing):
            error = _fetchable(self._checkpoint(question), self.shop.cache)
            if error:
                return Decision(question, "skipped", error.message, hint=error.hint)
        return None

    def _standing(self, question: Question, artifact: Artifact, unable: str) -> tuple[str, int]:
        """Return why a cell's record is not today's, if it is not, and how many rounds it was timed."""
        path = self.path(question.cell)
        if not path.is_file():
            return "no result yet", 0
        try:
            result = store.read(path)
        except UsageError as error:
            return error.message, 0
        rounds = min((len(row.repeats_ms) for row in result.latency), default=0)
        stale = self._stale(question, result, artifact, unable)
        more = result.state is State.COMPLETE and rounds < self.plan.rounds
        if "not-renewed" in result.caveats and not more:
            stale = stale or f"not measured anew before: {result.notes[-1]}"
        if more and not (result.samples and path.with_name(result.samples.file).is_file()):
            stale = stale or "the raw times of its earlier rounds are gone"
        return stale, rounds

    def _stale(self, question: Question, result: Result, artifact: Artifact, unable: str) -> str:
        """Return why a record is not today's, or an empty string if it is."""
        if result.state is not State.COMPLETE and (result.state is State.FAILED or result.reason != unable):
            return f"{result.state} before: {result.reason}"
        known = not question.file or _bundle(question)
        if known and result.accuracy and result.accuracy.reference is None:
            return "measured as a file, without its reference"
        if result.state is State.COMPLETE and (new := self._unasked(question, result)):
            return f"not asked before: {', '.join(new)}"
        return self._differs(result, artifact)

    def _unasked(self, question: Question, result: Result) -> list[str]:
        """Return the questions a record has no answer to, though the plan asks them and they can be asked."""
        answered = {answer.question for answer in result.gauntlet if not answer.reason}
        return [
            card.name
            for card in self.asked(question)
            if card.name not in answered and gauntlet.has_images(card)
        ]

    def _differs(self, result: Result, artifact: Artifact) -> str:
        """Return how what a record measured differs from what would be measured now."""
        if result.artifact is None or result.artifact.sha256 != artifact.sha256:
            return f"its {artifact.manifest.stage} is another file now"
        today = versions(RUNTIMES.get(result.cell.runtime)) | {"bobrt": self.system.bobrt}
        then = {**result.system.tools, "bobrt": result.system.bobrt}
        for tool, now in today.items():
            if (was := then.get(tool)) != now:
                return f"{tool} was {was} and is {now}"
        if result.state is State.COMPLETE and (
            result.timing != self.timing or result.system.threads != self.threads
        ):
            return "timed for other windows or threads"
        return ""

    def _without_file(self, question: Question, error: BobrtError) -> Decision:
        """Return the decision for a cell that no file can be named for."""
        if isinstance(error, AbsentDataError):
            return self._unless_measured(Decision(question, "skipped", error.message, hint=error.hint))
        return self._unless_told(Decision(question, "unsupported", error.message))

    def _unless_told(self, decision: Decision) -> Decision:
        """Return the decision for an unsupported cell, unless its record says so already."""
        before = self.before(decision.question)
        told = before and (before.state, before.reason) == (State.UNSUPPORTED, decision.reason)
        return decision._replace(action="done") if told else decision

    def _unless_measured(self, decision: Decision) -> Decision:
        """Return the decision for a cell that cannot be measured now, unless it was: that stands."""
        before = self.before(decision.question)
        if before and before.state is State.COMPLETE:
            return decision._replace(action="done", make=[], again="")
        return decision

    def _checkpoint(self, question: Question) -> Target:
        recipe = self.plan.recipe(question.cell.protocol, question.cell.backbone)
        return checkpoint_target(question.cell, recipe, question.weights_path, self.plan.search)

    def _target(self, question: Question) -> Target:
        return artifact_target(question.cell, self._checkpoint(question), self.plan.max_drop)

    def _reference(self, question: Question) -> Target:
        return reference_target(self._checkpoint(question))


def _timing(plan: Plan) -> Timing:
    """Return a plan's windows as a record holds them: null where no scenario asks for a key."""
    asked, timing = plan.timing.scenarios, msgspec.to_builtins(plan.timing)
    if not {Scenario.SERVER, Scenario.LOADGEN} & {*asked}:
        timing["p99_ms"] = None
    if {*asked} <= {Scenario.LATENCY, Scenario.THROUGHPUT}:
        timing["scenario_s"] = None
    return msgspec.convert(timing, type=Timing)


def _published(trained: dict[str, Json]) -> Published | None:
    """Return which published file a checkpoint began from, as its manifest tells."""
    told = trained.get("weights")
    if not isinstance(told, dict):
        return None
    return msgspec.convert({key: told.get(key) for key in Published.__struct_fields__}, type=Published)


def _searched(trained: dict[str, Json]) -> Searched | None:
    """Return what was tried before a checkpoint was chosen, as its manifest tells."""
    if "search" not in trained:
        return None
    told = {"chosen": trained["chosen"], "at_edge": trained["at_edge"]}
    return msgspec.convert({"trials": len(trained["search"]), **told}, type=Searched)


def _bundle(question: Question) -> bundles.Bundle | None:
    """Return the bundle a question's file came in, if it came in one."""
    found = question.file.manifest.detail.get("bundle") if question.file else None
    return msgspec.convert(found, type=bundles.Bundle) if found else None


@cache
def _served(entry: bytes, cache_folder: Path) -> BobrtError | None:
    try:
        backbone = msgspec.json.decode(entry, type=Backbone)
        require_pretrained(backbone.name, backbone, "bench", cache_folder)
    except BobrtError as error:
        return error
    return None


def _fetchable(checkpoint: Target, cache_folder: Path) -> BobrtError | None:
    """Return why the published weights cannot be fetched, or None; whoever has them is asked once a run."""
    return _served(msgspec.json.encode(checkpoint.options["backbone"]), cache_folder)
