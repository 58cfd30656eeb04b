"""What the stand-in engines compute, in NumPy: hashes of 32-bit words that depend on every byte and on its place.

`spin_kernels` has the same arithmetic in CUDA C++. All of it is unsigned 32-bit, so that both give the same bits.
"""

import zlib

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]
"""32-bit words, [clips, words of a clip] where not said otherwise."""

_LARGEST_SALT = 0x7FFFFFFF  # kernels take it as an int


def salt_of(text: str) -> int:
    """Makes a number of a name, so that two tensors with the same content hash differently."""
    return zlib.crc32(text.encode()) & _LARGEST_SALT


def mix(values: Words) -> Words:
    """Maps 32-bit words one to one; every bit of the result depends on every bit of the value.

    Source: the multipliers of https://nullprogram.com/blog/2018/07/31/ ("lowbias32").
    """
    mixed = values ^ (values >> np.uint32(16))
    mixed *= np.uint32(0x7FEB352D)
    mixed ^= mixed >> np.uint32(15)
    mixed *= np.uint32(0x846CA68B)
    mixed ^= mixed >> np.uint32(16)
    return mixed


def places(words: int, salt: int) -> Words:
    """Makes one key for each place of a tensor, [words]."""
    return mix(np.arange(words, dtype=np.uint32) + np.uint32(salt))


def digest(source: Words, salt: int) -> Words:
    """Hashes each clip's words, [clips]."""
    total: Words = mix(source ^ places(source.shape[-1], salt)).sum(axis=-1, dtype=np.uint32)
    return total


def filled(digests: Words, words: int, salt: int) -> Words:
    """Makes a tensor whose every word depends on its clip's digest and on its place."""
    return mix(digests[:, None] ^ places(words, salt))


def words_of(array: NDArray[np.generic]) -> Words:
    """Returns a tensor's memory as 32-bit words of each clip; the first axis is the clips'."""
    return np.ascontiguousarray(array).reshape(len(array), -1).view(np.uint32)
