"""The STEP detector: backbone and context once, then progressive steps that refine tubes.

Shape legend: B clips, F input frames, T feature frames of the clip, T' feature frames of a step, N tubes, C channels,
K classes, H x W feature cells, P bins a side.
Source: SPEC.md; Yang et al., "STEP: Spatio-Temporal Progressive Learning for Video Action Detection", CVPR 2019.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from step.anchors import anchor_tubes
from step.clips import check_frames, check_thresholds
from step.config import PoolMode, StepConfig, TemporalMode
from step.detections import Detections
from step.models.context import ContextBranch
from step.models.float32_island import copy_matching, put_islands
from step.models.head import HeadOutput, TwoBranchHead
from step.models.i3d import I3DBackbone
from step.ops.box_coding import decode_boxes, make_boxes_valid
from step.ops.detect import top_detections
from step.ops.roi_align import tube_roi_align
from step.ops.roi_pool import tube_roi_pool
from step.ops.tube_growth import grow_tubes


class StepOutput(NamedTuple):
    """Holds what one progressive step predicts, before the validity rule.

    Attributes:
        scores: [B, N, K] action probabilities, float32.
        boxes_px: [B, N, T', 4] the tube's boxes, float32.
        first_px: [B, N, chunk, 4] boxes for the chunk before.
        last_px: [B, N, chunk, 4] boxes for the chunk after.
    """

    scores: Tensor
    boxes_px: Tensor
    first_px: Tensor
    last_px: Tensor


class ClipFeatures(NamedTuple):
    """Holds what every step reads: features [B, T, C, H, W] and context [B, 1024, T] (None without context)."""

    features: Tensor
    context: Tensor | None


class StepDetector(nn.Module):
    """Is STEP with plain values; `StepDetector.from_config` builds one from a `StepConfig`.

    Args:
        config: architecture, kept for checkpoints and exports; the layers get plain values from it.

    Attributes:
        dtype: precision of the features, and of the networks but for modules that `half_networks` kept.
    """

    anchors_px: Tensor
    class_ids: Tensor

    def __init__(
        self,
        *,
        backbone: I3DBackbone,
        context: ContextBranch | None,
        heads: nn.ModuleList,
        anchors_px: Tensor,
        config: StepConfig,
    ) -> None:
        super().__init__()
        self.config = config
        self.dtype = torch.float32
        self.backbone = backbone
        self.context = context
        self.heads = heads
        # Boxes stay float32 when the networks are cast to half: see `half_networks`.
        self.register_buffer("anchors_px", anchors_px, persistent=False)
        self.register_buffer("class_ids", torch.tensor(config.class_ids, dtype=torch.int64), persistent=False)

    @classmethod
    def from_config(cls, config: StepConfig) -> Self:
        """Builds a detector with freshly initialised weights, in eval mode."""
        backbone = I3DBackbone(channels=config.channels)
        context = ContextBranch(in_channels=backbone.out_channels, channels=config.channels) if config.context else None
        heads = [
            TwoBranchHead(
                in_channels=backbone.out_channels,
                context_channels=context.out_channels if context else 0,
                num_classes=config.num_classes,
                pool_size=config.pool_size,
                fc_dim=config.fc_dim,
                chunk_frames=config.chunk_frames,
                channels=config.channels,
            )
            for _ in config.chunks
        ]
        anchors_px = anchor_tubes(config.anchor_mode, frames=config.chunk_frames, image_size_px=config.image_size_px)
        detector = cls(
            backbone=backbone,
            context=context,
            heads=nn.ModuleList(heads),
            anchors_px=torch.from_numpy(anchors_px),
            config=config,
        )
        return detector.eval()

    def half_networks(self, keep_fp32: Sequence[str] = ()) -> Self:
        """Casts backbone, context and heads to float16; boxes, RoIs, sigmoid and NMS stay float32.

        Args:
            keep_fp32: patterns of module paths ("heads.0.*"); what they match stays float32, between casts.

        Raises:
            StepError: a pattern matches no module.
        """
        kept = copy_matching(self, keep_fp32)  # before weights are rounded to half
        self.backbone.half()
        self.heads.half()
        if self.context is not None:
            self.context.half()
        put_islands(self, kept)
        self.dtype = torch.float16
        return self

    def extract(self, frames: Tensor) -> ClipFeatures:
        """Runs backbone and context on clips; see `run_backbone`."""
        volume = self.run_backbone(frames)
        context = self.context(volume) if self.context is not None else None
        return ClipFeatures(frame_by_frame(volume), context)

    def run_backbone(self, frames: Tensor) -> Tensor:
        """Returns the feature maps [B, C, T, H, W] of clips, which the context branch reads.

        Args:
            frames: uint8 [B, F, H, W, 3] RGB.

        Raises:
            ValueError: frames of another type, dtype or shape.
        """
        if not isinstance(frames, Tensor):
            raise ValueError(f"frames: expected a torch tensor, got {type(frames).__name__}; use torch.from_numpy")
        check_frames(tuple(frames.shape), str(frames.dtype).removeprefix("torch."), self.config)
        # Scaled in float32, since half has too few bits for it; before the transpose, which TensorRT has not for uint8.
        scaled = frames.float() * (2 / 255) - 1
        # [B, F, H, W, 3] -> [B, 3, F, H, W] in [-1, 1]
        volume: Tensor = self.backbone(scaled.to(self.dtype).permute(0, 4, 1, 2, 3))
        return volume

    def run_head(self, clip: ClipFeatures, tubes_px: Tensor, *, step: int) -> HeadOutput:
        """Returns a step's raw predictions, float32 [B, N, ...]; it takes the arguments of `run_step`."""
        config = self.config
        first, frames = config.step_first_frame(step), config.step_frames(step)
        pooled = pool_tubes(
            clip.features[:, first : first + frames],
            tubes_px,
            pool_mode=config.pool_mode,
            pool_size=config.pool_size,
        )
        batch, num_tubes = tubes_px.shape[:2]
        context = None
        if clip.context is not None:
            # [B, 1024, T] -> [B N, 1024, T']: every tube of a clip sees the same context
            window = clip.context[:, None, :, first : first + frames]
            context = window.expand(-1, num_tubes, -1, -1).flatten(0, 1)
        # [B, N, C, T', P, P] -> [B N, C, T', P, P]
        head = self.heads[step](pooled.flatten(0, 1), context)
        # Boxes and probabilities are computed in float32 whatever the networks are.
        return HeadOutput(*(output.float().unflatten(0, (batch, num_tubes)) for output in head))

    def run_step(self, clip: ClipFeatures, tubes_px: Tensor, *, step: int) -> StepOutput:
        """Runs one progressive step.

        Args:
            clip: what `extract` returned.
            tubes_px: [B, N, T', 4] the step's input tubes.
            step: 0-based.
        """
        head = self.run_head(clip, tubes_px, step=step)
        chunk = self.config.chunk_frames
        # Both ends at once; apart from the tube, since a fused graph without growth leaves them out.
        first_px, last_px = decode_boxes(
            torch.cat((head.first_deltas, head.last_deltas), dim=2),
            torch.cat((tubes_px[:, :, :chunk], tubes_px[:, :, -chunk:]), dim=2),
        ).chunk(2, dim=2)
        return StepOutput(
            scores=head.logits.sigmoid(),
            boxes_px=decode_boxes(head.deltas, tubes_px),
            first_px=first_px,
            last_px=last_px,
        )

    def next_tubes(self, output: StepOutput, *, step: int) -> Tensor:
        """Returns the input tubes [B, N, T'', 4] of the step after `step` (0-based)."""
        return next_tubes(
            output,
            grows=self.config.grows_after(step),
            temporal_mode=self.config.temporal_mode,
            chunk_frames=self.config.chunk_frames,
            image_size_px=self.config.image_size_px,
        )

    def initial_tubes(self, batch: int) -> Tensor:
        """Repeats the anchors, once a clip: [B, N, T', 4] px."""
        return self.anchors_px.expand(batch, -1, -1, -1)

    def forward(self, frames: Tensor, num_steps: int | None = None) -> list[StepOutput]:
        """Returns every step's predictions.

        Args:
            frames: uint8 [B, F, H, W, 3] RGB (F = 36, H = W = 400 for the release).
            num_steps: stop after this many steps; all of them if None.

        Raises:
            ValueError: frames of another dtype or shape, or more steps than the model has.
        """
        num_steps = self.config.num_steps if num_steps is None else num_steps
        if not (isinstance(num_steps, int) and 1 <= num_steps <= self.config.num_steps):
            raise ValueError(f"num_steps is {num_steps}; this model has 1 to {self.config.num_steps}")
        return self.run_steps(self.extract(frames), num_steps=num_steps)

    def run_steps(self, clip: ClipFeatures, *, num_steps: int) -> list[StepOutput]:
        """Runs the progressive loop: predictions of the first `num_steps` steps on what `extract` returned."""
        tubes_px = self.initial_tubes(clip.features.shape[0])
        outputs: list[StepOutput] = []
        for step in range(num_steps):
            outputs.append(self.run_step(clip, tubes_px, step=step))
            if step + 1 < num_steps:
                tubes_px = self.next_tubes(outputs[-1], step=step)
        return outputs

    def detect(
        self,
        frames: Tensor,
        *,
        score_threshold: float = 0.01,
        nms_iou: float = 0.4,
        max_detections: int = 300,
        num_steps: int | None = None,
    ) -> Detections[Tensor]:
        """Returns the detections of the last step that is run.

        Args:
            frames: uint8 [B, F, H, W, 3] RGB.
            score_threshold: scores have to be above it; in [0, 1).
            nms_iou: IoU at which a lower-scored box of the same class is dropped; in (0, 1].
            max_detections: rows kept a clip, over all classes.
            num_steps: stop after this many steps; all of them if None.

        Raises:
            ValueError: a threshold out of range, or what `forward` refuses.
        """
        check_thresholds(score_threshold=score_threshold, nms_iou=nms_iou, max_detections=max_detections)
        with torch.inference_mode():
            output = self(frames, num_steps=num_steps)[-1]
            return self.select(output, score_threshold=score_threshold, nms_iou=nms_iou, max_detections=max_detections)

    def select(
        self, output: StepOutput, *, score_threshold: float, nms_iou: float, max_detections: int
    ) -> Detections[Tensor]:
        """Returns the detections of one step's output; it takes the arguments of `detect`."""
        tubes_px = make_boxes_valid(output.boxes_px, self.config.image_size_px)
        top = top_detections(
            output.scores,
            middle_boxes(tubes_px),
            self.class_ids,
            image_size_px=self.config.image_size_px,
            score_threshold=score_threshold,
            nms_iou=nms_iou,
            max_detections=max_detections,
        )
        return Detections(*top, tubes_px=tubes_px)


def pool_tubes(features: Tensor, tubes_px: Tensor, *, pool_mode: PoolMode, pool_size: int) -> Tensor:
    """Pools by RoI align or RoI max-pool: [B, T, C, H, W] and [B, N, T, 4] px -> [B, N, C, T, P, P]."""
    if pool_mode == "align":
        return tube_roi_align(features, tubes_px, pool_size=pool_size)
    return tube_roi_pool(features, tubes_px, pool_size=pool_size)


def next_tubes(
    output: StepOutput, *, grows: bool, temporal_mode: TemporalMode, chunk_frames: int, image_size_px: int
) -> Tensor:
    """Makes a step's boxes the next step's input: grown if that step looks at more frames, then made valid."""
    tubes_px = output.boxes_px
    if grows:
        tubes_px = grow_tubes(
            tubes_px,
            output.first_px,
            output.last_px,
            temporal_mode=temporal_mode,
            chunk_frames=chunk_frames,
            image_size_px=image_size_px,
        )
    return make_boxes_valid(tubes_px, image_size_px)


def middle_boxes(tubes_px: Tensor) -> Tensor:
    """Returns the boxes used for detection, frame T' // 2 of each tube: [B, N, T', 4] -> [B, N, 4]."""
    return tubes_px[:, :, tubes_px.shape[2] // 2]


def frame_by_frame(volume: Tensor) -> Tensor:
    """Lays feature maps out as RoIs are pooled from them: [B, C, T, H, W] -> [B, T, C, H, W]."""
    return volume.transpose(1, 2).contiguous()
