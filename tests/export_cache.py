"""Exported graphs, kept for a test run: tracing takes seconds, and many tests want the same graph.

A graph is known by all that it depends on: the module's class, structure, plain attributes and weights, the interface,
the configuration and the opset. The processes of a run share the folder; whoever comes second waits for the first.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import onnx
import torch
from filelock import FileLock
from torch import nn

from step import StepConfig
from step.bundles.graph_spec import GraphSpec
from step.models.graphs import BackboneGraph, DetectGraph, StepGraph

ExportGraph = Callable[..., onnx.ModelProto]
_PLAIN = (bool, int, float, str, tuple, type(None))


def graph_key(module: nn.Module, spec: GraphSpec, *, config: StepConfig, opset: int) -> str:
    """What a graph is known by."""
    digest = hashlib.sha256(repr((type(module).__qualname__, spec, _settings(module, config), opset)).encode())
    for prefix, read in _parts(module).items():
        digest.update(repr((prefix, read)).encode())
        for name, part in read.named_modules():
            plain = {key: value for key, value in vars(part).items() if isinstance(value, _PLAIN)}
            digest.update(repr((name, type(part).__qualname__, sorted(plain.items()))).encode())
        for name, tensor in (*read.named_parameters(), *read.named_buffers()):
            digest.update(repr((name, tensor.dtype, tuple(tensor.shape))).encode())
            digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _settings(module: nn.Module, config: StepConfig) -> object:
    """What of the configuration a graph, or the body of an operator in it, depends on."""
    if isinstance(module, BackboneGraph):
        return None
    if isinstance(module, DetectGraph):  # the rest is in the module's attributes
        return config.anchor_mode
    return sorted(config.to_dict().items())


def _parts(module: nn.Module) -> dict[str, nn.Module]:
    """The modules that a graph reads, by name: of the detector, a backbone or one step's head."""
    if isinstance(module, BackboneGraph):
        detector = module.detector
        return {f"backbone, {detector.dtype}": detector.backbone} | (
            {} if detector.context is None else {"context": detector.context}
        )
    if isinstance(module, StepGraph):
        return {f"heads.{module.step}, last: {module.is_last}": module.detector.heads[module.step]}
    return {"": module}


def kept(export_graph: ExportGraph, folder: Path) -> ExportGraph:
    """`export_graph`, which exports each graph once.

    Args:
        export_graph: the real one.
        folder: for the graphs.
    """

    def export(module: nn.Module, spec: GraphSpec, *, config: StepConfig, opset: int) -> onnx.ModelProto:
        file = folder / f"{graph_key(module, spec, config=config, opset=opset)}.onnx"
        with FileLock(file.with_suffix(".lock")):
            if not file.exists():
                part = file.with_suffix(".part")
                part.write_bytes(export_graph(module, spec, config=config, opset=opset).SerializeToString())
                part.rename(file)
        return onnx.load(file)

    return export
