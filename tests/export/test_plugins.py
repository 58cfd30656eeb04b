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
from step_export import engine_writer
from step_export.build_cli import main as step_build
from step_export.bundle_writer import ExportSettings, export_bundle
from step_export.cli import main as step_export

from step import StepError
from step.build_process import BuildResult, PluginsRefusedError
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


@pytest.mark.parametrize(("registered", "kind"), [("yes", "plugin"), ("no", "local function")])
def test_nvidias_parser_takes_the_plugin_where_it_is_registered(registered, kind, bundle):
    """TensorRT-RTX's libraries, which the API runs over here, then refuse any plugin; up to there they are the same."""
    command = tensorrt_without_gpu(sys.executable, "-c", PARSE, registered, bundle / "fused.onnx")
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    answer = json.loads(done.stdout.splitlines()[-1])
    told = [message for message in answer["said"] if "Found registered" in message]
    if kind == "plugin":
        assert set(told) == {"Found registered plugin: TubeRoIAlign. Importing this node as a plugin."}
        assert not answer["parsed"]
        assert "Searching for plugin: TubeRoIAlign, plugin_version: 1, plugin_namespace: step" in answer["said"]
    else:
        expected = "Found registered local function: {}. Importing as a local function."
        assert set(told) == {expected.format(name) for name in ("TubeRoIAlign", "ClassNms")}
        assert answer["parsed"]


class Library:
    """TensorRT, as far as the parent process of a build looks at it."""

    __name__ = "tensorrt"
    __version__ = "11.4.0.106"


@pytest.fixture
def builds(monkeypatch):
    """Builds that only write down what was asked; `refuse` has the first be refused."""
    state = SimpleNamespace(asked=[], refuse=False, problem=None)

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
            layers={},
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
    assert "Without plugins" not in done.output


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
    assert done.output.count("Without plugins, with the function bodies instead") == 1
    assert [path.name for path in (own_bundle / "engines").iterdir() if path.name.startswith(".")] == []


def test_rtx_takes_none(own_bundle):
    assert not BuildOptions(flavour="tensorrt-rtx").plugins
    done = CliRunner().invoke(step_build, [str(own_bundle), "--engine", "tensorrt-rtx", "--plugins"])
    assert done.exit_code == 1
    with pytest.raises(StepError, match="--plugins is for tensorrt; tensorrt-rtx takes none"):
        engine_writer.check_options(BuildOptions(flavour="tensorrt-rtx", plugins=True))
