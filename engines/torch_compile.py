"""Runtime `torch-compile`: torch.compile, for each batch anew, with CUDA graphs on a GPU.

All of the network is one graph (`fullgraph`), shapes are static, and a batch is never answered by
what PyTorch falls back to: what cannot be compiled is an error. Nothing is taken from a cache of
an earlier process, so that the first answer of each batch pays for its compilation.
"""

from __future__ import annotations

import gc
import sys
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import torch
from torch import _dynamo as dynamo
from torch import _inductor as inductor
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
from torch._inductor.runtime import compile_tasks
from torch._inductor.utils import fresh_cache

from bobrt.errors import BobrtError, one_line
from engines.runner import out_of_memory
from engines.torch_eager import TorchRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import ExitStack

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from engines.torch_eager import Answers, Served

SHAPES = 64
"""Batches one process may ask for. PyTorch's own limit is 8, and it answers the ninth without compiling."""


class TorchCompileRunner(TorchRunner):
    """A checkpoint through torch.compile; arguments as of `TorchRunner`."""

    def infer(self, feeds: Mapping[str, NDArray[np.uint8]]) -> Answers:
        """Return the outputs by name for one batch; the first of a size compiles.

        Raises:
            BobrtError: The network cannot be compiled as one graph, or too many batches were asked for.

        """
        try:
            return super().infer(feeds)
        except FailOnRecompileLimitHit as error:
            raise BobrtError(
                f"torch.compile has compiled {SHAPES} sizes of batch; it would answer the next uncompiled",
                "ask for fewer: throughput_batches in the plan's [timing]",
            ) from error
        except TorchDynamoException as error:
            if out_of_memory(error):
                raise
            raise BobrtError(
                f"torch.compile cannot take {self._path}: {one_line(error)}", "use the runtime torch"
            ) from error

    def _ready(self, net: Served, stack: ExitStack) -> Callable[[Tensor], tuple[Tensor, ...]]:
        stack.enter_context(fresh_cache())
        stack.callback(_reset)
        limits = {"recompile_limit": SHAPES, "fail_on_recompile_limit_hit": True, "suppress_errors": False}
        # Weights as constants let convolutions take in their norms, and a CPU reorder both beforehand.
        # Read while tracing too, so not one of the options.
        how = {"compile_threads": self._threads, "freezing": True}
        # Settings are a thread's own, and LoadGen asks from another: they go along with every call.
        with dynamo.config.patch(limits), inductor.config.patch(how):
            context = copy_context()
        options: dict[str, Any] = {"triton.cudagraphs": self._gpu is not None}
        compiled: Callable[[Tensor], tuple[Tensor, ...]] = torch.compile(
            net, fullgraph=True, dynamic=False, options=options
        )
        return lambda images: context.run(compiled, images)


def _reset() -> None:
    """Let go of compiled code, with the weights that are constants of it, and of what CUDA graphs hold.

    They refer to each other.
    """
    dynamo.reset()
    for name in [name for name in sys.modules if name.startswith(compile_tasks.__name__ + ".")]:
        del sys.modules[name]
    gc.collect()
