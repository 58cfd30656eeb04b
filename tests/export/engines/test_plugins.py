"""Checks graphs and builds with the custom operators as plugins, and with their function bodies instead."""

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from click.testing import CliRunner
from helpers import ONE_STEP, assert_one_error, make_detector, tensorrt_without_gpu
from step_export.bundle_writer import ExportSettings, export_bundle
from step_export.cli import main as step_export
from step_export.engines import option_checks, plugin_checks
from step_export.engines import writer as engine_writer
from step_export.engines.cli import main as step_build

from step import StepError, save_checkpoint
from step.bundles import build_process
from step.bundles.build_process import (
    BuildCrashedError,
    BuildEvent,
    BuildFailure,
    BuildRequest,
    BuildResult,
    BuildStoppedError,
    PluginsRefusedError,
)
from step.bundles.engines import BuildOptions
from step.bundles.graph_spec import FUSED
from step.bundles.manifest import read_bundle
from step.errors import ArgumentError
from step.files.atomic import sha256

TENSORRT = BuildOptions(library="tensorrt")
REFUSAL = PluginsRefusedError("tensorrt 11.4.0.106 does not take step::TubeRoIAlign as a plugin (it cannot)")
PARSE = """
import json, sys
import tensorrt as trt
import step_plugins
register, path = sys.argv[1:]
if register == "yes":
    step_plugins.register(trt)
said = []
class Logger(trt.ILogger):
    def __init__(self):
        super().__init__()
    def log(self, severity, message):
        said.append(message)
logger = Logger()
builder = trt.Builder(logger)
network = builder.create_network(0)
parser = trt.OnnxParser(network, logger)
parsed = parser.parse_from_file(path)
print()
print(json.dumps({"parsed": parsed, "said": said}))
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("plugins") / "model.pth"
    save_checkpoint(make_detector(ONE_STEP), path)
    return path


@pytest.fixture(scope="module")
def bundle(checkpoint, tmp_path_factory):
    """Exports in fp16, with the operators as nodes."""
    path = tmp_path_factory.mktemp("plugins") / "bundle"
    export_bundle(checkpoint, path, ExportSettings(precision="fp16", graphs="fused", verify=False))
    return path


@pytest.fixture(scope="module")
def standard_bundle(checkpoint, tmp_path_factory):
    """Exports the same with standard operators only."""
    path = tmp_path_factory.mktemp("plugins") / "standard"
    settings = ExportSettings(precision="fp16", graphs="fused", verify=False, plugins=False)
    export_bundle(checkpoint, path, settings)
    return path


def _domains(bundle):
    model = onnx.load(bundle / "fused.onnx")
    return {node.domain for node in model.graph.node}, [function.name for function in model.functions]


def test_nodes_and_bodies(bundle, standard_bundle):
    assert _domains(bundle) == ({"", "step"}, ["TubeRoIAlign", "ClassNms"])
    assert _domains(standard_bundle) == ({""}, [])


def test_both_give_the_same_results(bundle, standard_bundle, tiny_clips):
    size = ONE_STEP.image_size_px
    clips = np.ascontiguousarray(tiny_clips[:, : ONE_STEP.clip_frames, :size, :size])
    files = (bundle / "fused.onnx", standard_bundle / "fused.onnx")
    sessions = [ort.InferenceSession(file, providers=["CPUExecutionProvider"]) for file in files]
    first, second = (session.run(None, {session.get_inputs()[0].name: clips}) for session in sessions)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("words", "has_nodes"), [(["--plugins"], True), (["--no-plugins"], False), ([], True)])
def test_step_exports_option(words, has_nodes, tiny_checkpoint, tmp_path):
    output = tmp_path / "bundle"
    done = CliRunner().invoke(step_export, [str(tiny_checkpoint), "-o", str(output), "--graphs", "fused", *words])
    assert done.exit_code == 0, done.output
    assert ("step" in _domains(output)[0]) is has_nodes
    assert all(row.passed for row in read_bundle(output).parity)


def _what_nvidias_parser_says(path, *, register):
    command = tensorrt_without_gpu(sys.executable, "-c", PARSE, register, path)
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    answer = json.loads(done.stdout.splitlines()[-1])
    return answer, {message for message in answer["said"] if "Found registered" in message}


@pytest.mark.parametrize(("graph", "operator"), [("step1", "TubeRoIAlign"), ("detect", "ClassNms")])
def test_nvidias_parser_takes_the_plugin_where_it_is_registered(graph, operator, tiny_bundle):
    """TensorRT-RTX's libraries, which the API runs over here, then refuse any plugin; up to there they are the same."""
    answer, told = _what_nvidias_parser_says(tiny_bundle / f"{graph}.onnx", register="yes")
    assert told == {f"Found registered plugin: {operator}. Importing this node as a plugin."}
    assert f"Searching for plugin: {operator}, plugin_version: 1, plugin_namespace: step" in answer["said"]
    assert not answer["parsed"]


