"""`step-verify --bisect`: the first layer whose error is too large, and the repair that it names."""

import json
import re
import shlex
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from helpers import ONE_STEP, assert_one_error, make_detector, run_command
from step_export.bundle_writer import ExportSettings, export_bundle
from step_export.cli import main as step_export
from step_runtime.verification.bisect import find_first, relative_error
from step_runtime.verification.cli import main as step_verify
from step_runtime.verification.graph_runners.open import open_runner
from step_runtime.verification.graph_tensors import read_tensors

from step import save_checkpoint
from step.bundles.manifest import read_bundle
from step.parity.synthetic_clips import verification_clips


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A model that half cannot run: one convolution's results are beyond 65504, the one behind it undoes that."""
    folder = tmp_path_factory.mktemp("planted")
    detector = make_detector(ONE_STEP)
    block = detector.heads[0].local_conv[0]
    with torch.no_grad():
        block.conv2.weight.mul_(2.0**11)
        block.conv3.weight.mul_(2.0**11)
        block.conv4.weight.mul_(2.0**-22)
    save_checkpoint(detector, folder / "model.pth")
    settings = ExportSettings(precision="fp16", graphs="fused", verify=False)
    export_bundle(folder / "model.pth", folder / "bundle", settings)
    return folder


def test_an_overflow_is_seen_found_and_repaired(planted, capsys):
    code, printed, _ = run_command(step_verify, capsys, planted / "bundle")
    assert code == 1
    assert re.search(r"fused +detections matched .*FAIL", printed)

    report = planted / "report.json"
    code, printed, _ = run_command(step_verify, capsys, planted / "bundle", "--bisect", "--json", report)
    assert code == 1
    assert "(Conv)" in printed
    assert re.search(r"module +heads\.0\.local_conv\.0\.conv3$", printed, re.MULTILINE)
    assert "error   not finite, where the reference's largest value is 1.9" in printed
    found = json.loads(report.read_text())["first"]
    assert (found["graph"], found["error"], found["keep_fp32"]) == ("fused", None, "heads.0.local_conv.0")

    options = shlex.split(re.search(r"repair +step-export (.*)", printed)[1])
    words = [planted / "model.pth", "-o", planted / "repaired", "--graphs", "fused", *options]
    code, _, error = run_command(step_export, capsys, *words)
    assert code == 0, error
    assert read_bundle(planted / "repaired").keep_fp32 == ("heads.0.local_conv.0",)
    for arguments in ([], ["--checkpoint", planted / "model.pth"]):
        code, printed, _ = run_command(step_verify, capsys, planted / "repaired", *arguments)
        assert code == 0, printed
    code, printed, _ = run_command(step_verify, capsys, planted / "repaired", "--bisect", "--max-clips", "1")
    assert code == 0, printed
    assert "every tensor of fused is within" in printed


def test_what_was_kept_before_is_kept(planted, tmp_path, capsys):
    """The printed command holds the patterns of the bundle, too."""
    manifest = read_bundle(planted / "bundle").model_copy(update={"keep_fp32": ("context",)})
    (tmp_path / "fused.onnx").write_bytes((planted / "bundle" / "fused.onnx").read_bytes())
    (tmp_path / "manifest.json").write_text(manifest.model_dump_json())
    code, printed, _ = run_command(step_verify, capsys, tmp_path, "--bisect", "--max-clips", "1", "--bound", "0.5")
    assert code == 1
    assert "--precision fp16 --keep-fp32 'context' --keep-fp32 'heads.0.local_conv.0'" in printed


class _Disturbed:
    """A runner that adds something to some tensors, and to nothing that is computed from them."""

    precision = "fp32"

    def __init__(self, inner, names, *, by=1.0):
        self.name, self._inner, self._names, self._by = "disturbed", inner, names, by
        self.marked = []

    def run(self, graph, inputs, extra_outputs=()):
        self.marked += extra_outputs
        outputs = self._inner.run(graph, inputs, extra_outputs)
        return {name: value + self._by if name in self._names else value for name, value in outputs.items()}

    def close(self):
        self._inner.close()


def _find(reference, candidate, bundle, *, graph):
    manifest = read_bundle(bundle)
    (clip, *_) = verification_clips(manifest.config, batches=(2, 2))
    return find_first(
        reference, candidate, bundle, manifest, [clip], graph=graph, bound=1e-6, progress=lambda _message: None
    )


