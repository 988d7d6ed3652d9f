"""The record of what was timed: each scenario, what it cost, and what the machine did meanwhile.

Times are in the unit the key names. What is not known is null, never an estimate.
"""

from __future__ import annotations

from bobrt.spec import Record


class Latency(Record, frozen=True, kw_only=True):
    """One scenario on one clock. A percentile the sample cannot support is null."""

    scenario: str
    batch: int
    clock: str
    p50_ms: float
    p90_ms: float | None
    p99_ms: float | None
    n: int
    ci95_ms: tuple[float, float] | None
    """Outer bounds of the rounds' 95 % intervals of the median; null where a round cannot support one."""
    warmup_s: float
    repeats_ms: list[float] = []
    """Median of each round, in the order of the rounds: each round is a process of its own."""
    spread_ms: tuple[float, float] | None = None
    """Lowest and highest of the rounds' medians, the error bar to go by; null below three rounds.

    Never narrower than the machine's own drift.
    """
    stopped: str | None = None
    """Why the last round's sampling ended: `width` was reached, or `time` ran out first."""


class Throughput(Record, frozen=True, kw_only=True):
    """Images per second, one batch after another."""

    batch: int
    images_per_s: float
    n: int
    """Batches timed."""
    ci95: tuple[float, float] | None
    repeats: list[float] = []
    """Images per second of each round."""


class Memory(Record, frozen=True, kw_only=True):
    """What holding and running the engine takes."""

    engine_bytes: int
    peak_bytes: int | None
    what: str


class Drift(Record, frozen=True, kw_only=True):
    """The time of one fixed network, taken beside every round: how the machine itself moved."""

    what: str
    repeats_ms: list[float]
    """Its fast decile at each round of this row."""
    relative: float | None
    """Distance of the outer two relative to their median; null with one round."""


class Timing(Record, frozen=True, kw_only=True):
    """How long was measured: the plan's own windows."""

    warmup_s: float
    min_s: float
    min_n: int
    throughput_batches: tuple[int, ...]
    max_s: float | None = None
    """Seconds after which a loop ends, whatever it has reached."""
    width: float | None = None
    """Relative width of the median's interval at which a loop may end."""
    scenarios: tuple[str, ...] = ("latency", "throughput")
    threads: int | None = None
    """Threads the plan asked for; null for one per core."""
    scenario_s: float | None = None
    """Seconds of each rate of `server`, of each run of LoadGen, and of `pipeline`."""
    p99_ms: float | None = None
    """The bound of `server`."""


class Evaluation(Record, frozen=True, kw_only=True):
    """How fast the accuracy was asked: images as they are to the last answer, resizing included."""

    batch: int
    images_per_s: float


class Curve(Record, frozen=True, kw_only=True):
    """Why the climb over the batches of `throughput` ended."""

    ended: str
    """`flat`: larger ones were no faster; `memory`: the next did not fit; `limit`: the plan has no larger."""
    batch: int
    """The batch it ended at: the last that was timed, or the one that did not fit."""
    detail: str
    streams: int = 1
    """Batches under way at once."""
    threads: int | None = None
    """Threads that share one batch, on a CPU."""


class Trial(Record, frozen=True, kw_only=True):
    """One rate of arrivals, kept up for a while."""

    rate: float
    """Queries per second on average, arriving as a Poisson process."""
    n: int
    p50_ms: float
    p99_ms: float | None
    """From the time a query was due to its answer, so that queueing is in it; null below 662 queries."""
    met: bool


class Server(Record, frozen=True, kw_only=True):
    """The rate of single images, arriving as a Poisson process, whose p99 stays within a bound."""

    bound_ms: float
    rate: float | None
    """Queries per second sustained; null if even rare ones are too slow."""
    p99_ms: float | None
    """At that rate; with none sustained, at the lowest rate that was tried."""
    capacity: float
    """Queries per second of one after another, without waiting: what the rate can be at most."""
    reason: str
    """How the search ended."""
    trials: list[Trial]


