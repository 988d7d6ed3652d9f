"""The vocabulary: what can be asked for, and the frozen records that say it.

A `Cell` is one question - backbone x weights x task x protocol x runtime x precision x
batch x seed - and its `key` hashes the question alone, never a tool's version, so that
results of different days and machines can be joined on it.
"""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from itertools import product
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Json = Any
"""A value JSON can hold; a recursive alias is more than msgspec decodes."""

LARGEST_BATCH = 2**31 - 1
"""What every library can count along an axis; of images, more than any memory holds."""
Batch = int | Literal["dynamic"]
"""The engine's own batch axis: free, or fixed to N images."""


class Precision(StrEnum):
    """A property of the ONNX file (casts or Q/DQ nodes), never a builder flag.

    `tf32` alone is the fp32 file with TF32 math allowed; `fp32` means TF32 is off.
    """

    FP32 = "fp32"
    TF32 = "tf32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    FP8 = "fp8"

    @property
    def place(self) -> int:
        """Place among the precisions, the lower ones last."""
        return _PLACES[self]


_PLACES = {precision: place for place, precision in enumerate(Precision)}


class Placement(StrEnum):
    """Whose rules placed the Q/DQ nodes of an int8 file."""

    NONE = "none"
    ORT = "onnxruntime"
    TENSORRT = "tensorrt"


class Protocol(StrEnum):
    """How a backbone is adapted to a task."""

    FINETUNE = "finetune"
    PROBE = "probe"
    """Frozen, with a linear classifier on its features."""
    KNN = "knn"
    """Frozen, and asked for the nearest training images."""
    LOWSHOT = "lowshot"
    """Fine-tuned on a few training images of each class."""
    PUBLISHED = "published"
    """Not adapted: the backbone with its own classifier, or with none."""


class Scenario(StrEnum):
    """How an engine is asked for its speed."""

    LATENCY = "latency"
    """One image after another: a closed loop."""
    THROUGHPUT = "throughput"
    """One batch after another, larger and larger ones."""
    SERVER = "server"
    """Images that arrive when they arrive: an open loop, at the rate a p99 bound lets pass."""
    LOADGEN = "loadgen"
    """MLPerf's own LoadGen: SingleStream, Offline and Server."""
    PIPELINE = "pipeline"
    """From image files to decoded answers."""


class State(StrEnum):
    """How a cell ended. It is never silently missing."""

    COMPLETE = "complete"
    FAILED = "failed"
    SKIPPED = "skipped"
    UNSUPPORTED = "unsupported"


class Frozen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of every record: immutable, and strict when decoded."""


class Record(msgspec.Struct, frozen=True):
    """Base of what is read back: a later bobrt may have added keys, so unknown ones are let pass."""


class WeightsFile(Frozen, frozen=True, kw_only=True):
    """Published weights that timm does not carry: where they are, and how they are laid out."""

    layout: str
    """Which reader of `train.layouts` knows the publisher's keys."""
    url: str | None = None
    """The file's address, or null for a file on the hub."""
    repo: str | None = None
    """The hub's repository, with `file` in it."""
    file: str | None = None
    revision: str | None = None
    """The hub's commit; null until a real download has told it."""
    sha256: str | None = None
    """Digest of the file; null where the publisher states none."""


