"""Joules per image: by a counter that moved, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench import energy
from bench.energy import LEAST_S, Meter, counter, measure
from bench.nvml import State

if TYPE_CHECKING:
    from pathlib import Path

RANGE = 262_143_328_850


class Clock:
    """Time that passes only where a test lets it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(energy.time, "perf_counter", lambda: self.now)


class FakeGpu:
    """A card whose energy counter stands where the test puts it."""

    uuid = "GPU-1"

    def __init__(self, millijoules: int | None) -> None:
        self.millijoules = millijoules

    def state(self) -> State:
        return State()

    def pids(self) -> list[int] | None:
        return None

    def used_bytes(self) -> int | None:
        return None

    def energy_mj(self) -> int | None:
        return self.millijoules


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Stop the time."""
    return Clock(monkeypatch)


def zone(powercap: Path, name: str, what: str, microjoules: int | str = 0) -> Path:
    """Write one RAPL zone, or move its counter."""
    folder = powercap / name
    folder.mkdir(exist_ok=True)
    (folder / "name").write_text(f"{what}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text(f"{RANGE}\n")
    return folder


def test_packages_are_added_and_their_parts_are_not_counted_twice(tmp_path: Path) -> None:
    """Cores are in their package, and psys is the whole board."""
    for name, what in (("0", "package-0"), ("1", "package-1"), ("0:0", "core"), ("2", "psys")):
        zone(tmp_path, f"intel-rapl:{name}", what, 5_000_000)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 5_000_000)
    rapl = counter(None, tmp_path)
    assert rapl is not None
    with Meter(rapl) as meter:
        for name in ("0", "1", "0:0", "2"):
            (tmp_path / f"intel-rapl:{name}/energy_uj").write_text("8000000\n")
    assert meter.joules == pytest.approx(6.0)
    assert "RAPL" in rapl.what


def test_a_counter_that_starts_anew_is_counted_on(tmp_path: Path) -> None:
    """RAPL's counter runs full after some minutes; each package by itself."""
    first = zone(tmp_path, "intel-rapl:0", "package-0", RANGE - 1_000_000)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 10_000_000)
    rapl = counter(None, tmp_path)
    with Meter(rapl) as meter:
        (first / "energy_uj").write_text("2000000\n")
        (second / "energy_uj").write_text("14000000\n")
    assert meter.joules == pytest.approx(3.0 + 4.0)
    with Meter(rapl) as again:
        (first / "energy_uj").write_text("2500000\n")
    assert again.joules == pytest.approx(0.5)


def test_without_a_readable_counter_there_is_none(tmp_path: Path) -> None:
    """No RAPL, RAPL for root alone, one package of two, and a card that has no counter."""
    assert counter(None, tmp_path / "none") is None
    zone(tmp_path, "intel-rapl:0", "package-0", 5)
    (zone(tmp_path, "intel-rapl:1", "package-1") / "energy_uj").unlink()
    assert counter(None, tmp_path) is None
    zone(tmp_path, "intel-rapl:1", "package-1", 5)
    assert counter(None, tmp_path) is not None
    assert counter(FakeGpu(None), tmp_path) is None, "a GPU's energy is not that of the CPU beside it"


def test_energy_per_image_is_the_counters_difference_over_the_images(clock: Clock) -> None:
    """Millijoules of the card become joules per image, with the counter's name and the time."""
    gpu = FakeGpu(7_000)
    with Meter(counter(gpu)) as meter:
        gpu.millijoules = 607_000
        clock.now += 2.0
    record = meter.per_image(1200)
    assert record is not None
    assert (record.joules_per_image, record.images, record.seconds) == (pytest.approx(0.5), 1200, 2.0)
    assert "NVML" in record.what


@pytest.mark.parametrize(
    ("after", "seconds"),
    [(7_000, 5.0), (None, 5.0), (6_000, 5.0), (9_000, 0.9 * LEAST_S)],
    ids=["stood still", "lost", "driver loaded anew", "too short"],
)
def test_a_counter_that_cannot_tell_gives_no_number(clock: Clock, after: int | None, seconds: float) -> None:
    """Zero joules, less than none and a fraction of the counter's step are no measurements."""
    gpu = FakeGpu(7_000)
    with Meter(counter(gpu)) as meter:
        gpu.millijoules = after
        clock.now += seconds
    assert meter.per_image(10) is None


def test_measure_answers_batches_in_turn_and_counts_all_their_images(clock: Clock) -> None:
    """At least the least time, by every feed, images counted by the batch."""
    gpu, asked = FakeGpu(0), []

    def infer(feed: str) -> None:
        asked.append(feed)
        clock.now += 0.3
        gpu.millijoules = (gpu.millijoules or 0) + 80

    record = measure(counter(gpu), infer, ["a", "b"], batch=8, seconds=0.1)
    assert asked == ["a", "b", "a", "b"]
    assert record is not None
    assert (record.images, record.seconds) == (32, 1.2)
    assert record.joules_per_image == pytest.approx(0.01)


def test_measure_costs_nothing_without_a_counter() -> None:
    """No counter, no number, and no second spent on it."""
    asked: list[str] = []
    assert measure(None, asked.append, ["a"], batch=8, seconds=5.0) is None
    assert asked == []
