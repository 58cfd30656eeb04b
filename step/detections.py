"""What the detector says about a batch of clips (torch-free; the arrays are torch's or NumPy's)."""

from typing import Generic, NamedTuple, TypeVar

ArrayT = TypeVar("ArrayT")


class Detections(NamedTuple, Generic[ArrayT]):
    """Holds the detections of B clips, padded to M rows a clip, best score first.

    Attributes:
        boxes: [B, M, 4] float32 x1, y1, x2, y2 in [0, 1], at the key frame.
        scores: [B, M] float32; 0 in padding rows.
        labels: [B, M] int64 class ids (AVA's for the release); 0 in padding rows.
        tube_indices: [B, M] int64, the row of `tubes_px` that a detection comes from; -1 in padding rows.
        counts: [B] int64, rows that are not padding.
        tubes_px: [B, N, T', 4] float32 every tube after the last step, in input pixels, frame by frame.
    """

    boxes: ArrayT
    scores: ArrayT
    labels: ArrayT
    tube_indices: ArrayT
    counts: ArrayT
    tubes_px: ArrayT
