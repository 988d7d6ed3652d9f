"""How PyTorch serves a network fastest: its memory format, and what torch.compile is told.

    make bench-torch

Each network is built anew for each way from the same random weights, and the ways take turns in one
process, in short blocks and a shuffled order. Printed: the fastest block of each, since a neighbour
only ever adds to a block, and how many times faster the second way is than the first. On a GPU where
there is one, at every precision of the runtime `torch`, by the wall clock; on a CPU in fp32 with one
thread, by the processor time of that thread, so that others who use the CPU do not count.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from types import FunctionType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import _dynamo as dynamo
from torch import _inductor as inductor
from torch._inductor.utils import fresh_cache

from bobrt import console
from bobrt.catalogue import backbone
from bobrt.paths import CPU, lock
from bobrt.spec import Precision
from engines.runtimes import RUNTIMES, no_gpu_for_torch
from engines.torch_eager import Served, arithmetic
from train import model
from train.seeding import seed_everything

if TYPE_CHECKING:
    from collections.abc import Callable

    Way = Callable[[Served], Callable[[torch.Tensor], object]]

CONVNETS = (
    "resnet50",
    "convnext_tiny",
    "efficientnet_b0",
    "mobilenetv3_large_100",
    "regnety_016",
    "densenet121",
)
TRANSFORMERS = ("vit_small_patch16_224", "vit_base_patch16_224", "deit_tiny_patch16_224")
MIXED = ("swinv2_tiny_window8_256", "mobilevit_s", "maxvit_tiny_tf_224", "mixer_b16_224")
COMPILED = ("resnet50", "efficientnet_b0", "convnext_tiny", "vit_small_patch16_224")
BLOCKS = 15
"""Blocks of each way; of one call at least, and of `BLOCK_S` seconds."""
BLOCK_S = 0.2


def main(which: str) -> None:
    """Print one line per network, precision and batch, and the geometric mean of all."""
    gpu = not no_gpu_for_torch()
    torch.set_num_threads(1)
    formats = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
    precisions = RUNTIMES.get("torch").precisions if gpu else (Precision.FP32,)
    with lock(CPU, lambda: console.note("waiting: another bobrt uses this machine")), fresh_cache():
        for precision in precisions:
            with arithmetic(precision):
                if which in {"formats", "all"}:
                    eager = {word: (layout, lambda net: net) for word, layout in formats.items()}
                    _compare(CONVNETS + TRANSFORMERS + MIXED, (1, 8), precision, eager, gpu=gpu)
                if which in {"compile", "all"}:
                    last = torch.channels_last
                    compiled = {"eager": (last, lambda net: net), "compiled": (last, _compiled(frozen=False))}
                    _compare(COMPILED, (1,), precision, compiled, gpu=gpu)
                    frozen = {"compiled": compiled["compiled"], "frozen": (last, _compiled(frozen=True))}
                    _compare(COMPILED, (1,), precision, frozen, gpu=gpu)


def _compiled(*, frozen: bool) -> Way:
    """Return torch.compile as the runtime has it, with or without its weights taken for constants."""

    def way(net: Served) -> Callable[[torch.Tensor], object]:
        # Two networks of one class share what is compiled for one of them, unless their code is two objects.
        ask = FunctionType(_ask.__code__.replace(co_name=f"ask_frozen_{frozen}"), globals())
        graphs = next(net.parameters()).is_cuda
        call = torch.compile(ask, fullgraph=True, dynamic=False, options={"triton.cudagraphs": graphs})

        def run(images: torch.Tensor) -> object:
            with inductor.config.patch(freezing=frozen):
                return call(net, images)

        return run

    return way


def _ask(net: Served, images: torch.Tensor) -> object:
    return net(images)


def _compare(
    names: tuple[str, ...],
    batches: tuple[int, ...],
    precision: Precision,
    ways: dict[str, tuple[torch.memory_format, Way]],
    *,
    gpu: bool,
) -> None:
    first, second = ways
    ratios = []
    for name in names:
        dynamo.reset()
        calls, size = {}, 0
        for word, (layout, way) in ways.items():
            seed_everything(0)
            net = model.build(backbone(name), classes=10, size=None).eval()
            size = net.backbone.pretrained_cfg["input_size"][-1]
            calls[word] = way(Served(net, precision, layout).to("cuda" if gpu else "cpu"))
        for batch in batches:
            with torch.inference_mode():
                best = _best(calls, batch, size, gpu=gpu)
            ratios.append(best[first] / best[second])
            console.data(
                f"{name} {precision} batch {batch}: {first} {best[first]:.2f} ms, "
                f"{second} {best[second]:.2f} ms, {ratios[-1]:.3f} times as fast"
            )
    console.data(f"{second} over {first}, geometric mean: {statistics.geometric_mean(ratios):.3f}")


def _best(
    calls: dict[str, Callable[[torch.Tensor], object]], batch: int, size: int, *, gpu: bool
) -> dict[str, float]:
    """Return the milliseconds a call takes in the fastest block of each way."""
    pixels = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
    images = torch.from_numpy(pixels).to("cuda" if gpu else "cpu")
    for word in [*calls, *calls]:
        _block_ms(calls[word], images, 0.0)
    order = [word for word in calls for _ in range(BLOCKS)]
    random.Random(0).shuffle(order)  # noqa: S311 - an order, not a secret
    best = dict.fromkeys(calls, float("inf"))
    for word in order:
        best[word] = min(best[word], _block_ms(calls[word], images, BLOCK_S))
    return best


def _block_ms(call: Callable[[torch.Tensor], object], images: torch.Tensor, seconds: float) -> float:
    """Return the milliseconds a call takes, over so many seconds of calls."""
    clock = time.perf_counter if images.is_cuda else time.process_time
    began, calls = clock(), 0
    while not calls or clock() < began + seconds:
        call(images)
        calls += 1
    if images.is_cuda:
        torch.cuda.synchronize()
    return (clock() - began) / calls * 1e3


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "all")
