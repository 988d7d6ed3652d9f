"""Where a training runs: its device, its arithmetic, and who decodes the images meanwhile."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import torch

from bobrt.errors import UsageError
from bobrt.system import cores

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


class World(NamedTuple):
    """Which of how many processes this is: what `torchrun` says in the environment."""

    rank: int
    size: int
    local_rank: int
    """Among the processes of this machine; the number of its GPU."""


class Place(NamedTuple):
    """Where and how a training computes. None of it belongs to the recipe."""

    device: torch.device
    bf16: bool
    """Forward in bfloat16 by autocast; parameters, optimizer and loss stay in float32."""
    workers: int
    """Processes that decode and augment; 0 if the training does it itself."""


def world() -> World:
    """Return rank and world size from the environment; alone where it says nothing.

    Raises:
        UsageError: They are no numbers, or do not fit each other.

    """
    words = {name: os.environ.get(name, default) for name, default in _ALONE.items()}
    told = ", ".join(f"{name}={word}" for name, word in words.items())
    if not all(word.isdecimal() for word in words.values()):
        raise UsageError(f"the environment's rank is no number: {told}", f"unset {' '.join(_ALONE)}")
    found = World(*map(int, words.values()))
    if not found.rank < found.size:
        raise UsageError(f"the environment's rank is outside its world: {told}", f"unset {' '.join(_ALONE)}")
    return found


def here() -> Place:
    """Return the GPU in bfloat16 with a decoding process per spare core, or else the CPU in float32.

    Raises:
        UsageError: `torchrun` started several processes: each would train the whole.

    """
    found = world()
    if found.size > 1:
        raise UsageError(
            f"WORLD_SIZE is {found.size}: a training runs in one process, on one device",
            "torchrun --nproc-per-node 1, or no torchrun; the effective batch comes from micro_batch",
        )
    if not torch.cuda.is_available():
        return Place(torch.device("cpu"), bf16=False, workers=0)
    device = torch.device("cuda", found.local_rank)
    torch.cuda.set_device(device)
    # Older than Ampere it would be emulated, slower than float32.
    return Place(device, torch.cuda.is_bf16_supported(including_emulation=False), max(1, cores() - 1))


def exact() -> AbstractContextManager[None]:
    """Let float32 mean float32 on a GPU, where cuDNN takes TF32, and repeat itself to the bit."""
    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, deterministic=True, allow_tf32=False
    )
    return flags


_ALONE = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
