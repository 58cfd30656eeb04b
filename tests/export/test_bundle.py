"""Checks what an export leaves behind, on a tiny model."""

import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from helpers import TINY, make_detector
from step_export.bundle_writer import ExportSettings, export_bundle

from step import StepConfig, StepError, save_checkpoint
from step.anchors import anchor_boxes
from step.bundles.graph_spec import BATCH, DETECT
from step.bundles.manifest import MANIFEST, read_bundle
from step.errors import ArgumentError
from step.files.atomic import sha256

SMALL = {"width": 0.06, "image_size_px": 48, "fc_dim": 8}


def _session(path):
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"])


def _exported(config, tmp_path, **settings):
    save_checkpoint(make_detector(config), tmp_path / "model.pth")
    export_bundle(tmp_path / "model.pth", tmp_path / "bundle", ExportSettings(**settings))
    return tmp_path / "bundle"


def test_manifest(tiny_bundle, tiny_checkpoint):
    manifest = read_bundle(tiny_bundle)
    assert set(manifest.graphs) == {"fused", "backbone", "step1", "step2", "step3", "detect"}
    assert {path.name for path in tiny_bundle.iterdir()} == {MANIFEST, *(g.file for g in manifest.graphs.values())}
    assert manifest.config == TINY
    assert manifest.source.sha256 == sha256(tiny_checkpoint)
    assert np.allclose(manifest.anchors, anchor_boxes(1))
    assert [record.id for record in manifest.classes] == list(TINY.class_ids)
    assert manifest.classes[0].name == "bend/bow (at the waist)"
    assert manifest.preprocessing.key_frame_index == 17
    assert manifest.graphs["fused"].dynamic_axes["frames"] == [0]
    assert manifest.parity
    assert all(row.passed for row in manifest.parity)
    assert {"step-trt", "torch", "onnx", "onnxscript"} <= set(manifest.tools)


def test_files_have_the_interface_that_the_manifest_states(tiny_bundle):
    for name, record in read_bundle(tiny_bundle).graphs.items():
        session = _session(tiny_bundle / record.file)
        for found, stated in (
            (session.get_inputs(), record.inputs),
            (session.get_outputs(), record.outputs),
        ):
            assert [(tensor.name, tuple(tensor.shape)) for tensor in found] == [(t.name, t.shape) for t in stated], name


def test_custom_operators_are_nodes_with_a_body(tiny_bundle):
    model = onnx.load(tiny_bundle / "fused.onnx")
    ours = [node for node in model.graph.node if node.domain == "step"]
    assert [node.op_type for node in ours] == ["TubeRoIAlign"] * 3 + ["ClassNms"]
    for node in ours:
        assert {a.name: a for a in node.attribute}["plugin_namespace"].s == b"step"
    assert {(f.domain, f.name) for f in model.functions} == {("step", "TubeRoIAlign"), ("step", "ClassNms")}
    standard = {node.op_type for node in model.graph.node if not node.domain}
    assert not standard & {"NonMaxSuppression", "NonZero", "RoiAlign", "BatchNormalization"}


def test_fused_equals_torch_on_other_batch_sizes(tiny_bundle, tiny_detector, tiny_clips):
    session = _session(tiny_bundle / "fused.onnx")
    for frames in (tiny_clips[:1], tiny_clips, np.concatenate((tiny_clips, tiny_clips[:1]))):
        _, scores, labels, _, counts, tubes = session.run(None, {"frames": frames})
        expected = tiny_detector.detect(torch.from_numpy(frames))
        assert np.array_equal(counts, expected.counts.numpy())
        assert np.abs(scores - expected.scores.numpy()).max() <= 1e-4
        assert np.abs(tubes - expected.tubes_px.numpy()).max() <= 0.05
        assert np.array_equal(np.sort(labels), np.sort(expected.labels.numpy()))


# Tracing takes most of the time, and it takes it per step: options that have nothing to do with each other share one.
ONE_STEP = {"chunks": (1,)}


