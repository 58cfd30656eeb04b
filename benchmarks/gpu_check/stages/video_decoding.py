"""Stage: what decodes video here: PyAV on the CPU, and NVDEC through PyAV's hardware acceleration.

Source: https://pyav.basswood-io.com/docs/stable/api/hwaccel.html; FFmpeg's h264 decoders give the same bits.
"""

import ctypes
import importlib.util
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from gpu_check.stage import Device, Report, StageOptions, StageSkippedError, run_stage
from step.errors import StepError

if TYPE_CHECKING:
    import av
    import av.video
    from av.codec.hwaccel import HWAccel

_TABLE = "decoding of a 1280 x 720 video"
_WIDTH_PX, _HEIGHT_PX, _RATE = 1280, 720, 25
_FRAMES: dict[Device, int] = {"cuda": 300, "none": 30}
_ENCODERS = {"libx264": {"preset": "veryfast", "crf": "20"}, "mpeg4": {"qscale": "3"}}
_COMPARED = 30
_MOST_APART = 2  # of 255; the decoders are exact, the conversion between their layouts need not be


def measure(report: Report, options: StageOptions) -> None:
    """Measures frames a second of each decoder, and whether the GPU's frames are the CPU's.

    Raises:
        StageSkippedError: PyAV is not here.
    """
    _presence(report)
    if importlib.util.find_spec("av") is None:
        raise StageSkippedError("PyAV is not here; build/gpu-kit-video carries it")
    import av
    import av.logging

    report.figure("PyAV", av.__version__, "found", table="what is here")
    av.logging.set_level(av.logging.ERROR)
    try:
        video = _write_video(options.work / f"decoding-{options.device}.mp4", _FRAMES[options.device], report)
        _time(report, "CPU, one thread", video, threads=1)
        _time(report, "CPU, as many threads as FFmpeg takes", video)
    except av.FFmpegError as error:
        raise StepError(f"PyAV: {error}") from error
    _decode_on_gpu(report, video)


def _presence(report: Report) -> None:
    """Reports what else might decode; these are not used."""
    table = "what is here"
    has_ffmpeg = any("FFMPEG:" in line and "YES" in line for line in cv2.getBuildInformation().splitlines())
    report.figure("OpenCV", f"{cv2.__version__}, {'with' if has_ffmpeg else 'without'} FFmpeg", "found", table=table)
    found = importlib.util.find_spec("torchcodec") is not None
    report.figure("torchcodec", "there" if found else "not there", "found", table=table)
    try:
        ctypes.CDLL("libnvcuvid.so.1")
        report.figure("the driver's NVDEC library", "libnvcuvid.so.1 loads", "found", table=table)
    except OSError as error:
        report.figure("the driver's NVDEC library", " ".join(str(error).split()), "found", table=table)


def _decode_on_gpu(report: Report, video: Path) -> None:
    """Tries NVDEC, which a machine need not have: why it does not work is a figure, only wrong frames are a problem."""
    import av
    import av.logging
    from av.codec.hwaccel import HWAccel, hwdevices_available

    report.figure("PyAV's hardware", ", ".join(hwdevices_available()) or "none", "found", table="what is here")
    row = "NVDEC, copied to the host"
    with av.logging.Capture(local=False) as said:
        try:
            acceleration = HWAccel(device_type="cuda", allow_software_fallback=False)
            frames = _time(report, row, video, acceleration=acceleration)
        except (av.FFmpegError, NotImplementedError, RuntimeError, ValueError) as error:
            reasons = [" ".join(text.split()) for _level, _name, text in said if text.strip()]
            report.figure(row, f"does not work: {'; '.join(dict.fromkeys((str(error), *reasons)))}", table=_TABLE)
            return
    apart = max(
        int(np.abs(one.astype(np.int16) - other.astype(np.int16)).max())
        for one, other in zip(frames, _first_frames(video), strict=True)
    )
    report.figure(row, apart, "largest difference of 255", table=_TABLE)
    report.check(apart <= _MOST_APART, f"NVDEC's frames differ from the CPU's by up to {apart} of 255")


def _time(
    report: Report, row: str, video: Path, *, threads: int | None = None, acceleration: "HWAccel | None" = None
) -> list[NDArray[np.uint8]]:
    """Adds frames a second, decoding alone and with RGB images made of them; returns the first frames, YUV."""
    for column, with_rgb in (("frames/s", False), ("frames/s as RGB", True)):
        count, start_s = 0, time.perf_counter()
        for frame in _decode(video, threads, acceleration):
            if with_rgb:
                frame.to_ndarray(format="rgb24")
            count += 1
        report.figure(row, count / (time.perf_counter() - start_s), column, table=_TABLE)
    report.figure(row, count, "frames", table=_TABLE)
    return _first_frames(video, acceleration)


def _first_frames(video: Path, acceleration: "HWAccel | None" = None) -> list[NDArray[np.uint8]]:
    """Decodes frames, uint8 [H * 3 / 2, W] each: luma, then chroma, whatever the decoder's layout is."""
    frames: list[NDArray[np.uint8]] = []
    for frame in _decode(video, None, acceleration):
        # To the end: a decoder that is closed with frames under way has hung on an H200 (NVDEC, several threads).
        if len(frames) < _COMPARED:
            frames.append(np.asarray(frame.to_ndarray(format="yuv420p"), np.uint8))
    return frames


def _decode(video: Path, threads: int | None, acceleration: "HWAccel | None") -> "Iterator[av.VideoFrame]":
    import av

    with av.open(str(video), hwaccel=acceleration) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"  # as step-run has it
        if acceleration is not None:
            # The GPU decodes; threads of FFmpeg's would gain nothing, and wait for this one when they have something to
            # say, while it waits for them.
            threads = 1
        if threads is not None:
            stream.codec_context.thread_count = threads
        if acceleration is not None and not stream.codec_context.is_hwaccel:
            raise RuntimeError("FFmpeg decodes on the CPU all the same")
        yield from container.decode(stream)


def _write_video(path: Path, count: int, report: Report) -> Path:
    """Writes a video whose parts move at different speeds, so that there is something to predict."""
    import av
    import av.video

    encoder = next(name for name in _ENCODERS if name in av.codecs_available)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=_RATE, options=_ENCODERS[encoder])
        assert isinstance(stream, av.video.VideoStream)
        stream.width, stream.height, stream.pix_fmt = _WIDTH_PX, _HEIGHT_PX, "yuv420p"
        for index, image in enumerate(_images(count)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, _RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    report.figure("video", f"{count} frames by {encoder}, {path.stat().st_size / 1e6:.1f} MB", "found", table=_TABLE)
    return path


def _images(count: int) -> Iterator[NDArray[np.uint8]]:
    noise = np.random.RandomState(0).randint(0, 256, (_HEIGHT_PX // 16, 2 * _WIDTH_PX // 16, 3)).astype(np.uint8)
    wide = np.asarray(cv2.resize(noise, (2 * _WIDTH_PX, _HEIGHT_PX), interpolation=cv2.INTER_CUBIC), np.uint8)
    for index in range(count):
        image = np.ascontiguousarray(wide[:, (4 * index) % _WIDTH_PX :][:, :_WIDTH_PX])
        left_px, top_px = (9 * index) % (_WIDTH_PX - 200), (5 * index) % (_HEIGHT_PX - 200)
        image[top_px : top_px + 200, left_px : left_px + 200] = wide[:200, :200]
        yield image


if __name__ == "__main__":
    run_stage("video_decoding", measure)
