"""From what was typed to the cells it asks for. Words that exist nowhere end here, with the nearest ones."""

from __future__ import annotations

import re
from enum import StrEnum
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from bench.plan import Question, weights_of
from bobrt import config, console, data
from bobrt.catalogue import TASKS, backbone
from bobrt.data import archives, hub, hub_address, places
from bobrt.data import bundle as bundles
from bobrt.errors import BobrtError, UsageError, unknown
from bobrt.spec import LARGEST_BATCH, Batch, Cell, FileCard, Kind, Precision, Protocol
from bobrt.tasks import cards
from engines import onnx_file
from engines.runtimes import RUNTIMES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bobrt.artifacts import Artifact

Word = TypeVar("Word", bound=StrEnum)

SAID_BY_A_FILE = ("protocols", "precisions", "weights", "batches", "seeds")
"""Keys of a plan that a model file answers itself."""


def placed(source: str | None, task: str | None) -> str:
    """Return the task that was named, having remembered where its images are; empty if none was.

    A folder without a task is a task of its own, called like the folder; so is a data set of the hub.

    Raises:
        UsageError: There is no such folder or data set, its name is another task's, or several tasks were
            named.
        MachineError: A data set of the hub cannot be fetched.

    """
    if source is None:
        return task or ""
    if source.startswith(hub_address.SCHEME):
        return _fetched(source, task)
    folder = Path(source)
    if folder.is_file():
        folder = _unpacked(folder)
    if not folder.is_dir():
        raise UsageError(f"--data {folder} is no folder", "name the folder that holds the images")
    if task and "," in task:
        raise UsageError(f"--data is one task's folder, and --task names {task}", "name one --task")
    path = folder.expanduser().absolute()
    name = task or re.sub(r"[^A-Za-z0-9._-]+", "-", path.resolve().name).strip("-.") or "images"
    if not task and TASKS.find(name):
        raise UsageError(
            f"{folder} is called like the task {name}", f"if it is that: --task {name} --data {folder}"
        )
    card = TASKS.find(name.partition("@")[0])
    if card and card.data in {"", data.DIGITS}:
        raise UsageError(f"task {name} needs no folder: it brings its images along", f"--task {name}")
    places.remember(data.place_name(card) if card else name.partition("@")[0], path)
    if not task:
        console.note(f"{folder} is the task {name} from now on")
    return name


def _fetched(address: str, task: str | None) -> str:
    """Return the task that a data set of the hub is from now on, having fetched it unless it is here."""
    if task and (TASKS.find(task.partition("@")[0]) or "," in task):
        raise UsageError(
            f"{address} is a task of its own, and --task names {task}", f"bobrt bench --data '{address}'"
        )
    with console.Progress() as progress:
        fetched = hub.fetch(
            address,
            config.load().cache.path / "data",
            lambda phase, detail: progress.update(address, phase, detail),
        )
    name = task or fetched.address.task
    places.remember(name.partition("@")[0], fetched.folder)
    console.note(f"{address} is the task {name} from now on")
    for line in hub.told(fetched.folder):
        console.note(f"  {line}")
    if not hub_address.parse(address).pinned:
        console.note(f"to have this very commit again: {fetched.address.option()}")
    return name


def _unpacked(archive: Path) -> Path:
    """Return the folder beside an archive that its images are unpacked into."""
    name = re.sub(r"(\.tar)?\.(zip|tar|tgz|gz|bz2|xz)$", "", archive.name, flags=re.IGNORECASE)
    if name == archive.name:
        raise UsageError(f"--data {archive} is no folder, and no archive by its name", "a .zip, .tar or .tgz")
    folder = archive.with_name(name)
    archives.unpack(archive, folder)
    console.note(f"{archive} is unpacked into {folder}")
    return folder


def asked_of(name: str, questions: list[str] | None) -> tuple[list[str] | None, list[str] | None]:
    """Return tasks and questions, with one whose folder was named: a question is asked of its own task."""
    card = cards.named(name)
    if card.kind in cards.ADAPTABLE:
        return [name], questions
    return ([card.of] if card.of else None), [*(questions or []), name]


