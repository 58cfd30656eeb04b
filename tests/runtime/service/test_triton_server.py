"""NVIDIA's own server, on a CPU, with the packaged model: skipped where `make triton-server` was not run."""

import shutil
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import triton_server
from helpers import ROOT
from step_export.triton.repository import RepositoryOptions, write_repository
from step_runtime import Detector
from step_runtime.service.content import cut_clips, open_content
from step_runtime.service.request import FrameArray

from step.bundles.graph_spec import RESULTS
from step.bundles.manifest import read_bundle
from step.checkpoints.toy_model import BUNDLE
from step.parity.tolerances import TOLERANCES

if not triton_server.is_there(triton_server.default_folder()):
    pytest.skip("no Triton server here: make triton-server", allow_module_level=True)
triton = pytest.importorskip("tritonclient.grpc", reason="pip install 'step-trt[triton]'")
triton_load = pytest.importorskip("triton_load")

FPS = 24
# The wheel has no backend for ONNX graphs; this does what one does with the same config.pbtxt.
FUSED_ON_PYTHON = """
import numpy as np
import onnxruntime
import triton_python_backend_utils as pb

class TritonPythonModel:
    def initialize(self, args):
        path = f"{args['model_repository']}/{args['model_version']}/model.onnx"
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.names = [output.name for output in self.session.get_outputs()]

    def execute(self, requests):
        clips = [pb.get_input_tensor_by_name(request, "frames").as_numpy() for request in requests]
        found = self.session.run(None, {"frames": np.concatenate(clips)})
        ends = np.cumsum([len(part) for part in clips])
        parts = zip(*(np.split(rows, ends[:-1]) for rows in found))
        return [pb.InferenceResponse([pb.Tensor(*each) for each in zip(self.names, part)]) for part in parts]
"""


@pytest.fixture(scope="module")
def samples():
    with Detector.open(BUNDLE, device="cpu") as detector:
        return triton_load.make_samples(detector, 3)


@pytest.fixture(scope="module")
def ports(tmp_path_factory):
    folder = tmp_path_factory.mktemp("triton")
    repository = folder / "repository"
    write_repository(BUNDLE, repository, RepositoryOptions())
    write_repository(BUNDLE, folder / "other", RepositoryOptions(batch=2))
    shutil.rmtree(repository / "fused")
    (folder / "other/fused").rename(repository / "fused")
    (repository / "fused/1/model.py").write_text(FUSED_ON_PYTHON)
    config = (repository / "fused/config.pbtxt").read_text()
    config = config.replace('platform: "onnxruntime_onnx"', 'backend: "python"').replace("model.onnx", "model.py")
    (repository / "fused/config.pbtxt").write_text(config)
    server, log = triton_server.default_folder(), folder / "server.log"
    with triton_server.serving(repository, server, log=log, models=("step", "fused")) as ports:
        yield ports


@pytest.fixture(scope="module")
def client(ports):
    with triton.InferenceServerClient(f"127.0.0.1:{ports.grpc}") as client:
        yield client


@pytest.fixture(scope="module")
def clips(samples):
    """A clip of each sample: uint8 [3, F, H, W, 3]."""
    found = []
    for sample in samples:
        with open_content(sample.video) as source:
            found += cut_clips(source, config=read_bundle(BUNDLE).config, every_s=Fraction(1))
    return np.stack([clip.frames for clip in found])


def assert_same(found, expected):
    same, score_error, box_error = triton_load.errors(found, expected)
    tolerance = TOLERANCES["fp32"]
    assert same
    assert score_error <= tolerance.scores
    assert box_error <= tolerance.boxes_px / 160


def test_videos_and_frames_give_what_the_detector_gives(client, samples):
    for sample in samples:
        assert_same(triton_load.ask(client, sample.video), sample.expected)
    assert_same(triton_load.ask(client, FrameArray(samples[0].frames, FPS)), samples[0].expected)
    assert samples[0].expected["counts"].sum() > 0


def tensor(name, datatype, values):
    made = triton.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values)
    return made


def video(*contents):
    return tensor("video", "BYTES", np.array([[content] for content in contents], object))


