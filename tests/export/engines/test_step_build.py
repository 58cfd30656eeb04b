"""Runs step-build with TensorRT-RTX, which builds on a CPU, and with the API of TensorRT 11."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner
from helpers import assert_one_error, tensorrt_without_gpu
from onnx import TensorProto, helper
from step_export import bundle_writer
from step_export import cli as export_cli
from step_export.engines import cli as build_cli
from step_export.engines import writer as engine_writer
from step_export.engines.writer import build_engines

from step import StepError
from step.bundles.build_process import BuildEvent, BuildFailure, BuildRequest, run_build
from step.bundles.engines import BuildOptions
from step.bundles.graph_spec import FUSED, graph_specs
from step.bundles.libraries import needs_typing_flag
from step.bundles.manifest import MANIFEST, GraphRecord, read_bundle, write_manifest
from step.errors import ArgumentError
from step.files.atomic import sha256

pytest.importorskip("tensorrt_rtx")
RTX = BuildOptions(library="tensorrt-rtx")
STEP_BUILD = Path(sys.executable).with_name("step-build")
STEP_BUILD_ALOUD = """
import sys
from step_export.engines import cli, writer

real = writer.run_build

def run_build(request, progress):
    def report(phase, fraction):
        print("building", flush=True)
        progress(phase, fraction)
    return real(request, report)

writer.run_build = run_build
cli.main(sys.argv[1:])
"""
"""step-build, which says when the library is at work."""


def _content(folder: Path) -> dict[str, str]:
    """Returns every file's hash; the lock file is no content."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".engines.lock")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def fused_bundle(one_step_bundle, tmp_path):
    """Copies the smallest bundle with its fused graph alone, which builds in a few seconds."""
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    shutil.copy(one_step_bundle / "fused.onnx", bundle)
    manifest = read_bundle(one_step_bundle)
    write_manifest(manifest.model_copy(update={"graphs": {FUSED: manifest.graphs[FUSED]}}), bundle)
    return bundle


@pytest.fixture(scope="module")
def built(one_step_bundle, tmp_path_factory):
    """Builds RTX engines of the smallest bundle for two GPUs; gives what was reported, too."""
    bundle = tmp_path_factory.mktemp("built") / "bundle"
    shutil.copytree(one_step_bundle, bundle)
    told: list[tuple[str, str, float]] = []
    options = RTX.model_copy(update={"targets": ("sm86", "sm89"), "tf32": False, "profile_layers": True})
    engines, is_new = build_engines(bundle, options, progress=lambda *event: told.append(event))
    assert is_new
    return bundle, engines, told


def test_the_manifest_says_everything_of_the_engines(built):
    bundle, engines, _ = built
    manifest = read_bundle(bundle)
    assert manifest.engines["tensorrt-rtx"] == engines
    assert engines.compute_capabilities == ("sm86", "sm89")
    assert re.fullmatch(r"\d+\.\d+\.\d+\.\d+", engines.version)
    assert engines.precision == manifest.precision
    assert set(engines.engines) == set(manifest.graphs)
    for name, record in engines.engines.items():
        path = bundle / record.file
        assert record.sha256 == sha256(path)
        assert record.size_bytes == path.stat().st_size > 100_000
        assert record.onnx_sha256 == manifest.graphs[name].sha256
        assert record.log_sha256 == sha256(bundle / record.log_file)
        assert "Engine generation completed" in (bundle / record.log_file).read_text()
        assert sum(record.layers.values()) == len(json.loads((bundle / record.layers_file).read_text()))
        assert record.plugins == ()
        assert record.scratch_bytes > 0
    assert engines.engines["backbone"].layers["CONVOLUTION"] == 57
    assert engines.engines["detect"].layers["TOPK"] == 1


def test_progress_goes_forward_over_all_graphs(built):
    _, engines, told = built
    assert list(dict.fromkeys(graph for graph, _, _ in told)) == list(engines.engines)
    shares = [share for _, _, share in told]
    assert shares == sorted(shares)
    assert 0.8 < shares[-1] <= 1
    assert {phase for graph, phase, _ in told if graph == "fused"} > {"starting"}  # how many is a matter of time


def test_what_is_there_is_not_built_again(built, monkeypatch):
    bundle, engines, _ = built
    monkeypatch.setattr(engine_writer, "run_build", lambda *_: pytest.fail("built again"))
    assert build_engines(bundle, engines.options) == (engines, False)


