"""The two operators as TensorRT quickly deployable plugins, compiled ahead of time into the engine.

An engine with them needs no plugin library: it holds the kernels' PTX. The ONNX parser takes a plugin for a node whose
name and `plugin_namespace` are registered, and the node's function body otherwise.

No `from __future__ import annotations` here: TensorRT reads the annotations as types.

Shape legend: B clips, N tubes or boxes, T feature frames, C channels, H x W feature cells, P bins a side, K classes.

Source: https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/quickly-deployable-plugins.html
"""
# mypy: disable-error-code="valid-type, untyped-decorator"

import importlib
from typing import Any

from step_plugins import class_nms, roi_align
from step_plugins.kernel import require

NAMESPACE = "step"


def register_plugins(trt: Any) -> None:
    """Registers `step::TubeRoIAlign` and `step::ClassNms`; see `step_plugins.register`."""
    trtp = importlib.import_module(f"{trt.__name__}.plugin")
    if not hasattr(getattr(trtp.op, NAMESPACE, None), roi_align.NAME):
        _register_roi_align(trt, trtp)
    if not hasattr(getattr(trtp.op, NAMESPACE, None), class_nms.NAME):
        _register_class_nms(trt, trtp)


def _register_roi_align(trt: Any, trtp: Any) -> None:
    plugin_id = f"{NAMESPACE}::{roi_align.NAME}"

    @trtp.register(plugin_id)
    def describe(features: trtp.TensorDesc, tubes_px: trtp.TensorDesc, pool_size: int) -> trtp.TensorDesc:
        _check_input(trt, plugin_id, "features", features, rank=5, dtypes=("FLOAT", "HALF"))
        _check_input(trt, plugin_id, "tubes_px", tubes_px, rank=4, dtypes=("FLOAT",))
        roi_align.check_limits(pool_size=pool_size, max_cells=1)  # the map's size is checked when it is known
        batch, frames, channels = (features.shape_expr[axis] for axis in range(3))
        shape = (batch, tubes_px.shape_expr[1], channels, frames, pool_size, pool_size)
        return trtp.from_shape_expr(shape, features.dtype)

    @trtp.autotune(plugin_id)
    def combinations(
        features: trtp.TensorDesc, tubes_px: trtp.TensorDesc, outputs: tuple[trtp.TensorDesc]
    ) -> list[trtp.AutoTuneCombination]:
        # The types are those of a strongly typed network; only the layout of the features is open.
        precision, channels_last = ("FP16", "HWC8") if features.dtype == trt.DataType.HALF else ("FP32", "HWC")
        types = f"{precision}, FP32, {precision}"
        tactics = list(roi_align.TACTICS)
        return [
            trtp.AutoTuneCombination(types, f"{layout}, LINEAR, LINEAR", tactics)
            for layout in (channels_last, "LINEAR")
        ]

    @trtp.aot_impl(plugin_id)
    def implement(
        features: trtp.TensorDesc,
        tubes_px: trtp.TensorDesc,
        pool_size: int,
        outputs: tuple[trtp.TensorDesc],
        tactic: int,
    ) -> tuple[str | bytes, str | bytes, trtp.KernelLaunchParams, trtp.SymIntExprs]:
        batch, frames, channels, height, width = features.shape_expr
        tubes = tubes_px.shape_expr[1]
        half = features.dtype == trt.DataType.HALF
        channels_last = features.format != trt.TensorFormat.LINEAR
        # HWC8 pads the channels to a multiple of eight, HWC does not; a multiple is all that the kernel wants to know.
        pitch = trtp.cdiv(channels, 8) * 8 if half else channels
        known_pitch = 8 if half else _largest(features, 2)
        kernel = roi_align.kernel(
            half=half,
            channels_last=channels_last,
            pitch=known_pitch,
            max_cells=max(_largest(features, 3), _largest(features, 4)),
            pool_size=pool_size,
            tactic=tactic,
        )
        grid = roi_align.grid(
            batch=batch, tubes=tubes, frames=frames, channels=channels, tactic=tactic, ceil_div=trtp.cdiv
        )
        arguments = roi_align.arguments(
            tubes=tubes, frames=frames, channels=channels, height=height, width=width, pitch=pitch
        )
        return kernel.entry, kernel.ptx(), _launch(trtp, grid, kernel.threads), _int32(trtp, arguments)


def _register_class_nms(trt: Any, trtp: Any) -> None:
    plugin_id = f"{NAMESPACE}::{class_nms.NAME}"

    # The attributes stand in the order of their names, as in the ONNX nodes: TensorRT hands them to `implement` by
    # position, and both are floats.
    @trtp.register(plugin_id)
    def describe(
        boxes_xyxy: trtp.TensorDesc, scores: trtp.TensorDesc, iou_threshold: float, score_threshold: float
    ) -> trtp.TensorDesc:
        class_nms.check_limits(boxes=0, score_threshold=score_threshold, iou_threshold=iou_threshold)
        _check_input(trt, plugin_id, "boxes_xyxy", boxes_xyxy, rank=3, dtypes=("FLOAT",))
        _check_input(trt, plugin_id, "scores", scores, rank=3, dtypes=("FLOAT",))
        return scores.like()

    @trtp.autotune(plugin_id)
    def combinations(
        boxes_xyxy: trtp.TensorDesc, scores: trtp.TensorDesc, outputs: tuple[trtp.TensorDesc]
    ) -> list[trtp.AutoTuneCombination]:
        return [trtp.AutoTuneCombination("FP32, FP32, FP32", "LINEAR", list(class_nms.TACTICS))]

    @trtp.aot_impl(plugin_id)
    def implement(
        boxes_xyxy: trtp.TensorDesc,
        scores: trtp.TensorDesc,
        iou_threshold: float,
        score_threshold: float,
        outputs: tuple[trtp.TensorDesc],
        tactic: int,
    ) -> tuple[str | bytes, str | bytes, trtp.KernelLaunchParams, trtp.SymIntExprs]:
        batch, boxes, classes = scores.shape_expr
        kernel = class_nms.kernel(
            max_boxes=_largest(scores, 1),
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            tactic=tactic,
        )
        grid = class_nms.grid(batch=batch, classes=classes)
        arguments = class_nms.arguments(boxes=boxes, classes=classes)
        return kernel.entry, kernel.ptx(), _launch(trtp, grid, kernel.threads), _int32(trtp, arguments)


def _check_input(trt: Any, plugin_id: str, name: str, tensor: Any, *, rank: int, dtypes: tuple[str, ...]) -> None:
    allowed = [getattr(trt.DataType, dtype) for dtype in dtypes]
    found = len(tensor.shape_expr)
    require(found == rank, f"{plugin_id}: {name} has {found} dimensions; it must have {rank}")
    require(tensor.dtype in allowed, f"{plugin_id}: {name} is {tensor.dtype.name}; it must be {' or '.join(dtypes)}")


def _largest(tensor: Any, axis: int) -> int:
    """Returns the most that a dimension can be: its size, or the upper end of its profile."""
    sizes = tensor.shape.max if tensor.shape.is_dynamic else tensor.shape
    return int(sizes[axis])


def _launch(trtp: Any, grid: tuple[Any, Any, Any], threads: int) -> Any:
    launch = trtp.KernelLaunchParams()
    launch.grid_x, launch.grid_y, launch.grid_z = grid
    launch.block_x = threads
    return launch


def _int32(trtp: Any, arguments: tuple[Any, ...]) -> Any:
    expressions = trtp.SymIntExprs(len(arguments))
    for index, argument in enumerate(arguments):
        expressions[index] = trtp.SymInt32(argument)
    return expressions
