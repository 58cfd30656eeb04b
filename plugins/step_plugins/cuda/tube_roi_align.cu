// RoI align of tubes. features [B, T, C, H, W] and tubes_px [B, N, T, 4] -> pooled [B, N, C, T, P, P].
//
// One block pools CHANNEL_TILE channels of one tube's box in one frame. Grid: x = channel tiles fastest, then tubes;
// y = frames; z = clips. So the blocks that run together read one frame's features, which stay in the L2 cache, and
// device memory is read once. See roi_align.py for the model of what is read and written.
//
// CHANNELS_LAST 1: the features lie as [B, T, H, W, pitch]. Neighbouring threads read neighbouring channels, VECTOR at
//     a time; results are turned in shared memory so that they are written in the order in which they lie.
// CHANNELS_LAST 0: the features lie as declared. Neighbouring threads compute neighbouring bins and read nearby cells.
//
// Compile-time: HALF, CHANNELS_LAST, VECTOR, CHANNEL_TILE, THREADS, POOL_SIZE, MAX_CELLS, FEATURE_STRIDE.
#include "maths.cuh"

namespace step {

#if HALF
using Value = Half;
#else
using Value = float;
#endif

constexpr int kBins = POOL_SIZE * POOL_SIZE;
// Odd in 4-byte words: threads that read one channel of neighbouring bins hit different banks of shared memory.
constexpr int kStagePitch = CHANNEL_TILE + (HALF ? 2 : 1);

struct RoiAlignShared {
    BinWeights<MAX_CELLS> rows[POOL_SIZE], columns[POOL_SIZE];
#if CHANNELS_LAST
    Value pooled[kBins * kStagePitch];
#endif
};

struct RoiAlignSizes {
    int tubes, frames, channels, height, width, pitch;
};

STEP_HD void pool_channels_last(const Value *__restrict__ frame, const RoiAlignSizes &sizes, int channel,
                                const BinWeights<MAX_CELLS> &row, const BinWeights<MAX_CELLS> &column, Value *pooled) {
    using Values = Pack<Value, VECTOR>;
    float sums[VECTOR] = {};
    for (int y = row.first; y <= row.last; ++y) {
        for (int x = column.first; x <= column.last; ++x) {
            const float weight = row.weights[y] * column.weights[x];
            const long long cell = static_cast<long long>(y) * sizes.width + x;
            const Values values = *reinterpret_cast<const Values *>(frame + cell * sizes.pitch + channel);
            STEP_UNROLL
            for (int i = 0; i < VECTOR; ++i) sums[i] = fma(weight, to_float(values.values[i]), sums[i]);
        }
    }
    STEP_UNROLL
    for (int i = 0; i < VECTOR; ++i) pooled[i] = from_float<Value>(sums[i]);
}

STEP_HD Value pool_linear(const Value *__restrict__ plane, const RoiAlignSizes &sizes,
                          const BinWeights<MAX_CELLS> &row, const BinWeights<MAX_CELLS> &column) {
    float sum = 0.0f;
    for (int y = row.first; y <= row.last; ++y) {
        for (int x = column.first; x <= column.last; ++x) {
            const float weight = row.weights[y] * column.weights[x];
            sum = fma(weight, to_float(plane[y * sizes.width + x]), sum);
        }
    }
    return from_float<Value>(sum);
}

STEP_HD void tube_roi_align_block(const Block<THREADS> &block, RoiAlignShared &shared,
                                  const Value *__restrict__ features, const float *__restrict__ tubes_px,
                                  const RoiAlignSizes &sizes, Value *__restrict__ pooled) {
    const int tiles = (sizes.channels + CHANNEL_TILE - 1) / CHANNEL_TILE;
    const int tube = block.x / tiles, first_channel = block.x % tiles * CHANNEL_TILE;
    const int frame = block.y, clip = block.z;
    const int channels = smaller(CHANNEL_TILE, sizes.channels - first_channel);
    const long long clip_tube = static_cast<long long>(clip) * sizes.tubes + tube;
    const long long clip_frame = static_cast<long long>(clip) * sizes.frames + frame;
    const int cells = sizes.height * sizes.width;

    // The weights of this box, once for all its channels: one thread per bin and axis.
    block.each_item(2 * POOL_SIZE, [&](int item) {
        const float *box = tubes_px + (clip_tube * sizes.frames + frame) * 4;
        const bool is_row = item < POOL_SIZE;
        const int bin = is_row ? item : item - POOL_SIZE, axis = is_row ? 1 : 0;
        bin_weights<POOL_SIZE, MAX_CELLS>(box[axis] / static_cast<float>(FEATURE_STRIDE),
                                          box[axis + 2] / static_cast<float>(FEATURE_STRIDE), bin,
                                          is_row ? sizes.height : sizes.width,
                                          is_row ? &shared.rows[bin] : &shared.columns[bin]);
    });

    // Channel c of this tile and bin lies at out[c * frames * kBins + bin].
    Value *out = pooled + ((clip_tube * sizes.channels + first_channel) * sizes.frames + frame) * kBins;
    const long long channel_stride = static_cast<long long>(sizes.frames) * kBins;
#if CHANNELS_LAST
    const Value *source = features + clip_frame * cells * sizes.pitch + first_channel;
    const int packs = (channels + VECTOR - 1) / VECTOR;
    block.each_item(kBins * packs, [&](int item) {
        const int bin = item / packs, channel = item % packs * VECTOR;
        pool_channels_last(source, sizes, channel, shared.rows[bin / POOL_SIZE], shared.columns[bin % POOL_SIZE],
                           shared.pooled + bin * kStagePitch + channel);
    });
    block.each_item(channels * kBins, [&](int item) {
        const int channel = item / kBins, bin = item % kBins;
        out[channel * channel_stride + bin] = shared.pooled[bin * kStagePitch + channel];
    });
#else
    const Value *source = features + (clip_frame * sizes.channels + first_channel) * cells;
    block.each_item(channels * kBins, [&](int item) {
        const int channel = item / kBins, bin = item % kBins;
        out[channel * channel_stride + bin] =
            pool_linear(source + static_cast<long long>(channel) * cells, sizes, shared.rows[bin / POOL_SIZE],
                        shared.columns[bin % POOL_SIZE]);
    });
#endif
}

}  // namespace step

#ifdef __CUDACC__
extern "C" __global__ void __launch_bounds__(THREADS, STEP_BLOCKS_PER_SM)
    step_tube_roi_align(const step::Value *__restrict__ features, const float *__restrict__ tubes_px, int tubes,
                        int frames, int channels, int height, int width, int pitch,
                        step::Value *__restrict__ pooled) {
    __shared__ step::RoiAlignShared shared;
    const step::Block<THREADS> block{static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.y),
                                     static_cast<int>(blockIdx.z)};
    const step::RoiAlignSizes sizes{tubes, frames, channels, height, width, pitch};
    step::tube_roi_align_block(block, shared, features, tubes_px, sizes, pooled);
}
#else
extern "C" void step_tube_roi_align(int grid_x, int grid_y, int grid_z, const step::Value *features,
                                    const float *tubes_px, int tubes, int frames, int channels, int height, int width,
                                    int pitch, step::Value *pooled) {
    static step::RoiAlignShared shared;
    const step::RoiAlignSizes sizes{tubes, frames, channels, height, width, pitch};
    for (int z = 0; z < grid_z; ++z)
        for (int y = 0; y < grid_y; ++y)
            for (int x = 0; x < grid_x; ++x)
                step::tube_roi_align_block(step::Block<THREADS>{x, y, z}, shared, features, tubes_px, sizes, pooled);
}
#endif
