"""Kernels of the stand-in engines: hashes of their inputs, with pauses whose length depends on the data."""

from typing import Any

from step_plugins.errors import PluginError
from step_plugins.nvrtc import ARCHITECTURE, nvrtc_version

from step.errors import StepError

THREADS = 256
"""Threads of a block."""

SOURCE = r"""
typedef unsigned int u32;

__device__ u32 mix(u32 h) {
    h ^= h >> 16;
    h *= 0x7feb352dU;
    h ^= h >> 15;
    h *= 0x846ca68bU;
    h ^= h >> 16;
    return h;
}

__device__ void pause(long long cycles) {
    const long long start = clock64();
    while (clock64() - start < cycles) {
    }
}

// A pause of less than `most` cycles that differs from block to block and from clip to clip.
__device__ void some_pause(u32 seed, int most) {
    if (most > 0) {
        pause(mix(seed ^ mix(blockIdx.x + 1)) % (u32)most);
    }
}

extern "C" __global__ void clear(u32* digests, int clips, int salt) {
    for (int clip = threadIdx.x; clip < clips; clip += blockDim.x) {
        digests[clip] = (u32)salt;
    }
}

// Adds the hash of a clip's words to its digest; blockIdx.y is the clip.
extern "C" __global__ void digest(const u32* source, u32* digests, int words, int salt, int most_cycles) {
    source += (size_t)blockIdx.y * words;
    some_pause(source[0], most_cycles);
    u32 sum = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < words; i += gridDim.x * blockDim.x) {
        sum += mix(source[i] ^ mix((u32)i + (u32)salt));
    }
    atomicAdd(digests + blockIdx.y, sum);
}

extern "C" __global__ void scribble(const u32* digests, u32* scratch, int words, int salt) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < words; i += gridDim.x * blockDim.x) {
        scratch[i] = mix(digests[0] ^ mix((u32)i + (u32)salt));
    }
}

// Where somebody else has written into what `scribble` wrote, all digests are spoilt.
extern "C" __global__ void check(u32* digests, const u32* scratch, int words, int clips, int salt, int most_cycles) {
    some_pause(digests[0], most_cycles);
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < words; i += gridDim.x * blockDim.x) {
        if (scratch[i] != mix(digests[0] ^ mix((u32)i + (u32)salt))) {
            for (int clip = 0; clip < clips; ++clip) {
                atomicAdd(digests + clip, 1U);
            }
        }
    }
}

// Every word depends on the clip's digest and on its place; blockIdx.y is the clip.
extern "C" __global__ void fill(const u32* digests, u32* to, int words, int salt, int most_cycles) {
    to += (size_t)blockIdx.y * words;
    some_pause(digests[blockIdx.y], most_cycles);
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < words; i += gridDim.x * blockDim.x) {
        to[i] = mix(digests[blockIdx.y] ^ mix((u32)i + (u32)salt));
    }
}

extern "C" __global__ void spin(int cycles) {
    pause(cycles);
}
"""

ENTRIES = ("clear", "digest", "scribble", "check", "fill", "spin")


def compile_kernels() -> bytes:
    """Compiles all kernels to PTX, which a driver compiles for the GPU at hand; this needs neither of them.

    Raises:
        StepError: NVRTC is not there, or it refuses the source.
    """
    try:
        nvrtc_version()  # says what is missing, and loads the library that NVRTC itself opens when it compiles
    except PluginError as error:
        raise StepError(str(error)) from error
    from cuda.bindings import nvrtc

    program = _check(nvrtc, nvrtc.nvrtcCreateProgram(SOURCE.encode(), b"spin_kernels.cu", 0, [], []))
    try:
        options = [f"--gpu-architecture={ARCHITECTURE}".encode(), b"--std=c++17"]
        (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise StepError(f"the stand-in engines' kernels do not compile: {_log(nvrtc, program)}")
        ptx = bytearray(_check(nvrtc, nvrtc.nvrtcGetPTXSize(program)))
        _check(nvrtc, nvrtc.nvrtcGetPTX(program, ptx))
        return bytes(ptx).rstrip(b"\0")
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _log(nvrtc: Any, program: Any) -> str:
    log = bytearray(_check(nvrtc, nvrtc.nvrtcGetProgramLogSize(program)))
    _check(nvrtc, nvrtc.nvrtcGetProgramLog(program, log))
    return " ".join(log.decode(errors="replace").strip("\0").split())


def _check(nvrtc: Any, answer: tuple[Any, ...]) -> Any:
    status, *values = answer
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise StepError(f"NVRTC answered {status.name}")
    return values[0] if values else None