BAD = {
    "an empty video": ([video(b"")], "`video` is empty"),
    "no video": ([video(b"no video")], "video: cannot open"),
    "two videos": ([video(b"a", b"b")], "has a batch of 2"),
    "nothing of the two": ([tensor("every_s", "FP64", np.ones((1, 1)))], "neither is there"),
    "another type": ([tensor("frames", "FP32", np.zeros((1, 2, 4, 4, 3), np.float32))], "expects 'UINT8'"),
    "another size": ([tensor("frames", "UINT8", np.zeros((1, 2, 4, 4, 4), np.uint8))], "unexpected shape"),
    "no rate": ([tensor("frames", "UINT8", np.zeros((1, 2, 4, 4, 3), np.uint8))], "without `fps`"),
    "no frames": (
        [tensor("frames", "UINT8", np.zeros((1, 0, 4, 4, 3), np.uint8)), tensor("fps", "FP64", np.ones((1, 1)))],
        "which is empty",
    ),
    "an unknown name": ([tensor("movie", "FP64", np.ones((1, 1)))], "unexpected inference input 'movie'"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_gets_an_error_and_the_server_lives(name, client, samples):
    inputs, said = BAD[name]
    with pytest.raises(triton_load.InferenceServerException, match=said) as raised:
        client.infer("step", inputs)
    assert "Traceback" not in str(raised.value)
    assert client.is_model_ready("step")


def test_after_bad_requests_the_results_are_the_same(client, samples):
    for inputs, _ in BAD.values():
        with pytest.raises(triton_load.InferenceServerException):
            client.infer("step", inputs)
    assert_same(triton_load.ask(client, samples[0].video), samples[0].expected)


def test_fused_is_configured_as_its_graph_is(client, clips, samples):
    """The server takes config.pbtxt, its warm-ups and its batches; only what runs the graph is another."""
    metadata = client.get_model_metadata("fused", as_json=True)
    shapes = {tensor["name"]: [int(dim) for dim in tensor["shape"]] for tensor in metadata["outputs"]}
    assert [tensor["name"] for tensor in metadata["outputs"]] == [*RESULTS]
    assert shapes["counts"] == [-1, 1]
    answer = client.infer("fused", [tensor("frames", "UINT8", clips[:2])])
    for row, sample in enumerate(samples[:2]):
        found = {name: answer.as_numpy(name)[row : row + 1] for name in RESULTS}
        assert_same(found | {"counts": found["counts"][:, 0]}, sample.expected)
    with pytest.raises(triton_load.InferenceServerException, match="batch-size must be <= 2"):
        client.infer("fused", [tensor("frames", "UINT8", clips)])


def assert_all_is_well(load):
    assert (load.lost, load.wrong) == (0, 0)
    assert load.max_score_error <= TOLERANCES["fp32"].scores
    assert load.max_box_error <= TOLERANCES["fp32"].boxes_px / 160
    assert load.triton_requests == load.model_clips == load.requests
    assert load.model_calls < load.requests
    assert load.triton_calls < load.requests


def test_concurrent_clients_share_calls(ports, samples):
    assert_all_is_well(triton_load.measure(ports, samples, clients=8, requests=24))


@pytest.mark.slow
def test_five_hundred_requests_of_eight_clients(ports, samples):
    assert_all_is_well(triton_load.measure(ports, samples, clients=8, requests=500))


def run_client(*words):
    command = [sys.executable, str(ROOT / "examples/triton_client.py"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_example_client(ports, samples, tmp_path):
    (tmp_path / "video.mp4").write_bytes(samples[0].video)
    url = f"127.0.0.1:{ports.grpc}"
    done = run_client(tmp_path / "video.mp4", "--url", url, "--every", 0.5)
    assert done.returncode == 0, done.stderr
    assert "0.50 s" in done.stdout
    assert "stand" in done.stdout or "wave" in done.stdout
    (tmp_path / "video.mp4").write_bytes(b"")
    done = run_client(tmp_path / "video.mp4", "--url", url)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: `video` is empty; send the bytes of a video file\n"