def test_other_options_replace_the_engines(fused_bundle):
    first, _ = build_engines(fused_bundle, RTX)
    second, is_new = build_engines(fused_bundle, RTX.model_copy(update={"max_batch": 2, "opt_batch": 2}))
    assert is_new
    assert second.options.max_batch == 2
    assert read_bundle(fused_bundle).engines == {"tensorrt-rtx": second}
    assert [path.name for path in (fused_bundle / "engines").iterdir()] == [Path(second.engines["fused"].file).parts[1]]
    assert first.compute_capabilities == ("sm80", "sm86", "sm89", "sm120")


def test_a_damaged_engine_is_built_again(built, tmp_path, monkeypatch):
    bundle = tmp_path / "b"
    shutil.copytree(built[0], bundle)
    path = bundle / built[1].engines["detect"].file
    path.write_bytes(path.read_bytes()[:-1])

    class BuiltAgainError(Exception):
        pass

    def run_build(*_):
        raise BuiltAgainError

    monkeypatch.setattr(engine_writer, "run_build", run_build)
    with pytest.raises(BuiltAgainError):
        build_engines(bundle, built[1].options)


def test_ctrl_c_leaves_the_bundle_as_it_was(built, tmp_path):
    bundle = tmp_path / "b"
    shutil.copytree(built[0], bundle)
    before = _content(bundle)

    def interrupt(_graph, phase, _share):
        if phase != "starting":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engines(bundle, RTX, progress=interrupt)
    assert _content(bundle) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_on_the_command(number, fused_bundle):
    before = _content(fused_bundle)
    command = [sys.executable, "-c", STEP_BUILD_ALOUD, fused_bundle, "--engine", "tensorrt-rtx"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "building\n"
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.strip() == "error: interrupted"
    assert _content(fused_bundle) == before


@pytest.mark.parametrize(
    ("name", "message"),
    [("SEGV", r"was ended by SIGSEGV.*as it was; please report"), ("KILL", r"SIGKILL.*as it was; free memory")],
)
def test_a_crash_of_the_library_is_a_message(name, message, fused_bundle, tmp_path, monkeypatch):
    crash = tmp_path / "python"
    crash.write_text(f"#!/bin/sh\nread line\nkill -{name} $$\n")
    crash.chmod(0o755)
    before = _content(fused_bundle)
    monkeypatch.setattr(sys, "executable", str(crash))
    with pytest.raises(StepError, match=message):
        build_engines(fused_bundle, RTX)
    assert _content(fused_bundle) == before


def test_two_at_once_both_end_well(fused_bundle):
    command = [STEP_BUILD, fused_bundle, "--engine", "tensorrt-rtx"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("already there" in stderr for _, stderr in said) == 1
    engines = read_bundle(fused_bundle).engines["tensorrt-rtx"]
    assert len(list((fused_bundle / "engines").iterdir())) == 1
    assert sha256(fused_bundle / engines.engines["fused"].file) == engines.engines["fused"].sha256


def test_needs_neither_torch_nor_onnx(fused_bundle):
    code = """
import sys
for name in ("torch", "torchvision", "onnx", "onnxscript"):
    sys.modules[name] = None
from step_export.engines.cli import main
main(sys.argv[1:])
"""
    subprocess.run([sys.executable, "-c", code, fused_bundle, "--engine", "tensorrt-rtx"], check=True, timeout=120)
    assert "tensorrt-rtx" in read_bundle(fused_bundle).engines


def _request(onnx_file: Path, **changes: object) -> BuildRequest:
    files = {f"{kind}_file": onnx_file.with_suffix(f".{kind}") for kind in ("engine", "log", "layers")}
    return BuildRequest.model_validate({"onnx_file": onnx_file, "options": RTX, **files, **changes})


def _save(path: Path, nodes: list[onnx.NodeProto], **graph: object) -> Path:
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 4])],
            [helper.make_tensor_value_info("y", TensorProto.INT64, None)],
        ),
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("other", 1)],
        ir_version=10,
        **graph,
    )
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(("operator", "domain"), [("Wobble", "other"), ("NonZero", "")])
def test_an_unsupported_operator_is_named(operator, domain, tmp_path):
    path = _save(tmp_path / "g.onnx", [helper.make_node(operator, ["x"], ["y"], name="the node", domain=domain)])
    with pytest.raises(StepError) as caught:
        run_build(_request(path), lambda *_: None)
    message = str(caught.value)
    assert f"cannot take g.onnx: node 'the node' ({operator}): " in message
    assert "run the graph with step-run --backend onnxruntime" in message
    assert not path.with_suffix(".engine").exists()


