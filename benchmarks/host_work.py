"""What the host does besides the model: decode, resize, buffer and cut clips, in core-seconds a second of video.

    python benchmarks/host_work.py video.mp4 --every 1.0

CPU time of the whole process, decoder threads included; no model runs.
"""

import argparse
import time
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from step_runtime.clips.clip_buffer import ClipBuffer
from step_runtime.sources.video import VideoSource

from step import StepConfig


def main() -> None:
    """Prints the cost of a video, and of resizing one clip's frames alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--every", type=Fraction, default=Fraction(1))
    arguments = parser.parse_args()
    config = StepConfig()
    source = VideoSource(str(arguments.video))
    buffer = ClipBuffer(config=config, every_s=arguments.every, interval_s=source.interval_s, slack_s=source.slack_s)
    start_s = time.process_time()
    clips, end_s = 0, Fraction(0)
    for frame in source.frames():
        clips += sum(1 for _ in buffer.add(frame))
        end_s = frame.time_s + source.interval_s
    clips += sum(1 for _ in buffer.finish())
    spent_s = time.process_time() - start_s
    print(
        f"{arguments.video.name}: {clips} clips, {float(end_s):.2f} s of video, {spent_s:.2f} core-seconds: "
        f"{spent_s / float(end_s):.3f} a second of video"
    )
    picture = next(source.frames()).rgb()
    size = (config.image_size_px, config.image_size_px)
    start_s = time.process_time()
    for _ in range(config.clip_frames):
        np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR))
    print(f"resizing {config.clip_frames} such frames: {1000 * (time.process_time() - start_s):.1f} ms of CPU")


if __name__ == "__main__":
    main()
