"""Runtime `torch`: eager PyTorch, on the GPU where there is one; in fp32 the reference of every drop."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from bobrt.errors import BobrtError, one_line
from bobrt.spec import Precision
from engines.runner import IMAGES, GpuFailure, TensorMeta
from engines.runtimes import no_gpu_for_torch
from train import model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

    from bobrt.spec import Batch

    Answers = Mapping[str, NDArray[np.float32]]

DTYPES = {Precision.FP16: torch.float16, Precision.BF16: torch.bfloat16}
"""Types of parameters and activations; all else is float32."""

UNTRIED = ("timm.models.swin_transformer", "timm.models.visformer", "timm.models.xcit")
"""Modules whose fused attention timm itself calls experimental, and leaves off."""

NS_PER_MS = 1e6


class Served(nn.Module):  # type: ignore[misc]  # torch is too heavy to check ours against
    """A network as it is deployed: at its precision, in its memory format, with fused attention.

    The images are normalised in fp32 and cast once, where the trunk begins; answers come in fp32.

    Args:
        net: The network; it is changed.
        precision: What its trunk and head are at.
        memory_format: Of its activations and convolutions. Our images are channels-last as they
            come, and a network that is not would pay for the change of every batch.

    """

    def __init__(
        self,
        net: model.Model,
        precision: Precision,
        memory_format: torch.memory_format = torch.channels_last,
    ) -> None:
        super().__init__()
        dtype = DTYPES.get(precision, torch.float32)
        for part in (net.backbone, net.head):
            if part is not None:
                part.to(dtype=dtype, memory_format=memory_format)
        for module in net.modules():
            # The network was made to be exported, and so without it.
            if hasattr(module, "fused_attn") and type(module).__module__ not in UNTRIED:
                module.fused_attn = True
        begin = net.maps

        def maps(x: Tensor) -> tuple[Tensor, list[Tensor]]:
            return begin(x.to(dtype=dtype, memory_format=memory_format))

        setattr(net, "maps", maps)  # noqa: B010 - a method of this one network
        self.net = net

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the network's outputs as `float32`, for `uint8 [n, side, side, 3]`."""
        return tuple(out.float() for out in self.net(images))


class TorchRunner:
    """A checkpoint in eager mode.

    Args:
        path: One of our safetensors checkpoints.
        threads: Intra-op threads.
        precision: By dtype; `tf32` is float32 with that arithmetic allowed, and `fp32` is without.
        batch: What it is to be asked; a checkpoint itself takes any.

    """

    device_ns: Callable[[], int] | None = None
    """On a GPU alone."""

    def __init__(
        self,
        path: Path,
        threads: int,
        precision: Precision = Precision.FP32,
        batch: Batch = "dynamic",
    ) -> None:
        self._path = path
        self._threads = threads
        self._precision = precision
        self._batch = None if batch == "dynamic" else batch

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            torch.set_num_threads(self._threads)
            net, self._card = model.load(self._path)
            stack.enter_context(arithmetic(self._precision))
            stack.callback(_give_back)
            with GpuFailure():
                self._names = net.outputs
                self._net = Served(net, self._precision)
                self._gpu: _Gpu | None = None
                if not no_gpu_for_torch():
                    self._net.to(_initialised())
                    self._gpu = _Gpu()
                    self.device_ns = self._gpu.elapsed_ns
            self._ask = self._ready(self._net, stack)
            stack.callback(self._forget)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Not told of the error: nothing that is undone here depends on it.
        self._stack.close()

    def inputs(self) -> Mapping[str, TensorMeta]:
        """Return the inputs by name."""
        size = self._card.transform.size
        return {IMAGES: TensorMeta("uint8", (self._batch, size, size, 3))}

    def infer(self, feeds: Mapping[str, NDArray[np.uint8]]) -> Answers:
        """Return the outputs by name for one batch; on a GPU, in buffers that the next call uses again."""
        images = torch.from_numpy(feeds[IMAGES])
        # The mode is a thread's own, and LoadGen asks from another.
        with GpuFailure(), torch.inference_mode():
            outputs = self._gpu.ask(self._ask, images) if self._gpu else self._ask(images)
        return {name: out.numpy() for name, out in zip(self._names, outputs, strict=True)}

    def _ready(self, net: Served, stack: ExitStack) -> Callable[[Tensor], tuple[Tensor, ...]]:
        """Return what is called for a batch; what has to be undone afterwards goes on the stack."""
        del stack
        return net

    def _forget(self) -> None:
        del self._ask, self._net, self._gpu
        self.device_ns = None


class _Gpu:
    """What a batch goes through on a GPU: page-locked memory on both sides, events around the network."""

    def __init__(self) -> None:
        self._began, self._ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._pinned: dict[tuple[Any, ...], Tensor] = {}

    def ask(self, net: Callable[[Tensor], tuple[Tensor, ...]], images: Tensor) -> list[Tensor]:
        host = self._page_locked("in", images)
        host.copy_(images)
        there = host.to("cuda", non_blocking=True)
        self._began.record()
        outputs = net(there)
        self._ended.record()
        answers = [self._page_locked(index, out) for index, out in enumerate(outputs)]
        for answer, out in zip(answers, outputs, strict=True):
            answer.copy_(out, non_blocking=True)
        torch.cuda.current_stream().synchronize()
        return answers

    def elapsed_ns(self) -> int:
        """Return the nanoseconds of the network's last answer, by the device's clock."""
        return round(float(self._began.elapsed_time(self._ended)) * NS_PER_MS)

    def _page_locked(self, what: object, like: Tensor) -> Tensor:
        key = (what, *like.shape)
        if key not in self._pinned:
            self._pinned[key] = torch.empty(like.shape, dtype=like.dtype, pin_memory=True)
        return self._pinned[key]


@contextmanager
def arithmetic(precision: Precision) -> Iterator[None]:
    """Say what float32 means, and let cuDNN look for its fastest kernels: the shapes repeat.

    cuDNN would use TF32 unless told otherwise; fp32 here means fp32.
    """
    tf32, matmul, cudnn = precision is Precision.TF32, torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = tf32, tf32, True
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before


def _give_back() -> None:
    """Give the device's memory back that PyTorch keeps for later."""
    if torch.cuda.is_initialized():
        torch._C._cuda_clearCublasWorkspaces()  # noqa: SLF001 - PyTorch has no public word for it
        torch.cuda.empty_cache()


def _initialised() -> torch.device:
    """Return the GPU that the rest of bobrt sees too.

    Raises:
        BobrtError: PyTorch does not see it; computing on the CPU instead would be another row.

    """
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        raise BobrtError(
            f"PyTorch {torch.__version__} cannot use the GPU of this machine: {one_line(error)}",
            "install a newer driver or another PyTorch, or hide the GPU: CUDA_VISIBLE_DEVICES=-1",
        ) from error
    return torch.device("cuda")