def test_a_file_that_is_no_onnx(tmp_path):
    path = tmp_path / "g.onnx"
    path.write_bytes(b"nonsense")
    with pytest.raises(StepError, match=r"tensorrt-rtx [\d.]+ cannot (read|take) "):
        run_build(_request(path), lambda *_: None)


def test_a_full_disk(tmp_path):
    path = _save(tmp_path / "g.onnx", [helper.make_node("Shape", ["x"], ["y"])])
    with pytest.raises(StepError, match="cannot write .*: No space left on device; free space"):
        run_build(_request(path, log_file=Path("/dev/full")), lambda *_: None)


def test_marked_outputs(one_step_bundle, tmp_path):
    shutil.copy(one_step_bundle / "detect.onnx", tmp_path)
    path = tmp_path / "detect.onnx"
    inner = next(node.output[0] for node in onnx.load(path).graph.node if node.op_type == "TopK")
    run_build(_request(path, mark_outputs=(inner,)), lambda *_: None)
    with pytest.raises(StepError, match=r"detect\.onnx has no tensor 'nowhere'"):
        run_build(_request(path, mark_outputs=("nowhere",)), lambda *_: None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch", "0"], "--batch is 0; it must be a whole number from 1"),
        (["--batch", "2", "--max-batch", "4"], "--batch 2 is a static batch"),
        (["--min-batch", "2"], "need --max-batch"),
        (["--min-batch", "3", "--max-batch", "2"], "batch sizes are 3, 2, 2"),
        (["--workspace", "0"], "--workspace is 0"),
        (["--optimization-level", "6"], "--optimization-level is 6; it must be a whole number from 0 to 5"),
        (["--target", "8.6"], "--target '8.6' is no compute capability; give names such as sm86"),
        (["--target", "sm86,sm86"], "names one twice"),
        (["--target", "sm61"], r"--target sm61: tensorrt-rtx [\d.]+ builds this model for sm80, sm86, sm89, sm120"),
        (["--target", "sm75"], "--target sm75: tensorrt-rtx"),
        (["--timing-cache", "/tmp", "--engine", "tensorrt"], "--timing-cache /tmp is a folder"),
        (["--build-device", "1"], "--build-device is '1'; give cuda:N"),
        (["--build-device", "cuda:1"], "--build-device is for tensorrt"),
        (["--timing-cache", "t"], "--timing-cache is for tensorrt"),
        (["--hardware-compatible"], "--hardware-compatible is for tensorrt"),
        (["--version-compatible"], "--version-compatible is for tensorrt"),
        (["--engine", "tensorrt", "--target", "sm86"], "--target is for tensorrt-rtx"),
        (["--workspace", "1"], "could not build fused.onnx: .*; give a larger --workspace, or leave it out"),
    ],
)
def test_bad_options(arguments, message, fused_bundle):
    before = _content(fused_bundle)
    done = CliRunner().invoke(build_cli.main, [str(fused_bundle), "--engine", "tensorrt-rtx", *arguments])
    assert done.exit_code == 1
    assert re.search(message, done.stderr), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert _content(fused_bundle) == before


def test_what_is_typed_wrong(tmp_path):
    done = CliRunner().invoke(build_cli.main, [str(tmp_path), "--engine", "tensorrt-rxt"])
    assert done.exit_code == 2
    assert "'tensorrt-rxt' is not one of 'tensorrt', 'tensorrt-rtx'; did you mean 'tensorrt-rtx'?" in done.stderr


