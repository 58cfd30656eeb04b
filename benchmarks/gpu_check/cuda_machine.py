"""A GPU to be driven by `step_runtime`'s own CUDA calls and by kernels: a real one, or the tests' that only records."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from step_runtime.backends.cuda import CudaRuntime
from step_runtime.backends.gpus import Gpu, find_gpu

from gpu_check.counted_cuda import CountedCuda
from gpu_check.spin_launchers import GpuLauncher, HostLauncher, Launcher
from gpu_check.stage import Device
from step.errors import StepError


@dataclass(frozen=True)
class CudaMachine:
    """Holds what the stages of the CUDA runtime and of the engine loop work with.

    Attributes:
        gpu: the GPU.
        cuda: its calls; a `Cuda` to whoever asks for one.
        launcher: puts kernels into its streams.
        current_context: handle of the CUDA context that is the calling thread's; 0 for none.
        free_bytes: of the GPU's memory, whoever else takes some; to be asked while the GPU is the thread's.
    """

    gpu: Gpu
    cuda: Any
    launcher: Launcher
    current_context: Callable[[], int]
    free_bytes: Callable[[], int]

    @property
    def counted(self) -> CountedCuda:
        """Returns the same calls, as what counts them."""
        counted: CountedCuda = self.cuda
        return counted


def open_machine(device: Device) -> CudaMachine:
    """Opens the first GPU, or the one that records.

    Raises:
        StepError: no GPU, or its driver cannot be used or does not take the kernels.
    """
    return _stand_in() if device == "none" else _real()


def _real() -> CudaMachine:
    gpu = find_gpu("auto")
    from cuda.bindings import driver
    from cuda.bindings import runtime as cudart

    def ask(call: str, answer: tuple[Any, ...]) -> int:
        status, *values = answer
        if status not in (cudart.cudaError_t.cudaSuccess, driver.CUresult.CUDA_SUCCESS):
            raise StepError(f"{call} answered {status.name}")
        return int(values[0])

    cuda = CountedCuda(CudaRuntime(gpu.index))
    with cuda.active():
        launcher = GpuLauncher()
    return CudaMachine(
        gpu=gpu,
        cuda=cuda,
        launcher=launcher,
        current_context=lambda: ask("cuCtxGetCurrent", driver.cuCtxGetCurrent()),
        free_bytes=lambda: ask("cudaMemGetInfo", cudart.cudaMemGetInfo()),
    )


def _stand_in() -> CudaMachine:
    from fake_gpu import GPU, FakeCuda

    fake = FakeCuda()
    return CudaMachine(
        gpu=GPU,
        cuda=CountedCuda(RefusingCuda(fake, GPU.memory_bytes)),
        launcher=HostLauncher(fake.enqueue),
        current_context=lambda: int(fake.depth > 0),
        free_bytes=lambda: GPU.memory_bytes - sum(len(memory) for memory in fake.memory.values()),
    )


class RefusingCuda:
    """Refuses as a real GPU does: too much memory, and to be waited for while it is recorded.

    Args:
        fake: `fake_gpu.FakeCuda`.
        memory_bytes: that it has.
    """

    def __init__(self, fake: Any, memory_bytes: int) -> None:
        self._fake = fake
        self._memory_bytes = memory_bytes
        self._spoilt: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fake, name)

    def allocate(self, size: int) -> int:
        """See `Cuda.allocate`."""
        if size > self._memory_bytes:
            raise StepError(f"GPU 0 is out of memory (allocating {size / 1e6:.1f} MB); it is a stand-in")
        return int(self._fake.allocate(size))

    def synchronize_stream(self, stream: int) -> None:
        """See `Cuda.synchronize_stream`."""
        if stream in self._fake.recording:
            self._spoilt.add(stream)
            raise StepError("CUDA failed on GPU 0 while running the model: cudaErrorStreamCaptureUnsupported")
        self._fake.synchronize_stream(stream)

    def end_capture(self, stream: int) -> int:
        """See `Cuda.end_capture`."""
        graph = int(self._fake.end_capture(stream))
        if stream not in self._spoilt:
            return graph
        self._spoilt.remove(stream)
        with contextlib.suppress(StepError):
            self._fake.destroy_graph(graph)
        raise StepError("CUDA failed on GPU 0 while recording a graph: cudaErrorStreamCaptureInvalidated")