def test_nvidias_parser_takes_the_function_body_where_it_is_not(bundle):
    answer, told = _what_nvidias_parser_says(bundle / "fused.onnx", register="no")
    expected = "Found registered local function: {}. Importing as a local function."
    assert told == {expected.format(name) for name in ("TubeRoIAlign", "ClassNms")}
    assert answer["parsed"]


class Library:
    """Is TensorRT as far as the parent process of a build looks at it."""

    __name__ = "tensorrt"
    __version__ = "11.4.0.106"


@pytest.fixture
def builds(monkeypatch):
    """Has builds only write down what was asked; `failures` ends those with plugins (True) or bodies (False)."""
    state = SimpleNamespace(asked=[], failures={}, problem=None, plugin_layers=4)

    def run_build(request, report):
        state.asked.append(request.options.plugins)
        if request.options.plugins in state.failures:
            request.log_file.write_text("[INFO] the log of the build that failed\n")
            raise state.failures[request.options.plugins]
        report("building", 0.5)
        for path in (request.engine_file, request.log_file, request.layers_file):
            path.write_text("x")
        return BuildResult(
            version=Library.__version__,
            gpu=None,
            compute_capability=None,
            build_s=1.0,
            layers={"PLUGIN_V3": state.plugin_layers} if request.options.plugins else {},
            plugins=("node_tube_roi_align",) if request.options.plugins else (),
            scratch_bytes=None,
            weights_bytes=None,
        )

    monkeypatch.setattr(engine_writer, "run_build", run_build)
    monkeypatch.setattr(option_checks, "load_library", lambda _: Library())
    monkeypatch.setattr(engine_writer.step_plugins, "find_problem", lambda _: state.problem)
    return state


@pytest.fixture
def own_bundle(bundle, tmp_path):
    return shutil.copytree(bundle, tmp_path / "bundle")


def test_plugins_are_the_default(builds, own_bundle):
    done = CliRunner().invoke(step_build, [str(own_bundle), "--engine", "tensorrt"])
    assert done.exit_code == 0, done.output
    assert builds.asked == [True]
    engines = read_bundle(own_bundle).engines["tensorrt"]
    assert engines.options.plugins
    assert engines.plugin_problem is None
    assert engines.engines[FUSED].plugins == ("node_tube_roi_align",)
    assert "Function bodies" not in done.output


def test_function_bodies_are_chosen(builds, own_bundle):
    done = CliRunner().invoke(step_build, [str(own_bundle), "--engine", "tensorrt", "--no-plugins"])
    assert done.exit_code == 0, done.output
    assert builds.asked == [False]
    engines = read_bundle(own_bundle).engines["tensorrt"]
    assert not engines.options.plugins
    assert engines.plugin_problem is None
    assert engines.engines[FUSED].plugins == ()
    assert engines.options.command(own_bundle).endswith("--engine tensorrt --no-plugins")


@pytest.mark.parametrize("words", [[], ["--plugins"]])
def test_without_nvrtc_the_bodies_are_built_and_that_is_said_once(words, builds, own_bundle):
    builds.problem = "NVRTC is not installed; pip install 'step-trt[plugins]'"
    done = CliRunner().invoke(step_build, [str(own_bundle), "--engine", "tensorrt", *words])
    assert done.exit_code == 0, done.output
    assert builds.asked == [False]
    assert done.output.count(builds.problem) == 1
    engines = read_bundle(own_bundle).engines["tensorrt"]
    assert engines.plugin_problem == builds.problem
    assert engines.options.plugins


def test_what_kept_the_plugins_out_may_be_mended(builds, own_bundle):
    builds.problem = "NVRTC is not installed"
    assert engine_writer.build_engines(own_bundle, TENSORRT)[1]
    assert not engine_writer.build_engines(own_bundle, TENSORRT)[1]  # still missing: these engines are what there is
    builds.problem = None
    engines, built = engine_writer.build_engines(own_bundle, TENSORRT)
    assert built
    assert engines.plugin_problem is None
    assert not engine_writer.build_engines(own_bundle, TENSORRT)[1]
    assert builds.asked == [False, True]


