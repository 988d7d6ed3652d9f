"""What TensorRT measured is kept and merged, and never in the way of a build."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import msgspec
import pytest
import tensorrt_rtx as trt

from bobrt.paths import lock
from engines.trt_identity import Place
from engines.trt_timing import TimingCache

if TYPE_CHECKING:
    from pathlib import Path

PLACE = Place(
    library="tensorrt 11.4.0.106", compute_capability="9.0", gpu="NVIDIA H100", driver="580.1", cuda="13.2"
)


class Cache:
    """A timing cache of a library that times: TensorRT for RTX has the calls, and measures nothing."""

    def __init__(self, content: bytes) -> None:
        self.kernels = {*content.decode().split()}
        self.foreign = content.startswith(b"foreign")

    def combine(self, other: Cache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if self.foreign:
            return False
        self.kernels |= other.kernels
        return True

    def serialize(self) -> bytes:
        return " ".join(sorted(self.kernels)).encode()


class Config:
    """A builder's configuration with such a cache."""

    def __init__(self) -> None:
        self.given: list[set[str]] = []

    def create_timing_cache(self, serialized_timing_cache: bytes) -> Cache | None:
        return None if serialized_timing_cache.startswith(b"junk") else Cache(serialized_timing_cache)

    def set_timing_cache(self, cache: Cache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if cache.foreign:
            return False
        self._cache = cache
        self.given.append({*cache.kernels})
        return True

    def get_timing_cache(self) -> Cache:
        return self._cache

    def measure(self, *kernels: str) -> None:
        self._cache.kernels |= {*kernels}


def test_a_build_knows_what_the_ones_before_it_measured(tmp_path: Path) -> None:
    """Two that run at once lose nothing of each other's."""
    log: list[str] = []
    caches = [TimingCache.of(tmp_path, PLACE, log) for _ in range(3)]
    first, second, third = Config(), Config(), Config()

    caches[0].give(first)
    caches[1].give(second)
    first.measure("conv")
    second.measure("gemm")
    caches[0].keep(first)
    caches[1].keep(second)
    caches[2].give(third)

    assert third.given == [{"conv", "gemm"}]
    assert log == []


@pytest.mark.parametrize(
    "changes",
    [{"library": "tensorrt 10.16.1.11"}, {"gpu": "NVIDIA L4"}, {"driver": "590.2"}, {"cuda": "12.8"}],
)
def test_another_library_or_gpu_has_a_file_of_its_own(tmp_path: Path, changes: dict[str, str]) -> None:
    """One never sees what was measured on the other."""
    config, other = Config(), Config()
    here = TimingCache.of(tmp_path, PLACE, [])
    here.give(config)
    config.measure("conv")
    here.keep(config)

    TimingCache.of(tmp_path, msgspec.structs.replace(PLACE, **changes), []).give(other)

    assert other.given == [set()]


def test_a_build_waits_for_the_one_that_keeps_its_times(tmp_path: Path) -> None:
    """Else it would read the file before the other had written, and its own would be lost or the other's."""
    path = tmp_path / "times.bin"
    config, log = Config(), []
    cache = TimingCache(path, log)
    cache.give(config)
    config.measure("gemm")
    keeping = threading.Thread(target=cache.keep, args=[config])

    with lock(str(path)):
        keeping.start()
        keeping.join(0.2)
        waited = keeping.is_alive()
        path.write_bytes(b"conv")
    keeping.join(30)

    assert waited
    assert path.read_bytes() == b"conv gemm"
    assert log == []


@pytest.mark.parametrize("content", [b"foreign conv", b"junk"], ids=["another GPU's", "damaged"])
def test_one_that_the_library_refuses_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    """Said in the build's log; the build goes on, and the next one knows what it measured."""
    path = tmp_path / "times.bin"
    path.write_bytes(content)
    first, second = Config(), Config()
    log: list[str] = []
    cache = TimingCache(path, log)

    cache.give(first)
    first.measure("gemm")
    cache.keep(first)
    cache.give(second)

    assert first.given == [set()]
    assert path.read_bytes() == b"gemm"
    assert second.given == [{"gemm"}]
    assert [line.partition(f"{path} is ")[2].split()[0] for line in log] == ["refused;", "replaced"]


def test_whatever_goes_wrong_is_a_line_in_the_log(tmp_path: Path) -> None:
    """A file that is a folder, and a library that cannot read it."""

    class Broken(Config):
        def create_timing_cache(self, serialized_timing_cache: bytes) -> Cache:
            raise RuntimeError(f"cannot\nread {len(serialized_timing_cache)} bytes")

    log: list[str] = []
    blocked = TimingCache(tmp_path / "timing", log)
    (tmp_path / "timing").mkdir()
    config = Config()
    config.set_timing_cache(Cache(b"conv"), ignore_mismatch=False)

    blocked.keep(config)
    blocked.give(Broken())
    blocked.keep(Broken())

    assert len(log) == 3
    assert all(line.startswith("WARNING: the timing cache ") and "\n" not in line for line in log)


def test_a_real_library_that_keeps_no_times_is_a_line_in_the_log(tmp_path: Path) -> None:
    """TensorRT for RTX has the calls and refuses them: its configuration is as good as before."""
    log: list[str] = []
    config = trt.Builder(trt.Logger(trt.Logger.INTERNAL_ERROR)).create_builder_config()
    cache = TimingCache.of(tmp_path, PLACE, log)

    cache.give(config)
    cache.keep(config)

    assert [line.partition(" could not be ")[2].partition(":")[0] for line in log] == ["read", "written"]
    config.set_flag(trt.BuilderFlag.TF32)
    assert config.get_flag(trt.BuilderFlag.TF32)
