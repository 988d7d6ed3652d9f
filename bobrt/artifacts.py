"""Every arrow of the pipeline is a folder on disk, named by a hash of what made it.

A `Target` says what is wanted and from what: a stage, its options and its source. Its
folder holds the file and, written last, `manifest.json`; no manifest, no artifact. The
hash covers the options, the versions of the tools and the sha256 of the source file, so
nothing stale is ever found, and whatever is found can be re-used on sight.
"""

from __future__ import annotations

import importlib
import shutil
import time
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from bobrt import __version__
from bobrt.errors import BobrtError, MachineError, UsageError
from bobrt.paths import CANNOT_WRITE, CPU, full_disk, lock, sha256_of, write_atomic
from bobrt.spec import Frozen, Json, digest, seal_of
from bobrt.strict import parse_json, read_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

MANIFEST = "manifest.json"


class Manifest(Frozen, frozen=True, kw_only=True):
    """What an artifact folder says of itself."""

    schema: int = 1
    stage: str
    options: dict[str, Json]
    source_sha256: str | None
    tools: dict[str, str]
    file: str
    sha256: str
    bytes: int
    seconds: float
    detail: dict[str, Json]
    """What the stage learned while making it."""
    seal: str = ""
    """`seal_of` this manifest: an edited one is found out."""

    def sealed(self) -> Manifest:
        """Return this manifest with its seal."""
        return msgspec.structs.replace(self, seal=seal_of(msgspec.json.encode(self)))


class Artifact(NamedTuple):
    """A file made by a stage, verified against its manifest."""

    path: Path
    manifest: Manifest

    @property
    def sha256(self) -> str:
        """The sha256 of the file, in hex."""
        return self.manifest.sha256


class Target(Frozen, frozen=True, kw_only=True):
    """A file that is wanted: which stage makes it, with which options, from what."""

    stage: str
    options: dict[str, Json] = {}
    source: Target | None = None

    def chain(self) -> list[Target]:
        """Return the targets from the first source to this one."""
        return [*(self.source.chain() if self.source else []), self]


class Produced(NamedTuple):
    """What a stage made in its folder."""

    file: str
    detail: dict[str, Json]


class Job(NamedTuple):
    """What a stage is given to work with."""

    options: dict[str, Json]
    source: Artifact | None
    folder: Path
    """Where to write; it survives an interruption, so a stage may resume from it."""
    report: Callable[[str, str], None]
    """Called with a phase and a detail while the work goes on."""


class Stage(NamedTuple):
    """One kind of arrow."""

    produce: str
    """`module:function`, taking a `Job` and returning a `Produced`."""
    tools: tuple[str, ...]
    """Distributions whose versions are part of the artifact's name."""
    extra: str
    """The install extra that brings those tools."""
    worker: str = "torch"
    """Stages with the same worker name share a process; a library that patches another has its own."""
    where: tuple[str, ...] = ()
    """Options that say which machine it is for, rather than what is wanted."""
    lies: tuple[str, ...] = ()
    """Options that say where to take something from: no part of the artifact's name."""