def test_a_library_that_refuses_them(builds, own_bundle):
    builds.failures = {True: REFUSAL}
    done = CliRunner().invoke(step_build, [str(own_bundle), "--engine", "tensorrt"])
    assert done.exit_code == 0, done.output
    assert builds.asked == [True, False]
    problem = read_bundle(own_bundle).engines["tensorrt"].plugin_problem
    assert "does not take step::TubeRoIAlign as a plugin (it cannot)" in problem
    assert done.output.count("Function bodies instead of plugins") == 1
    _, built = engine_writer.build_engines(own_bundle, TENSORRT)  # it would refuse them again
    assert not built
    assert [path.name for path in (own_bundle / "engines").iterdir() if path.name.startswith(".")] == []


CRASH = "the build process of fused.onnx with tensorrt was ended by SIGSEGV: last words"


@pytest.mark.parametrize(
    ("failure", "problem", "tries_again"),
    [
        (
            StepError("it could not build: why;\nit also said: what"),
            "it could not build: why; it also said: what",
            False,
        ),
        (REFUSAL, str(REFUSAL), False),
        (
            ArgumentError("could not build; give a larger `workspace_mb`, or leave it out"),
            "could not build; give a larger --workspace, or leave it out",
            False,
        ),
        (BuildCrashedError(CRASH, "please report it"), CRASH, True),
    ],
)
def test_any_failure_with_plugins_builds_the_bodies(failure, problem, tries_again, builds, own_bundle):
    builds.failures = {True: failure}
    done = CliRunner().invoke(step_build, [str(own_bundle), "--engine", "tensorrt"])
    assert done.exit_code == 0, done.output
    assert builds.asked == [True, False]
    assert done.output.count(f"Function bodies instead of plugins: {problem}\n") == 1
    engines = read_bundle(own_bundle).engines["tensorrt"]
    assert engines.plugin_problem == problem
    assert engines.options.plugins
    record = engines.engines[FUSED]
    log = own_bundle / record.log_file
    assert log.read_text() == ("[INFO] the log of the build that failed\n[step-build] again, with function bodies\nx")
    assert record.log_sha256 == sha256(log)
    assert engine_writer.build_engines(own_bundle, TENSORRT)[1] is tries_again


def _files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".engines.lock"}


def test_what_fails_without_plugins_too_is_told_of_the_bodies(builds, own_bundle):
    before = _files(own_bundle)
    builds.failures = {True: StepError("with plugins: no memory"), False: StepError("no memory; free some")}
    done = CliRunner().invoke(step_build, [str(own_bundle), "--engine", "tensorrt"])
    assert_one_error((done.exit_code, done.stdout, done.stderr), "^error: no memory; free some$")
    assert builds.asked == [True, False]
    assert _files(own_bundle) == before


@pytest.mark.parametrize("stop", [BuildStoppedError("was ended by SIGTERM"), KeyboardInterrupt()])
def test_a_build_that_is_stopped_is_not_tried_without_plugins(stop, builds, own_bundle):
    before = _files(own_bundle)
    builds.failures = {True: stop}
    with pytest.raises(type(stop)):
        engine_writer.build_engines(own_bundle, TENSORRT)
    assert builds.asked == [True]
    assert _files(own_bundle) == before


def test_fewer_plugins_than_operators_are_told(builds, own_bundle):
    """A library may take function bodies without a word, or a graph have no nodes."""
    builds.plugin_layers = 1
    done = CliRunner().invoke(step_build, [str(own_bundle), "--engine", "tensorrt"])
    assert done.exit_code == 0, done.output
    message = "tensorrt 11.4.0.106 took 1 of the 2 operators of fused as plugins"
    assert message in done.output
    assert message in read_bundle(own_bundle).engines["tensorrt"].plugin_problem
    assert not engine_writer.build_engines(own_bundle, TENSORRT)[1]


def test_a_model_beyond_the_kernels_is_built_with_bodies(builds, own_bundle, monkeypatch):
    monkeypatch.setattr(engine_writer.step_plugins.roi_align, "MAX_POOL_SIZE", 6)
    engines, _ = engine_writer.build_engines(own_bundle, TENSORRT)
    assert builds.asked == [False]
    assert engines.plugin_problem == "step::TubeRoIAlign: pool_size is 7; it can be 1 to 6"
    assert not engine_writer.build_engines(own_bundle, TENSORRT)[1]


@pytest.fixture
def run_worker(tmp_path, monkeypatch):
    """Calls `run_build` with a shell script in place of the process that holds the library."""
    files = {name: tmp_path / name for name in ("onnx_file", "engine_file", "log_file", "layers_file")}

    def run(script):
        shell = tmp_path / "python"
        shell.write_text(f"#!/bin/sh\nread request\n{script}\n")
        shell.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(shell))
        return build_process.run_build(BuildRequest(options=TENSORRT, **files), lambda _phase, _fraction: None)

    return run


