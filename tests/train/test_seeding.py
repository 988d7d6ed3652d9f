"""One place where randomness starts."""

from __future__ import annotations

import random

import numpy as np
import torch

from train.seeding import seed_everything


def draw(seed: int, epoch: int = 0) -> tuple[float, float, float]:
    """Return the first number of each of the three generators."""
    seed_everything(seed, epoch)
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002, S311


def test_a_seed_and_an_epoch_name_one_sequence_in_every_generator() -> None:
    """Python, numpy and torch all start again from the same numbers."""
    assert draw(3, 5) == draw(3, 5)


def test_no_generator_repeats_itself_in_another_run_or_epoch() -> None:
    """Another seed, another epoch, and the two exchanged: each is a sequence of its own."""
    draws = [draw(0, 0), draw(0, 1), draw(1, 0), draw(1, 1), draw(2, 0)]

    for one_generator in zip(*draws, strict=True):
        assert len(set(one_generator)) == len(draws)