class Input(Frozen, frozen=True, kw_only=True):
    """The images a checkpoint was trained on: the checkpoint's own, never one for all."""

    size: int
    """Side in pixels."""
    crop_pct: float
    interpolation: Literal["bilinear", "bicubic"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Backbone(Frozen, frozen=True, kw_only=True):
    """One entry of the catalogue: a name, and the exact timm model it stands for."""

    name: str
    timm: str
    """timm's model id with its weights tag; without a tag, the architecture of weights timm does not have."""
    revision: str | None = None
    """Commit of timm's repository on the hub; null until a real download has told it, and then its newest."""
    family: str
    params_m: float | None = None
    """Parameters without the classifier, in millions; null where timm alone knows."""
    pretraining: str | None = None
    """Method of the published weights."""
    data: str | None = None
    """What they were trained on, in order."""
    data_m: float | None = None
    """Images in that, in millions; null where nobody says."""
    licence: str | None = None
    """Licence of the published weights."""
    input: Input | None = None
    """What the published weights expect; null where timm alone knows."""
    weights: WeightsFile | None = None
    """Where the published weights are, if not where timm looks."""
    args: dict[str, Json] = {}
    """Extra arguments of `timm.create_model`."""
    note: str = ""


class Transform(Frozen, frozen=True, kw_only=True):
    """How an image becomes the engine's input: the same code in training's eval and in bench.

    The shorter side goes to `size / crop_pct` pixels, then the centre `size x size` is cut.
    """

    size: int
    crop_pct: float = 1.0
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"


class Kind(StrEnum):
    """What is asked. The first three are tasks a cell can be about, the others questions asked besides."""

    CLASSIFICATION = "classification"
    """Which one of the classes."""
    MULTILABEL = "multilabel"
    """Which of the labels, each for itself."""
    RETRIEVAL = "retrieval"
    """Which images of a database show the same, by the features alone."""
    SHIFT = "shift"
    """The classes of another task, in images from elsewhere."""
    CORRUPTION = "corruption"
    """The test images of another task, spoilt."""
    OUTLIERS = "outliers"
    """Which images are of none of another task's classes."""
    ATTACK = "attack"
    """The test images of another task, changed to mislead the checkpoint."""
    RELIABILITY = "reliability"
    """How far the probabilities of another task's answers can be believed."""


class TaskCard(Frozen, frozen=True, kw_only=True):
    """What is asked of a backbone: data, splits, metric. Data, not code."""

    name: str
    kind: Kind
    data: str
    """Name of the data source or format in `bobrt.data`."""
    data_sha256: str | None = None
    """Digest of every split's images and targets, null until they were read: others are another task."""
    labels: list[str] = []
    """In the order of the logits; empty where the data itself names them."""
    classes: int | None = None
    """How many labels there are, where the data names them."""
    splits: dict[str, int] = {}
    """Number of images in each split, as published."""
    metric: str
    higher_is_better: bool = True
    random_score: float
    """What guessing scores, as a fraction."""
    transform: Transform | None = None
    """Fixed preprocessing for every backbone, or null for each checkpoint's own."""
    calibration_images: int = 512
    """How many training images calibrate low precision."""
    licence: str
    source: str
    of: str = ""
    """The task whose engines are asked; empty for a task of its own."""
    hub: str = ""
    """The data set's repository on the hub, where it is read from there."""
    revision: str | None = None
    """The hub's commit; null until a real download has told it."""
    fetch: str = ""
    """A line that fetches the data."""
    checksums: dict[str, str] = {}
    """Digest of each published archive, `md5:...` or `sha256:...`, as its publisher states it."""
    options: dict[str, Json] = {}
    """What a kind or a format can be told besides."""


class Recipe(Frozen, frozen=True, kw_only=True):
    """How a backbone is fine-tuned. One recipe serves every backbone of a plan."""

    epochs: Annotated[int, Meta(ge=1)]
    lr: Annotated[float, Meta(gt=0)]
    batch: Annotated[int, Meta(ge=1)]
    """Images of one step of the optimizer, on whatever device."""
    micro_batch: Annotated[int, Meta(ge=1)] | None = None
    """Images the device takes at once, their gradients added up to the batch's; null for all of it. A batch
    norm sees so many."""
    fill: bool = False
    """Whether fewer training images than a batch are taken again until they fill one."""
    optimizer: str = "adamw"
    weight_decay: float = 0.05
    layer_decay: float | None = None
    schedule: str = "cosine"
    warmup_epochs: int = 0
    warmup_lr: Annotated[float, Meta(ge=0)] = 1e-5
    """Where the warm-up starts."""
    min_lr: float = 1e-6
    head_init: Literal["torch", "xavier-normal"] = "torch"
    """How the new head begins: as PyTorch's Linear does, or xavier-normal with a bias of zero."""
    drop_path: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    """Rate of stochastic depth at the last block, as timm's models take it."""
    label_smoothing: float = 0.0
    crop_scale: tuple[float, float] = (0.75, 1.0)
    """Area range of the random resized crop, as a fraction of the image."""
    crop_ratio: tuple[float, float] = (0.9, 1.1)
    hflip: float = 0.0
    interpolation: Literal["bilinear", "bicubic", "random"] | None = None
    """Filter of that crop; `random` for either, null for the task's own."""
    color_jitter: Annotated[float, Meta(ge=0)] = 0.0
    """Range of brightness, contrast and saturation; timm leaves it out beside most auto-augment policies."""
    auto_augment: str | None = None
    """A policy string of timm's auto-augment factory."""
    random_erasing: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """Share of the images in which a rectangle becomes noise."""
    mixup: Annotated[float, Meta(ge=0)] = 0.0
    """Alpha of the beta distribution that the weight of the other image is drawn from; 0 for no mixup."""
    cutmix: Annotated[float, Meta(ge=0)] = 0.0
    """The same for the area cut out of the other image."""
    mixup_switch_prob: Annotated[float, Meta(ge=0, le=1)] = 0.5
    """How often cutmix is taken where there are both."""
    mixup_batch: Annotated[int, Meta(ge=2)] | None = None
    """Images that share one weight and are mixed among themselves; null for the whole batch."""


class Search(Frozen, frozen=True, kw_only=True):
    """Values a recipe is tried with, each with each of the others: the same trials for every backbone.

    The trial with the best validation score is kept, of equal ones the first; the test is not looked at.
    """

    lr: tuple[Annotated[float, Meta(gt=0)], ...] = ()
    weight_decay: tuple[Annotated[float, Meta(ge=0)], ...] = ()
    layer_decay: tuple[Annotated[float, Meta(gt=0, le=1)], ...] = ()
    """Factor of the learning rate from each of timm's layers to the one before it; 1 for none."""

    def trials(self) -> list[dict[str, float]]:
        """Return the values of each trial by their name in the recipe."""
        values = {name: getattr(self, name) for name in self.__struct_fields__ if getattr(self, name)}
        return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]

    def at_edge(self, chosen: dict[str, float]) -> list[str]:
        """Return which chosen values have none beyond them: a wider search might have found a better one."""
        return [name for name, value in chosen.items() if value in _ends(getattr(self, name))]


