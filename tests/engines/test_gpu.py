"""On a GPU: what every runtime that runs there answers, what its clock says, and what it leaves behind."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from support import TINY

from bench import plan as plans
from bench.nvml import open_gpu
from bobrt import data
from bobrt.catalogue import TASKS
from bobrt.data.resize import resize
from bobrt.errors import UnsupportedError
from bobrt.spec import Cell, Precision, Protocol
from engines import parity
from engines.runner import DeviceClock, ReadBack, answers
from engines.runtimes import RUNTIMES, beyond, cannot_build, cannot_run, no_gpu, open_runner
from engines.stages import artifact_target, checkpoint_target, workshop

if TYPE_CHECKING:
    from collections.abc import Callable

    from support import Ran, Workspace

    from bobrt.artifacts import Artifact
    from engines.runner import Runner

    Open = Callable[..., Runner]

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(no_gpu()), reason=no_gpu() or "a GPU is here")]

ON_GPU = [name for name, runtime in RUNTIMES.all().items() if runtime.needs_gpu or runtime.likes_gpu]
NEAR = {Precision.TF32: 2e-2, Precision.FP16: 2e-2, Precision.BF16: 1e-1}
"""Largest difference from fp32 PyTorch, as a fraction of the largest answer."""
CYCLES = {"torch-compile": 3}
"""Fifty for the others: a compilation takes half a minute."""
MIB = 2**20


@pytest.fixture(scope="module")
def opened(tiny_run: tuple[Workspace, Ran], tmp_path_factory: pytest.TempPathFactory) -> Open:
    """Return a runner for the tiny plan's checkpoint at a precision; its file is made if need be."""
    cache = tmp_path_factory.mktemp("gpu") / "cache"
    shutil.copytree(tiny_run[0].cache, cache)
    recipe, shop = plans.load(str(TINY)).finetune, workshop(cache)

    def make(name: str, precision: Precision = Precision.FP32) -> Runner:
        runtime = RUNTIMES.get(name)
        if reason := cannot_run(runtime) or cannot_build(runtime) or beyond(runtime, precision):
            pytest.skip(reason)
        cell = Cell(
            backbone="test_resnet",
            weights="random",
            task="digits",
            protocol=Protocol.FINETUNE,
            runtime=name,
            precision=precision,
            batch="dynamic",
            seed=0,
        )
        try:
            file = shop.make(artifact_target(cell, checkpoint_target(cell, recipe, None), 100.0))
        except UnsupportedError as error:
            pytest.skip(error.message)
        return open_runner(runtime, file.path, 1, precision)

    return make


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """The validation split at its engine's size."""
    card = TASKS.get("digits")
    assert card.transform is not None
    return resize(data.load(card, "validation").images, card.transform)


@pytest.mark.parametrize("precision", [Precision.FP32, *NEAR])
@pytest.mark.parametrize("name", ON_GPU)
def test_it_answers_as_fp32_pytorch_does(
    opened: Open, made: Callable[..., Artifact], images: np.ndarray, name: str, precision: Precision
) -> None:
    """On 269 real images: fp32 to a ten-thousandth, so without TF32, and lower precisions nearly."""
    with np.load(made("reference").path) as kept:
        want = {output: kept[f"validation.{output}"] for output in ("features", "logits")}

    with opened(name, precision) as runner:
        got = answers(runner, images, 64)
        told = runner.realised() if isinstance(runner, ReadBack) else None

    if told is not None:
        assert told.get("fp32" if precision is Precision.TF32 else str(precision), 0.0) > 0.9
    if precision is Precision.FP32:
        parity.require_fp32(got, want, name)
        return
    for output, value in want.items():
        gap = parity.difference(got[output], value)
        assert gap.max_abs < NEAR[precision] * gap.largest
    assert (got["logits"].argmax(axis=1) == want["logits"].argmax(axis=1)).mean() > 0.95


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.FP8])
@pytest.mark.parametrize("name", [n for n in ON_GPU if Precision.INT8 in RUNTIMES.get(n).precisions])
def test_eight_bits_are_computed_in_eight_bits(
    opened: Open, made: Callable[..., Artifact], images: np.ndarray, name: str, precision: Precision
) -> None:
    """At least half of the multiply-adds, by the engine's inspector, and nearly every image's class."""
    with np.load(made("reference").path) as kept:
        want = kept["validation.logits"].argmax(axis=1)

    with opened(name, precision) as runner:
        got = answers(runner, images, 64)["logits"].argmax(axis=1)
        told = runner.realised() if isinstance(runner, ReadBack) else None

    assert told is None or told.get(str(precision), 0.0) >= 0.5
    assert (got == want).mean() > 0.9


@pytest.mark.parametrize("batch", [1, 64])
@pytest.mark.parametrize("name", ON_GPU)
def test_the_device_s_clock_is_within_the_wall_s(
    opened: Open, images: np.ndarray, name: str, batch: int
) -> None:
    """Computing takes some time, and less than computing with copies and everything around."""
    with opened(name) as runner:
        if not isinstance(runner, DeviceClock):
            pytest.skip(f"{name} has no clock of its own here: no pycuda")
        feeds = {"images": images[:batch]}
        for _ in range(10):
            runner.infer(feeds)
        for _ in range(50):
            began = time.perf_counter_ns()
            runner.infer(feeds)
            wall = time.perf_counter_ns() - began
            assert 0 < runner.device_ns() < wall


@pytest.mark.parametrize("name", ON_GPU)
def test_memory_is_back_where_it_was_after_fifty_times(opened: Open, images: np.ndarray, name: str) -> None:
    """By NVML; counted from after the first time, since CUDA's own context stays with the process."""
    gpu = open_gpu()
    assert gpu is not None

    def once() -> int:
        with opened(name) as runner:
            runner.infer({"images": images[:8]})
        used = gpu.used_bytes()
        assert used is not None
        return used

    start = once()
    used = [once() for _ in range(CYCLES.get(name, 50))]

    assert abs(used[-1] - start) <= 8 * MIB
