"""Kernels inside a CUDA library: leaving out those that nobody will launch, with nothing else changed.

nvcc puts the machine code of a source file, once for each GPU architecture and compressed, into one "fat binary" in the
section `.nv_fatbin`. The CUDA runtime loads one when a kernel of it is launched for the first time
(CUDA_MODULE_LOADING=LAZY, the default since CUDA 12.2), so one that is never launched need not be there. Its bytes
become zeros here, which compress to nothing; no offset, no symbol and no header changes.

Source: https://docs.nvidia.com/cuda/cuda-binary-utilities/ (what a fat binary is). The layout of the headers is
unpublished: it was read off libraries, and what does not fit it is left as it is.
"""

import re
import struct
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass

from step.errors import StepError

_ELF, _MAGIC = b"\x7fELF\x02\x01", 0xBA55ED50
_FILE_HEADER = struct.Struct("<IHHQ")  # magic, version, bytes of this header, bytes of the entries
# Kind, header bytes, bytes, packed bytes, architecture.
_ENTRY_HEADER = struct.Struct("<H2xIQI8xI")
_FLAGS_AT, _FULL_BYTES_AT = 40, 56
_MACHINE_CODE = 2
_LZ4, _ZSTD = 0x2000, 0x8000
_KERNEL = re.compile(r"\.text\.(.+)")


@dataclass(frozen=True)
class Dropped:
    """Says what became of a library's kernels.

    Attributes:
        entries, entry_bytes: machine code that was left out.
        kept, kept_bytes: that stayed.
    """

    entries: int
    entry_bytes: int
    kept: int
    kept_bytes: int


def drop_kernels(
    library: bytearray, is_unwanted: Callable[[str], bool], *, architectures: Container[int] | None = None
) -> Dropped:
    """Overwrites machine code with zeros; other data is not touched.

    Code goes whose kernels are all unwanted: the runtime may load one kernel for another's sake, if one source file had
    them both.

    Args:
        library: content of a shared library, ELF of 64 bits; changed in place.
        is_unwanted: is asked for the mangled names of kernels.
        architectures: compute capabilities as 90 whose code stays; None for all. A GPU of one that is left out cannot
            run the library any more, not even with the code of an older one.

    Raises:
        StepError: not such a library, or one without kernels.
    """
    places = dict(_sections(library)).get(".nv_fatbin")
    if places is None:
        raise StepError("the library holds no CUDA kernels (section .nv_fatbin); is it built for CUDA?")
    dropped = dropped_bytes = kept = kept_bytes = 0
    for start, end, architecture, code in _entries(library, *places):
        names = kernel_names(code) if code is not None else []
        is_left_out = architectures is not None and architecture not in architectures
        if is_left_out or (names and all(map(is_unwanted, names))):
            library[start:end] = bytes(end - start)
            dropped, dropped_bytes = dropped + 1, dropped_bytes + end - start
        else:
            kept, kept_bytes = kept + 1, kept_bytes + end - start
    return Dropped(dropped, dropped_bytes, kept, kept_bytes)


def kernel_names(code: bytes | bytearray) -> list[str]:
    """Lists the mangled names of the kernels in machine code of one architecture."""
    found = (_KERNEL.fullmatch(name) for name, _ in _sections(code))
    return [match[1] for match in found if match]


def _entries(library: bytearray, begin: int, size: int) -> Iterator[tuple[int, int, int, bytes | None]]:
    """Yields begin, end, architecture and content of each fat binary's entries; no content where it is not known."""
    at, end = begin, begin + size
    while at + _FILE_HEADER.size <= end:
        magic, _, header_bytes, entry_bytes = _FILE_HEADER.unpack_from(library, at)
        if magic != _MAGIC:
            at += 8  # they are aligned
            continue
        entry, last = at + header_bytes, at + header_bytes + entry_bytes
        while entry < last:
            kind, head, stored, packed, architecture = _ENTRY_HEADER.unpack_from(library, entry)
            (flags,), (full,) = (struct.unpack_from("<Q", library, entry + at) for at in (_FLAGS_AT, _FULL_BYTES_AT))
            content = bytes(library[entry + head : entry + head + (packed or stored)])
            code = _unpacked(content, flags, full) if kind == _MACHINE_CODE else None
            yield entry + head, entry + head + stored, architecture, code
            entry += head + stored
        at = last


def _unpacked(content: bytes, flags: int, full_bytes: int) -> bytes | None:
    """Unpacks machine code to an ELF file; None where its packing is not known."""
    if flags & _ZSTD:
        import pyarrow

        return bytes(pyarrow.decompress(content, full_bytes, codec="zstd", asbytes=True))
    return content if content.startswith(_ELF) and not flags & _LZ4 else None


def _sections(content: bytes | bytearray) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yields name, offset and size of every section of an ELF file of 64 bits.

    Raises:
        StepError: it is none.
    """
    if not content.startswith(_ELF):
        raise StepError("not a 64-bit ELF file")
    (table,) = struct.unpack_from("<Q", content, 0x28)
    entry_bytes, count, names = struct.unpack_from("<HHH", content, 0x3A)
    # Of a section header: name at 0, offset at 24, size at 32.
    headers = [struct.unpack_from("<I20xQQ", content, table + index * entry_bytes) for index in range(count)]
    if not headers:
        return
    names_at = headers[names][1]
    for name, offset, size in headers:
        start = names_at + name
        yield content[start : content.index(b"\0", start)].decode(), (offset, size)
