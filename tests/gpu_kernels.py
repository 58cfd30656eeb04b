"""The kernels on a GPU, in every variant, from and to NumPy arrays; as a program, all of them once for a sanitizer.

compute-sanitizer --tool racecheck --error-exitcode 1 python tests/gpu_kernels.py
"""

import ctypes
import itertools

import host_kernels
import numpy as np
import torch
from numpy.typing import NDArray
from step_plugins import class_nms, roi_align
from step_plugins.kernel import Kernel
from step_plugins.launch import launch


def entry_point(kernel: Kernel):
    """The same calls as `host_kernels.entry_point`, with what the pointers point at brought to the GPU and back."""

    def call(grid, arrays: tuple[NDArray, ...], ints: tuple[int, ...]) -> None:
        on_gpu = [torch.from_numpy(array.view(np.uint8)).cuda() for array in arrays]
        pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in on_gpu]
        arguments = (*pointers[:-1], *map(ctypes.c_int, ints), pointers[-1])
        launch(kernel, grid, arguments, device=0, stream=torch.cuda.current_stream().cuda_stream)
        torch.cuda.synchronize()
        arrays[-1].view(np.uint8)[...] = on_gpu[-1].cpu().numpy()

    return call


def roi_align_cases():
    """Keyword arguments of `host_kernels.tube_roi_align`: every dtype, layout, tactic; sizes that fill no tile."""
    state = np.random.RandomState(0)
    for dtype, channels_last, tactic in itertools.product((np.float32, np.float16), (True, False), roi_align.TACTICS):
        for batch, frames, channels, height, width, tubes in ((2, 3, 832, 25, 25, 34), (1, 2, 70, 9, 13, 5)):
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


def nms_cases():
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
    for case in roi_align_cases():
        host_kernels.tube_roi_align(**case, entry_point=entry_point)
    for case in nms_cases():
        host_kernels.class_nms_kept(**case, entry_point=entry_point)


if __name__ == "__main__":
    main()
