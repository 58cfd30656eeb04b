"""NVIDIA's own server, on a CPU, with the packaged model: skipped where `make triton-server` was not run."""

import subprocess
import sys

import numpy as np
import pytest
import triton_server
from helpers import ROOT
from step_export.triton.repository import RepositoryOptions, write_repository
from step_runtime import Detector
from step_runtime.service.request import FrameArray

from step.checkpoints.toy_model import BUNDLE
from step.parity.tolerances import TOLERANCES

if not triton_server.is_there(triton_server.default_folder()):
    pytest.skip("no Triton server here: make triton-server", allow_module_level=True)
triton = pytest.importorskip("tritonclient.grpc", reason="pip install 'step-trt[triton]'")
triton_load = pytest.importorskip("triton_load")

FPS = 24


@pytest.fixture(scope="module")
def samples():
    with Detector.open(BUNDLE, device="cpu") as detector:
        return triton_load.make_samples(detector, 3)


@pytest.fixture(scope="module")
def ports(tmp_path_factory):
    folder = tmp_path_factory.mktemp("triton")
    write_repository(BUNDLE, folder / "repository", RepositoryOptions())
    with triton_server.serving(
        folder / "repository", triton_server.default_folder(), log=folder / "server.log"
    ) as ports:
        yield ports


@pytest.fixture(scope="module")
def client(ports):
    with triton.InferenceServerClient(f"127.0.0.1:{ports.grpc}") as client:
        yield client


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