@pytest.mark.parametrize(
    ("changes", "settings"),
    [
        (ONE_STEP, {"batch": 2}),
        (ONE_STEP, {"opset": 23, "graphs": "fused", "precision": "fp16"}),
        (ONE_STEP, {"max_detections": 10, "score_threshold": 0.3, "nms_iou": 0.6, "graphs": "fused"}),
        (ONE_STEP | {"context": False, "pool_mode": "pool", "anchor_mode": 2}, {"opset": 18}),
        ({"chunks": (1, 3), "temporal_mode": "extrapolate"}, {"graphs": "steps"}),
        ({"chunks": (1, 3, 3), "temporal_mode": "mean"}, {"num_steps": 2, "graphs": "fused"}),
    ],
)
def test_options_are_verified_against_torch(changes, settings, tmp_path):
    bundle = _exported(StepConfig(**(SMALL | changes)), tmp_path, **settings)
    manifest = read_bundle(bundle)
    assert all(row.passed for row in manifest.parity)
    batch = settings.get("batch", BATCH)
    assert all(record.inputs[0].shape[0] == batch for record in manifest.graphs.values())


def test_graph_choice(tmp_path):
    bundle = _exported(StepConfig(**SMALL, **ONE_STEP), tmp_path, graphs="steps", verify=False)
    manifest = read_bundle(bundle)
    assert list(manifest.graphs) == ["backbone", "step1", "detect"]
    assert manifest.parity is None


def test_parity_beyond_tolerance_writes_nothing(tmp_path, monkeypatch):
    """A wrong function body has to be noticed: here one that keeps every second box."""
    from step_export import bundle_writer
    from step_export.graphs.onnx_export import export_graph
    from step_export.graphs.ops import class_nms as nms_function

    right = nms_function.function_body

    def wrong(**arguments):
        return right(**(arguments | {"iou_threshold": 0.95}))

    monkeypatch.setattr(nms_function, "function_body", wrong)
    kept = bundle_writer.export_graph

    def export(module, spec, **arguments):  # not the graph that was exported before
        return (export_graph if spec.name == DETECT else kept)(module, spec, **arguments)

    monkeypatch.setattr(bundle_writer, "export_graph", export)
    with pytest.raises(StepError, match="differs from PyTorch: detections apart"):
        _exported(StepConfig(**SMALL, **ONE_STEP), tmp_path, graphs="fused")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pth"]


def test_weights_that_are_not_finite_are_refused(tmp_path):
    detector = make_detector(StepConfig(**SMALL, **ONE_STEP))
    with torch.no_grad():
        detector.heads[0].global_cls.bias[0] = float("nan")
    save_checkpoint(detector, tmp_path / "model.pth")
    with pytest.raises(StepError, match="heads.0.global_cls.bias holds values that are not finite"):
        export_bundle(tmp_path / "model.pth", tmp_path / "bundle", ExportSettings(graphs="fused"))
    assert not (tmp_path / "bundle").exists()


def test_an_older_bundle_is_replaced_if_asked_to_and_another_folder_is_not(tmp_path):
    one_step = StepConfig(**SMALL, **ONE_STEP)
    _exported(one_step, tmp_path, graphs="fused", verify=False)
    settings = ExportSettings(graphs="steps", verify=False)
    with pytest.raises(ArgumentError, match="bundle: a bundle is there already; replace it with `overwrite`, or name"):
        export_bundle(tmp_path / "model.pth", tmp_path / "bundle", settings)
    assert "fused" in read_bundle(tmp_path / "bundle").graphs
    export_bundle(tmp_path / "model.pth", tmp_path / "bundle", settings, overwrite=True)
    assert "fused" not in read_bundle(tmp_path / "bundle").graphs
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(StepError, match="is not a bundle, so it is not replaced"):
        export_bundle(tmp_path / "model.pth", tmp_path / "mine", ExportSettings())
    assert (tmp_path / "mine" / "thesis.tex").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"score_threshold": float("nan")}, "score_threshold is nan"),
        ({"nms_iou": 1.5}, "nms_iou is 1.5"),
        ({"max_detections": 0}, "max_detections is 0"),
        ({"opset": 9}, "`opset` is 9"),
        ({"batch": 0}, "`batch` is 0"),
        ({"num_steps": 4}, "`num_steps` is 4"),
    ],
)
def test_settings_out_of_range(settings, said, tiny_checkpoint, tmp_path):
    with pytest.raises(StepError, match=said):
        export_bundle(tiny_checkpoint, tmp_path / "bundle", ExportSettings(**settings))
    assert not list(tmp_path.iterdir())


