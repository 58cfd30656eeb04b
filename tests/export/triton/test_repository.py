"""Repositories that `step-export --triton` writes, against the graphs themselves and Triton's own definitions."""

import shutil

import onnx
import pytest
from fake_gpu.bundle_engines import add_fake_engines
from google.protobuf import text_format
from helpers import assert_one_error, run_command
from step_export.cli import main
from step_export.triton import repository as repository_module
from step_export.triton.repository import RepositoryOptions, write_repository

from step.bundles.graph_spec import FUSED, RESULTS
from step.bundles.manifest import read_bundle, write_manifest
from step.bundles.service_spec import SERVICE_INPUTS, ServiceSettings, service_outputs
from step.checkpoints.toy_model import BUNDLE, CHECKPOINT
from step.errors import StepError

definitions = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="pip install 'step-trt[triton]'")

_TYPES = {
    onnx.TensorProto.UINT8: "TYPE_UINT8",
    onnx.TensorProto.FLOAT: "TYPE_FP32",
    onnx.TensorProto.INT64: "TYPE_INT64",
}
_SERVICE_TYPES = {
    "uint8": "TYPE_UINT8",
    "int64": "TYPE_INT64",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "bytes": "TYPE_STRING",
}


@pytest.fixture
def bundle(tmp_path):
    """A copy of the packaged bundle with its fused graph alone, which is what these tests are about."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    shutil.copy(BUNDLE / "fused.onnx", folder)
    manifest = read_bundle(BUNDLE)
    write_manifest(manifest.model_copy(update={"graphs": {FUSED: manifest.graphs[FUSED]}}), folder)
    return folder


def read_config(repository, model):
    parsed = text_format.Parse((repository / model / "config.pbtxt").read_text(), definitions.ModelConfig())
    assert parsed.name == model
    assert (repository / model / "1" / parsed.default_model_filename).is_file()
    assert parsed.version_policy.latest.num_versions == 1
    return parsed


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def types_and_dims(tensors):
    return [(tensor.name, definitions.DataType.Name(tensor.data_type), list(tensor.dims)) for tensor in tensors]


def of_graph(values, *, is_batched):
    """Names, Triton's types and dims as an ONNX graph has them."""
    found = []
    for value in values:
        shape = value.type.tensor_type.shape.dim
        dims = [dim.dim_value for dim in shape[int(is_batched) :]]
        assert all(dims)
        if is_batched:
            assert shape[0].dim_param
        found.append((value.name, _TYPES[value.type.tensor_type.elem_type], dims or [1]))
    return found


@pytest.mark.parametrize("name", ["toy", "half_bundle"])
def test_fused_has_what_the_graph_has(name, request, tmp_path):
    """`toy` takes any number of clips, the other exactly two, in half precision."""
    bundle = BUNDLE if name == "toy" else request.getfixturevalue(name)
    write_repository(bundle, tmp_path / "repository", RepositoryOptions())
    config = read_config(tmp_path / "repository", "fused")
    graph = onnx.load(tmp_path / "repository/fused/1/model.onnx").graph
    is_batched = name == "toy"
    assert types_and_dims(config.input) == of_graph(graph.input, is_batched=is_batched)
    assert types_and_dims(config.output) == of_graph(graph.output, is_batched=is_batched)
    assert config.platform == "onnxruntime_onnx"
    assert config.max_batch_size == (8 if is_batched else 0)
    assert config.HasField("dynamic_batching") == is_batched
    assert [tensor.name for tensor in config.output if tensor.HasField("reshape")] == ["counts"] * is_batched
    for warm_up in config.model_warmup:
        assert warm_up.batch_size <= max(config.max_batch_size, 1)
        assert types_and_dims(config.input) == [
            (key, definitions.DataType.Name(value.data_type), list(value.dims)) for key, value in warm_up.inputs.items()
        ]


def test_step_has_what_the_service_has(bundle, tmp_path):
    write_repository(bundle, tmp_path / "repository", RepositoryOptions(batch=4, instances=3))
    config = read_config(tmp_path / "repository", "step")
    manifest = read_bundle(bundle)
    for tensors, expected in (
        (config.input, SERVICE_INPUTS),
        (config.output, service_outputs(manifest.config, manifest.options)),
    ):
        assert types_and_dims(tensors) == [(t.name, _SERVICE_TYPES[t.dtype], list(t.dims)) for t in expected]
    assert all(tensor.optional for tensor in config.input)
    assert [tensor.name for tensor in config.input if tensor.allow_ragged_batch] == ["frames"]
    assert config.backend == "python"
    assert config.instance_group[0].count == 3
    settings = ServiceSettings.of({key: value.string_value for key, value in config.parameters.items()})
    assert settings.clips_a_call == 4
    assert read_bundle(tmp_path / "repository/step/1" / settings.bundle) == manifest
    compile((tmp_path / "repository/step/1/model.py").read_text(), "model.py", "exec")