def _ends(values: tuple[float, ...]) -> tuple[float, ...]:
    return (min(values), max(values)) if len(set(values)) > 1 else ()


class FileCard(Frozen, frozen=True, kw_only=True):
    """What a model file says of itself, whoever carries it where.

    Written into the checkpoint's header and the ONNX file's `metadata_props` under the key
    `bobrt`, so that a file can be benched with nothing else beside it.
    """

    bobrt: str
    """Version that made the file."""
    backbone: Backbone
    weights: str
    task: str
    """Empty for a backbone as it is published."""
    protocol: Protocol
    seed: int
    labels: list[str]
    transform: Transform
    checkpoint_sha256: str | None = None
    precision: Precision = Precision.FP32
    placement: Placement = Placement.NONE
    batch: Batch = "dynamic"
    islands: list[str] = []
    """Nodes left in fp32 in a 16-bit file: their values on calibration images are beyond fp16, or TensorRT
    has no such operator in bf16. In eight bits for TensorRT those beyond fp16: all beside Q/DQ is fp32."""
    kept: list[str] = []
    """Blocks left out of int8 or fp8 so that the drop on validation stays within its goal."""


class EngineSpec(Frozen, frozen=True, kw_only=True):
    """What a TensorRT builder is asked for."""

    runtime: str
    precision: Precision
    batch: Batch
    compute_capability: str
    """`"8.6"`, or `"current"` for the GPU at hand."""
    device: str = ""
    """`system.id` of the machine an engine for `current` is built on and for."""
    cuda: str | None = None
    """CUDA's version there."""
    profiles: tuple[tuple[int, int, int], ...] = ((1, 8, 256),)
    """Of a free batch axis: smallest, best and largest batch of each optimization profile."""
    level: int = 3
    """How long the builder looks for better kernels, 0 to 5."""


class Cell(Frozen, frozen=True, kw_only=True):
    """One question of the benchmark."""

    backbone: str
    weights: str
    """`random`, `pretrained`, or `file:<sha256>` of a local checkpoint."""
    task: str
    protocol: Protocol
    runtime: str
    precision: Precision
    batch: Batch
    seed: int

    @property
    def key(self) -> str:
        """Sixteen hex digits that name this question on every machine and day."""
        return digest(msgspec.to_builtins(self))

    def __str__(self) -> str:
        """Return the words that tell this cell from its neighbours in a plan."""
        parts = [self.backbone, self.runtime, str(self.precision)]
        if self.task:
            parts.insert(1, self.task)
        if self.batch != "dynamic":
            parts.append(f"batch {self.batch}")
        if self.seed:
            parts.append(f"seed {self.seed}")
        return " ".join(parts)


def digest(value: Json) -> str:
    """Return the first 16 hex digits of the sha256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def seal_of(record: bytes | str) -> str:
    """Return the sha256, in hex, of a record's JSON with an empty `seal`.

    Taken from what is written, so that keys another version added are under the seal too.
    """
    content = msgspec.json.decode(record, type=dict[str, Json])
    return hashlib.sha256(msgspec.json.encode({**content, "seal": ""})).hexdigest()


def sealed(record: bytes) -> bytes | None:
    """Return a record as compact JSON if it ends with the seal put on it, as what bobrt wrote does.

    Its bytes are hashed but for white space, nothing is decoded. None says that `seal_of` is to be asked:
    another tool may have written it anew.

    Raises:
        msgspec.DecodeError: It is no JSON.

    """
    compact = msgspec.json.format(record, indent=-1)
    plain, _, seal = compact.rpartition(b'"seal":"')
    found = hashlib.sha256(plain + b'"seal":""}').hexdigest()
    return compact if seal == f'{found}"}}'.encode() else None
