"""One place where randomness starts."""

from __future__ import annotations

import random

import numpy as np
import torch


def state_of(seed: int, *within: int) -> int:
    """Return 32 bits that belong to a run's seed and a place within the run: an epoch, a step, an image."""
    return int(np.random.SeedSequence([seed, *within]).generate_state(1)[0])


def seed_everything(seed: int, *within: int) -> None:
    """Seed Python, numpy and torch, on every device, from a run's seed and a place within the run.

    Each epoch and each step starts from its own seed, so that a training that was cut off and resumed
    draws what it would have drawn.
    """
    seed_host(seed, *within)
    torch.manual_seed(state_of(seed, *within))


def seed_host(seed: int, *within: int) -> None:
    """Do the same for what draws on the CPU: quick enough for every image."""
    state = state_of(seed, *within)
    random.seed(state)
    np.random.seed(state)  # noqa: NPY002 - timm's augmentations draw from the global generator
    torch.default_generator.manual_seed(state)