class Workshop:
    """The stages that exist, and the folder their artifacts live in.

    Args:
        cache: Root of the artifact folders.
        stages: Every stage by name.

    """

    def __init__(self, cache: Path, stages: Mapping[str, Stage]) -> None:
        self.cache = cache
        self.stages = stages

    def find(self, target: Target) -> Artifact | None:
        """Return the artifact if it is on disk and whole, else None. Loads no heavy library."""
        return self.look(target)[0]

    def look(self, target: Target) -> tuple[Artifact | None, str]:
        """Return the artifact, or None and why it must be made."""
        source = None
        if target.source:
            source, reason = self.look(target.source)
            if source is None:
                return None, reason
        folder = self.folder(target, source)
        if folder.is_dir() and not (folder / MANIFEST).is_file():
            return None, f"the manifest of the {target.stage} in {folder} is gone"
        if not folder.is_dir():
            return None, self._outdated(target, source) or f"no {target.stage} yet"
        try:
            return read_artifact(folder), ""
        except UsageError as error:
            return None, error.message

    def _outdated(self, target: Target, source: Artifact | None) -> str:
        """Return why one that was made before from the same file will not do, or an empty string."""
        stage, origin = self.stages[target.stage], source.sha256 if source else None

        def wish(options: dict[str, Json]) -> str:
            return digest({key: value for key, value in options.items() if key not in stage.where})

        for path in (self.cache / target.stage).glob(f"*/{MANIFEST}"):
            before = _manifest_once(path, path.stat().st_mtime_ns)
            if not before or before.source_sha256 != origin or wish(before.options) != wish(target.options):
                continue
            then = before.tools | {key: before.options.get(key) for key in stage.where}
            now = self._tools(target.stage) | {key: target.options.get(key) for key in stage.where}
            if changed := [key for key in now if then.get(key) != now[key]]:
                (what, *_) = changed
                return f"its {target.stage} was made for {what} {then.get(what)}, not {now[what]}"
        return ""

    def make(
        self,
        target: Target,
        report: Callable[[str, str], None] = lambda *_: None,
        running: Callable[[], None] = lambda: None,
    ) -> Artifact:
        """Return the artifact, making it and every source that is missing.

        Two processes that want the same artifact make it once: the second waits and finds it.

        Args:
            target: What is wanted.
            report: Called with a phase and a detail.
            running: Called when the waiting is over and the work begins.

        Raises:
            BobrtError: A tool is missing, or the stage itself failed.

        """
        source = self.make(target.source, report, running) if target.source else None
        folder = self.folder(target, source)
        with lock(str(folder), lambda: report("waiting", "another bobrt makes the same file")):
            if found := self.find(target):
                return found
            self.require_tools(target.stage)
            with lock(CPU, lambda: report("waiting", "another bobrt uses this machine")):
                running()
                return self._produce(target, source, folder, report)

    def folder(self, target: Target, source: Artifact | None) -> Path:
        """Return where `target`, made from `source`, lives or will live."""
        lies = self.stages[target.stage].lies
        name = digest(
            {
                "stage": target.stage,
                "options": {key: value for key, value in target.options.items() if key not in lies},
                "source": source.sha256 if source else None,
                "tools": dict(self._tools(target.stage)),
            }
        )
        return self.cache / target.stage / name

    def _produce(
        self, target: Target, source: Artifact | None, folder: Path, report: Callable[[str, str], None]
    ) -> Artifact:
        stage = self.stages[target.stage]
        partial = folder.with_suffix(".partial")
        module, _, function = stage.produce.partition(":")
        started = time.monotonic()
        try:
            partial.mkdir(parents=True, exist_ok=True)
            produce = getattr(importlib.import_module(module), function)
            made: Produced = produce(Job(target.options, source, partial, report))
            file = partial / made.file
            manifest = Manifest(
                stage=target.stage,
                options=target.options,
                source_sha256=source.sha256 if source else None,
                tools=dict(self._tools(target.stage)),
                file=made.file,
                sha256=sha256_of(file),
                bytes=file.stat().st_size,
                seconds=round(time.monotonic() - started, 3),
                detail=made.detail,
            ).sealed()
            write_atomic(partial / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))
            if folder.exists():
                shutil.rmtree(folder)
            partial.rename(folder)
        except BobrtError:
            raise
        except Exception as error:
            refused = full_disk(error)
            if isinstance(error, OSError) and error.errno in CANNOT_WRITE:
                refused = error
            if refused is None:
                raise
            raise MachineError(
                f"cannot write the {target.stage} into {self.cache}: {refused.strerror or refused}",
                "free some space, or set BOBRT_CACHE to another folder",
            ) from error
        return Artifact(folder / made.file, manifest)

    def _tools(self, stage: str) -> dict[str, str]:
        return {"bobrt": __version__} | {tool: version(tool) or "absent" for tool in self.stages[stage].tools}

    def absent(self, stage: str) -> list[str]:
        """Return the tools of `stage` that are not installed."""
        return [tool for tool in self.stages[stage].tools if version(tool) is None]

    def require_tools(self, stage: str) -> None:
        """Raise `MachineError` with the install line if a tool of `stage` is not installed."""
        if absent := self.absent(stage):
            extra = self.stages[stage].extra
            raise MachineError(
                f"making the {stage} needs {', '.join(absent)}, not installed here",
                f"pip install 'bobrt[{extra}]'",
            )


def read_artifact(folder: Path) -> Artifact:
    """Return the artifact in `folder`; raise `UsageError` naming what is damaged."""
    text, name = read_text(folder / MANIFEST, "manifest"), f"manifest {folder / MANIFEST}"
    manifest = parse_json(text, Manifest, name)
    if manifest.seal != seal_of(text):
        raise UsageError(f"{name} was edited: it is not what its seal was put on")
    file = folder / manifest.file
    if not file.is_file():
        raise UsageError(f"{manifest.stage} {file} is missing")
    status = file.stat()
    if (size := status.st_size) != manifest.bytes:
        raise UsageError(f"{manifest.stage} {file} was cut or edited: {size} bytes, not {manifest.bytes}")
    if (actual := _sha256_once(file, size, status.st_mtime_ns, status.st_ino)) != manifest.sha256:
        raise UsageError(
            f"{manifest.stage} {file} was edited: sha256 {actual[:12]}..., not {manifest.sha256[:12]}..."
        )
    return Artifact(file, manifest)


@cache
def _manifest_once(path: Path, _mtime_ns: int) -> Manifest | None:
    """Read a manifest once in a process, or None if it is no whole one."""
    try:
        return parse_json(read_text(path, "manifest"), Manifest, str(path))
    except UsageError:
        return None


@cache
def _sha256_once(file: Path, _size: int, _mtime_ns: int, _inode: int) -> str:
    """Hash a file once in a process for as long as it stays the same to `stat`: plans ask for it often."""
    return sha256_of(file)


@cache
def version(distribution: str) -> str | None:
    """Return an installed distribution's version without importing it, or None.

    ONNX Runtime has two names for one library; either answers for both. Read once in a process: every
    cell of a plan asks for the versions of every tool it is made with.
    """
    names = [distribution]
    if distribution == "onnxruntime":
        names.append("onnxruntime-gpu")
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None
