// What both kernels share: one source for NVRTC (the GPU) and a host compiler (the tests, any machine without a GPU).
//
// Every multiplication and addition is rounded as written: NVRTC is told --fmad=false and host compilers
// -ffp-contract=off, and sums that gain from a fused multiply-add ask for it by name. So both give the same bits.
#pragma once

#ifdef __CUDACC__
#define STEP_HD __host__ __device__ __forceinline__
#define STEP_UNROLL _Pragma("unroll")
// 1024 threads at a time on a multiprocessor with 65536 registers: at most 64 registers a thread.
#define STEP_BLOCKS_PER_SM (1024 / THREADS)
#else
#include <cmath>
#include <cstring>
#define STEP_HD inline
#define STEP_UNROLL
#define __restrict__ __restrict
using std::ceil;
using std::floor;
using std::fma;
#endif

namespace step {

// ---- a block of threads -------------------------------------------------------------------------------------------

// The body of a block is written once, as a sequence of phases between barriers. The GPU runs each phase with one
// thread and a barrier after it; the host runs it for one thread after the other.
template <int Threads>
struct Block {
    int x, y, z;  // blockIdx

    template <typename Phase>
    STEP_HD void each_thread(Phase phase) const {
#ifdef __CUDA_ARCH__
        phase(static_cast<int>(threadIdx.x));
        __syncthreads();
#else
        for (int thread = 0; thread < Threads; ++thread) phase(thread);
#endif
    }

    // phase(item) for items 0 .. count - 1, dealt to the threads in turn: neighbours get neighbouring items.
    template <typename Phase>
    STEP_HD void each_item(int count, Phase phase) const {
        each_thread([&](int thread) {
            for (int item = thread; item < count; item += Threads) phase(item);
        });
    }
};

STEP_HD void atomic_or(unsigned *word, unsigned bits) {
#ifdef __CUDA_ARCH__
    atomicOr(word, bits);
#else
    *word |= bits;
#endif
}

STEP_HD void atomic_add(int *sum, int value) {
#ifdef __CUDA_ARCH__
    atomicAdd(sum, value);
#else
    *sum += value;
#endif
}

// ---- numbers ------------------------------------------------------------------------------------------------------

template <typename T>
STEP_HD T smaller(T a, T b) { return b < a ? b : a; }

template <typename T>
STEP_HD T larger(T a, T b) { return a < b ? b : a; }

STEP_HD bool is_finite(float x) { return x - x == 0.0f; }

// IEEE half precision, converted by the hardware; no header of CUDA's is needed.
struct Half {
    unsigned short bits;
};

STEP_HD float to_float(float x) { return x; }

STEP_HD float to_float(Half x) {
#ifdef __CUDA_ARCH__
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x.bits));
    return wide;
#elif defined(__CUDACC__)
    return 0.0f;  // the host half of a CUDA compilation, never called
#else
    _Float16 narrow;
    std::memcpy(&narrow, &x.bits, sizeof narrow);
    return static_cast<float>(narrow);
#endif
}

template <typename T>
STEP_HD T from_float(float x);

template <>
STEP_HD float from_float<float>(float x) { return x; }

template <>
STEP_HD Half from_float<Half>(float x) {
    Half narrow;
#ifdef __CUDA_ARCH__
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(narrow.bits) : "f"(x));
#elif defined(__CUDACC__)
    narrow.bits = 0;
#else
    const _Float16 value = static_cast<_Float16>(x);
    std::memcpy(&narrow.bits, &value, sizeof value);
#endif
    return narrow;
}

// `Size` neighbouring values, loaded at once: 16 bytes for four floats or eight halves.
template <typename T, int Size>
struct alignas(sizeof(T) * Size) Pack {
    T values[Size];
};

// ---- RoI align ----------------------------------------------------------------------------------------------------

// How much each cell of a row or column of feature cells counts in one bin: cells first .. last, the others not at all.
template <int MaxCells>
struct BinWeights {
    int first, last;
    float weights[MaxCells];
};

// The bin's sampling points and the hats around them: SPEC.md, "RoI align"; torchvision's roi_align(aligned=False).
// low and high are the RoI's ends in feature cells. Points outside the map count nothing and are never visited, so that
// the work is at most 2 * cells + 8 points however large the RoI is.
template <int PoolSize, int MaxCells>
STEP_HD void bin_weights(float low, float high, int bin, int cells, BinWeights<MaxCells> *result) {
    result->first = cells;
    result->last = -1;
    if (!is_finite(low) || !is_finite(high)) return;
    const float size = larger(high - low, 1.0f);
    const float bin_size = size / static_cast<float>(PoolSize);
    const float num_points = ceil(bin_size);
    const float bin_start = low + static_cast<float>(bin) * bin_size;
    if (!is_finite(bin_start) || !is_finite(num_points)) return;
    const float spacing = bin_size / num_points;  // in (1/2, 1], or less than 1 with a single point
    // Points may only count between -1 and cells; two more on either side make up for rounding.
    const float before = floor((-1.0f - bin_start) / spacing - 0.5f) - 1.0f;
    const float after = ceil((static_cast<float>(cells) - bin_start) / spacing - 0.5f) + 1.0f;
    const float begin = larger(before, 0.0f), end = smaller(after, num_points - 1.0f);
    if (!(begin <= end)) return;
    const int visited = static_cast<int>(smaller(end - begin + 1.0f, 2.0f * static_cast<float>(cells) + 8.0f));
    for (int cell = 0; cell < cells; ++cell) result->weights[cell] = 0.0f;
    for (int i = 0; i < visited; ++i) {
        const float point = begin + static_cast<float>(i);
        float position = bin_start + (point + 0.5f) * bin_size / num_points;
        if (!(position >= -1.0f && position <= static_cast<float>(cells))) continue;
        position = smaller(larger(position, 0.0f), static_cast<float>(cells - 1));
        const int cell = smaller(static_cast<int>(position), larger(cells - 2, 0));
        const float upper = position - static_cast<float>(cell);
        result->weights[cell] += (1.0f - upper) / num_points;
        result->first = smaller(result->first, cell);
        result->last = larger(result->last, cell);
        if (upper > 0.0f) {  // never past the last cell
            result->weights[cell + 1] += upper / num_points;
            result->last = larger(result->last, cell + 1);
        }
    }
}

// ---- NMS ----------------------------------------------------------------------------------------------------------

struct alignas(16) Box {
    float x1, y1, x2, y2;
};

// IoU with the legacy "+1" sides, operation by operation as `step.ops.class_nms.pairwise_iou`; NaN where a side is NaN.
STEP_HD float iou(const Box &a, const Box &b) {
    const float area_a = (a.x2 - a.x1 + 1.0f) * (a.y2 - a.y1 + 1.0f);
    const float area_b = (b.x2 - b.x1 + 1.0f) * (b.y2 - b.y1 + 1.0f);
    const float width = smaller(a.x2, b.x2) - larger(a.x1, b.x1) + 1.0f;
    const float height = smaller(a.y2, b.y2) - larger(a.y1, b.y1) + 1.0f;
    const float inter = (width < 0.0f ? 0.0f : width) * (height < 0.0f ? 0.0f : height);
    return inter / (area_a + area_b - inter);
}

// Whether a score comes before another one in the greedy order; of equal ones the lower index.
STEP_HD bool outranks(float score, int index, float other_score, int other_index) {
    return score > other_score || (score == other_score && index < other_index);
}

}  // namespace step
