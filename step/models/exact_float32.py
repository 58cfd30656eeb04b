"""Float32 in float32 on a GPU, too: what other configurations of a model are compared with.

Source: https://docs.pytorch.org/docs/stable/notes/cuda.html ("TensorFloat-32").
"""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch


class _ExactFloat32:
    """Counts blocks, since threads share one setting: the first one entered makes it, the last one left undoes it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks = 0
        self._before = False, False

    @contextmanager
    def block(self) -> Iterator[None]:
        cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
        with self._lock:
            if not self._blocks:
                self._before = cudnn.allow_tf32, matmul.allow_tf32
                cudnn.allow_tf32 = matmul.allow_tf32 = False
            self._blocks += 1
        try:
            yield
        finally:
            with self._lock:
                self._blocks -= 1
                if not self._blocks:
                    cudnn.allow_tf32, matmul.allow_tf32 = self._before


_EXACT_FLOAT32 = _ExactFloat32()


def exact_float32() -> AbstractContextManager[None]:
    """Has PyTorch compute float32 in float32 within the block; other threads compute so meanwhile."""
    return _EXACT_FLOAT32.block()
