"""Concurrent clients of the `step` model on a real Triton server: latency, what was lost, calls of the model, results.

    python benchmarks/triton_load.py --clients 8 --requests 500 --json load.json

Serves the packaged model from the wheel in .venv/tritonserver (`make triton-server`). Every request has one second of
a made-up video, every fifth as frames; what comes back is compared with `Detector.detect` of the same clips here.
"""

import argparse
import json
import re
import tempfile
import threading
import time
import urllib.request
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import tritonclient.grpc as triton
from step_export.triton.repository import RepositoryOptions, write_repository
from step_runtime import Detector
from step_runtime.service.content import cut_clips, open_content
from step_runtime.service.request import FrameArray
from triton_server import Ports, default_folder, serving
from tritonclient.utils import InferenceServerException

from step.bundles.graph_spec import RESULTS
from step.checkpoints.toy_model import BUNDLE
from step.data.toy.toy_cache import toy_demo_video

_FPS = 24
_FRAMES_EVERY = 5
_TIMEOUT_S = 120

Found = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Sample:
    """A second of video, encoded and as its decoder gives it back, and what `Detector.detect` finds in it."""

    video: bytes
    frames: np.ndarray[Any, Any]
    expected: Found


@dataclass(frozen=True)
class Load:
    """What was measured.

    Attributes:
        clients: at the same time.
        requests: sent by all of them.
        lost: without an answer, or with an error.
        seconds: from the first to the last.
        p50_s, p95_s, most_s: of a request, on the client's clock.
        wrong: answers with other rows than `Detector.detect` finds.
        max_score_error, max_box_error: largest differences of scores and of boxes in shares of the picture.
        triton_requests, triton_calls: `inference_count` and `execution_count` of Triton's statistics.
        model_calls, model_clips: calls of the model, and clips in them, from Triton's /metrics.
    """

    clients: int
    requests: int
    lost: int
    seconds: float
    p50_s: float
    p95_s: float
    most_s: float
    wrong: int
    max_score_error: float
    max_box_error: float
    triton_requests: int
    triton_calls: int
    model_calls: int
    model_clips: int


def make_samples(detector: Detector, count: int) -> list[Sample]:
    """Cuts seconds from a made-up video."""
    with av.open(str(toy_demo_video())) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    parts = [np.stack(frames[start : start + _FPS]) for start in range(0, len(frames) - _FPS + 1, _FPS)][:count]
    return [_sample(detector, encode(part, fps=_FPS)) for part in parts]


