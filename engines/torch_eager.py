"""Runtime `torch`: eager PyTorch on the CPU, the reference every drop is measured against."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import torch

from engines.runner import IMAGES, TensorMeta
from train import model

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray


class TorchRunner:
    """A checkpoint in eager mode.

    Args:
        path: One of our safetensors checkpoints.
        threads: Intra-op threads.

    """

    def __init__(self, path: Path, threads: int) -> None:
        self._path = path
        self._threads = threads
        self._mode = torch.inference_mode()

    def __enter__(self) -> Self:
        torch.set_num_threads(self._threads)
        self._net, self._card = model.load(self._path)
        self._mode.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mode.__exit__(kind, error, trace)
        del self._net

    def inputs(self) -> Mapping[str, TensorMeta]:
        """Return the inputs by name."""
        size = self._card.transform.size
        return {IMAGES: TensorMeta("uint8", (None, size, size, 3))}

    def infer(self, feeds: Mapping[str, NDArray[np.uint8]]) -> Mapping[str, NDArray[np.float32]]:
        """Return the outputs by name for one batch."""
        outputs = self._net(torch.from_numpy(feeds[IMAGES]))
        return {name: out.numpy() for name, out in zip(self._net.outputs, outputs, strict=True)}
