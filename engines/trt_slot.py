"""One batch size of an engine: its execution context, its memory on both sides, its CUDA graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bobrt.errors import BobrtError, one_line
from engines.runner import IMAGES

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import NDArray

    from engines.cuda import Buffer, Device, Graph, Held
    from engines.trt_log import Log


class Slot:
    """One shape of an engine, ready to be asked.

    Args:
        trt: The library.
        device: Entered; everything is done on its stream.
        log: What the library says.

    """

    def __init__(self, trt: ModuleType, device: Device, log: Log) -> None:
        self._trt = trt
        self._device = device
        self._log = log
        self._held: list[Held] = []
        self._pairs: dict[str, tuple[NDArray[Any], Buffer]] = {}
        self._graph: Graph | None = None
        self._answered = False
        self.context: Any = None
        self.note = ""
        """Why it has no CUDA graph, where one was asked for and could not be had."""

    def open(self, engine: Any, how: Any, profile: int, shape: tuple[int, ...]) -> None:  # noqa: ANN401 - untyped
        """Take the memory that images of a shape need.

        Args:
            engine: The library's engine.
            how: An allocation strategy, or a runtime configuration with one: the user's.
            profile: Index of an optimization profile that takes the shape.
            shape: `(batch, side, side, 3)`.

        Raises:
            MemoryError: It does not fit on the device.
            BobrtError: The library refuses the shape.

        """
        device = self._device
        context = self.context = engine.create_execution_context(how)
        if context is None:
            raise self._log.error("no execution context could be made")
        context.set_optimization_profile_async(profile, device.stream)
        if not context.set_input_shape(IMAGES, shape):
            raise self._log.error(f"the engine takes no images of shape {list(shape)}")
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            sides = tuple(context.get_tensor_shape(name))
            host = self._own(device.pinned(sides, self._trt.nptype(engine.get_tensor_dtype(name))))
            self._pairs[name] = host, self._own(device.buffer(host.nbytes))
            context.set_tensor_address(name, self._pairs[name][1].ptr)
        # What the layers need between them, for this shape alone.
        needed = context.update_device_memory_size_for_shapes()
        context.set_device_memory(self._own(device.buffer(max(needed, 1))).ptr, needed)

    def run(self, images: NDArray[np.uint8], *, graph: bool) -> dict[str, NDArray[np.float32]]:
        """Return every output for images of this shape, in memory of its own."""
        device, (host, buffer) = self._device, self._pairs[IMAGES]
        if images.shape != host.shape:
            raise BobrtError(f"the engine takes images of shape {list(host.shape)}, not {list(images.shape)}")
        if graph and self._answered and not (self._graph or self.note):
            self._capture()
        np.copyto(host, images)
        device.upload(buffer, host)
        device.start()
        if self._graph:
            self._graph.launch()
        else:
            self._enqueue()
        device.stop()
        for name, (host, buffer) in self._pairs.items():
            if name != IMAGES:
                device.download(host, buffer)
        device.sync()
        self._answered = True
        return {name: host.astype(np.float32) for name, (host, _) in self._pairs.items() if name != IMAGES}

    def close(self) -> None:
        """Give everything back; the context first, since it may still look at its memory."""
        self.context = self._graph = None
        self._pairs = {}
        self._device.free(*self._held)
        self._held = []

    def _enqueue(self) -> None:
        if not self.context.execute_async_v3(self._device.stream):
            raise self._log.error("the engine could not be run", "bobrt doctor")

    def _capture(self) -> None:
        """Make the work one CUDA graph; where that fails say why, and go on without."""
        try:
            self._graph = self._own(self._device.capture(self._enqueue))
        except (BobrtError, RuntimeError, MemoryError) as error:
            self.note = f"no CUDA graph for batch {len(self._pairs[IMAGES][0])}: {one_line(error)}"

    def _own(self, held: Any) -> Any:  # noqa: ANN401 - whatever it is, it comes back
        self._held.append(held)
        return held
