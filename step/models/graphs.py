"""The exported graphs as modules: the detector cut at the seams that the runtime's loops need.

Shape legend: B clips, F frames, T' feature frames of a step, N tubes, C channels, K classes.
Inputs and outputs are those of `step.bundles.graph_spec`, in the same order.
"""

from torch import Tensor, nn

from step import StepDetector
from step.bundles.graph_spec import BACKBONE, DETECT, FUSED, ExportOptions, step_graph_name
from step.models.detector import ClipFeatures, middle_boxes
from step.ops.box_coding import make_boxes_valid
from step.ops.detect import top_detections


class FusedGraph(nn.Module):
    """Takes frames, returns detections and final tubes; the anchors are constants inside."""

    def __init__(
        self, *, detector: StepDetector, num_steps: int, score_threshold: float, nms_iou: float, max_detections: int
    ) -> None:
        super().__init__()
        self.detector = detector
        self.num_steps = num_steps
        self.score_threshold = score_threshold
        self.nms_iou = nms_iou
        self.max_detections = max_detections

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        output = self.detector(frames, num_steps=self.num_steps)[-1]
        return tuple(
            self.detector.select(
                output,
                score_threshold=self.score_threshold,
                nms_iou=self.nms_iou,
                max_detections=self.max_detections,
            )
        )


class BackboneGraph(nn.Module):
    """Takes frames, returns features (and context)."""

    def __init__(self, *, detector: StepDetector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        clip = self.detector.extract(frames)
        return (clip.features,) if clip.context is None else (clip.features, clip.context)


class StepGraph(nn.Module):
    """Is one step (0-based): takes features, tubes and context; returns predictions and the next step's tubes."""

    def __init__(self, *, detector: StepDetector, step: int, is_last: bool) -> None:
        super().__init__()
        self.detector = detector
        self.step = step
        self.is_last = is_last

    def forward(self, features: Tensor, input_tubes_px: Tensor, context: Tensor | None = None) -> tuple[Tensor, ...]:
        output = self.detector.run_step(ClipFeatures(features, context), input_tubes_px, step=self.step)
        tubes_px = make_boxes_valid(output.boxes_px, self.detector.config.image_size_px)
        outputs = (*output, tubes_px, middle_boxes(tubes_px))
        if self.is_last:
            return outputs
        if self.detector.config.grows_after(self.step):
            return (*outputs, self.detector.next_tubes(output, step=self.step))
        return (*outputs, tubes_px.clone())  # the same rule on the same boxes: no need to compute it twice


class DetectGraph(nn.Module):
    """Takes scores and middle boxes, returns detections."""

    class_ids: Tensor

    def __init__(
        self, *, class_ids: Tensor, image_size_px: int, score_threshold: float, nms_iou: float, max_detections: int
    ) -> None:
        super().__init__()
        self.register_buffer("class_ids", class_ids)
        self.image_size_px = image_size_px
        self.score_threshold = score_threshold
        self.nms_iou = nms_iou
        self.max_detections = max_detections

    def forward(self, class_scores: Tensor, center_px: Tensor) -> tuple[Tensor, ...]:
        return tuple(
            top_detections(
                class_scores,
                center_px,
                self.class_ids,
                image_size_px=self.image_size_px,
                score_threshold=self.score_threshold,
                nms_iou=self.nms_iou,
                max_detections=self.max_detections,
            )
        )


def graph_modules(
    detector: StepDetector, options: ExportOptions, *, score_threshold: float, nms_iou: float
) -> dict[str, nn.Module]:
    """Makes every graph of `step.bundles.graph_spec.graph_specs`, by name."""
    modules: dict[str, nn.Module] = {
        FUSED: FusedGraph(
            detector=detector,
            num_steps=options.num_steps,
            score_threshold=score_threshold,
            nms_iou=nms_iou,
            max_detections=options.max_detections,
        ),
        BACKBONE: BackboneGraph(detector=detector),
    }
    for step in range(options.num_steps):
        modules[step_graph_name(step)] = StepGraph(detector=detector, step=step, is_last=step + 1 == options.num_steps)
    modules[DETECT] = DetectGraph(
        class_ids=detector.class_ids,
        image_size_px=detector.config.image_size_px,
        score_threshold=score_threshold,
        nms_iou=nms_iou,
        max_detections=options.max_detections,
    )
    return {name: module.eval() for name, module in modules.items()}
