"""Graphs and builds with the custom operators as plugins, and with their function bodies instead."""

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
from helpers import tensorrt_without_gpu
from step_export import engine_writer, plugin_checks
from step_export.build_cli import main as step_build
from step_export.bundle_writer import ExportSettings, export_bundle
from step_export.cli import main as step_export

from step import StepError, build_process
from step.build_process import BuildRequest, BuildResult, PluginsRefusedError
from step.bundle import read_bundle
from step.engines import BuildOptions
from step.graph_spec import FUSED

TENSORRT = BuildOptions(flavour="tensorrt")
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
def bundle(tiny_checkpoint, tmp_path_factory):
    """fp16, with the operators as nodes."""
    path = tmp_path_factory.mktemp("plugins") / "bundle"
    export_bundle(tiny_checkpoint, path, ExportSettings(precision="fp16", graphs="fused", verify=False))
    return path


@pytest.fixture(scope="module")
def standard_bundle(tiny_checkpoint, tmp_path_factory):
    """The same, of standard operators only."""
    path = tmp_path_factory.mktemp("plugins") / "standard"
    settings = ExportSettings(precision="fp16", graphs="fused", verify=False, plugins=False)
    export_bundle(tiny_checkpoint, path, settings)
    return path


def _domains(bundle):
    model = onnx.load(bundle / "fused.onnx")
    return {node.domain for node in model.graph.node}, [function.name for function in model.functions]


def test_nodes_and_bodies(bundle, standard_bundle):
    assert _domains(bundle) == ({"", "step"}, ["TubeRoIAlign", "ClassNms"])
    assert _domains(standard_bundle) == ({""}, [])


def test_both_give_the_same_results(bundle, standard_bundle, tiny_clips):
    files = (bundle / "fused.onnx", standard_bundle / "fused.onnx")
    sessions = [ort.InferenceSession(file, providers=["CPUExecutionProvider"]) for file in files]
    first, second = (session.run(None, {session.get_inputs()[0].name: tiny_clips}) for session in sessions)
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
    """TensorRT, as far as the parent process of a build looks at it."""

    __name__ = "tensorrt"
    __version__ = "11.4.0.106"


@pytest.fixture
def builds(monkeypatch):
    """Builds that only write down what was asked; `refuse` has the first be refused."""
    state = SimpleNamespace(asked=[], refuse=False, problem=None, plugin_layers=4)

    def run_build(request, report):
        state.asked.append(request.options.plugins)
        if state.refuse and request.options.plugins:
            raise PluginsRefusedError("tensorrt 11.4.0.106 does not take step::TubeRoIAlign as a plugin (it cannot)")
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
    monkeypatch.setattr(engine_writer, "load_library", lambda _: Library())
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
    builds.refuse = True
    done = CliRunner().invoke(step_build, [str(own_bundle), "--engine", "tensorrt"])
    assert done.exit_code == 0, done.output
    assert builds.asked == [True, False]
    problem = read_bundle(own_bundle).engines["tensorrt"].plugin_problem
    assert "does not take step::TubeRoIAlign as a plugin (it cannot)" in problem
    assert done.output.count("Function bodies instead of plugins") == 1
    _, built = engine_writer.build_engines(own_bundle, TENSORRT)  # it would refuse them again
    assert not built
    assert [path.name for path in (own_bundle / "engines").iterdir() if path.name.startswith(".")] == []


def test_fewer_plugins_than_operators_are_told(builds, own_bundle):
    """A library that takes function bodies without a word, or graphs without nodes."""
    builds.plugin_layers = 1
    done = CliRunner().invoke(step_build, [str(own_bundle), "--engine", "tensorrt"])
    assert done.exit_code == 0, done.output
    message = "tensorrt 11.4.0.106 took 1 of the 4 operators of fused as plugins"
    assert message in done.output
    assert message in read_bundle(own_bundle).engines["tensorrt"].plugin_problem
    assert not engine_writer.build_engines(own_bundle, TENSORRT)[1]


def test_a_model_beyond_the_kernels_is_built_with_bodies(builds, own_bundle, monkeypatch):
    monkeypatch.setattr(engine_writer.step_plugins.roi_align, "MAX_POOL_SIZE", 6)
    engines, _ = engine_writer.build_engines(own_bundle, TENSORRT)
    assert builds.asked == [False]
    assert engines.plugin_problem == "step::TubeRoIAlign: pool_size is 7; it can be 1 to 6"
    assert not engine_writer.build_engines(own_bundle, TENSORRT)[1]


def test_an_exception_in_a_plugin_is_a_refusal(own_bundle, tmp_path, monkeypatch):
    """TensorRT tells of it on standard error only; its own message does not say why."""
    script = tmp_path / "worker.py"
    script.write_text(
        "import json, sys\n"
        "sys.stdin.readline()\n"
        "print('[ERROR] Exception caught in get_output_shapes(): PluginError: step::ClassNms: why', file=sys.stderr)\n"
        "print(json.dumps({'error': 'it could not build'}))\n"
    )
    popen = subprocess.Popen
    monkeypatch.setattr(
        build_process.subprocess, "Popen", lambda _command, **options: popen([sys.executable, str(script)], **options)
    )
    files = {name: tmp_path / name for name in ("onnx_file", "engine_file", "log_file", "layers_file")}
    with pytest.raises(PluginsRefusedError, match="^step::ClassNms: why$"):
        build_process.run_build(BuildRequest(options=TENSORRT, **files), lambda _phase, _fraction: None)


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
    assert not BuildOptions(flavour="tensorrt-rtx").plugins
    done = CliRunner().invoke(step_build, [str(own_bundle), "--engine", "tensorrt-rtx", "--plugins"])
    assert done.exit_code == 1
    with pytest.raises(StepError, match="--plugins is for tensorrt; tensorrt-rtx takes none"):
        engine_writer.check_options(BuildOptions(flavour="tensorrt-rtx", plugins=True))
