// Greedy class-wise NMS. boxes_xyxy [B, N, 4] px and scores [B, N, K] -> the scores, 0 where suppressed [B, N, K].
//
// One block per class (grid x) and clip (grid y). The boxes that take part are ranked by counting who comes before
// them, then settled in rank order, 32 at a time: a bit per pair says who overlaps whom within the 32, one thread
// settles those bits, and all threads strike out what the kept ones overlap further down.
//
// Compile-time: THREADS, MAX_BOXES (N rounded up to 32), SCORE_THRESHOLD, IOU_THRESHOLD.
#include "maths.cuh"

namespace step {

constexpr int kWord = 32;
constexpr int kWords = MAX_BOXES / kWord;
static_assert(kWords <= kWord, "one word of bits per member of a word");
constexpr unsigned short kNoRank = 0xffff;

struct NmsShared {
    Box boxes[MAX_BOXES];
    float scores[MAX_BOXES];
    unsigned short rank_of[MAX_BOXES];  // by box; kNoRank where it takes no part
    unsigned short box_at[MAX_BOXES];   // by rank
    unsigned struck[kWords];            // bit by rank
    unsigned struck_before[kWords];     // as they were before the 32 at hand, for reading while others are struck
    unsigned kept[kWords];              // bit by rank
    unsigned overlapped_by[kWord];      // per member of the 32 at hand: bits of the earlier members that overlap it
    int count;                          // boxes that take part
};

STEP_HD void class_nms_block(const Block<THREADS> &block, NmsShared &shared, const Box *__restrict__ boxes_xyxy,
                             const float *__restrict__ scores, int num_boxes, int num_classes,
                             float *__restrict__ kept_scores) {
    const long long clip = block.y;
    const Box *boxes = boxes_xyxy + clip * num_boxes;
    const long long first_score = clip * num_boxes * num_classes + block.x;
    block.each_thread([&](int thread) {
        if (thread == 0) shared.count = 0;
        for (int i = thread; i < kWords; i += THREADS) shared.struck[i] = shared.kept[i] = 0;
        for (int i = thread; i < num_boxes; i += THREADS) {
            shared.boxes[i] = boxes[i];
            shared.scores[i] = scores[first_score + static_cast<long long>(i) * num_classes];
        }
    });
    block.each_item(num_boxes, [&](int i) {
        shared.rank_of[i] = kNoRank;
        const float score = shared.scores[i];
        if (!(score > SCORE_THRESHOLD)) return;  // NaN neither
        int rank = 0;
        for (int j = 0; j < num_boxes; ++j) {
            const float other = shared.scores[j];
            rank += other > SCORE_THRESHOLD && outranks(other, j, score, i);
        }
        shared.rank_of[i] = static_cast<unsigned short>(rank);
        shared.box_at[rank] = static_cast<unsigned short>(i);
        atomic_add(&shared.count, 1);
    });
    for (int first = 0; first < shared.count; first += kWord) {
        const int members = smaller(kWord, shared.count - first);
        block.each_item(kWord, [&](int i) {
            shared.overlapped_by[i] = 0;
            if (i < kWords) shared.struck_before[i] = shared.struck[i];
        });
        block.each_item(members * kWord, [&](int pair) {
            const int mine = pair / kWord, earlier = pair % kWord;
            if (earlier >= mine) return;
            const Box &winner = shared.boxes[shared.box_at[first + earlier]];
            if (iou(winner, shared.boxes[shared.box_at[first + mine]]) >= IOU_THRESHOLD)
                atomic_or(&shared.overlapped_by[mine], 1u << earlier);
        });
        block.each_thread([&](int thread) {
            if (thread != 0) return;
            const unsigned struck = shared.struck_before[first / kWord];
            unsigned kept = 0;
            for (int i = 0; i < members; ++i)
                if (!(struck >> i & 1u) && !(shared.overlapped_by[i] & kept)) kept |= 1u << i;
            shared.kept[first / kWord] = kept;
        });
        block.each_item(shared.count - first - members, [&](int further) {
            const int rank = first + members + further;
            if (shared.struck_before[rank / kWord] >> rank % kWord & 1u) return;
            const Box &box = shared.boxes[shared.box_at[rank]];
            for (int i = 0; i < members; ++i) {
                if (!(shared.kept[first / kWord] >> i & 1u)) continue;
                if (iou(shared.boxes[shared.box_at[first + i]], box) >= IOU_THRESHOLD) {
                    atomic_or(&shared.struck[rank / kWord], 1u << rank % kWord);
                    return;
                }
            }
        });
    }
    block.each_item(num_boxes, [&](int i) {
        const unsigned short rank = shared.rank_of[i];
        const bool is_kept = rank != kNoRank && shared.kept[rank / kWord] >> rank % kWord & 1u;
        kept_scores[first_score + static_cast<long long>(i) * num_classes] = is_kept ? shared.scores[i] : 0.0f;
    });
}

}  // namespace step

#ifdef __CUDACC__
extern "C" __global__ void __launch_bounds__(THREADS, STEP_BLOCKS_PER_SM)
    step_class_nms(const step::Box *__restrict__ boxes_xyxy, const float *__restrict__ scores, int num_boxes,
                   int num_classes, float *__restrict__ kept_scores) {
    __shared__ step::NmsShared shared;
    const step::Block<THREADS> block{static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.y), 0};
    step::class_nms_block(block, shared, boxes_xyxy, scores, num_boxes, num_classes, kept_scores);
}
#else
extern "C" void step_class_nms(int grid_x, int grid_y, int, const step::Box *boxes_xyxy, const float *scores,
                               int num_boxes, int num_classes, float *kept_scores) {
    static step::NmsShared shared;
    for (int y = 0; y < grid_y; ++y)
        for (int x = 0; x < grid_x; ++x)
            step::class_nms_block(step::Block<THREADS>{x, y, 0}, shared, boxes_xyxy, scores, num_boxes, num_classes,
                                  kept_scores);
}
#endif
