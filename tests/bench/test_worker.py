"""The process that makes files and measures: whose turn it is on the GPU."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import pytest

from bench import worker
from bench.orders import Order
from bobrt.artifacts import Target, Workshop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Gpu(NamedTuple):
    """A GPU that is there."""

    uuid: str = "GPU-aaaa"


@pytest.mark.parametrize(("gpu", "held"), [(Gpu(), ["gpu-GPU-aaaa"]), (None, [])])
def test_nobody_times_on_a_gpu_while_files_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: Gpu | None, held: list[str]
) -> None:
    """A builder tries its kernels there, and networks are trained; where there is none, nothing is locked."""
    holding: list[str] = []
    seen: list[list[str]] = []

    @contextmanager
    def lock(name: str, _: object) -> Iterator[None]:
        holding.append(name)
        yield
        holding.remove(name)

    monkeypatch.setattr(worker, "open_gpu", lambda: gpu)
    monkeypatch.setattr(worker, "lock", lock)
    monkeypatch.setattr(Workshop, "make", lambda *_: seen.append([*holding]))
    targets = [Target(stage=stage, options={}) for stage in ("checkpoint", "engine-tensorrt")]

    worker._work(Order(cache=str(tmp_path), targets=targets), lambda **_: None)

    assert seen == [held, held]
    assert holding == []
