"""Telling a shortage of memory from other failures (torch-free)."""

import errno
import re

# NumPy, PyTorch, ONNX Runtime, OpenVINO, C++'s library and CUDA, each in its own words.
_WORDS = re.compile(
    r"bad_alloc|bad allocation|out of memory|(can't|can not|cannot|could not|failed to|unable to) allocate|"
    r"can't start new thread",
    re.IGNORECASE,
)
_CODES = (errno.ENOMEM, errno.EAGAIN)  # the second is what the system says of a thread that cannot be started


def is_memory_shortage(error: BaseException) -> bool:
    """Whether a failure is one of memory, by its kind, its code or a library's words."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _CODES
    return _WORDS.search(str(error)) is not None
