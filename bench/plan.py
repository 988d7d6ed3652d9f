"""A plan: which questions are asked, with which recipe, for how long. The user's data, in TOML."""

from __future__ import annotations

from importlib import resources
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from bobrt.catalogue import backbone
from bobrt.errors import UsageError, unknown
from bobrt.paths import sha256_of
from bobrt.spec import LARGEST_BATCH, Cell, Frozen, Kind, Precision, Protocol, Recipe, Scenario, Search
from bobrt.strict import line_of, read_text, read_toml
from bobrt.tasks import cards
from engines.runtimes import RUNTIMES
from engines.stages import TRAINED
from train.recipes import RECIPES, recipe_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bobrt.artifacts import Artifact

REFERENCE_RUNTIME = "torch"
MANY = 2

Names = Annotated[tuple[str, ...], Meta(min_length=1)]
Points = Annotated[float, Meta(ge=0, le=100)]
Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]
Seed = Annotated[int, Meta(ge=0)]
BatchSize = Annotated[int, Meta(ge=1, le=LARGEST_BATCH)]
Axis = Annotated[tuple[BatchSize | Literal["dynamic"], ...], Meta(min_length=1)]


class Windows(Frozen, frozen=True, kw_only=True):
    """How long each row is timed, in each round."""

    warmup_s: Annotated[float, Meta(ge=0, lt=86400)] = 1.0
    """Seconds of warm-up at least; it goes on until the answers' times are steady."""
    min_s: Annotated[float, Meta(gt=0, lt=86400)] = 3.0
    min_n: Count = 100
    max_s: Annotated[float, Meta(gt=0, lt=86400)] = 30.0
    """Seconds after which sampling ends, whatever it has reached."""
    width: Annotated[float, Meta(gt=0, le=1)] = 0.02
    """Sampling ends when the 95 % interval of the median is this narrow, relative to the median."""
    throughput_batches: tuple[BatchSize, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    """Batches of the scenario `throughput`, climbed until they gain nothing or do not fit."""
    scenarios: Annotated[tuple[Scenario, ...], Meta(min_length=1)] = (Scenario.LATENCY, Scenario.THROUGHPUT)
    """How each engine is asked; `latency` always, since nothing is ranked without it."""
    threads: Count | None = None
    """Threads of a cell's process; null for one per core."""
    scenario_s: Annotated[float, Meta(gt=0, lt=86400)] = 10.0
    """Seconds each rate of `server`, each run of LoadGen, and `pipeline` last at least."""
    p99_ms: Positive = 15.0
    """Bound of the scenario `server`; MLPerf's own for ResNet-50."""


class Limits(Frozen, frozen=True, kw_only=True):
    """When a process is given up. Waiting for the machine does not count."""

    make_s: Positive = 24 * 3600.0
    """Seconds one file may take to make."""
    cell_s: Positive = 600.0
    """Seconds one cell may take to measure."""
    memory_gb: Annotated[float, Meta(gt=0, le=2**20)] | None = None
    """Memory one process may allocate; null for no limit of ours."""


class Plan(Frozen, frozen=True, kw_only=True):
    """Lists that are crossed with each other, and how each cell is made and measured."""

    backbones: Names
    tasks: Names
    protocols: Names = ("finetune",)
    weights: Names = ("pretrained",)
    runtimes: Names
    precisions: Names
    batches: Axis = ("dynamic",)
    seeds: Annotated[tuple[Seed, ...], Meta(min_length=1)] = (0,)
    reference: bool = True
    """Also run every checkpoint in fp32 PyTorch."""
    rounds: Count = 3
    """How often every cell is timed, each time in a process of its own, among the others."""
    gauntlet: tuple[str, ...] = ()
    """What else every engine is asked that can answer it: names of `bobrt list questions`."""
    recipe_name: str | None = msgspec.field(default=None, name="recipe")
    """A recipe of `train.recipes` in place of a table `[finetune]`."""
    surrogate: str | None = None
    """Backbone whose checkpoint the attacks are made on; null for each engine's own."""
    max_drop: Points = 1.0
    """Points of the metric int8 and fp8 may lose on validation; what loses more keeps blocks out of them."""
    finetune: Recipe | None = None
    lowshot: Recipe | None = None
    """How `lowshot` fine-tunes; null for the recipe above."""
    search: Search | None = None
    """Values the recipe is tried with for every checkpoint, selected on validation; null for none."""
    timing: Windows = Windows()
    limits: Limits = Limits()

    def recipe(self, protocol: Protocol, name: str = "") -> Recipe | None:
        """Return how a protocol fine-tunes the backbone called `name`, or None if it does not."""
        if protocol not in TRAINED:
            return None
        own = self.lowshot if protocol is Protocol.LOWSHOT else None
        published = recipe_for(self.recipe_name, name) if self.recipe_name else None
        return own or self.finetune or published


class Question(NamedTuple):
    """A cell, and the local file it starts from, if any."""

    cell: Cell
    weights_path: Path | None = None
    """A checkpoint to start from."""
    file: Artifact | None = None
    """A model file made elsewhere, to be benched as it is."""


def bundled() -> list[str]:
    """Return the names of the plans that come with bobrt."""
    return sorted(p.name.removesuffix(".toml") for p in _plans().iterdir() if p.name.endswith(".toml"))


def path_of(name: str) -> Path:
    """Return where a bundled plan is."""
    return Path(str(_plans() / f"{name}.toml"))


def load(  # noqa: PLR0913 - the flags that replace a key
    name: str,
    changes: dict[str, Any] | None = None,
    *,
    repeat: int | None = None,
    min_time: float | None = None,
    scenarios: Sequence[str] | None = None,
    max_drop: float | None = None,
) -> Plan:
    """Return a bundled plan by its name, or any plan by its path, with some keys replaced.

    Args:
        name: `quick`, or the path of a TOML file.
        changes: Keys to replace, by flags of the same name.
        repeat: Rounds, in place of the plan's.
        min_time: Seconds each loop lasts at least, in place of the plan's; its cap is moved if need be.
        scenarios: How each engine is asked, in place of the plan's.
        max_drop: Points eight bits may lose, in place of the plan's.

    Raises:
        UsageError: No such plan; or it is not TOML, has an unknown key, a wrong type, an
            empty list or an unknown name: the file, the key and the line are named.

    """
    path = Path(name)
    if name in bundled():
        path = path_of(name)
    elif path.suffix != ".toml" and not path.exists():
        raise unknown("plan", name, bundled())
    plan = read_toml(path, Plan, "plan")
    text = read_text(path, "plan")

    def where(key: str) -> str:
        line = line_of(text, key)
        return f"plan {path}{f', line {line}' if line else ''}, key {key!r}"

    changes = changes or {}
    plan = msgspec.structs.replace(plan, **changes)
    for key in ("backbones", "tasks", "protocols", "runtimes", "precisions", "gauntlet"):
        for value in getattr(plan, key):
            _check_name(key, value, "" if key in changes else where(key))
    if plan.timing.max_s < plan.timing.min_s:
        raise UsageError(
            f"{where('max_s')}: a loop is to last at least {plan.timing.min_s:g} s "
            f"and at most {plan.timing.max_s:g} s",
            "raise max_s in the plan's [timing], or lower its min_s",
        )
    if plan.recipe_name is not None:
        RECIPES.get(plan.recipe_name, where("recipe"))
    plan = _timed_as(plan, repeat, min_time, scenarios)
    if max_drop is not None:
        plan = msgspec.structs.replace(plan, max_drop=max_drop)
    _check_search(plan, where)
    if any(plan.recipe(protocol) is None for _, protocol in adapted(plan) if protocol in TRAINED):
        raise UsageError(
            f"plan {path} fine-tunes and has no [finetune] table", "copy that of bobrt list plans"
        )
    return plan


def with_surrogate(plan: Plan, name: str | None) -> Plan:
    """Return a plan whose attacks are made on the backbone called `name`, where one was named."""
    return plan if name is None else msgspec.structs.replace(plan, surrogate=backbone(name).name)


def questions(plan: Plan) -> list[Question]:
    """Return every cell of a plan once, those of one checkpoint side by side."""
    runs = list(product(plan.runtimes, plan.precisions, plan.batches))
    if plan.reference:
        runs.insert(0, (REFERENCE_RUNTIME, str(Precision.FP32), "dynamic"))
    found: dict[str, Question] = {}
    checkpoints = product(plan.backbones, plan.weights, adapted(plan), plan.seeds)
    for name, weights, (task, protocol), seed in checkpoints:
        identity, path = weights_of(weights)
        for runtime, precision, batch in runs:
            cell = Cell(
                backbone=backbone(name).name,
                weights=identity,
                task=task,
                protocol=protocol,
                runtime=runtime,
                precision=Precision(precision),
                batch=batch,
                seed=seed,
            )
            found.setdefault(cell.key, Question(cell, path))
    return list(found.values())


def adapted(plan: Plan) -> list[tuple[str, Protocol]]:
    """Return each task of a plan with each of its protocols: those it names itself, or the plan's."""
    found: list[tuple[str, Protocol]] = []
    for entry in plan.tasks:
        task, _, own = entry.partition(":")
        if cards.named(task).kind is Kind.RETRIEVAL:  # nothing is trained for it
            found.append((task, Protocol.PUBLISHED))
        else:
            found += [(task, Protocol(word)) for word in ([own] if own else plan.protocols)]
    return list(dict.fromkeys(found))


def weights_of(weights: str) -> tuple[str, Path | None]:
    """Return the identity of `random`, `pretrained` or a local file, and the file's path.

    Raises:
        UsageError: It is neither word, and no such file exists.

    """
    if weights in {"random", "pretrained"}:
        return weights, None
    path = Path(weights).expanduser().absolute()
    if not path.is_file():
        near = unknown("weights", weights, ["random", "pretrained"])
        raise UsageError(f"weights {weights!r} are no file, nor random or pretrained", near.hint)
    return f"file:{sha256_of(path)}", path


def _timed_as(
    plan: Plan, repeat: int | None, min_time: float | None, scenarios: Sequence[str] | None
) -> Plan:
    """Return a plan with the rounds and windows that were typed."""
    timing = plan.timing
    if min_time is not None:
        timing = msgspec.structs.replace(timing, min_s=min_time, max_s=max(min_time, timing.max_s))
    if scenarios is not None:
        asked = {_scenario(word) for word in scenarios}
        timing = msgspec.structs.replace(timing, scenarios=tuple(asked))
    needed = {Scenario.LATENCY, *timing.scenarios}
    if Scenario.LOADGEN in needed:  # asks again what these found
        needed |= {Scenario.THROUGHPUT, Scenario.SERVER}
    ordered = tuple(word for word in Scenario if word in needed)
    timing = msgspec.structs.replace(timing, scenarios=ordered)
    return msgspec.structs.replace(plan, timing=timing, rounds=repeat or plan.rounds)


def _scenario(word: str) -> Scenario:
    words = [str(scenario) for scenario in Scenario]
    if word not in words:
        raise unknown("scenario", word, words)
    return Scenario(word)


def _check_search(plan: Plan, where: Callable[[str], str]) -> None:
    """Raise if a search has nothing to choose from, or if a plan's own recipe sets what is to be searched.

    One layer decay favours the architectures it was found on; the study set it for all of them.
    """
    if plan.search is not None and len(plan.search.trials()) < MANY:
        raise UsageError(
            f"{where('search')}: {len(plan.search.trials())} trial is no search",
            "give a key several values: lr = [1e-3, 3e-3]",
        )
    for recipe in filter(None, (plan.finetune, plan.lowshot)):
        if recipe.layer_decay is not None:
            raise UsageError(
                f"{where('layer_decay')}: what suits one architecture would be set for all",
                f"let it be searched: [search] layer_decay = [{recipe.layer_decay:g}, 1.0]",
            )


def _check_name(key: str, value: str, where: str) -> None:
    if key == "backbones":
        backbone(value, where)
    elif key == "tasks":
        task, _, protocol = value.partition(":")
        card = cards.named(task, where)
        if card.kind not in cards.ADAPTABLE or not card.data:
            raise UsageError(
                f"{where}{': ' if where else ''}{task!r} is a question, of kind {card.kind}, and no task",
                f"--gauntlet {task}",
            )
        if protocol:
            _check_name("protocols", protocol, where)
    elif key == "gauntlet":
        if cards.named(value, where).kind in {Kind.CLASSIFICATION, Kind.MULTILABEL}:
            raise UsageError(
                f"{where}{': ' if where else ''}{value!r} is a task of its own, and no question",
                f"--task {value}",
            )
    elif key == "runtimes":
        RUNTIMES.get(value, where)
    else:
        words = [str(word) for word in (Precision if key == "precisions" else Protocol)]
        if value not in words:
            raise unknown(key.removesuffix("s"), value, words, where)


def _plans() -> Any:  # noqa: ANN401 - importlib.resources' Traversable moved between Python versions
    return resources.files("bench") / "plans"