def test_step_gives_what_the_fused_graph_gives(bundle, tmp_path):
    """With key frames where the graph has clips."""
    write_repository(bundle, tmp_path / "repository", RepositoryOptions())
    graph = onnx.load(bundle / "fused.onnx").graph
    given = {tensor[0]: tensor for tensor in types_and_dims(read_config(tmp_path / "repository", "step").output)}
    for value in graph.output:
        dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim[1:]]
        assert given[value.name] == (value.name, _TYPES[value.type.tensor_type.elem_type], [-1, *dims])
    assert {value.name for value in graph.output} == set(RESULTS)


def test_a_bundle_of_steps_has_no_fused_model(tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(BUNDLE, bundle, ignore=shutil.ignore_patterns("fused.onnx"))
    manifest = read_bundle(BUNDLE)
    graphs = {name: graph for name, graph in manifest.graphs.items() if name != FUSED}
    write_manifest(manifest.model_copy(update={"graphs": graphs}), bundle)
    (note,) = write_repository(bundle, tmp_path / "repository", RepositoryOptions())
    assert "no fused graph" in note
    assert names_in(tmp_path / "repository") == ["step"]
    assert read_config(tmp_path / "repository", "step").max_batch_size


def test_an_engine_is_served_as_a_plan(bundle, tmp_path):
    add_fake_engines(bundle, min_batch=1, opt_batch=4, max_batch=6)
    (note,) = write_repository(bundle, tmp_path / "repository", RepositoryOptions())
    assert "a plan of TensorRT" in note
    config = read_config(tmp_path / "repository", "fused")
    assert (config.platform, config.default_model_filename, config.max_batch_size) == ("tensorrt_plan", "model.plan", 6)
    assert list(config.dynamic_batching.preferred_batch_size) == [4, 6]
    assert config.instance_group[0].kind == definitions.ModelInstanceGroup.KIND_GPU
    (engine,) = bundle.glob("engines/*/fused.engine")
    assert (tmp_path / "repository/fused/1/model.plan").read_bytes() == engine.read_bytes()
    assert list((tmp_path / "repository/step/1/bundle").glob("engines/*/fused.engine"))


def test_an_engine_for_later_versions_needs_an_option_of_the_server(bundle, tmp_path):
    add_fake_engines(bundle, version_compatible=True)
    notes = write_repository(bundle, tmp_path / "repository", RepositoryOptions())
    assert any("--backend-config=tensorrt,version-compatible=true" in note for note in notes)


def test_an_engine_for_one_size_takes_it_whole(bundle, tmp_path):
    add_fake_engines(bundle, min_batch=2, opt_batch=2, max_batch=2)
    notes = write_repository(bundle, tmp_path / "repository", RepositoryOptions())
    assert "exactly 2 a call" in notes[-1]
    config = read_config(tmp_path / "repository", "fused")
    assert config.max_batch_size == 0
    assert {tensor.dims[0] for tensor in (*config.input, *config.output)} == {2}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda bundle: add_fake_engines(bundle, min_batch=2, opt_batch=4, max_batch=4), "may call with 1"),
        (lambda bundle: next(bundle.glob("engines/*/fused.engine")).write_text("?"), "damaged"),
        (lambda bundle: _change_fused(bundle, onnx_sha256="0"), "another fused.onnx"),
    ],
)
def test_engines_that_triton_cannot_load_are_left_out(spoil, said, bundle, tmp_path):
    add_fake_engines(bundle)
    spoil(bundle)
    notes = write_repository(bundle, tmp_path / "repository", RepositoryOptions())
    assert said in notes[0]
    assert read_config(tmp_path / "repository", "fused").platform == "onnxruntime_onnx"


def _change_fused(bundle, **changes):
    manifest = read_bundle(bundle)
    engines = manifest.engines["tensorrt"]
    changed = {FUSED: engines.engines[FUSED].model_copy(update=changes)}
    changed_set = engines.model_copy(update={"engines": changed})
    write_manifest(manifest.model_copy(update={"engines": {"tensorrt": changed_set}}), bundle)


