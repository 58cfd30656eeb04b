"""The few CUDA calls that running engines takes, behind an interface that a recording fake can stand in for.

Addresses and handles are plain integers. Source:
https://nvidia.github.io/cuda-python/cuda-bindings/latest/module/runtime.html
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

from step.errors import StepError


class Cuda(Protocol):
    """One GPU's memory, streams, events and graphs. Every method raises StepError if CUDA fails.

    All but `active` itself are called within a block of `active`.
    """

    def active(self) -> AbstractContextManager[None]:
        """The GPU is the calling thread's within the block; CUDA's choice of a GPU is per thread.

        Afterwards the thread has the one that it had, or none.
        """

    def allocate(self, size: int) -> int:
        """Device memory, in bytes."""

    def free(self, address: int) -> None:
        """Returns device memory."""

    def allocate_pinned(self, size: int) -> int:
        """Page-locked host memory, which copies need to be asynchronous."""

    def free_pinned(self, address: int) -> None:
        """Returns page-locked host memory."""

    def create_stream(self) -> int:
        """A stream that does not wait for the default stream."""

    def destroy_stream(self, stream: int) -> None:
        """Returns a stream."""

    def create_event(self) -> int:
        """An event without timing; a host that waits for it sleeps."""

    def create_timed_event(self) -> int:
        """An event that `elapsed_ms` takes."""

    def elapsed_ms(self, start: int, end: int) -> float:
        """Milliseconds between two timed events that have happened."""

    def destroy_event(self, event: int) -> None:
        """Returns an event."""

    def upload(self, to: int, pinned: int, size: int, stream: int) -> None:
        """Host to device, asynchronous."""

    def download(self, pinned: int, source: int, size: int, stream: int) -> None:
        """Device to host, asynchronous."""

    def copy(self, to: int, source: int, size: int, stream: int) -> None:
        """Device to device, asynchronous."""

    def record(self, event: int, stream: int) -> None:
        """The event happens when all work now in the stream is done."""

    def wait(self, stream: int, event: int) -> None:
        """What is put into the stream from now on waits for the event; the host does not."""

    def synchronize_event(self, event: int) -> None:
        """The host waits for the event."""

    def synchronize_stream(self, stream: int) -> None:
        """The host waits for all work in the stream."""

    def begin_capture(self, stream: int) -> None:
        """What is put into the stream from now on is recorded, not done."""

    def end_capture(self, stream: int) -> int:
        """Ends the recording; the graph of it, ready to launch."""

    def launch(self, graph: int, stream: int) -> None:
        """Does what a graph recorded."""

    def destroy_graph(self, graph: int) -> None:
        """Returns a graph."""


class CudaRuntime:
    """`Cuda` with cuda-python's bindings.

    Args:
        device: index of the GPU.

    Raises:
        StepError: cuda-bindings is not installed, or the GPU cannot be used.
    """

    def __init__(self, device: int) -> None:
        try:
            from cuda.bindings import runtime as cudart
        except ImportError as error:
            raise StepError(f"cuda-bindings is not installed ({error}); pip install 'step-trt[tensorrt]'") from error
        from cuda.bindings import driver

        self._cudart = cudart
        self._driver = driver
        self._device = device
        # The context that CUDA's runtime, TensorRT and PyTorch use too. It is made current and put back by the driver's
        # calls: cudaSetDevice could only put back a GPU, which it would take memory on if nobody had used it before.
        try:
            self._call("starting CUDA", driver.cuInit(0))
        except RuntimeError as error:  # the bindings' word for a library that they do not find
            raise StepError(f"this machine has no NVIDIA driver ({' '.join(str(error).split())})") from error
        handle = self._call("finding the GPU", driver.cuDeviceGet(device))
        self._context = self._call("choosing the GPU", driver.cuDevicePrimaryCtxRetain(handle))

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """See `Cuda.active`."""
        self._call("choosing the GPU", self._driver.cuCtxPushCurrent(self._context))
        try:
            yield
        finally:
            self._driver.cuCtxPopCurrent()

    def allocate(self, size: int) -> int:
        """See `Cuda.allocate`."""
        return int(self._check(f"allocating {size / 1e6:.1f} MB", self._cudart.cudaMalloc(size)))

    def free(self, address: int) -> None:
        """See `Cuda.free`."""
        self._check("freeing memory", self._cudart.cudaFree(address))

    def allocate_pinned(self, size: int) -> int:
        """See `Cuda.allocate_pinned`."""
        answer = self._cudart.cudaHostAlloc(size, 0)
        if answer[0] == self._cudart.cudaError_t.cudaErrorMemoryAllocation:
            raise StepError(
                f"{size / 1e6:.1f} MB of this machine's own memory cannot be page-locked for GPU {self._device}; end "
                "what else runs here, or raise the limit of locked memory (ulimit -l)"
            )
        return int(self._check(f"page-locking {size / 1e6:.1f} MB", answer))

    def free_pinned(self, address: int) -> None:
        """See `Cuda.free_pinned`."""
        self._check("freeing memory", self._cudart.cudaFreeHost(address))

    def create_stream(self) -> int:
        """See `Cuda.create_stream`."""
        flags = self._cudart.cudaStreamNonBlocking
        return int(self._check("creating a stream", self._cudart.cudaStreamCreateWithFlags(flags)))

    def destroy_stream(self, stream: int) -> None:
        """See `Cuda.destroy_stream`."""
        self._check("destroying a stream", self._cudart.cudaStreamDestroy(stream))

    def create_event(self) -> int:
        """See `Cuda.create_event`."""
        flags = self._cudart.cudaEventDisableTiming | self._cudart.cudaEventBlockingSync
        return int(self._check("creating an event", self._cudart.cudaEventCreateWithFlags(flags)))

    def create_timed_event(self) -> int:
        """See `Cuda.create_timed_event`."""
        flags = self._cudart.cudaEventBlockingSync
        return int(self._check("creating an event", self._cudart.cudaEventCreateWithFlags(flags)))

    def elapsed_ms(self, start: int, end: int) -> float:
        """See `Cuda.elapsed_ms`."""
        return float(self._check("timing", self._cudart.cudaEventElapsedTime(start, end)))

    def destroy_event(self, event: int) -> None:
        """See `Cuda.destroy_event`."""
        self._check("destroying an event", self._cudart.cudaEventDestroy(event))

    def upload(self, to: int, pinned: int, size: int, stream: int) -> None:
        """See `Cuda.upload`."""
        self._copy(to, pinned, size, self._cudart.cudaMemcpyKind.cudaMemcpyHostToDevice, stream)

    def download(self, pinned: int, source: int, size: int, stream: int) -> None:
        """See `Cuda.download`."""
        self._copy(pinned, source, size, self._cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost, stream)

    def copy(self, to: int, source: int, size: int, stream: int) -> None:
        """See `Cuda.copy`."""
        self._copy(to, source, size, self._cudart.cudaMemcpyKind.cudaMemcpyDeviceToDevice, stream)

    def record(self, event: int, stream: int) -> None:
        """See `Cuda.record`."""
        self._check("recording an event", self._cudart.cudaEventRecord(event, stream))

    def wait(self, stream: int, event: int) -> None:
        """See `Cuda.wait`."""
        self._check("waiting for an event", self._cudart.cudaStreamWaitEvent(stream, event, 0))

    def synchronize_event(self, event: int) -> None:
        """See `Cuda.synchronize_event`."""
        self._check("running the model", self._cudart.cudaEventSynchronize(event))

    def synchronize_stream(self, stream: int) -> None:
        """See `Cuda.synchronize_stream`."""
        self._check("running the model", self._cudart.cudaStreamSynchronize(stream))

    def begin_capture(self, stream: int) -> None:
        """See `Cuda.begin_capture`."""
        # Other threads (decoding, another detector) may go on calling CUDA meanwhile.
        mode = self._cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._check("starting to record a graph", self._cudart.cudaStreamBeginCapture(stream, mode))

    def end_capture(self, stream: int) -> int:
        """See `Cuda.end_capture`."""
        graph = self._check("recording a graph", self._cudart.cudaStreamEndCapture(stream))
        try:
            return int(self._check("making a graph", self._cudart.cudaGraphInstantiate(graph, 0)))
        finally:
            self._cudart.cudaGraphDestroy(graph)

    def launch(self, graph: int, stream: int) -> None:
        """See `Cuda.launch`."""
        self._check("launching the model", self._cudart.cudaGraphLaunch(graph, stream))

    def destroy_graph(self, graph: int) -> None:
        """See `Cuda.destroy_graph`."""
        self._check("destroying a graph", self._cudart.cudaGraphExecDestroy(graph))

    def _copy(self, to: int, source: int, size: int, kind: Any, stream: int) -> None:
        self._check("copying", self._cudart.cudaMemcpyAsync(to, source, size, kind, stream))

    def _call(self, doing: str, answer: tuple[Any, ...]) -> Any:
        """`_check` for the driver's own calls, whose status is another type."""
        status, *values = answer
        if status == self._driver.CUresult.CUDA_SUCCESS:
            return values[0] if values else None
        _, name = self._driver.cuGetErrorName(status)
        raise StepError(
            f"CUDA failed on GPU {self._device} while {doing}: {name.decode() if name else status.name}; "
            "look at nvidia-smi"
        )

    def _check(self, doing: str, answer: tuple[Any, ...]) -> Any:
        """The value that a call answered with, if any; CUDA's status comes before it."""
        status, *values = answer
        if status == self._cudart.cudaError_t.cudaSuccess:
            return values[0] if values else None
        gpu = f"GPU {self._device}"
        if status == self._cudart.cudaError_t.cudaErrorMemoryAllocation:
            asked, *memory = self._cudart.cudaMemGetInfo()
            known = asked == self._cudart.cudaError_t.cudaSuccess
            left = f"; {memory[0] / 1e6:.0f} of {memory[1] / 1e6:.0f} MB are free" if known else ""
            raise StepError(
                f"{gpu} is out of memory ({doing}{left}); end what else runs on it, "
                "build engines with a smaller batch, or give another --device"
            )
        _, name = self._cudart.cudaGetErrorName(status)
        _, text = self._cudart.cudaGetErrorString(status)
        raise StepError(
            f"CUDA failed on {gpu} while {doing}: {name.decode()} ({text.decode()}); the GPU may be lost to this "
            "process: start again, and look at nvidia-smi if it happens again"
        )


@contextlib.contextmanager
def active_or_lost(cuda: Cuda) -> Iterator[None]:
    """`Cuda.active` for giving back: a lost device cannot be chosen, and what the host holds is freed anyway."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(StepError):
            stack.enter_context(cuda.active())
        yield


def give_back_later(stack: contextlib.ExitStack, give_back: Callable[[int], None], handle: int) -> int:
    """Returns `handle`, which the stack will give back; after a lost device that fails, and there is nothing to do."""

    def quietly() -> None:
        with contextlib.suppress(StepError):
            give_back(handle)

    stack.callback(quietly)
    return handle