@pytest.fixture
def copied_bundle(tiny_bundle, tmp_path):
    copy = tmp_path / "bundle"
    copy.mkdir()
    for path in tiny_bundle.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


def test_a_changed_file_is_refused(copied_bundle):
    content = bytearray((copied_bundle / "step2.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (copied_bundle / "step2.onnx").write_bytes(content)
    with pytest.raises(StepError, match="step2.onnx: changed since it was exported"):
        read_bundle(copied_bundle)


def test_a_missing_file_is_refused(copied_bundle):
    (copied_bundle / "detect.onnx").unlink()
    with pytest.raises(StepError, match="detect.onnx.*missing"):
        read_bundle(copied_bundle)


def _with_file(raw, file):
    return raw | {"graphs": raw["graphs"] | {"detect": raw["graphs"]["detect"] | {"file": file}}}


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda raw: raw | {"schema_version": 3}, "schema version 3, this step-trt reads 1 and 2; upgrade"),
        (lambda raw: {k: v for k, v in raw.items() if k != "schema_version"}, "is damaged"),
        (lambda raw: {k: v for k, v in raw.items() if k != "anchors"}, "anchors"),
        (lambda raw: raw | {"precision": "int4"}, "precision"),
        (lambda raw: raw["graphs"], "is damaged"),
        (lambda raw: raw | {"schema_version": True}, "schema version True"),
        (lambda raw: raw | {"num_steps": 9}, "num_steps is 9"),
        (lambda raw: raw | {"num_steps": 2}, "does not fit the model"),
        (lambda raw: raw | {"graphs": {k: v for k, v in raw["graphs"].items() if k != "step2"}}, "'step2' is missing"),
        (lambda raw: raw | {"model": raw["model"] | {"image_size_px": 80}}, "preprocessing contradicts the model"),
        (
            lambda raw: raw | {"preprocessing": raw["preprocessing"] | {"fps": 25}},
            "preprocessing contradicts the model",
        ),
        (lambda raw: raw | {"classes": raw["classes"][1:]}, "classes are not those of the model"),
        (
            lambda raw: _with_file(raw, "../detect.onnx"),
            r"the file of graph 'detect' is '../detect.onnx'; it has to be",
        ),
        (lambda raw: _with_file(raw, "x" * 300), r"the file of graph 'detect' is 'x{199}...; it has to be detect.onnx"),
        (lambda raw: raw | {"model": raw["model"] | {"image_size_px": "wide"}}, "image_size_px is 'wide'"),
    ],
)
def test_manifests_that_do_not_fit(edit, said, copied_bundle):
    path = copied_bundle / MANIFEST
    path.write_text(json.dumps(edit(json.loads(path.read_text()))))
    with pytest.raises(StepError, match=said):
        read_bundle(copied_bundle)


def test_a_bundle_of_the_first_schema_is_read(copied_bundle):
    path = copied_bundle / MANIFEST
    raw = json.loads(path.read_text())
    first = {key: value for key, value in raw.items() if key not in ("engines", "keep_fp32")}
    path.write_text(json.dumps(first | {"schema_version": 1}))
    manifest = read_bundle(copied_bundle)
    assert (manifest.engines, manifest.keep_fp32) == ({}, ())


def test_a_manifest_that_is_no_json(copied_bundle):
    (copied_bundle / MANIFEST).write_text("{")
    with pytest.raises(StepError, match="manifest.json: is damaged: no JSON of ours: .*; export the bundle again"):
        read_bundle(copied_bundle)
    (copied_bundle / MANIFEST).write_text("[" * 100_000)
    with pytest.raises(StepError, match="is damaged"):
        read_bundle(copied_bundle)


def test_a_folder_that_is_no_bundle(tmp_path):
    with pytest.raises(StepError, match="not a bundle"):
        read_bundle(tmp_path)