def test_engines_of_rtx_are_left_out(bundle, tmp_path):
    add_fake_engines(bundle, "tensorrt-rtx")
    (note,) = write_repository(bundle, tmp_path / "repository", RepositoryOptions())
    assert "no backend for them" in note


def step_export(capsys, *words):
    return run_command(main, capsys, *words)


def test_the_command(tmp_path, capsys):
    code, said, error = step_export(capsys, "toy", "--triton", tmp_path / "r", "--triton-batch", "2")
    assert (code, error) == (0, "")
    assert "fused, step. Serve it: tritonserver --model-repository" in said
    assert list(read_config(tmp_path / "r", "fused").dynamic_batching.preferred_batch_size) == [2]


def test_an_older_repository(tmp_path, capsys, bundle):
    write_repository(bundle, tmp_path / "r", RepositoryOptions())
    before = (tmp_path / "r/step").stat().st_ino
    assert_one_error(
        step_export(capsys, bundle, "--triton", tmp_path / "r"), "repository is there already.*--overwrite"
    )
    assert (tmp_path / "r/step").stat().st_ino == before
    assert step_export(capsys, bundle, "--triton", tmp_path / "r", "--overwrite")[0] == 0
    assert (tmp_path / "r/step").stat().st_ino != before


@pytest.mark.parametrize("foreign", ["note.txt", "other/config.pbtxt", "step/2/model.py", "step/1/weights.bin"])
def test_what_others_put_there_is_not_replaced(foreign, tmp_path, capsys, bundle):
    write_repository(bundle, tmp_path / "r", RepositoryOptions())
    (tmp_path / "r" / foreign).parent.mkdir(exist_ok=True)
    (tmp_path / "r" / foreign).write_text("mine")
    done = step_export(capsys, bundle, "--triton", tmp_path / "r", "--overwrite")
    assert_one_error(done, "none of step-export's")
    assert (tmp_path / "r" / foreign).read_text() == "mine"


def test_an_empty_folder_is_filled(tmp_path, bundle):
    (tmp_path / "r").mkdir()
    write_repository(bundle, tmp_path / "r", RepositoryOptions())
    assert read_config(tmp_path / "r", "fused")


def test_nothing_is_left_of_a_write_that_fails(tmp_path, bundle, monkeypatch):
    def full(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(repository_module.shutil, "copytree", full)
    with pytest.raises(StepError, match="cannot write .*No space left"):
        write_repository(bundle, tmp_path / "place/r", RepositoryOptions())
    assert names_in(tmp_path / "place") == []


@pytest.mark.parametrize(
    ("words", "exit_code", "said"),
    [
        (["toy"], 2, "Missing option -o"),
        (["toy", "--triton", "r", "--precision", "fp16"], 2, "--precision is about an export"),
        (["toy", "-o", "b", "--triton-batch", "2"], 2, "--triton-batch needs --triton"),
        (["toy", "--triton", "r", "--triton-batch", "0"], 1, "--triton-batch is 0"),
        (["toy", "--triton", "r", "--triton-instances", "0"], 1, "--triton-instances is 0"),
        ([str(CHECKPOINT), "--triton", "r"], 1, "is a checkpoint; export it too"),
        (["nothing", "--triton", "r"], 1, "nothing: no such bundle"),
        (["toy", "--triton", "file"], 1, "a file is in the way"),
    ],
)
def test_what_cannot_be(words, exit_code, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert_one_error(step_export(capsys, *words), said, exit_code=exit_code)
    assert names_in(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["half_bundle", "engine"])
def test_a_batch_that_is_not_to_be_had(name, request, bundle, tmp_path, capsys):
    if name == "engine":
        add_fake_engines(bundle, min_batch=1, opt_batch=2, max_batch=2)
    else:
        bundle = request.getfixturevalue(name)
    done = step_export(capsys, bundle, "--triton", tmp_path / "r", "--triton-batch", "5")
    assert_one_error(done, "--triton-batch is 5, but the (graphs|tensorrt engine) take")


def test_an_export_and_a_repository_at_once(tmp_path, capsys, one_step_bundle):
    words = ("-o", tmp_path / "b", "--graphs", "fused", "--no-verify", "--triton", tmp_path / "r")
    assert step_export(capsys, one_step_bundle.parent / "model.pth", *words)[0] == 0
    assert read_bundle(tmp_path / "r/step/1/bundle") == read_bundle(tmp_path / "b")
