"""The kernels on a GPU, in every variant, from and to NumPy arrays; as a program, all of them once for a sanitizer.

compute-sanitizer --tool racecheck --error-exitcode 1 python tests/gpu_kernels.py

Without PyTorch, whose own start under a sanitizer takes longer than all of this.
"""

import ctypes
import itertools
from collections.abc import Iterator
from typing import Any

import host_kernels
import numpy as np
from numpy.typing import NDArray
from step_plugins import class_nms, roi_align
from step_plugins.kernel import Kernel
from step_plugins.launch import launch


def entry_point(kernel: Kernel):
    """The same calls as `host_kernels.entry_point`, with what the pointers point at brought to the GPU and back."""

    def call(grid, arrays: tuple[NDArray, ...], ints: tuple[int, ...]) -> None:
        from cuda.bindings import runtime as cudart

        _check(cudart, cudart.cudaSetDevice(0))
        addresses: list[int] = []
        try:
            for array in arrays:
                addresses.append(int(_check(cudart, cudart.cudaMalloc(array.nbytes))))
                kind = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
                _check(cudart, cudart.cudaMemcpy(addresses[-1], array.ctypes.data, array.nbytes, kind))
            pointers = [ctypes.c_void_p(address) for address in addresses]
            arguments = (*pointers[:-1], *map(ctypes.c_int, ints), pointers[-1])
            launch(kernel, grid, arguments, device=0, stream=0)
            _check(cudart, cudart.cudaDeviceSynchronize())
            kind = cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
            _check(cudart, cudart.cudaMemcpy(arrays[-1].ctypes.data, addresses[-1], arrays[-1].nbytes, kind))
        finally:
            for address in addresses:
                cudart.cudaFree(address)

    return call


def _check(cudart: Any, answer: tuple[Any, ...]) -> Any:
    status, *values = answer
    assert status == cudart.cudaError_t.cudaSuccess, status.name
    return values[0] if values else None


SIZES = ((2, 3, 832, 25, 25, 34), (1, 2, 70, 9, 13, 5))
"""Clips, frames, channels, cells high and wide, tubes: of the released network, and of one that fills no tile."""
SMALL_SIZES = ((1, 1, 200, 25, 25, 3), (1, 2, 70, 9, 13, 5))
"""For a sanitizer, under which a kernel takes a hundred times as long: more than one block along every axis."""


def roi_align_cases(sizes=SIZES) -> Iterator[dict[str, Any]]:
    """Keyword arguments of `host_kernels.tube_roi_align`: every dtype, layout, tactic."""
    state = np.random.RandomState(0)
    for dtype, channels_last, tactic in itertools.product((np.float32, np.float16), (True, False), roi_align.TACTICS):
        for batch, frames, channels, height, width, tubes in sizes:
            low = state.uniform(-40, 16 * width, (batch, tubes, frames, 2))
            tubes_px = np.concatenate((low, low + state.uniform(-20, 200, low.shape)), -1).astype(np.float32)
            tubes_px[0, 0, 0] = (np.nan, 0, np.inf, 9)
            features = state.standard_normal((batch, frames, channels, height, width)).astype(dtype)
            yield {
                "features": features,
                "tubes_px": tubes_px,
                "pool_size": 7,
                "channels_last": channels_last,
                "tactic": tactic,
            }


def nms_cases() -> Iterator[dict[str, Any]]:
    """Keyword arguments of `host_kernels.class_nms_kept`: every tactic, from one box to the most."""
    state = np.random.RandomState(1)
    for boxes, tactic in itertools.product((1, 32, 34, 65, 1024), class_nms.TACTICS):
        low = state.uniform(0, 300, (2, boxes, 2))
        yield {
            "boxes_xyxy": np.concatenate((low, low + state.uniform(5, 150, low.shape)), -1).astype(np.float32),
            "scores": (state.randint(0, 12, (2, boxes, 20)) / 10).astype(np.float32),
            "score_threshold": 0.01,
            "iou_threshold": 0.4,
            "tactic": tactic,
        }


def main() -> None:
    """Every variant once."""
    for case in roi_align_cases(SMALL_SIZES):
        host_kernels.tube_roi_align(**case, entry_point=entry_point)
    for case in nms_cases():
        host_kernels.class_nms_kept(**case, entry_point=entry_point)


if __name__ == "__main__":
    main()
