"""A stand-in for the `tensorrt` module whose engines are hashes: each output depends on every byte of all inputs.

A wrong, stale or half-written input changes every output, and through the next engines every result. Pauses that
depend on the data shift what runs beside what. Digests lie in the scratch memory, and the rest of it is scribbled over
and read back, so that whoever else writes there in between changes the results, too.

Source of the names: https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api/
"""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from gpu_check.spin_arithmetic import salt_of
from gpu_check.spin_bundle import HEADER_WORDS, VERSION, SpinPlan, clip_words
from gpu_check.spin_launchers import Launcher
from step.bundles.graph_spec import DType, TensorSpec
from step.errors import StepError

_DTYPES: dict[DType, str] = {"uint8": "UINT8", "float16": "HALF", "float32": "FLOAT", "int64": "INT64"}


@dataclass(frozen=True, eq=False)
class SpinTensorRT:
    """Stands in for the module.

    Attributes:
        launcher: puts kernels into streams.
        most_cycles: of a block's pause before it reads or writes.
    """

    launcher: Launcher
    most_cycles: int
    __name__ = "tensorrt"
    __version__ = VERSION
    DataType = SimpleNamespace(**{kind: kind for kind in _DTYPES.values()})
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user managed")

    class ILogger:
        """Is what a logger of the library inherits."""

    def Runtime(self, logger: Any) -> "SpinRuntime":  # noqa: N802 - the library's name
        """Loads engines."""
        return SpinRuntime(self, logger)


@dataclass
class SpinRuntime:
    """Stands in for `trt.Runtime`."""

    trt: SpinTensorRT
    logger: Any
    engine_host_code_allowed: bool = False

    def deserialize_cuda_engine(self, plan: bytes) -> "SpinEngine":
        """Loads an engine of `spin_bundle`."""
        return SpinEngine(self, SpinPlan.from_bytes(plan))


class SpinEngine:
    """Stands in for `trt.ICudaEngine`.

    Args:
        runtime: what loaded it.
        plan: what it computes.
    """

    def __init__(self, runtime: SpinRuntime, plan: SpinPlan) -> None:
        self.runtime = runtime
        self.plan = plan
        self.device_memory_size_v2 = plan.scratch_bytes
        self._tensors = {tensor.name: tensor for tensor in (*plan.spec.inputs, *plan.spec.outputs)}
        self.num_io_tensors = len(self._tensors)

    def get_tensor_name(self, index: int) -> str:
        """Names inputs first, then outputs."""
        return list(self._tensors)[index]

    def get_tensor_dtype(self, name: str) -> str:
        """Returns one of `DataType`."""
        return _DTYPES[self._tensors[name].dtype]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape, -1 where the clips are counted."""
        return self._tensors[name].concrete_shape(-1)

    def create_execution_context(self, strategy: str) -> "SpinContext":
        """Makes what runs it."""
        assert strategy == "user managed"
        return SpinContext(self)


@dataclass
class SpinContext:
    """Stands in for `trt.IExecutionContext`."""

    engine: SpinEngine
    _addresses: dict[str, int] = field(default_factory=dict)
    _scratch: int = 0
    _clips: int = 1

    def set_device_memory(self, address: int, size: int) -> None:
        """Sets the scratch memory."""
        assert size >= self.engine.device_memory_size_v2
        self._scratch = address

    def set_tensor_address(self, name: str, address: int) -> bool:
        """Sets where a tensor lies."""
        self._addresses[name] = address
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        """Sets how many clips come."""
        assert self.engine.get_tensor_shape(name)[1:] == tuple(shape)[1:]
        self._clips = shape[0]
        return True

    def execute_async_v3(self, stream: int) -> bool:
        """Puts one run into a stream; False, with the reason in the log, where the driver refuses."""
        try:
            self._execute(stream)
        except StepError as error:
            self.engine.runtime.logger.log(SimpleNamespace(name="ERROR"), str(error))
            return False
        return True

    def _execute(self, stream: int) -> None:
        trt, plan, clips = self.engine.runtime.trt, self.engine.plan, self._clips
        name, words, most = plan.spec.name, plan.scratch_words, trt.most_cycles
        launch, salt = trt.launcher.launch, salt_of(plan.spec.name)
        digests, scratch = self._scratch, self._scratch + 4 * HEADER_WORDS
        launch("clear", (digests, clips, salt), stream)
        for tensor in plan.spec.inputs:
            address, count = self._addresses[tensor.name], clip_words(tensor)
            own = tensor_salt(name, tensor)
            launch("digest", (address, digests, count, own, most), stream, words=count, clips=clips)
        launch("scribble", (digests, scratch, words, salt), stream, words=words)
        launch("check", (digests, scratch, words, clips, salt, most), stream, words=words)
        for tensor in plan.spec.outputs:
            address, count = self._addresses[tensor.name], clip_words(tensor)
            own = tensor_salt(name, tensor)
            launch("fill", (digests, address, count, own, most), stream, words=count, clips=clips)


def tensor_salt(engine: str, tensor: TensorSpec) -> int:
    """Returns what tells a tensor from another one with the same content."""
    return salt_of(f"{engine}/{tensor.name}")