def question(  # noqa: PLR0913, PLR0917 - the flags of a verb
    name: str,
    task: str,
    protocol: str | None,
    runtime: str,
    precision: str,
    batch: str,
    weights: str,
    seed: int,
) -> Question:
    """Return the one cell a verb is about, having said what the backbone's name stands for.

    Raises:
        UsageError: A word exists nowhere, or the name is that of a model file.

    """
    if is_model_file(name):
        raise UsageError(
            f"{name} is a model file, and this begins from a backbone",
            f"bobrt bench {name} --runtime tensorrt-rtx",
        )
    found = backbone(name)
    if found.name != name:
        console.note(f"{name} is {found.name}")
    if not task:
        own = "its own classifier, or a CLIP's projection, if it has one"
        console.note(f"no --task: the backbone as it is published, with {own}")
    identity, path = weights_of(weights)
    cell = Cell(
        backbone=found.name,
        weights=identity,
        task=cards.named(task).name if task else "",
        protocol=_protocol(task, protocol),
        runtime=RUNTIMES.get(runtime).name,
        precision=_word("precision", precision, Precision),
        batch=_batch(batch),
        seed=seed,
    )
    return Question(cell, path)


def file_questions(files: Sequence[Path], changes: Mapping[str, Any]) -> list[Question]:
    """Return the cells of ONNX files made elsewhere, for every runtime and task that was named.

    Args:
        files: The model files.
        changes: What was typed, as `changes_of` returns it.

    Raises:
        UsageError: A file is damaged, or something was typed that the file itself says.

    """
    _require_unsaid(files, SAID_BY_A_FILE, changes, "a model file")
    return [
        _file_question(file, task, runtime)
        for file in _each_once(files)
        for task, runtime in product(changes.get("tasks", ("",)), changes.get("runtimes", ("ort-cpu",)))
    ]


def bundle_questions(folders: Sequence[Path], changes: Mapping[str, Any]) -> list[Question]:
    """Return the cells of bundles, the folders of `bobrt export --bundle`, for every runtime that was named.

    Args:
        folders: The bundles.
        changes: What was typed, as `changes_of` returns it.

    Raises:
        UsageError: A bundle is damaged, or something was typed that the bundle itself says.

    """
    _require_unsaid(folders, (*SAID_BY_A_FILE, "tasks"), changes, "a bundle")
    found = []
    for folder in _each_once(folders):
        bundle = bundles.read(folder)
        artifact = onnx_file.as_artifact(folder / bundles.MODEL)
        artifact.manifest.detail["bundle"] = msgspec.to_builtins(bundle)
        found += [_question_of(artifact, folder, name) for name in changes.get("runtimes", ("ort-cpu",))]
    return found


def _each_once(paths: Sequence[Path]) -> list[Path]:
    """Return each of some paths once, as it was first typed; another way to the same place is no other."""
    found: dict[Path, Path] = {}
    for path in paths:
        found.setdefault(path.resolve(), path)
    return list(found.values())


def require_apart(questions: Sequence[Question]) -> None:
    """Raise `UsageError` if two files, or a file and a backbone by its name, answer one cell: one record."""
    found: dict[str, Question] = {}
    for question in questions:
        other = found.setdefault(question.cell.key, question)
        if other is not question:
            named = " and ".join(str(q.file.path) if q.file else q.cell.backbone for q in (other, question))
            raise UsageError(
                f"{named} answer one cell: {question.cell}",
                "bench each alone, with --results FOLDER of its own",
            )


def is_model_file(name: str) -> bool:
    """Tell whether a name is that of an ONNX file, and not a backbone's."""
    return name.lower().endswith(".onnx")


def is_bundle(name: str) -> bool:
    """Tell a folder from a backbone: what is spelled like a path, holds a bundle, or is a folder alone."""
    if name.startswith((".", "/")) or name.endswith("/") or (Path(name) / bundles.RECORD).is_file():
        return True
    if not Path(name).is_dir():
        return False
    try:
        backbone(name)
    except BobrtError:
        return True
    return False


def changes_of(typed: Mapping[str, list[str] | None]) -> dict[str, Any]:
    """Return the plan's keys that flags replace, as the plan holds them."""
    return {key: _values(key, words) for key, words in typed.items() if words}


