"""What NVIDIA's driver says of a GPU while something runs on it: energy, and a process's memory.

Source: https://pypi.org/project/nvidia-ml-py/ (NVML).
"""

import pynvml

from step.errors import StepError
from step_runtime.backends.gpus import find_gpu


class GpuMeter:
    """One GPU; everything is None where the driver does not say.

    Args:
        index: as CUDA counts, which may be another order than the driver's; CUDA_VISIBLE_DEVICES applies.
    """

    def __init__(self, index: int) -> None:
        self._index = index

    def energy_j(self) -> float | None:
        """Energy since the driver was loaded, in joules; two readings tell what was used between them."""
        try:
            pynvml.nvmlInit()
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle())) / 1e3
        except pynvml.NVMLError:
            return None

    def process_bytes(self, process_id: int) -> int | None:
        """Memory that a process has on the GPU; None too inside a container that has other process numbers."""
        try:
            pynvml.nvmlInit()
            running = pynvml.nvmlDeviceGetComputeRunningProcesses(self._handle())
        except pynvml.NVMLError:
            return None
        return next(
            (int(each.usedGpuMemory) for each in running if each.pid == process_id and each.usedGpuMemory), None
        )

    def clocks(self) -> dict[str, int]:
        """Clocks of the processors and of the memory in MHz: now, and at most."""
        try:
            pynvml.nvmlInit()
            handle = self._handle()
            return {
                name: int(read(handle, kind))
                for name, read, kind in (
                    ("sm_mhz", pynvml.nvmlDeviceGetClockInfo, pynvml.NVML_CLOCK_SM),
                    ("sm_max_mhz", pynvml.nvmlDeviceGetMaxClockInfo, pynvml.NVML_CLOCK_SM),
                    ("memory_mhz", pynvml.nvmlDeviceGetClockInfo, pynvml.NVML_CLOCK_MEM),
                )
            }
        except pynvml.NVMLError:
            return {}

    def _handle(self) -> object:
        """By the GPU's UUID, which both libraries have.

        Raises:
            NVMLError: the driver knows none such, as of a part of a GPU (MIG).
        """
        try:
            identity = find_gpu(f"cuda:{self._index}").uuid
        except StepError as error:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND) from error
        return pynvml.nvmlDeviceGetHandleByUUID(identity)
