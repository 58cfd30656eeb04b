"""An execution context."""

import ctypes
from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fake_gpu.runtime_config import FakeRuntimeConfig

if TYPE_CHECKING:  # an engine makes contexts
    from fake_gpu.engine import FakeEngine


class FakeContext:
    """Runs an engine for one batch; every public name of the class is one of `IExecutionContext`."""

    def __init__(self, engine: "FakeEngine", strategy_or_config: str | FakeRuntimeConfig) -> None:
        self.engine, self.made_with = engine, strategy_or_config
        self.addresses: dict[str, int] = {}
        self.scratch: tuple[int, int] | None = None
        self.batch = engine.batch

    def set_device_memory(self, memory: int, size: int) -> None:
        """See `IExecutionContext`."""
        self.scratch = (memory, size)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        """See `IExecutionContext`."""
        self.addresses[name] = memory
        return True

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        """See `IExecutionContext`."""
        assert name in self.engine.tensors
        self.batch = shape[0]
        return True

    def get_tensor_shape(self, name: str) -> list[int]:
        """See `IExecutionContext`."""
        return self.engine.concrete_shape(name, self.batch)

    def execute_async_v3(self, stream: int) -> bool:
        """See `IExecutionContext`."""
        cuda, batch = self.engine.trt.cuda, self.batch
        cuda.note(f"run {self.engine.name}")
        if self.engine.trt.refuse_capture and stream in cuda.recording:
            self.engine.logger.log(SimpleNamespace(name="ERROR"), "cannot be captured")
            return False
        assert self.scratch is not None
        assert self.scratch[1] >= self.engine.device_memory_size_v2
        cuda.enqueue(stream, lambda: self._compute(batch))
        return True

    def _compute(self, batch: int) -> None:
        session = self.engine.session
        inputs = {info.name: self._array(info.name, batch).copy() for info in session.get_inputs()}
        names = [info.name for info in session.get_outputs()]
        for name, value in zip(names, session.run(names, inputs), strict=True):
            self._array(name, batch)[...] = value

    def _array(self, name: str, batch: int) -> npt.NDArray[Any]:
        shape = self.engine.concrete_shape(name, batch)
        dtype: np.dtype[Any] = np.dtype(self.engine.get_tensor_dtype(name))
        memory = (ctypes.c_uint8 * (int(np.prod(shape)) * dtype.itemsize)).from_address(self.addresses[name])
        return np.frombuffer(memory, dtype=dtype).reshape(shape)
