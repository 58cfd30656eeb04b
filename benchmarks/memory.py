"""Memory of a run over time: whether it stays flat, however long the video.

    python benchmarks/memory.py bundle --minutes 10 --every 1.0

Writes a synthetic 640x360 video of that length and runs it with overlay and tables, sampling the resident set.
"""

import argparse
import tempfile
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from step_runtime import Detector
from step_runtime.outputs.run_source import RunOptions, run_source

_RATE = 25
_PAGES = Path("/proc/self/statm")
_PAGE_BYTES = 4096


def main() -> None:
    """Prints the resident set at ten moments of the run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--every", type=Fraction, default=Fraction(1))
    arguments = parser.parse_args()
    samples: list[float] = []
    done = threading.Event()

    def sample() -> None:
        while not done.wait(0.5):
            samples.append(int(_PAGES.read_text().split()[1]) * _PAGE_BYTES / 2**20)

    with tempfile.TemporaryDirectory() as folder, Detector.open(arguments.bundle, device="cpu") as detector:
        video = Path(folder) / "long.mp4"
        write_video(video, round(arguments.minutes * 60 * _RATE))
        sampler = threading.Thread(target=sample, daemon=True)
        sampler.start()
        start_s = time.monotonic()
        summary = run_source(
            detector,
            str(video),
            Path(folder) / "out",
            RunOptions(every_s=arguments.every),
        )
        elapsed_s = time.monotonic() - start_s
        done.set()
        sampler.join()
    print(f"{arguments.minutes:g} minutes of video, {summary.key_frames} key frames in {elapsed_s:.0f} s")
    marks = [samples[round(share * (len(samples) - 1) / 10)] for share in range(11)]
    print("resident MiB at 0, 10, ..., 100 % of the run:", " ".join(f"{mark:.0f}" for mark in marks))


def write_video(path: Path, frames: int) -> None:
    """A drifting gradient with a bright square."""
    y, x = np.mgrid[0:360, 0:640]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=_RATE)
        assert isinstance(stream, av.video.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        stream.options = {"preset": "ultrafast"}
        for index in range(frames):
            pixels = np.repeat(((x + y + 2 * index) % 256)[..., None], 3, axis=2).astype(np.uint8)
            left = 4 * index % 560
            pixels[140:220, left : left + 80] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main()
