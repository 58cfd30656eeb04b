"""Fused graphs that compute the same with one thing done otherwise, for benchmarks/graph_savings.py."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from step_export.graphs.fold_batch_norm import fold_batch_norm
from step_export.graphs.fold_padding import fold_padding
from step_export.graphs.onnx_export import export_graph
from step_export.graphs.ops import roi_align
from step_export.graphs.ops.function_builder import FunctionBuilder
from torch import Tensor, nn

from step import StepConfig, StepDetector, load_checkpoint
from step.anchors import anchor_boxes, anchor_tubes
from step.bundles.graph_spec import BATCH, FUSED, GraphSpec, TensorSpec, graph_specs
from step.bundles.manifest import Manifest
from step.models.detector import ClipFeatures
from step.models.graphs import FusedGraph
from step.models.head import HeadOutput, TwoBranchHead, WideningBlock
from step.models.i3d import ConvUnit
from step.ops.roi_align import tube_roi_align

EXPORTED = "as exported"
AGAIN = "as exported, again"
"""How far two processes with the same graph are apart: less says nothing."""


class KeepsAll(FusedGraph):
    """With every step's scores and neighbour boxes as outputs, so that no branch can be left out."""

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        outputs = self.detector(frames, num_steps=self.num_steps)
        detections = self.detector.select(
            outputs[-1],
            score_threshold=self.score_threshold,
            nms_iou=self.nms_iou,
            max_detections=self.max_detections,
        )
        return (*detections, *(value for each in outputs for value in (each.scores, each.first_px, each.last_px)))


class ReducesFirst(StepDetector):
    """With the 1x1 convolutions that read pooled features run on the map instead: they commute with RoI align, since
    a bin's weights are the same for every channel; biases and ReLUs come after."""

    def run_head(self, clip: ClipFeatures, tubes_px: Tensor, *, step: int) -> HeadOutput:
        config, head = self.config, self.heads[step]
        assert isinstance(head, TwoBranchHead)
        first, frames = config.step_first_frame(step), config.step_frames(step)
        features = clip.features[:, first : first + frames]
        channels = features.shape[2]
        convs = [conv.weight.flatten(1)[:, :channels] for conv in _moved(head)]
        # [B, T', C, H, W] -> [B, T', C + all outputs, H, W] -> [B N, ..., T', P, P]
        reduced = F.conv2d(features.flatten(0, 1), torch.cat(convs)[..., None, None])
        both = torch.cat((features, reduced.unflatten(0, (features.shape[0], frames))), dim=2)
        pooled = tube_roi_align(both, tubes_px, pool_size=config.pool_size).flatten(0, 1)
        parts = torch.split(pooled, [channels, *(len(weight) for weight in convs)], dim=1)
        context = None
        if clip.context is not None:
            window = clip.context[:, None, :, first : first + frames]
            context = window.expand(-1, tubes_px.shape[1], -1, -1).flatten(0, 1)
        raw = _head_after(head, parts, context)
        batch, tubes = tubes_px.shape[:2]
        return HeadOutput(*(output.float().unflatten(0, (batch, tubes)) for output in raw))


def _moved(head: TwoBranchHead) -> list[nn.Conv3d | nn.Conv2d]:
    """The 1x1 convolutions that read pooled features: three of mixed 5b, and two of the local branch's first block."""
    block, widening = head.mixed_5b, head.local_conv[0]
    units = (block.branch_0, block.branch_1[0], block.branch_2[0])
    assert isinstance(widening, WideningBlock)
    return [*(unit.conv3d for unit in units if isinstance(unit, ConvUnit)), widening.conv1, widening.conv2]


def _head_after(head: TwoBranchHead, parts: tuple[Tensor, ...], context: Tensor | None) -> HeadOutput:
    """`TwoBranchHead.forward` from where its first 1x1 convolutions are done."""
    pooled, in_0, in_1, in_2, wide, inner = parts
    block, widening = head.mixed_5b, head.local_conv[0]
    assert isinstance(widening, WideningBlock)
    biases = [conv.bias for conv in _moved(head)[:3]]
    in_0, in_1, in_2 = (
        F.relu(part + bias[:, None, None, None])
        for part, bias in zip((in_0, in_1, in_2), biases, strict=True)
        if bias is not None
    )
    mixed = torch.cat((in_0, block.branch_1[1](in_1), block.branch_2[1](in_2), block.branch_3(pooled)), dim=1)
    reduced = head.downsample(head.mixed_5c(mixed))
    frames, channels = reduced.shape[2], pooled.shape[1]
    per_frame = reduced.transpose(1, 2).flatten(2)
    if context is not None:
        per_frame = torch.cat((per_frame, context.transpose(1, 2)), dim=2)
    logits = head.global_cls(per_frame).mean(dim=1)
    by_frame, wide, inner = (part.transpose(1, 2).flatten(0, 1) for part in (reduced, wide, inner))
    wide = wide + F.conv2d(by_frame, widening.conv1.weight[:, channels:])
    inner = inner + F.conv2d(by_frame, widening.conv2.weight[:, channels:])
    inner = F.relu(widening.conv3(F.relu(inner)))
    local = F.relu(wide + widening.conv4(inner))
    local = head.downsample2(head.local_conv[2](head.local_conv[1](local)))
    local = local.flatten(1).unflatten(0, (-1, frames))
    deltas = head.local_reg(local)
    first, last = local[:, : head.chunk_frames], local[:, -head.chunk_frames :]
    return HeadOutput(
        logits=logits,
        deltas=deltas,
        first_deltas=deltas[:, : head.chunk_frames] + head.neighbor_reg1(first),
        last_deltas=deltas[:, -head.chunk_frames :] + head.neighbor_reg2(last),
    )