class LoadGen(Record, frozen=True, kw_only=True):
    """One run of MLPerf LoadGen on the same open engine, and its own verdict."""

    scenario: str
    """`SingleStream`, `Offline` or `Server`."""
    mode: str
    """`performance` or `accuracy`."""
    valid: bool | None
    """LoadGen's own verdict, `VALID` or `INVALID`; null in accuracy mode, where it gives none."""
    metrics: dict[str, float]
    """Numbers of its summary, under the summary's own words."""
    accuracy: float | None
    """In accuracy mode: the task's metric over the answers LoadGen logged."""
    settings: dict[str, float | int | str]
    """What it was asked for, under LoadGen's names, and the `batch` its queries were answered in.

    Shorter than MLPerf's rules: no submission.
    """
    reason: str
    """Why it is not valid, in its own words: what is not satisfied, then its advice; empty when it is."""
    logs: str
    """Folder of its logs, from the record's own folder."""
    version: str


class Pipeline(Record, frozen=True, kw_only=True):
    """The whole road: image files -> decode -> resize -> engine -> decoded answer.

    Every file is opened and read anew each time, but from the system's page cache.
    """

    files: str
    """What the files are: format and typical size in pixels."""
    batch: int
    workers: int
    """Threads that decode and resize ahead of the engine."""
    n: int
    """Images that went all the way while time was taken."""
    images_per_s: float
    """All the way, stages overlapping."""
    expected_images_per_s: float
    """What the stages alone let hope for: the slower of `1 / (engine + answer)` and of the sum of all four
    shared by `workers + 1` threads, as a waiting engine's thread prepares too. A road well below it has
    stages that take the cores, or Python's lock, from each other."""
    engine_images_per_s: float
    """The engine alone on the same batches, timed in the same run."""
    stage_ms: dict[str, float]
    """Milliseconds per image of each stage on its own, one after another: decode, resize, engine, answer."""
    waited: float
    """Share of the road's time that the engine waited for a batch, as it was seen."""
    bound: str
    """The stage that limits the road: the longer of `decode` and `resize` where the engine waited for more
    than 0.05 of the time, else the longer of `engine` and `answer`."""


class Energy(Record, frozen=True, kw_only=True):
    """Energy by the machine's own counter, while the best batch was answered again and again."""

    joules_per_image: float
    what: str
    """Which counter, and what it covers."""
    images: int
    """Images answered while the counter was watched."""
    seconds: float
    """For how long: too short for the counter, and there is no record."""


class ColdStart(Record, frozen=True, kw_only=True):
    """From a closed file to the first answer, in a process that has loaded the runtime's library."""

    open_ms: list[float]
    """Opening the engine, in each round."""
    first_ms: list[float]
    """The first answer after that, in each round."""


class Watch(Record, frozen=True, kw_only=True):
    """What the machine did while a row was timed: lowest and highest of all rounds; null where unreadable."""

    cpu_mhz: tuple[float, float] | None = None
    """Of the fastest core the process may use, on a CPU run; null in most virtual machines."""
    load: tuple[float, float] | None = None
    """Processes ready to run, the machine's one-minute average."""
    others_cores: float | None = None
    """Cores kept busy by other processes, the worst round."""
    stolen_cores: float | None = None
    """Cores the hypervisor took away, the worst round."""
    held_back_s: float | None = None
    """Seconds CPU quotas held this process's cgroup back, its cores and its parents added up, all rounds."""
    gpu_mhz: tuple[float, float] | None = None
    gpu_memory_mhz: tuple[float, float] | None = None
    gpu_watts: tuple[float, float] | None = None
    gpu_celsius: tuple[float, float] | None = None
    gpu_slowed_by: list[str] = []
    """NVML's reasons for lower clocks that were seen, in NVML's words, settings too; not that it was idle."""
    gpu_others: list[int] = []
    """Process ids of others that computed on the GPU, in the driver's numbering.

    With others in a container, where the own one may not be told from them, it is among them.
    """
