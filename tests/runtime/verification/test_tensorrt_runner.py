"""Runs one engine at a time, for step-verify, on a GPU that records its calls."""

import shutil

import onnx
import pytest
from fake_gpu import FakeCuda, FakeTensorRT, add_fake_engines
from step_runtime.verification.bisect import find_first
from step_runtime.verification.graph_runners import tensorrt
from step_runtime.verification.graph_runners.onnxruntime import OnnxRuntimeRunner
from step_runtime.verification.graph_runners.tensorrt import TensorRTRunner

from step import StepError
from step.bundles.build_process import BuildRequest
from step.bundles.graph_edits import mark_outputs
from step.bundles.manifest import read_bundle
from step.parity.compare import compare


def _engines(bundle, cuda):
    return TensorRTRunner(
        trt=FakeTensorRT(cuda),
        cuda=cuda,
        device=0,
        bundle=bundle,
        manifest=read_bundle(bundle),
        library="tensorrt",
    )


@pytest.fixture
def cuda():
    return FakeCuda()


@pytest.fixture
def runners(tiny_bundle, tmp_path, cuda):
    bundle = tmp_path / "b"
    shutil.copytree(tiny_bundle, bundle)
    add_fake_engines(bundle)
    manifest = read_bundle(bundle)
    graphs = OnnxRuntimeRunner(bundle, manifest, device="cpu")
    engines = _engines(bundle, cuda)
    yield bundle, manifest, graphs, engines
    graphs.close()
    engines.close()
    assert cuda.leaks == 0


def test_every_graph_alone_and_chained(runners, tiny_clips):
    _, manifest, graphs, engines = runners
    rows = list(compare(graphs, engines, manifest, [("clip", tiny_clips[:1])]))
    assert {row.graph for row in rows} >= {"fused", "backbone", "step1", "step3 chained", "detect"}
    assert [row for row in rows if not row.passed] == []


def test_bisect_builds_engines_with_marked_outputs(runners, tiny_clips, monkeypatch):
    bundle, manifest, graphs, engines = runners
    asked: list[int] = []

    def build(request: BuildRequest, _progress) -> None:
        asked.append(len(request.mark_outputs))
        model = onnx.load(request.onnx_file)
        mark_outputs(model, request.mark_outputs)
        onnx.save(model, request.engine_file.with_suffix(".onnx"))
        keep = bundle / f"marked{len(asked)}.onnx"
        shutil.copy(request.engine_file.with_suffix(".onnx"), keep)
        request.engine_file.write_text(f"{keep}|1")

    monkeypatch.setattr(tensorrt, "run_build", build)
    found = find_first(
        graphs,
        engines,
        bundle,
        manifest,
        [("clip", tiny_clips[:1])],
        graph="step1",
        bound=1e-3,
        progress=lambda _message: None,
    )
    assert found is None
    assert len(asked) > 1
    assert sum(asked) > 100


def test_a_search_builds_where_and_as_the_engines_were(runners, cuda, tiny_clips, monkeypatch):
    """It builds on the GPU of --device, and without plugins where the bundle's engines had to do without."""
    bundle, manifest, _, _ = runners
    fallen_back = manifest.engines["tensorrt"].model_copy(update={"plugin_problem": "NVRTC is not installed"})
    asked: list[BuildRequest] = []

    def build(request: BuildRequest, _progress) -> None:
        asked.append(request)
        raise StepError("that is all")

    monkeypatch.setattr(tensorrt, "run_build", build)
    for engines, plugins in ((manifest.engines["tensorrt"], True), (fallen_back, False)):
        runner = TensorRTRunner(
            trt=FakeTensorRT(cuda),
            cuda=cuda,
            device=1,
            bundle=bundle,
            manifest=manifest.model_copy(update={"engines": {"tensorrt": engines}}),
            library="tensorrt",
        )
        options = engines.options.model_copy(update={"plugins": True})
        assert options.plugins
        with pytest.raises(StepError, match="that is all"):
            runner.run("backbone", {"frames": tiny_clips[:1]}, ["some/tensor"])
        assert (asked[-1].device, asked[-1].options.plugins) == (1, plugins)


def test_the_gpu_is_chosen_before_anything_is_done_on_it(runners, cuda, tiny_clips):
    """Another runner in the same thread may have chosen another."""
    engines = runners[3]
    engines.run("fused", {"frames": tiny_clips[:1]})
    assert cuda.calls[0] == "active"
    assert engines.name == "tensorrt:cuda:0"


def test_tf32_is_judged_like_half(runners):
    """Its mantissa has ten bits too."""
    assert runners[3].precision == "fp16"


def test_another_batch_is_refused(runners, tiny_clips):
    engines = runners[3]
    with pytest.raises(StepError, match="take 1 to 1 clips a call, not 2"):
        engines.run("fused", {"frames": tiny_clips})


@pytest.mark.parametrize("call", ["allocate", "upload", "run fused", "download", "synchronize_stream"])
def test_everything_is_freed_wherever_the_gpu_fails(call, tiny_bundle, tmp_path, tiny_clips):
    bundle = tmp_path / "b"
    shutil.copytree(tiny_bundle, bundle)
    add_fake_engines(bundle)
    cuda = FakeCuda(fail_at=call)
    engines = _engines(bundle, cuda)
    with pytest.raises(StepError, match=f"fails at {call}"):
        engines.run("fused", {"frames": tiny_clips[:1]})
    assert cuda.leaks == 0
