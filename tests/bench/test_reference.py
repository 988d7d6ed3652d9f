"""The reference network: what it is timed on, and what its drift says."""

from __future__ import annotations

import pytest

from bench import reference
from engines.runtimes import no_gpu


@pytest.mark.parametrize("gpu", [False, True])
def test_the_level_says_which_device_it_is_of(gpu: bool) -> None:
    """Without a GPU the CPU stands for the machine, and the record says so."""
    level = reference.level(1, gpu=gpu)
    device = level.what.rpartition(" ")[2]
    assert device in ({"GPU", "CPU"} if gpu else {"CPU"})
    assert 0.01 < level.ms < 1000


@pytest.mark.gpu
@pytest.mark.skipif(bool(no_gpu()), reason=no_gpu() or "a GPU is here")
def test_on_a_gpu_the_level_is_the_gpus() -> None:
    assert reference.level(1, gpu=True).what.endswith("GPU")


def test_drift_is_how_far_the_rounds_lie_apart() -> None:
    assert reference.drift_of("x", [1.0]).relative is None
    assert reference.drift_of("x", [1.0, 1.2, 1.0]).relative == pytest.approx(0.2)