_UNITS = {
    "ms": {"us": 1e-3, "ms": 1.0, "": 1.0, "s": 1e3},
    "bytes": {"": 1.0, "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30},
    "fraction": {"": 1.0, "%": 0.01},
    "rate": {"": 1.0, "/s": 1.0},
}
"""What a bound may be typed in, by what it is kept in."""
_SHOWN = {"ms": "5ms", "bytes": "20MB", "fraction": "0.95 or 95%", "rate": "1000"}
_KEPT_IN = {
    "max-p50": "ms",
    "max-p99": "ms",
    "min-accuracy": "fraction",
    "min-images-per-s": "rate",
    "max-bytes": "bytes",
    "max-memory": "bytes",
}


def bounds(typed: Mapping[str, str | None]) -> dict[str, float]:
    """Return the bounds that were typed, by flag: milliseconds, bytes, fractions, images per second.

    Raises:
        UsageError: One is no number above 0 with a unit of its kind.

    """
    return {flag: _quantity(flag, text) for flag, text in typed.items() if text is not None}


def _quantity(flag: str, text: str) -> float:
    kind = _KEPT_IN[flag]
    found = re.fullmatch(r"([0-9]*\.?[0-9]+(?:e-?[0-9]+)?) *([a-z/%]*)", text.strip().lower())
    factor = _UNITS[kind].get(found[2]) if found else None
    value = float(found[1]) * factor if found and factor is not None else 0.0
    if not value > 0 or (kind == "fraction" and value > 1):
        raise UsageError(f"--{flag} {text!r} is no bound", f"--{flag} {_SHOWN[kind]}")
    return value


def fraction(flag: str, text: str) -> float:
    """Return a percentage, typed as `3%` or `3`, as a fraction; raise `UsageError` if it is none."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?%?", text.strip())
    if not found:
        raise UsageError(f"--{flag} {text!r} is no percentage from 0", f"--{flag} 3%")
    return float(found[1]) / 100


def _protocol(task: str, protocol: str | None) -> Protocol:
    """Return how a backbone is adapted: by fine-tuning, unless there is no task or another way is named."""
    if protocol is None:
        adapted = task and cards.named(task).kind is not Kind.RETRIEVAL
        return Protocol.FINETUNE if adapted else Protocol.PUBLISHED
    return _word("protocol", protocol, Protocol)


def _file_question(path: Path, task: str, runtime: str) -> Question:
    artifact = onnx_file.as_artifact(path)
    if task:
        card = msgspec.convert(artifact.manifest.detail["card"], type=FileCard)
        card = msgspec.structs.replace(card, task=cards.named(task).name)
        artifact.manifest.detail["card"] = msgspec.to_builtins(card)
    return _question_of(artifact, path, runtime)


def _question_of(artifact: Artifact, path: Path, runtime: str) -> Question:
    if RUNTIMES.get(runtime).artifact == "checkpoint":
        raise UsageError(
            f"runtime {runtime} opens no ONNX file but checkpoints of its own", f"bobrt bench {path}"
        )
    card = msgspec.convert(artifact.manifest.detail["card"], type=FileCard)
    cell = Cell(
        backbone=card.backbone.name,
        weights=card.weights,
        task=card.task,
        protocol=card.protocol,
        runtime=RUNTIMES.get(runtime).name,
        precision=card.precision,
        batch=card.batch,
        seed=card.seed,
    )
    return Question(cell, file=artifact)


def _require_unsaid(
    paths: Sequence[Path], said: Sequence[str], changes: Mapping[str, Any], what: str
) -> None:
    """Raise if something was typed that `paths` say themselves."""
    if paths and (typed := [key for key in said if key in changes]):
        raise UsageError(f"--{_flag(typed[0])} is said by {what} itself", f"bobrt bench {paths[0]}")


def _values(key: str, typed: list[str]) -> tuple[Any, ...]:
    """Return a flag's values, split at commas, each once."""
    words = list(dict.fromkeys(word.strip() for value in typed for word in value.split(",") if word.strip()))
    if not words:
        raise UsageError(f"--{_flag(key)} is empty", "bobrt bench --help")
    if key == "batches":
        return tuple(_batch(word) for word in words)
    if key == "seeds":
        return tuple(_seed(word) for word in words)
    return tuple(words)


def _flag(key: str) -> str:
    """Return the flag that replaces a key of the plan."""
    return {"batches": "batch", "weights": "weights"}.get(key, key.removesuffix("s"))


def _batch(text: str) -> Batch:
    if text == "dynamic":
        return "dynamic"
    number = _number("batch", text, "a number from 1, or dynamic")
    if number < 1:
        raise UsageError(f"--batch {text} is too small", "a number from 1, or dynamic")
    if number > LARGEST_BATCH:
        raise UsageError(f"--batch {text} is too large", f"a number to {LARGEST_BATCH}, or dynamic")
    return number


def _seed(text: str) -> int:
    number = _number("seed", text)
    if number < 0:
        raise UsageError(f"--seed {text} is below 0", "a whole number from 0")
    return number


def _number(flag: str, text: str, hint: str = "a whole number") -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"--{flag} {text!r} is not a number", hint) from None


def _word(kind: str, text: str, words: type[Word]) -> Word:
    try:
        return words(text)
    except ValueError:
        raise unknown(kind, text, [str(word) for word in words]) from None
