"""Kernels that are left out of a CUDA library: those and nothing else."""

import pyarrow
import pytest
from cuda_libraries import LZ4, ZSTD, Entry, elf, library, machine_code
from gpu_check.fat_binary import drop_kernels, kernel_names

from step.errors import StepError


def _is_unwanted(kernel: str) -> bool:
    return "flash" in kernel


def _packed(code: bytes) -> Entry:
    return Entry(pyarrow.compress(code, codec="zstd", asbytes=True), flags=ZSTD, full_bytes=len(code))


def test_names():
    assert kernel_names(machine_code("one", "_ZN3twoEv")) == ["one", "_ZN3twoEv"]


@pytest.mark.parametrize(
    ("entry", "stays"),
    [
        (Entry(machine_code("flash_a", "flash_b")), False),
        (Entry(machine_code("flash_a", "conv")), True),  # of one source file: the runtime loads both or none
        (_packed(machine_code("flash_a")), False),
        (_packed(machine_code("conv")), True),
        (Entry(machine_code()), True),
        (Entry(machine_code("flash_a"), flags=LZ4), True),  # packed in a way that is not read
        (Entry(b".entry flash_a", kind=1), True),
        (Entry(machine_code("conv_of_turing"), architecture=75), False),
        (Entry(machine_code("conv"), architecture=80), True),
    ],
)
def test_what_is_dropped(entry, stays):
    others = [Entry(machine_code("conv"))], [Entry(machine_code("pool")), entry], [Entry(machine_code("pool"))]
    before = library(*others)
    after = bytearray(before)
    dropped = drop_kernels(after, _is_unwanted, architectures={80, 90})
    assert (dropped.entries, dropped.kept) == (int(not stays), 3 + int(stays))
    if stays:
        assert after == before
        return
    start = before.index(entry.content)
    end = start + dropped.entry_bytes
    assert len(entry.content) <= dropped.entry_bytes < len(entry.content) + 8
    assert after[start:end] == bytes(end - start)
    assert (after[:start], after[end:]) == (before[:start], before[end:])


@pytest.mark.parametrize(("content", "said"), [(b"MZ", "not a 64-bit ELF"), (elf({".text": b"x"}), "no CUDA kernels")])
def test_not_a_cuda_library(content, said):
    with pytest.raises(StepError, match=said):
        drop_kernels(bytearray(content), _is_unwanted)
