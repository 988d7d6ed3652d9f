"""A folder to carry to a box without torch: a model, its task, its images, and what PyTorch answered.

`bundle.json` is written last: it names every other file by its sha256, and without it there is
no bundle. Whatever is read from the folder is checked against it.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from bobrt import __version__, data
from bobrt.data.packed import arrays, pack, unpack
from bobrt.errors import UsageError
from bobrt.paths import lock, sha256_of, write_atomic
from bobrt.spec import FileCard, Frozen, Kind, Record, TaskCard, seal_of
from bobrt.strict import parse_json, read_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bobrt.artifacts import Artifact
    from bobrt.data import Split

SCHEMA = 1
RECORD = "bundle.json"
MODEL = "model.onnx"
REFERENCE = "reference.npz"
"""The stage `reference`: what the checkpoint answers in fp32 PyTorch on validation and test."""
SPLITS = {"calibration": "calibration.npz", "validation": "validation.npz", "test": "evaluation.npz"}
"""Which file holds which images: the training images that calibrate, and two whole splits of the task."""
FILES = (MODEL, REFERENCE, *SPLITS.values())
BEGUN = "bundle.begun"
"""Is there while a bundle is being written: a folder that has it may be written on."""
AGAIN = "make it again: bobrt export NAME --task TASK --bundle --output FOLDER"


class Reference(Frozen, frozen=True, kw_only=True):
    """What the checkpoint scores in fp32 PyTorch on the whole test split."""

    metric: str
    value: float
    """A fraction where the metric is one."""
    n: int
    """Test images."""
    validation: float
    """The same metric on the validation split."""


class Bundle(Frozen, frozen=True, kw_only=True):
    """What `bundle.json` says of its folder."""

    schema: int = SCHEMA
    bobrt: str
    """Version that made the folder."""
    card: FileCard
    """What the model file says of itself: its backbone, labels and preprocessing among it."""
    task: TaskCard
    reference: Reference
    images: dict[str, int]
    """Number of images in each file of images."""
    sha256: dict[str, str]
    """Of every other file."""
    seal: str = ""
    """`seal_of` this record: an edited one is found out."""


class _Head(Record, frozen=True, kw_only=True):
    schema: int
    bobrt: str


class _Scores(Record, frozen=True, kw_only=True):
    """What the stage `reference` says of its file."""

    metric: str
    validation: float
    test: float


def require_room(folder: Path) -> None:
    """Raise `UsageError` unless `folder` is new, empty, or a bundle, whole or begun."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file, and a bundle is a folder", "name another with --output FOLDER")
    if not folder.exists() or not any(folder.iterdir()) or (folder / BEGUN).is_file():
        return
    try:
        _head(folder)
    except UsageError:
        raise UsageError(
            f"{folder} holds files and is no bundle: nothing is written over them",
            "name a new folder with --output FOLDER",
        ) from None


def write(folder: Path, task: TaskCard, model: Artifact, reference: Artifact) -> Bundle:
    """Make `folder` a bundle, or bring the one that is there up to date.

    Args:
        folder: New, empty or a bundle.
        task: The task of both files; its images are read from their own source.
        model: The fp32 ONNX file.
        reference: The answers of the same checkpoint.

    Raises:
        UsageError: The folder holds something else.
        MachineError: It cannot be written.

    """
    splits = {"calibration": calibration(task)}
    splits |= {name: data.load(task, name) for name in ("validation", "test")}
    content = {MODEL: model.path.read_bytes(), REFERENCE: reference.path.read_bytes()}
    content |= {SPLITS[name]: pack(split) for name, split in splits.items()}
    scores = msgspec.convert(reference.manifest.detail, type=_Scores)
    bundle = Bundle(
        bobrt=__version__,
        card=msgspec.convert(model.manifest.detail["card"], type=FileCard),
        task=task,
        reference=Reference(
            metric=scores.metric,
            value=scores.test,
            n=len(splits["test"].ids),
            validation=scores.validation,
        ),
        images={SPLITS[name]: len(split.ids) for name, split in splits.items()},
        sha256={name: hashlib.sha256(file).hexdigest() for name, file in content.items()},
    )
    bundle = msgspec.structs.replace(bundle, seal=seal_of(msgspec.json.encode(bundle)))
    with lock(str(folder.absolute())):
        require_room(folder)
        write_atomic(folder / BEGUN, b"")
        for name, file in content.items():
            write_atomic(folder / name, file)
        write_atomic(folder / RECORD, msgspec.json.format(msgspec.json.encode(bundle), indent=2) + b"\n")
        (folder / BEGUN).unlink()
    return bundle


def read(folder: Path) -> Bundle:
    """Return what a bundle says of itself, every file checked; raise `UsageError` naming what is wrong."""
    bundle = _record(folder)
    for name in FILES:
        _require_same(bundle, folder, name)
    with _hinted():
        counts = {file: len(unpack(folder / file).ids) for file in SPLITS.values()}
        answers = arrays(folder / REFERENCE)
    if counts != bundle.images:
        raise UsageError(f"bundle {folder / RECORD} counts {bundle.images}, its files hold {counts}", AGAIN)
    for split in ("validation", "test"):
        rows = {len(value) for name, value in answers.items() if name.startswith(f"{split}.")}
        if rows != {counts[SPLITS[split]]}:
            raise UsageError(f"{folder / REFERENCE} does not answer each {split} image once", AGAIN)
    return bundle


def load(folder: Path, name: str) -> Split:
    """Return the images of a split, `calibration` included; raise `UsageError` if its file is not its own."""
    _require_same(_record(folder), folder, SPLITS[name])
    return unpack(folder / SPLITS[name])


def calibration(task: TaskCard) -> Split:
    """Return the training images that calibrate low precision: evenly spread, in their own sizes."""
    split = data.load(task, "database" if task.kind is Kind.RETRIEVAL else "train")
    count = min(task.calibration_images, len(split.ids))
    return split.some(np.linspace(0, len(split.ids) - 1, count).astype(int).tolist())


def _record(folder: Path) -> Bundle:
    path = folder / RECORD
    if not path.is_file():
        raise UsageError(f"{folder} is no bundle: it holds no {RECORD}", AGAIN)
    _head(folder)
    with _hinted():
        text = read_text(path, "bundle")
        bundle = parse_json(text, Bundle, f"bundle {path}")
    if bundle.seal != seal_of(text):
        raise UsageError(f"bundle {path} was edited: it is not what its seal was put on", AGAIN)
    return bundle


def _head(folder: Path) -> None:
    """Raise `UsageError` unless the folder's record is one of ours, and of a schema we know."""
    path = folder / RECORD
    with _hinted():
        found = parse_json(read_text(path, "bundle"), _Head, f"bundle {path}")
    if found.schema != SCHEMA:
        raise UsageError(
            f"bundle {path} has schema {found.schema} of bobrt {found.bobrt}; this bobrt reads {SCHEMA}",
            "install a newer bobrt",
        )


def _require_same(bundle: Bundle, folder: Path, name: str) -> None:
    path = folder / name
    if not path.is_file():
        raise UsageError(f"{path} of the bundle is missing", AGAIN)
    if (actual := sha256_of(path)) != (wanted := bundle.sha256.get(name, "")):
        raise UsageError(
            f"{path} was cut or edited: sha256 {actual[:12]}..., not {wanted[:12] or 'named'}...", AGAIN
        )


@contextmanager
def _hinted() -> Iterator[None]:
    """Give an error about a file of a bundle its hint."""
    try:
        yield
    except UsageError as error:
        raise UsageError(error.message, error.hint or AGAIN) from None