FAILURE = BuildEvent(failure=BuildFailure(kind="other", message="it could not build")).model_dump_json()
CALLBACK = "Exception caught in get_output_shapes(): "


def _says(*lines):
    return "\n".join(f"echo '{line}' >&2" for line in lines)


def test_an_exception_of_ours_in_a_plugin_is_a_refusal(run_worker):
    """TensorRT tells of it on standard error only; its own message does not say why."""
    said = _says(f"[ERROR] {CALLBACK}PluginError: step::ClassNms: why")
    with pytest.raises(PluginsRefusedError, match="^step::ClassNms: why$"):
        run_worker(f"""{said}\necho '{FAILURE}'""")


def test_another_exception_in_a_callback_is_told(run_worker, tmp_path):
    said = f"[ERROR] {CALLBACK}TypeError: only 0-dimensional arrays", "", "At:", f"[ERROR] {CALLBACK}TypeError: other"
    (tmp_path / "log_file").write_text("[VERBOSE] the library\n")
    with pytest.raises(StepError) as caught:
        run_worker(f"""{_says(*said, said[0])}\necho '{FAILURE}'""")
    assert str(caught.value) == (
        f"it could not build; it also said: {CALLBACK}TypeError: only 0-dimensional arrays; {CALLBACK}TypeError: other"
    )
    assert (tmp_path / "log_file").read_text().splitlines() == [
        "[VERBOSE] the library",
        said[0],
        "[STDERR] At:",
        said[3],
        said[0],
    ]


@pytest.mark.parametrize(
    ("end", "kind", "how"),
    [
        ("kill -SEGV $$", BuildCrashedError, "was ended by SIGSEGV"),
        ("exit 1", BuildCrashedError, "ended with exit code 1"),
        ("kill -TERM $$", BuildStoppedError, "was ended by SIGTERM"),
    ],
)
def test_a_crash_in_a_callback_is_told(end, kind, how, run_worker, tmp_path):
    said = f"[ERROR] {CALLBACK}SystemError: why", "Aborted"
    with pytest.raises(
        kind, match=f"^the build process of onnx_file with tensorrt {how}: .*SystemError: why; the bundle"
    ):
        run_worker(f"{_says(*said)}\n{end}")
    assert (tmp_path / "log_file").read_text().splitlines() == [said[0], f"[STDERR] {said[1]}"]


def test_what_a_build_that_ends_well_says_is_in_its_log(run_worker, tmp_path):
    result = BuildResult(
        version="1",
        gpu=None,
        compute_capability=None,
        build_s=1,
        layers={},
        plugins=(),
        scratch_bytes=None,
        weights_bytes=None,
    )
    done = BuildEvent(done=result).model_dump_json()
    assert run_worker(f"printf '[ERROR] a tactic \\377\\n' >&2\necho '{done}'") == result
    assert (tmp_path / "log_file").read_text(encoding="utf-8") == "[ERROR] a tactic \N{REPLACEMENT CHARACTER}\n"


def test_the_operators_of_every_graph_are_counted(tiny_bundle):
    manifest = read_bundle(tiny_bundle)
    for name, graph in manifest.graphs.items():
        nodes = onnx.load(tiny_bundle / graph.file).graph.node
        assert sum(node.domain == "step" for node in nodes) == plugin_checks.count_operators(name, manifest)


def test_nodes_for_plugins_and_rtx_engines_in_one_call(tiny_checkpoint, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    words = [str(tiny_checkpoint), "-o", str(tmp_path / "b"), "--graphs", "fused", "--no-verify"]
    done = CliRunner().invoke(step_export, [*words, "--plugins", "--engine", "tensorrt-rtx"])
    assert done.exit_code == 0, done.output
    assert "step" in _domains(tmp_path / "b")[0]
    engines = read_bundle(tmp_path / "b").engines["tensorrt-rtx"]
    assert engines.engines[FUSED].plugins == ()


def test_rtx_takes_none(own_bundle):
    assert not BuildOptions(library="tensorrt-rtx").plugins
    done = CliRunner().invoke(step_build, [str(own_bundle), "--engine", "tensorrt-rtx", "--plugins"])
    assert_one_error((done.exit_code, done.stdout, done.stderr), "--plugins is for tensorrt; tensorrt-rtx takes none")
    with pytest.raises(ArgumentError, match="^`plugins` is for tensorrt; tensorrt-rtx takes none"):
        option_checks.check_options(BuildOptions(library="tensorrt-rtx", plugins=True))
