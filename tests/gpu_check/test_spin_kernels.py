"""The stand-in engines' kernels: compiled for the host, thread after thread, they give what NumPy gives."""

import ctypes
import subprocess

import numpy as np
import pytest
from gpu_check.spin_arithmetic import digest, filled, mix, places
from gpu_check.spin_kernels import ENTRIES, SOURCE, compile_kernels

_CUDA = r"""
#include <cstddef>
#define __global__
#define __device__
struct Place { int x, y; };
static Place blockIdx, blockDim, gridDim, threadIdx;
static long long now;
static long long clock64() { return now += 100; }
static void atomicAdd(unsigned* to, unsigned value) { *to += value; }
"""
_THREADS = r"""
#define EVERY_THREAD(call) \
    gridDim = {blocks, clips}; blockDim = {threads, 1}; \
    for (blockIdx.y = 0; blockIdx.y < clips; ++blockIdx.y) \
        for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) \
            for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x) call
extern "C" void run_digest(int blocks, int clips, int threads, u32* s, u32* d, int w, int k, int m) {
    EVERY_THREAD(digest(s, d, w, k, m));
}
extern "C" void run_scribble(int blocks, int clips, int threads, u32* d, u32* s, int w, int k) {
    EVERY_THREAD(scribble(d, s, w, k));
}
extern "C" void run_check(int blocks, int clips, int threads, u32* d, u32* s, int w, int n, int k, int m) {
    EVERY_THREAD(check(d, s, w, n, k, m));
}
extern "C" void run_fill(int blocks, int clips, int threads, u32* d, u32* t, int w, int k, int m) {
    EVERY_THREAD(fill(d, t, w, k, m));
}
"""


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kernels")
    (folder / "kernels.cpp").write_text(_CUDA + SOURCE + _THREADS)
    command = ["g++", "-std=c++17", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "kernels.cpp", "-o", "kernels.so"]
    subprocess.run(command, check=True, cwd=folder)
    return ctypes.CDLL(str(folder / "kernels.so"))


def _address(array):
    return ctypes.c_void_p(array.ctypes.data)


def _words(*shape):
    return np.random.default_rng(0).integers(0, 1 << 32, shape, np.uint32)


@pytest.mark.parametrize("words", [1, 255, 5000])
def test_the_kernels_give_what_numpy_gives(words, kernels):
    source, salt = _words(2, words), 0x7FFFFFF0
    digests = np.full(2, 5, np.uint32)
    kernels.run_digest(3, 2, 256, _address(source), _address(digests), words, salt, 500)
    assert np.array_equal(digests, digest(source, salt) + np.uint32(5))

    output = np.zeros((2, words), np.uint32)
    kernels.run_fill(3, 2, 256, _address(digests), _address(output), words, salt, 500)
    assert np.array_equal(output, filled(digests, words, salt))

    scratch, good = np.zeros(words, np.uint32), digests.copy()
    kernels.run_scribble(3, 1, 256, _address(digests), _address(scratch), words, salt)
    assert np.array_equal(scratch, mix(digests[:1] ^ places(words, salt)))
    kernels.run_check(3, 1, 256, _address(digests), _address(scratch), words, 2, salt, 500)
    assert np.array_equal(digests, good)
    scratch[-1] ^= 1
    kernels.run_check(3, 1, 256, _address(digests), _address(scratch), words, 2, salt, 500)
    assert (digests != good).all()


def test_a_hash_sees_every_byte_and_its_place():
    source = _words(1, 1000)
    changed, swapped = source.copy(), source.copy()
    changed.view(np.uint8)[0, 1234] ^= 1
    swapped[0, [5, 6]] = source[0, [6, 5]]
    hashes = {int(digest(words, salt)[0]) for words, salt in ((source, 1), (source, 2), (changed, 1), (swapped, 1))}
    assert len(hashes) == 4


def test_nvrtc_compiles_them():
    pytest.importorskip("cuda.bindings")
    ptx = compile_kernels().decode()
    assert all(f".entry {name}(" in ptx for name in ENTRIES)
