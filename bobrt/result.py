"""The record: what one cell became, as strict, versioned JSON.

Within schema 1 keys may be added, never renamed or removed. There is no NaN: what is not
known is null. Fractions are 0 to 1, times are in the unit the key names.
"""

from __future__ import annotations

import msgspec

from bobrt.spec import Batch, Cell, Input, Placement, Precision, Protocol, Record, State, seal_of
from bobrt.speed import (
    ColdStart,
    Curve,
    Drift,
    Energy,
    Evaluation,
    Latency,
    LoadGen,
    Memory,
    Pipeline,
    Server,
    Throughput,
    Timing,
    Watch,
)

SCHEMA = 1


class CellRecord(Record, frozen=True, kw_only=True):
    """The question, and its key."""

    backbone: str
    weights: str
    task: str
    protocol: Protocol
    runtime: str
    precision: Precision
    batch: Batch
    seed: int
    key: str

    @classmethod
    def of(cls, cell: Cell) -> CellRecord:
        """Return a cell as it stands in a record."""
        return cls(**msgspec.structs.asdict(cell), key=cell.key)


class Artifact(Record, frozen=True, kw_only=True):
    """The file that was measured, for accuracy and for speed."""

    kind: str
    """`checkpoint`, `onnx` or `engine`."""
    path: str
    """Relative to the cache folder, or as the user gave it."""
    sha256: str
    bytes: int
    build_s: float
    """Seconds the last stage took; training is not in it unless the checkpoint is the artifact."""
    precision_share: float | None = None
    """Fraction of the multiply-adds that the file holds at the asked precision."""
    realised_share: float | None = None
    """Fraction the runtime really computes at it, read back from the runtime; null where it does not tell."""
    placement: Placement = Placement.NONE
    target: str | None = None
    """Compute capability a TensorRT engine was built for."""


class Accuracy(Record, frozen=True, kw_only=True):
    """How well the artifact answers the task's test split."""

    metric: str
    value: float
    higher_is_better: bool
    n: int
    ci95: tuple[float, float]
    """Wilson score interval (Wilson 1927)."""
    reference: float | None
    """The same checkpoint in fp32 PyTorch, on the same images."""
    drop: float | None
    """`reference - value`, a fraction like both."""
    extra: dict[str, float] = {}


class Parity(Record, frozen=True, kw_only=True):
    """How near the artifact's outputs are to the fp32 PyTorch reference, on validation images."""

    max_abs: float
    mean_abs: float
    agreement: float | None
    """What counts as agreement is the task's to say: top-1 for classification."""
    n: int
    reference_runtime: str


class Answer(Record, frozen=True, kw_only=True):
    """One more question asked of the same artifact, beside its task's test split."""

    question: str
    """Name of the question's card."""
    kind: str
    metric: str
    value: float | None
    """A fraction where the metric is one; null where the question could not be asked."""
    higher_is_better: bool
    n: int
    """Images or queries the headline is over."""
    ci95: tuple[float, float] | None
    reference: float | None
    """The same checkpoint in fp32 PyTorch on the same images; null where it was not asked."""
    drop: float | None
    """How much worse than the reference, whichever direction is better; a fraction like both."""
    extra: dict[str, float] = {}
    reason: str = ""
    """Why it could not be asked."""


class Published(Record, frozen=True, kw_only=True):
    """The published file a checkpoint began from, as its download told."""

    repo: str | None = None
    """The hub's repository, with `file` in it; null for a file at an address."""
    url: str | None = None
    file: str | None = None
    revision: str | None = None
    """The hub's commit."""
    sha256: str | None = None
    bytes: int | None = None


class Searched(Record, frozen=True, kw_only=True):
    """What was tried before this checkpoint was chosen, on validation alone."""

    trials: int
    """As many for every backbone of a plan; of a probe those until no weaker regularisation was better."""
    chosen: dict[str, float]
    """The values of the best trial by name: `lr`, `weight_decay`, `layer_decay`; of a probe `c`."""
    at_edge: list[str] = []
    """Those of them that are the first or last of their list: a better value may lie beyond."""


class System(Record, frozen=True, kw_only=True):
    """Where and with what. `id` hashes hardware and driver only."""

    id: str
    cpu: str
    cores: int
    memory_gb: float
    gpu: str | None
    driver: str | None
    os: str
    python: str
    cuda: str | None
    tensorrt: str | None
    tensorrt_rtx: str | None
    onnxruntime: str | None
    onnx: str | None
    torch: str | None
    timm: str | None
    modelopt: str | None
    numpy: str | None
    bobrt: str
    git_commit: str | None
    git_dirty: bool | None
    simd: list[str] = []
    """Instruction sets of the CPU that decide which kernels run, int8 ones above all."""
    threads: int | None = None
    """Threads the cell's process was given."""
    tools: dict[str, str | None] = {}
    """Versions of the distributions that decide the runtime's speed."""


class Samples(Record, frozen=True, kw_only=True):
    """The raw times, in a file beside the record."""

    file: str
    sha256: str


class Result(Record, frozen=True, kw_only=True):
    """One cell, answered."""

    schema: int = SCHEMA
    state: State
    reason: str
    """Why it is not complete; empty when it is."""
    cell: CellRecord
    artifact: Artifact | None
    accuracy: Accuracy | None
    parity: Parity | None
    latency: list[Latency]
    throughput: list[Throughput]
    memory: Memory | None
    system: System
    caveats: list[str]
    started: str
    """UTC, ISO 8601."""
    seconds: float
    timing: Timing | None = None
    drift: Drift | None = None
    curve: Curve | None = None
    server: Server | None = None
    loadgen: list[LoadGen] = []
    pipeline: Pipeline | None = None
    energy: Energy | None = None
    """Null where the machine has no counter that can be read."""
    cold_start: ColdStart | None = None
    evaluation: Evaluation | None = None
    watch: Watch | None = None
    input: Input | None = None
    """How an image becomes the file's input, and the mean and deviation inside of it."""
    published: Published | None = None
    """Null where the checkpoint began from random weights or a local file, or is not known."""
    search: Searched | None = None
    """Null where nothing was searched, or what the file came from is not known."""
    gauntlet: list[Answer] = []
    """What else the artifact was asked, a question each."""
    notes: list[str] = []
    """What the runtime says of its own timings: a CUDA graph it could not make, kernels it made just then."""
    limit: int | None = None
    """Test images used, when fewer than the split was asked for."""
    samples: Samples | None = None
    log: str | None = None
    """What the cell's process wrote, beside the record; kept when it failed."""
    seal: str = ""
    """sha256 of this record as compact JSON with an empty seal: an edited record is found out."""

    @property
    def one_image(self) -> Latency | None:
        """Latency of one image at a time; None where the file cannot, or was not timed."""
        for row in self.latency:
            if row.batch == 1:
                return row
        return None

    def sealed(self) -> Result:
        """Return this record with its seal."""
        return msgspec.structs.replace(self, seal=seal_of(msgspec.json.encode(self)))


class Report(Record, frozen=True, kw_only=True):
    """What `bobrt report --format json` prints."""

    schema: int = SCHEMA
    results: list[Result]


def to_json(record: Record) -> bytes:
    """Return a record as indented JSON with a final newline."""
    return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"