def with_constant_anchors(model: onnx.ModelProto, config: StepConfig) -> onnx.ModelProto:
    """The first RoI align's boxes as a constant of one clip, which every clip shares: its weights can be folded."""
    anchors_px = anchor_tubes(config.anchor_mode, frames=config.chunk_frames, image_size_px=config.image_size_px)
    first = next(node for node in model.graph.node if node.op_type == roi_align.NAME)
    first.input[1] = "constant_anchors_px"
    model.graph.initializer.append(numpy_helper.from_array(anchors_px[None], "constant_anchors_px"))
    return model


def with_channels_last(model: onnx.ModelProto, config: StepConfig) -> onnx.ModelProto:
    """RoI align with the channels innermost until its last transposition."""
    size, pool, channels = config.feature_size, config.pool_size, config.feature_channels
    f = FunctionBuilder(opset=next(entry.version for entry in model.opset_import if not entry.domain))
    x_weights, y_weights = (
        roi_align._axis_weights(f, low=low, high=low + 2, cells=size, pool_size=pool) for low in (0, 1)
    )
    # [B, T, N P, H] @ [B, T, H, W C] -> [B, T, N, P, W, C]
    rows = f.op("Reshape", f.op("Transpose", y_weights, perm=[0, 2, 1, 3, 4]), f.ints([0, 0, -1, size]))
    flat = f.op("Transpose", "features", perm=[0, 1, 3, 4, 2])
    flat = f.op("Reshape", flat, f.ints([0, 0, size, size * channels]))
    rows = f.op("Reshape", f.op("MatMul", rows, flat), f.ints([0, 0, -1, pool, size, channels]))
    # [B, T, N, 1, P, W] @ [B, T, N, P, W, C] -> [B, T, N, P, P, C] -> [B, N, C, T, P, P]
    columns = f.op("Unsqueeze", f.op("Transpose", x_weights, perm=[0, 2, 1, 3, 4]), f.ints([3]))
    f.op("Transpose", f.op("MatMul", columns, rows), output="pooled", perm=[0, 2, 5, 1, 3, 4])
    return _with_body(
        model, f.build(roi_align.NAME, inputs=["features", "tubes_px"], output="pooled", attributes=["pool_size"])
    )


def _with_body(model: onnx.ModelProto, body: onnx.FunctionProto) -> onnx.ModelProto:
    others = [function for function in model.functions if function.name != body.name]
    del model.functions[:]
    model.functions.extend([*others, body])
    return model


def variants(checkpoint: Path, manifest: Manifest) -> dict[str, Callable[[], onnx.ModelProto]]:
    """Fused graphs by what is otherwise in them."""
    config, options, thresholds = manifest.config, manifest.options, manifest.thresholds
    spec = graph_specs(config, options)[FUSED]
    detector = load_checkpoint(checkpoint)
    folded = fold_batch_norm(detector)

    def traced(of: StepDetector, graph: type[FusedGraph] = FusedGraph, its: GraphSpec = spec) -> onnx.ModelProto:
        module = graph(
            detector=of,
            num_steps=options.num_steps,
            score_threshold=thresholds.score_threshold,
            nms_iou=thresholds.nms_iou,
            max_detections=thresholds.max_detections,
        )
        return export_graph(module.eval(), its, config=config, opset=manifest.opset)

    def fused(of: StepDetector, graph: type[FusedGraph] = FusedGraph, its: GraphSpec = spec) -> onnx.ModelProto:
        model = traced(of, graph, its)
        fold_padding(model)
        return model

    def reduces_first() -> onnx.ModelProto:
        moved = ReducesFirst(
            backbone=folded.backbone,
            context=folded.context,
            heads=folded.heads,
            anchors_px=folded.anchors_px,
            config=config,
        )
        model = fused(moved.eval())
        head = folded.heads[0]
        assert isinstance(head, TwoBranchHead)
        more = sum(conv.out_channels for conv in _moved(head))
        return _with_body(
            model,
            roi_align.function_body(
                opset=manifest.opset,
                channels=config.feature_channels + more,
                feature_size=config.feature_size,
                pool_size=config.pool_size,
            ),
        )

    def keeps_all() -> onnx.ModelProto:
        tubes, chunk = len(anchor_boxes(config.anchor_mode)), config.chunk_frames
        more: list[TensorSpec] = []
        for step in range(options.num_steps):
            more.append(TensorSpec(f"scores_{step}", "float32", (BATCH, tubes, config.num_classes)))
            more += [TensorSpec(f"{end}_px_{step}", "float32", (BATCH, tubes, chunk, 4)) for end in ("first", "last")]
        return fused(folded, KeepsAll, dataclasses.replace(spec, outputs=(*spec.outputs, *more)))

    return {
        EXPORTED: lambda: fused(folded),
        AGAIN: lambda: fused(folded),
        "BatchNorm not folded": lambda: fused(detector),
        "padding before pools": lambda: traced(folded),
        "unused branches kept": keeps_all,
        "1x1 convolutions before RoI align": reduces_first,
        "first RoI align's boxes constant": lambda: with_constant_anchors(fused(folded), config),
        "RoI align with channels last": lambda: with_channels_last(fused(folded), config),
    }
