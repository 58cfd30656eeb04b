"""Reading text that others may have written or damaged (torch-free)."""

from pathlib import Path


def read_text(path: Path, *, most_bytes: int, encoding: str = "utf-8") -> str:
    """The text of a file that is not too large.

    Args:
        path: the file.
        most_bytes: that it may have.
        encoding: UTF-8, with or without a mark at its beginning ("utf-8-sig").

    Raises:
        OSError: it cannot be read.
        ValueError: what is wrong with its content.
    """
    size = path.stat().st_size
    if size > most_bytes:
        raise ValueError(f"it has {size} bytes, more than {most_bytes}")
    try:
        return path.read_bytes().decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is no UTF-8; save it as UTF-8") from error
