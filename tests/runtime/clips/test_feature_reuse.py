"""Runs that share backbone features: the right features, the right detections, live sources, refusals."""

import threading
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
import torch
from helpers import assert_one_error, run_command
from step_runtime import Detector, RunState
from step_runtime.backends.base import Features, Finished
from step_runtime.cli import main
from step_runtime.clips.clip_buffer import ClipBuffer
from step_runtime.clips.feature_reuse import MARGIN, FeatureStore
from step_runtime.clips.feature_windows import WindowPlan
from step_runtime.sources.video import VideoSource

from step import Detections, StepConfig, StepError, load_checkpoint
from step.models.detector import ClipFeatures

CONFIG = StepConfig(image_size_px=32)
THIRD = Fraction(1, 3)


def _groups(frames: np.ndarray) -> Features:
    """Features without mixing in time: the mean over each group of 4 frames, [B, 9, 1, 1, 1] and [B, 1, 9]."""
    means = frames.reshape(len(frames), 9, -1).mean(axis=2, dtype=np.float64)
    return Features(means[:, :, None, None, None], means[:, None] + 1000)


class GroupBackend:
    """Its features are `_groups`; remembers those that it was given.

    Args:
        waits_in: the method of which the first call lasts until `goes_on` is set.
    """

    name, device, loop, config = "groups", "none", "steps", CONFIG
    max_batch, depth = None, 1

    def __init__(self, *, waits_in: str | None = None, min_batch: int = 1):
        self.waits_in, self.min_batch = waits_in, min_batch
        self.goes_on = threading.Event()
        self.windows = 0
        self.clips: list[Features] = []

    def extract(self, frames):
        assert frames.shape == (self.min_batch, 36, 32, 32, 3)
        assert self.waits_in != "extract" or self.goes_on.wait(60)
        self.windows += 1
        return _groups(frames)

    def submit_features(self, clip):
        assert len(clip.features) == len(clip.context) == self.min_batch
        assert self.waits_in != "submit_features" or self.goes_on.wait(60)
        self.clips.append(clip)
        boxes = np.array([[[0.25, 0.25, 0.75, 0.75]]], np.float32)
        ones = np.ones((1, 1), np.int64)
        detections = Detections(boxes, ones * np.float32(0.5), ones, ones * 0, ones[0], np.ones((1, 34, 9, 4)))
        return Finished(Detections(*(np.repeat(rows, self.min_batch, axis=0) for rows in detections)))

    def close(self):
        pass


class LiveSource:
    """Frames that come whether they are wanted or not; says when there are no more."""

    def __init__(self, video, ended):
        self._inner, self._ended = VideoSource(str(video)), ended
        self.name, self.interval_s, self.slack_s = "live", self._inner.interval_s, self._inner.slack_s
        self.notes = []
        self.duration_s, self.is_live, self.problem = None, True, None

    def frames(self):
        yield from self._inner.frames()
        self._ended.set()


