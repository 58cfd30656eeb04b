"""The tests' own cache of exported graphs: what differs in anything is another graph."""

from dataclasses import replace

import onnx
import torch
from export_cache import graph_key, kept
from helpers import ONE_STEP, make_detector

from step.bundles.graph_spec import BACKBONE, FUSED, ExportOptions, graph_specs
from step.models.graphs import graph_modules

OPTIONS = ExportOptions(precision="fp32", num_steps=1, batch=None, max_detections=300)


def _key(detector, options=OPTIONS, *, opset=18, score_threshold=0.01, spec=None):
    modules = graph_modules(detector, options, score_threshold=score_threshold, nms_iou=0.4)
    spec = spec or graph_specs(detector.config, options)[FUSED]
    return graph_key(modules[FUSED], spec, config=detector.config, opset=opset)


def test_what_a_graph_depends_on():
    detector = make_detector(ONE_STEP)
    spec = graph_specs(ONE_STEP, OPTIONS)[FUSED]
    keys = [
        _key(detector),
        _key(make_detector(ONE_STEP, seed=1)),
        _key(detector, opset=19),
        _key(detector, score_threshold=0.02),
        _key(detector, replace(OPTIONS, max_detections=3)),
        _key(detector, replace(OPTIONS, batch=2)),
        _key(detector, spec=replace(spec, name="other")),
    ]
    with torch.no_grad():
        next(iter(detector.parameters())).view(-1)[0] += 1e-6
    keys.append(_key(detector))
    assert len(set(keys)) == len(keys)
    assert _key(make_detector(ONE_STEP)) == keys[0]


def test_a_backbone_is_the_same_before_other_steps():
    """And not before other clips, or with another weight."""

    def key(config, name=BACKBONE, changed=None):
        detector = make_detector(config)
        if changed is not None:
            with torch.no_grad():
                next(iter(getattr(detector, changed).parameters())).view(-1)[0] += 1e-6
        modules = graph_modules(detector, OPTIONS, score_threshold=0.01, nms_iou=0.4)
        return graph_key(modules[name], graph_specs(config, OPTIONS)[name], config=config, opset=18)

    assert key(ONE_STEP) == key(ONE_STEP, changed="heads") == key(replace(ONE_STEP, pool_mode="pool", anchor_mode=2))
    keys = [
        key(ONE_STEP),
        key(ONE_STEP, changed="backbone"),
        key(ONE_STEP, changed="context"),
        key(replace(ONE_STEP, image_size_px=64)),
        key(replace(ONE_STEP, context=False)),
    ]
    assert len(set(keys)) == len(keys)
    assert key(ONE_STEP, "step1") != key(ONE_STEP, "step1", changed="heads")
    assert key(ONE_STEP, "step1") != key(replace(ONE_STEP, pool_mode="pool"), "step1")


def test_each_graph_is_exported_once(tmp_path):
    exported = []

    def export_graph(module, spec, *, config, opset):
        exported.append(spec.name)
        return onnx.helper.make_model(onnx.helper.make_graph([], spec.name, [], []))

    detector = make_detector(ONE_STEP)
    spec = graph_specs(ONE_STEP, OPTIONS)[FUSED]
    module = graph_modules(detector, OPTIONS, score_threshold=0.01, nms_iou=0.4)[FUSED]
    export = kept(export_graph, tmp_path)
    first, second = (export(module, spec, config=ONE_STEP, opset=18) for _ in range(2))
    assert exported == [FUSED]
    assert first == second
    assert first is not second