def test_a_library_that_is_not_there(fused_bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    done = CliRunner().invoke(build_cli.main, [str(fused_bundle), "--engine", "tensorrt"])
    assert done.exit_code == 1
    assert "pip install 'step-trt[tensorrt]'" in done.stderr


def test_a_bundle_that_is_none(tmp_path):
    done = CliRunner().invoke(build_cli.main, [str(tmp_path), "--engine", "tensorrt-rtx"])
    assert (done.exit_code, f"no {MANIFEST}" in done.stderr) == (1, True)


def test_a_static_bundle_takes_its_own_batch_only(fused_bundle):
    manifest = read_bundle(fused_bundle)
    specs = graph_specs(manifest.config, replace(manifest.options, batch=4))
    graphs = {name: GraphRecord.of(specs[name], record.sha256) for name, record in manifest.graphs.items()}
    write_manifest(manifest.model_copy(update={"batch": 4, "graphs": graphs}), fused_bundle)
    with pytest.raises(ArgumentError, match=r"exported for a batch of 4, the build asks for 1; give `batch` 4"):
        build_engines(fused_bundle, RTX)
    done = CliRunner().invoke(build_cli.main, [str(fused_bundle), "--engine", "tensorrt-rtx"])
    said = r"the build asks for 1; give --batch 4, or export with --batch dynamic$"
    assert_one_error((done.exit_code, done.stdout, done.stderr), said)


def test_export_and_build_in_one_command(one_step_bundle, tmp_path):
    checkpoint = one_step_bundle.parent / "model.pth"
    words = [str(checkpoint), "-o", str(tmp_path / "b"), "--graphs", "fused", "--no-verify", "--precision", "fp16"]
    done = CliRunner().invoke(export_cli.main, [*words, "--engine", "tensorrt-rtx", "--target", "sm86,sm120"])
    assert done.exit_code == 0, done.stderr
    engines = read_bundle(tmp_path / "b").engines["tensorrt-rtx"]
    assert engines.compute_capabilities == ("sm86", "sm120")
    assert engines.precision == "fp16"


@pytest.mark.parametrize(
    "options",
    [
        ["--engine", "tensorrt-rtx", "--workspace", "0"],
        ["--engine", "tensorrt-rtx", "--target", "sm99"],
        ["--target", "sm86"],
        ["--max-batch", "4"],
    ],
)
def test_export_refuses_bad_build_options_before_it_exports(options, tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(bundle_writer, "export_bundle", lambda *_, **__: pytest.fail("exported"))
    done = CliRunner().invoke(export_cli.main, [str(tiny_checkpoint), "-o", str(tmp_path / "b"), *options])
    assert done.exit_code == 1
    assert re.search("--workspace is 0|--target sm99: tensorrt-rtx|but no --engine; give --engine", done.stderr)


@pytest.mark.parametrize(("shown", "device", "expected"), [(None, 1, "1"), ("3,5", 1, "5"), ("", 0, ""), ("3", 1, "")])
def test_the_build_process_sees_one_gpu(shown, device, expected, tmp_path, monkeypatch):
    if shown is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    failure = BuildEvent(failure=BuildFailure(kind="other", message="it sees <%s>")).model_dump_json()
    shell = tmp_path / "python"
    shell.write_text(f"#!/bin/sh\nread request\nprintf '{failure}\\n' \"$CUDA_VISIBLE_DEVICES\"\n")
    shell.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(shell))
    with pytest.raises(StepError, match=f"^it sees <{expected}>$"):
        run_build(_request(tmp_path / "g.onnx", device=device), lambda *_: None)


def _step_build_with_tensorrt(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    """Runs the command with NVIDIA's real TensorRT 11 API."""
    command = tensorrt_without_gpu(STEP_BUILD, *words)
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ)


def test_tensorrt_11(fused_bundle):
    options = ["--max-batch", "2", "--workspace", "2000", "--optimization-level", "1", "--no-tf32", "--profile-layers"]
    cache = fused_bundle.parent / "timing.cache"
    done = _step_build_with_tensorrt(fused_bundle, "--engine", "tensorrt", *options, "--timing-cache", cache)
    assert done.returncode == 0, done.stderr
    engines = read_bundle(fused_bundle).engines["tensorrt"]
    assert engines.version.startswith("11.")
    # the libraries under this API take no plugins, and say so
    assert "does not take step::TubeRoIAlign as a plugin" in engines.plugin_problem
    assert done.stderr.count(engines.plugin_problem) == 1
    assert engines.options.max_batch == 2
    assert engines.gpu is None
    assert engines.engines["fused"].layers["CONVOLUTION"] == 81
    assert cache.is_file()


def test_tensorrt_11_hardware_compatible(fused_bundle):
    done = _step_build_with_tensorrt(fused_bundle, "--engine", "tensorrt", "--hardware-compatible", "--no-plugins")
    assert done.returncode == 0, done.stderr
    engines = read_bundle(fused_bundle).engines["tensorrt"]
    assert engines.options.hardware_compatible
    assert engines.plugin_problem is None


@pytest.mark.parametrize(
    ("library", "version", "needed"),
    [
        ("tensorrt", "10.8.0.43", True),
        ("tensorrt", "10.16.1.11", True),
        ("tensorrt", "11.4.0.106", False),
        ("tensorrt-rtx", "1.7.1.116", False),
    ],
)
def test_tensorrt_10_is_told_to_be_strongly_typed(library, version, needed):
    assert needs_typing_flag(library, version) is needed