@pytest.mark.parametrize("positions", [(0,), (33, 34), (7, 190), (-1,), ()])
def test_the_first_in_topological_order(positions, half_bundle):
    """Errors that later tensors do not have are found all the same."""
    manifest = read_bundle(half_bundle)
    exact = open_runner("onnxruntime-fp32", half_bundle, manifest, checkpoint=None, device="cpu")
    tensors = read_tensors(half_bundle / "fused.onnx")
    names = [tensors[position].name for position in positions]
    disturbed = _Disturbed(exact, names)
    found = _find(exact, disturbed, half_bundle, graph="fused")
    assert (found and found.tensor) == (names[0] if names else None)
    count = tensors.index(next(t for t in tensors if t.name == names[0])) + 1 if names else len(tensors)
    assert disturbed.marked[:count] == [tensor.name for tensor in tensors[:count]]
    assert len(disturbed.marked) < count + 32


def test_a_module_is_kept_only_if_half_holds_its_results(half_bundle):
    exact = open_runner("onnxruntime-fp32", half_bundle, read_bundle(half_bundle), checkpoint=None, device="cpu")
    tensors = read_tensors(half_bundle / "step1.onnx")
    inside = [tensor.name for tensor in tensors if tensor.module.startswith("heads.0.mixed_5b.branch_1")]
    for names, kept in (
        (inside[:1], "heads.0.mixed_5b.branch_1.0"),
        (inside, "heads.0.mixed_5b"),
        ([tensor.name for tensor in tensors if tensor.is_inside("heads.0")], None),
    ):
        found = _find(_Disturbed(exact, names, by=1e6), exact, half_bundle, graph="step1")
        assert (found.tensor, found.keep_fp32) == (names[0], kept)


def test_tensors_are_the_networks_up_to_the_first_choice(half_bundle):
    tensors = read_tensors(half_bundle / "fused.onnx")
    model = onnx.load(half_bundle / "fused.onnx")
    order = {name: index for index, node in enumerate(model.graph.node) for name in node.output}
    assert [order[tensor.name] for tensor in tensors] == sorted(order[tensor.name] for tensor in tensors)
    detector = make_detector(ONE_STEP)
    modules = {name for name, _ in detector.named_modules()}
    assert {tensor.module for tensor in tensors} <= modules
    convolutions = {tensor.module for tensor in tensors if tensor.op_type == "Conv"}
    assert {"backbone.conv3d_1a_7x7.conv3d", "context.mixed_5b.branch_0.conv3d", "heads.0.downsample2"} <= convolutions
    assert {tensor.name for tensor in tensors}.isdisjoint(("boxes", "scores"))


def test_tensors_that_leave_a_module(half_bundle):
    tensors = read_tensors(half_bundle / "fused.onnx")
    (concat,) = [tensor for tensor in tensors if tensor.leaves("backbone.mixed_4b")]
    assert (concat.op_type, concat.module) == ("Concat", "backbone.mixed_4b")
    # logits and deltas; nothing reads the neighbours' deltas of the last step
    assert len([tensor for tensor in tensors if tensor.leaves("heads.0")]) == 2
    assert replace(concat, shape=("batch", "34*batch", 5)).size(2) == 2 * 68 * 5


@pytest.mark.parametrize(
    ("found", "expected", "error"),
    [
        ([1.0, 2.0], [1.0, 4.0], 0.5),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([np.inf, 2.0], [1.0, 2.0], np.inf),
        ([np.nan, 2.0], [1.0, 2.0], np.inf),
        ([np.inf, 2.0], [np.inf, 2.0], np.inf),
        ([1.0, 2.0], [np.nan, 2.0], np.inf),
        ([2.0**-20, 0.0], [0.0, 0.0], 2.0**-6),
    ],
)
def test_relative_error(found, expected, error):
    assert relative_error(np.array(found, np.float16), np.array(expected, np.float32))[0] == pytest.approx(error)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--bisect", "--graph", "step9"], "--graph is 'step9'; .* has fused, backbone, step1, detect"),
        (["--bisect", "--bound", "nan"], "--bound is nan"),
        (["--graph", "fused"], "--graph is for --bisect"),
        (["--bound", "0.1"], "--bound is for --bisect"),
    ],
)
def test_bad_options(arguments, said, half_bundle, capsys):
    assert_one_error(run_command(step_verify, capsys, half_bundle, *arguments), said)


def test_torch_has_no_tensors_inside(half_bundle, capsys):
    words = [half_bundle, "--bisect", "--checkpoint", half_bundle.parent / "model.pth"]
    assert_one_error(run_command(step_verify, capsys, *words), "which torch does not have")
