"""Odd recordings, made from sound ones with a few bytes of Python."""

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np

ONE = 1 << 16
EIGHT_WAYS = {
    # Name: (a, b, c, d) of the display matrix, and what it does to uint8 [H, W, 3].
    "upright": ((ONE, 0, 0, ONE), lambda x: x),
    "mirrored": ((-ONE, 0, 0, ONE), lambda x: x[:, ::-1]),
    "upside down, mirrored": ((ONE, 0, 0, -ONE), lambda x: x[::-1]),
    "upside down": ((-ONE, 0, 0, -ONE), lambda x: x[::-1, ::-1]),
    "right": ((0, ONE, -ONE, 0), lambda x: np.rot90(x, -1)),
    "left": ((0, -ONE, ONE, 0), lambda x: np.rot90(x)),
    "right, mirrored": ((0, ONE, ONE, 0), lambda x: x.transpose(1, 0, 2)),
    "left, mirrored": ((0, -ONE, -ONE, 0), lambda x: x[::-1, ::-1].transpose(1, 0, 2)),
}


def write_display_matrix(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Writes a display matrix into an MP4's first track header."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 44
    a, b, c, d = matrix
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


def restamp_ts(content: bytes, changes: dict[int, Fraction]) -> bytes:
    """Moves the stamps of a transport stream's frames: number of the frame in the file -> seconds."""
    data = bytearray(content)
    number = 0
    for packet in range(0, len(data), 188):
        if not data[packet + 1] & 0x40 or (data[packet + 1] & 31) << 8 | data[packet + 2] != 256:
            continue
        header = packet + 4 + (1 + data[packet + 4] if data[packet + 3] & 0x20 else 0)
        if data[header : header + 3] != b"\0\0\1" or not data[header + 7] & 0x80:
            continue
        if number in changes:
            for place in (header + 9, header + 14)[: 1 + bool(data[header + 7] & 0x40)]:
                b = data[place : place + 5]
                value = ((b[0] >> 1) & 7) << 30 | b[1] << 22 | (b[2] >> 1) << 15 | b[3] << 7 | b[4] >> 1
                value = (value + round(changes[number] * 90000)) % 2**33
                data[place : place + 5] = bytes(
                    [
                        b[0] & 0xF1 | (value >> 30 & 7) << 1,
                        value >> 22 & 255,
                        (value >> 15 & 127) << 1 | 1,
                        value >> 7 & 255,
                        (value & 127) << 1 | 1,
                    ]
                )
        number += 1
    return bytes(data)
