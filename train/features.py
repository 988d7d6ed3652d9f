"""The features of a frozen network: evaluation mode, no gradient, nothing in it moves."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import torch

from bobrt.data import feed
from bobrt.data.resize import resize
from train.place import exact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bobrt.data import Split
    from bobrt.spec import Transform
    from train.model import Model

BATCH = 64


def of(net: Model, split: Split, transform: Transform, output: str = "features") -> NDArray[np.float32]:
    """Return `features [n, width]` of every image, or another output, without augmentation; in float32."""
    row = net.outputs.index(output)
    device = next(net.parameters()).device
    net.eval()  # a batch norm in training mode would learn the mean of what it is shown

    def prepare(rows: Sequence[int]) -> NDArray[np.uint8]:
        return resize([split.images[row] for row in rows], transform)

    workers = feed.spare(torch.get_num_threads())
    ready = feed.batches(
        range(len(split.ids)), prepare, transform.size, feed.at_a_time(BATCH, transform.size), workers
    )
    with closing(ready), torch.inference_mode(), exact():
        parts = [net(torch.from_numpy(images).to(device))[row].cpu().numpy() for images in ready]
    return np.concatenate(parts)
