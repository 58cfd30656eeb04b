"""The least of a CUDA library: ELF files with the sections that `fat_binary` reads, and fat binaries in one."""

import struct
from dataclasses import dataclass

ZSTD, LZ4 = 0x8000, 0x2000


@dataclass(frozen=True)
class Entry:
    """Code of a fat binary: machine code (kind 2) or PTX (1), in bytes as they are stored."""

    content: bytes
    architecture: int = 90
    flags: int = 0
    full_bytes: int = 0
    kind: int = 2


def elf(sections: dict[str, bytes]) -> bytes:
    """A 64-bit ELF file of these sections."""
    names, content, headers = b"\0", b"", [struct.pack("<II16xQQ24x", 0, 0, 0, 0)]
    for name, value in {**sections, ".shstrtab": b""}.items():
        at = len(names)
        names += name.encode() + b"\0"
        value = names if name == ".shstrtab" else value
        headers.append(struct.pack("<II16xQQ24x", at, 1, 64 + len(content), len(value)))
        content += value + bytes(-len(value) % 8)
    header = b"\x7fELF\x02\x01" + bytes(34) + struct.pack("<Q", 64 + len(content)) + bytes(10)
    header += struct.pack("<HHH", 64, len(headers), len(headers) - 1)
    return header + content + b"".join(headers)


def machine_code(*kernels: str) -> bytes:
    """An ELF file with these kernels."""
    return elf({".text." + name: f"code of {name}".encode() for name in kernels})


def library(*fat_binaries: list[Entry]) -> bytearray:
    """A shared library with a fat binary for each source file."""
    content = b""
    for entries in fat_binaries:
        packed = b""
        for entry in entries:
            stored = entry.content + bytes(-len(entry.content) % 8)
            head = struct.pack("<HHIQIIHHI", entry.kind, 0x101, 64, len(stored), len(entry.content), 0, 8, 1, 0)
            head = head[:28] + struct.pack("<I8xQQQ", entry.architecture, entry.flags, 0, entry.full_bytes)
            packed += head + stored
        content += struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(packed)) + packed + bytes(8)
    return bytearray(elf({".text": b"host code", ".nv_fatbin": content, ".data": b"data"}))
