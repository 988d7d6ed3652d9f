"""One place where randomness starts."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_everything(seed: int, epoch: int = 0) -> None:
    """Seed Python, numpy and torch from a run's seed and an epoch.

    Each epoch starts from its own seed, so that a training that was cut off and resumed
    draws what it would have drawn.
    """
    state = int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
    random.seed(state)
    np.random.seed(state)  # noqa: NPY002 - timm's augmentations draw from the global generator
    torch.manual_seed(state)