@pytest.mark.parametrize("min_batch", [1, 2])
@pytest.mark.parametrize("margin", [0, 1, 2, 3])
def test_without_mixing_in_time_features_are_those_of_the_clip_alone(margin, min_batch, make_video):
    """At 24 fps every key frame lies on a frame, so that the grid is the clip's own."""
    video = make_video(frames=100, rate=Fraction(24))
    backend = GroupBackend(min_batch=min_batch)
    found = list(Detector(backend).run(video, every_s=THIRD, reuse_backbone=True, reuse_margin=margin))
    source = VideoSource(str(video))
    buffer = ClipBuffer(config=CONFIG, every_s=THIRD, interval_s=source.interval_s, slack_s=source.slack_s)
    clips = [clip for frame in source.frames() for clip in buffer.add(frame)]
    clips += buffer.finish()
    assert len(found) == len(clips) == len(backend.clips) == 13
    assert [key.frame for key in found] == [clip.frame for clip in clips]
    assert all(len(key.detections.boxes) == 1 for key in found)
    for clip, given in zip(clips, backend.clips, strict=True):
        alone = _groups(clip.frames[None])
        assert np.array_equal(given.features[:1], alone.features)
        assert np.array_equal(given.context[:1], alone.context)
    assert backend.windows == -(-(12 + 9) // (9 - 2 * margin))


def test_a_missing_window_takes_its_clips_along():
    plan = WindowPlan(groups=9, margin=2, key_groups=1)
    store = FeatureStore(plan)
    assert store.clip(0) is None
    for number in (0, 1, 3, 4, 5):  # 2 is missing: groups 10 to 14
        numbers = np.arange(9.0)[None] + 5 * number - 2
        store.add(5 * number - 2, Features(numbers[:, :, None, None, None], numbers[:, None]))
    there = [group for group in range(22) if store.clip(group) is not None]
    assert there == [0, 1, *range(15, 22)]


def _transcribed(checkpoint, video, every_s):
    """The same by hand: all frames of the grid, one window after the other, features sliced for each key frame."""
    detector = load_checkpoint(checkpoint)
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        rate = Fraction(stream.average_rate)
    size = detector.config.image_size_px
    resized = [cv2.resize(picture, (size, size), interpolation=cv2.INTER_LINEAR) for picture in pictures]
    keys = [n * every_s for n in range(100) if n * every_s < len(pictures) / rate]
    features, contexts = {}, {}
    for start in range(-MARGIN, int(keys[-1] / THIRD) + 9, 9 - 2 * MARGIN):
        moments = [Fraction(slot, 12) for slot in range(4 * start - 17, 4 * start + 19)]
        frames = np.stack([resized[min(max(int(t * rate // 1), 0), len(resized) - 1)] for t in moments])
        with torch.inference_mode():
            clip = detector.extract(torch.from_numpy(frames)[None])
        for position in range(MARGIN, 9 - MARGIN):
            features[start + position] = clip.features[:, position]
            contexts[start + position] = clip.context[:, :, position]
    for key_s in keys:
        groups = range(int(key_s / THIRD), int(key_s / THIRD) + 9)
        with torch.inference_mode():
            clip = ClipFeatures(
                torch.stack([features[group] for group in groups], 1),
                torch.stack([contexts[group] for group in groups], 2),
            )
            output = detector.run_steps(clip, num_steps=3)[-1]
            yield detector.select(output, score_threshold=0.01, nms_iou=0.4, max_detections=300)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "torch"])
def test_equals_a_slow_transcription(backend, tiny_bundle, make_video):
    checkpoint = tiny_bundle.parent / "model.pth"
    video = make_video(frames=24, rate=Fraction(24))
    model = checkpoint if backend == "torch" else tiny_bundle
    with Detector.open(model, backend, loop="steps", device="cpu") as detector:
        found = list(detector.run(video, every_s=THIRD, reuse_backbone=True))
        alone = next(detector.run(video, every_s=THIRD))
    expected = list(_transcribed(checkpoint, video, THIRD))
    assert len(found) == len(expected) == 3
    for key, wanted in zip(found, expected, strict=True):
        assert np.abs(key.detections.scores - wanted.scores.numpy()).max() <= 1e-3
        assert np.abs(key.detections.tubes_px - wanted.tubes_px.numpy()).max() <= 0.05
        assert np.array_equal(key.detections.counts, wanted.counts.numpy())
    apart = np.abs(found[0].detections.tubes_px - alone.detections.tubes_px).max()
    assert apart > 0.5, "the model does not see that windows are not clips"


def test_key_frames_further_apart_are_some_of_those_close_together(tiny_bundle, make_video):
    """Windows do not depend on the key frames."""
    video = make_video(frames=30, rate=Fraction(24))
    with Detector.open(tiny_bundle, "onnxruntime", loop="steps", device="cpu") as detector:
        close, apart = (list(detector.run(video, every_s=s, reuse_backbone=True)) for s in (THIRD, Fraction(1)))
    assert [key.scheduled_s for key in apart] == [0, 1]
    for key, same in zip(apart, close[::3], strict=True):
        assert np.array_equal(key.detections.tubes_px, same.detections.tubes_px)


def test_fewer_steps(tiny_bundle, tiny_checkpoint, make_video):
    video = make_video(frames=12)
    results = []
    for model in (tiny_bundle, tiny_checkpoint):
        with Detector.open(
            model, loop="steps" if model == tiny_bundle else None, num_steps=2, device="cpu"
        ) as detector:
            results.append(list(detector.run(video, every_s=THIRD, reuse_backbone=True)))
    assert len(results[0]) == len(results[1]) == 2
    for one, two in zip(*results, strict=True):
        assert one.detections.tubes_px.shape[2] == 3
        assert np.abs(one.detections.tubes_px - two.detections.tubes_px).max() <= 0.05


def _run_live(backend, video):
    """Numbers of the key frames that a live run gave, all of whose frames came during the backend's first call."""
    state = RunState()
    found = list(
        Detector(backend).run(LiveSource(video, backend.goes_on), every_s=THIRD, state=state, reuse_backbone=True)
    )
    numbers = [int(key.scheduled_s / THIRD) for key in found]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == len(backend.clips)
    return numbers, state


def test_a_slow_model_drops_key_frames_of_a_live_source_and_goes_on_with_the_next_window(make_video):
    """Windows 1 to 4 complete the key frames 0 to 1, 2 to 6, 7 to 11 and 12 to 16; 2 and 3 wait from the start."""
    backend = GroupBackend(waits_in="submit_features")
    numbers, state = _run_live(backend, make_video(frames=150))
    assert backend.windows >= 5  # but for the last, which may find three waiting, none is lost
    assert {0, 1, 6, 11, 16} <= set(numbers)
    assert not {2, 3, 4, 5} & set(numbers)
    assert len(numbers) + state.dropped_clips == 18


def test_a_backbone_too_slow_for_a_live_source_still_gives_whole_clips(make_video):
    """Windows are lost then, but all of those that wait adjoin: what is left has all its groups."""
    backend = GroupBackend(waits_in="extract")
    numbers, state = _run_live(backend, make_video(frames=250))
    assert 4 <= backend.windows < 8  # the first, the three that may wait, and what comes after
    assert {1, 6, 11} <= set(numbers)
    assert len(numbers) + state.dropped_clips == 30
    assert state.dropped_clips >= 10


def test_a_consumer_that_stops_ends_the_reader(make_video):
    run = Detector(GroupBackend()).run(make_video(frames=200), every_s=THIRD, reuse_backbone=True)
    next(run)
    run.close()


def test_step_run(make_video, tiny_bundle, tmp_path, capsys):
    video, out = make_video(frames=30), tmp_path / "out"
    words = [video, "--model", tiny_bundle, "--backend", "onnxruntime", "--device", "cpu", "--no-overlay"]
    code, printed, error = run_command(main, capsys, *words, "--out", out, "--every", "1/3", "--reuse-backbone")
    assert code == 0, error
    assert "steps loop" in printed
    assert len((out / "detections.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--every", "0.5"], "--every is 0.5; .*: give 1/3 or 2/3"),
        (["--every", "1/3", "--loop", "fused"], "--reuse-backbone with --loop fused, .* leave --loop out"),
        (["--every", "2"], "none is shared; give --every 4/3 at most"),
        (["--every", "frame"], "--every frame with --reuse-backbone"),
    ],
)
def test_refusals(words, said, tiny_bundle, make_video, tmp_path, capsys):
    common = ["--model", tiny_bundle, "--out", tmp_path / "out", "--device", "cpu", "--reuse-backbone"]
    assert_one_error(run_command(main, capsys, make_video(), *common, *words), said)
    assert not (tmp_path / "out").exists()


def test_key_frames_off_the_grid_are_refused_before_a_model_is_looked_for(tmp_path, capsys):
    words = ["none.mp4", "--model", tmp_path / "none", "--reuse-backbone", "--every", "0.4"]
    assert_one_error(run_command(main, capsys, *words), "--every is 0.4; with --reuse-backbone")


def test_a_bundle_of_the_fused_graph_alone(tiny_bundle, make_video):
    with (
        Detector.open(tiny_bundle, "onnxruntime", loop="fused", device="cpu") as detector,
        pytest.raises(StepError, match="with the fused loop of onnxruntime; it needs `loop` steps"),
    ):
        list(detector.run(make_video(), every_s=THIRD, reuse_backbone=True))