def encode(frames: np.ndarray[Any, Any], *, fps: int) -> bytes:
    """An MP4 of frames, uint8 [N, H, W, 3]."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "part.mp4")
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=fps)
            assert isinstance(stream, av.video.VideoStream)
            stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
            for picture in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
        return path.read_bytes()


def _sample(detector: Detector, video: bytes) -> Sample:
    with open_content(video) as source:
        frames = np.stack([frame.rgb() for frame in source.frames()])
        clips = list(cut_clips(source, config=detector.config, every_s=Fraction(1)))
    found = detector.detect(np.stack([clip.frames for clip in clips]))
    return Sample(video, frames, dict(zip(RESULTS, found, strict=True)))


def inputs_of(content: bytes | FrameArray) -> list[triton.InferInput]:
    """The tensors of a request."""
    if isinstance(content, bytes):
        video = triton.InferInput("video", [1, 1], "BYTES")
        video.set_data_from_numpy(np.array([[content]], object))
        return [video]
    frames = triton.InferInput("frames", [1, *content.frames.shape], "UINT8")
    frames.set_data_from_numpy(content.frames[None])
    fps = triton.InferInput("fps", [1, 1], "FP64")
    fps.set_data_from_numpy(np.array([[float(content.fps)]]))
    return [frames, fps]


def ask(client: triton.InferenceServerClient, content: bytes | FrameArray) -> Found:
    """What the server finds, by name, without the batch dimension."""
    wanted = [triton.InferRequestedOutput(name) for name in RESULTS]
    answer = client.infer("step", inputs_of(content), outputs=wanted, client_timeout=_TIMEOUT_S)
    return {name: answer.as_numpy(name)[0] for name in RESULTS}


class Clients:
    """Threads that send one request after the other, each over a connection of its own."""

    def __init__(self, address: str, samples: list[Sample], *, requests: int, frames_every: int) -> None:
        self._address, self._samples, self._frames_every = address, samples, frames_every
        self._waiting = iter(range(requests))
        self._lock = threading.Lock()
        self.lost: list[str] = []
        self.times_s: list[float] = []
        self.answers: list[tuple[Found, Found]] = []  # found, expected

    def run(self, clients: int) -> float:
        """Sends all requests; returns the seconds that it took."""
        threads = [threading.Thread(target=self._send) for _ in range(clients)]
        start_s = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.monotonic() - start_s

    def _send(self) -> None:
        with triton.InferenceServerClient(self._address) as client:
            while (number := self._next()) is not None:
                sample = self._samples[number % len(self._samples)]
                has_frames = self._frames_every > 0 and number % self._frames_every == 0
                content = FrameArray(sample.frames, Fraction(_FPS)) if has_frames else sample.video
                start_s = time.monotonic()
                try:
                    found = ask(client, content)
                except InferenceServerException as error:
                    with self._lock:
                        self.lost.append(str(error))
                    continue
                with self._lock:
                    self.times_s.append(time.monotonic() - start_s)
                    self.answers.append((found, sample.expected))

    def _next(self) -> int | None:
        with self._lock:
            return next(self._waiting, None)


def errors(found: Found, expected: Found) -> tuple[bool, float, float]:
    """Whether the rows are the same, and the largest differences of scores and boxes."""
    same = all(np.array_equal(found[name], expected[name]) for name in ("counts", "labels", "tube_indices"))
    same = same and all(found[name].shape == expected[name].shape for name in RESULTS)
    if not same:
        return False, float("inf"), float("inf")
    scores, boxes = (float(np.abs(found[name] - expected[name]).max()) for name in ("scores", "boxes"))
    return True, scores, boxes


def measure(
    ports: Ports, samples: list[Sample], *, clients: int, requests: int, frames_every: int = _FRAMES_EVERY
) -> Load:
    """Sends the requests to a server that is ready, and asks it what it counted."""
    address = f"127.0.0.1:{ports.grpc}"
    before = _counted(address, ports)
    sending = Clients(address, samples, requests=requests, frames_every=frames_every)
    seconds = sending.run(clients)
    after = _counted(address, ports)
    compared = [errors(found, expected) for found, expected in sending.answers]
    times_s = np.array(sending.times_s or [float("nan")])
    return Load(
        clients=clients,
        requests=requests,
        lost=len(sending.lost),
        seconds=seconds,
        p50_s=float(np.percentile(times_s, 50)),
        p95_s=float(np.percentile(times_s, 95)),
        most_s=float(times_s.max()),
        wrong=sum(not same for same, _, _ in compared),
        max_score_error=max((scores for _, scores, _ in compared), default=0.0),
        max_box_error=max((boxes for _, _, boxes in compared), default=0.0),
        triton_requests=after[0] - before[0],
        triton_calls=after[1] - before[1],
        model_calls=after[2] - before[2],
        model_clips=after[3] - before[3],
    )


def _counted(address: str, ports: Ports) -> tuple[int, int, int, int]:
    """Requests and calls in Triton's statistics; calls of the model and clips among its metrics."""
    with triton.InferenceServerClient(address) as client:
        (model,) = client.get_inference_statistics("step").model_stats
    with urllib.request.urlopen(f"http://127.0.0.1:{ports.metrics}/metrics", timeout=10) as answer:
        metrics = answer.read().decode()
    calls, clips = (_sum_of(metrics, name) for name in ("step_model_calls", "step_model_clips"))
    return model.inference_count, model.execution_count, calls, clips


def _sum_of(metrics: str, name: str) -> int:
    return round(sum(float(value) for value in re.findall(rf"^{name}{{[^}}]*}} (\S+)$", metrics, re.MULTILINE)))


def main() -> None:
    """Serves, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--frames-every", type=int, default=_FRAMES_EVERY, help="of so many requests; 0: none")
    parser.add_argument("--batch", type=int, default=8, help="most clips of a call of the model")
    parser.add_argument("--server", type=Path, default=default_folder(), help="folder with the wheel")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Detector.open(BUNDLE, device="cpu") as detector:
        repository = Path(folder, "repository")
        write_repository(BUNDLE, repository, RepositoryOptions(batch=arguments.batch))
        samples = make_samples(detector, 7)
        with serving(repository, arguments.server, log=Path(folder, "server.log")) as ports:
            load = measure(
                ports,
                samples,
                clients=arguments.clients,
                requests=arguments.requests,
                frames_every=arguments.frames_every,
            )
    for name, value in asdict(load).items():
        print(f"{name:>16} {value:.4g}" if isinstance(value, float) else f"{name:>16} {value}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(asdict(load), indent=1) + "\n")


if __name__ == "__main__":
    main()
