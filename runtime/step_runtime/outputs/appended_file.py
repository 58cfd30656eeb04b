"""A file that others may read while it grows."""

from pathlib import Path


class AppendedFile:
    """Grows by whole pieces, each of which is in the file when `append` returns.

    Args:
        path: written anew.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)
        self._size = 0

    def append(self, piece: bytes) -> None:
        """Adds a piece, or nothing of it.

        Raises:
            OSError: it cannot be written, such as on a full disk.
        """
        rest = memoryview(piece)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            self._file.truncate(self._size)
            raise
        self._size += len(piece)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
