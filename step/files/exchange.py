"""Two names that swap what they stand for in one step, where the kernel and the file system can (torch-free).

Source: https://man7.org/linux/man-pages/man2/rename.2.html, RENAME_EXCHANGE.
"""

import ctypes
import errno
import os
import sys
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
# The last one is what some containers' filters say of calls that they do not know.
_REFUSED = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)


def exchange(first: Path, second: Path) -> bool:
    """Swaps two files or folders of one file system: at any moment, each name stands for the one or the other.

    Returns:
        Whether it was done; False where the system has no such call, and then nothing has changed.

    Raises:
        OSError: any other failure; nothing has changed either.
    """
    if sys.platform != "linux":
        return False
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if not renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE):
        return True
    code = ctypes.get_errno()
    if code in _REFUSED:
        return False
    raise OSError(code, os.strerror(code), str(first), None, str(second))
