from fractions import Fraction

import pytest

from step import StepConfig, StepError
from step.clips import check_frames, check_thresholds, clip_frame_indices, clip_offsets_s, tube_offsets_s


def test_release_sizes():
    config = StepConfig()
    assert (config.clip_frames, config.feature_frames, config.feature_size) == (36, 9, 25)
    assert (config.feature_channels, config.context_channels) == (832, 1024)
    assert [config.step_first_frame(step) for step in range(3)] == [3, 3, 0]


@pytest.mark.parametrize("chunks", [(1,), (1, 1), (1, 1, 3, 3), (1, 3, 3, 5), (1, 1, 1)])
def test_published_chunk_schedules(chunks):
    config = StepConfig(chunks=chunks)
    assert config.clip_frames == 4 * 3 * chunks[-1]
    assert StepConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"chunks": (1, 4)}, "chunks"),
        ({"chunks": (3,)}, "chunks"),
        ({"chunks": (1, 1, 1, 1, 1)}, "chunks"),
        ({"anchor_mode": 5}, "anchor_mode"),
        ({"temporal_mode": "guess"}, "temporal_mode"),
        ({"pool_mode": "crop"}, "pool_mode"),
        ({"num_classes": 3}, "num_classes"),
        ({"width": 0.0}, "width"),
        ({"image_size_px": 10}, "image_size_px"),
        ({"chunk_frames": 1, "temporal_mode": "extrapolate"}, "chunk_frames"),
        ({"chunk_frames": 10**9}, "chunk_frames"),
        ({"image_size_px": "400"}, "image_size_px"),
        ({"fc_dim": 1.5}, "fc_dim"),
        ({"pool_size": True}, "pool_size"),
        ({"chunks": 3}, "chunks"),
        ({"chunks": (1, "3")}, "chunks"),
        ({"class_ids": None}, "class_ids"),
        ({"class_names": "walk"}, "class_names"),
        ({"context": "no"}, "context"),
        ({"width": None}, "width"),
    ],
)
def test_values_outside_the_method_are_refused(changes, named):
    with pytest.raises(StepError, match=f"{named} is"):
        StepConfig(**changes)


def test_unknown_field_is_refused():
    with pytest.raises(StepError, match="'depth'"):
        StepConfig.from_dict({"depth": 3})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"score_threshold": "0.4"}, r"^score_threshold is 0.4; it must be in \[0, 1\)$"),
        ({"nms_iou": None}, "^nms_iou is None; it must be in"),
        ({"max_detections": 1.5}, "^max_detections is 1.5; it must be a whole number"),
        ({"max_detections": True}, "^max_detections is True; it must be a whole number"),
    ],
)
def test_thresholds_of_other_types(changes, said):
    with pytest.raises(ValueError, match=said):
        check_thresholds(**({"score_threshold": 0.1, "nms_iou": 0.4, "max_detections": 10} | changes))


def test_key_frame_is_the_last_of_the_left_half():
    offsets = clip_offsets_s(36)
    assert len(offsets) == 36
    assert offsets[17] == 0
    assert (offsets[0], offsets[-1]) == (Fraction(-17, 12), Fraction(18, 12))


def test_indices_follow_the_release():
    """SPEC: left int(k), int(k - s), ... reversed; right int(k + s), ...; clamped."""
    rate, key, total = Fraction(30000, 1001), 40, 100
    stride = rate / 12
    left = [int(key - i * stride) for i in range(18)][::-1]
    right = [int(key + i * stride) for i in range(1, 19)]
    expected = [min(max(index, 0), total - 1) for index in left + right]
    assert clip_frame_indices(key, source_fps=rate, num_frames=total, clip_frames=36) == expected


def test_tube_times_are_centred_on_the_frames_they_cover():
    whole, middle = tube_offsets_s(9, StepConfig()), tube_offsets_s(3, StepConfig())
    assert middle == whole[3:6]
    assert whole[4] == pytest.approx(0.5 / 12)
    assert whole[1] - whole[0] == pytest.approx(4 / 12)


@pytest.mark.parametrize(
    ("shape", "dtype", "said"),
    [
        ((1, 36, 400, 400, 3), "float32", "dtype float32"),
        ((36, 400, 400, 3), "uint8", r"frames\[None\]"),
        ((1, 36, 3, 400, 400), "uint8", "colour channel comes last"),
        ((1, 32, 400, 400, 3), "uint8", r"got shape \[1, 32, 400, 400, 3\]"),
        ((0, 36, 400, 400, 3), "uint8", r"got shape \[0"),
    ],
)
def test_frames_that_are_no_clips(shape, dtype, said):
    with pytest.raises(ValueError, match=said) as caught:
        check_frames(shape, dtype, StepConfig())
    assert "expected uint8 [B, 36, 400, 400, 3]" in str(caught.value)
