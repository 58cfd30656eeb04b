"""The comparison that gates an export has to see what is wrong and to forgive what rounding decides."""

import numpy as np
import pytest

from step import StepConfig
from step.parity.synthetic_clips import verification_clips
from step.parity.tolerances import detections_apart


def _rows(*rows):
    """(label, tube, score, left edge of a 0.2 wide box) each."""
    return {
        "labels": np.array([row[0] for row in rows], np.int64),
        "tube_indices": np.array([row[1] for row in rows], np.int64),
        "scores": np.array([row[2] for row in rows], np.float32),
        "boxes": np.array([(row[3], 0, row[3] + 0.2, 1) for row in rows], np.float32).reshape(-1, 4),
    }


def _apart(found, expected):
    return detections_apart(found, expected, score_tolerance=1e-3, score_threshold=0.01, nms_iou=0.4)


def test_rank_does_not_matter():
    assert _apart(_rows((1, 0, 0.9, 0.0), (2, 1, 0.8, 0.5)), _rows((2, 1, 0.8, 0.5), (1, 0, 0.9, 0.0))) == 0


@pytest.mark.parametrize(
    "found",
    [
        _rows((1, 0, 0.9, 0.0), (0, -1, 0.0, 0.0), (0, -1, 0.0, 0.0)),
        _rows((1, 0, 0.9, 0.0), (3, 1, 0.8, 0.5), (4, 2, 0.3, 0.0)),
        _rows((1, 0, 0.9, 0.0), (2, 1, 0.79, 0.5), (4, 2, 0.3, 0.0)),
        _rows((1, 0, 0.9, 0.0), (2, 7, 0.8, 0.0), (4, 2, 0.3, 0.0)),
        _rows((1, 0, 0.9, 0.0), (2, 1, 0.8, 0.5), (4, 2, 0.3, 0.0), (2, 5, 0.7, 0.45)),
    ],
    ids=["absent", "other class", "other score", "other tube", "one too many"],
)
def test_differences_count(found):
    assert _apart(found, _rows((1, 0, 0.9, 0.0), (2, 1, 0.8, 0.5), (4, 2, 0.3, 0.0))) > 0


def test_the_end_of_the_list_and_ties_are_forgiven():
    expected = _rows((1, 0, 0.9, 0.0), (2, 1, 0.8, 0.5), (4, 2, 0.3, 0.0))
    assert _apart(_rows((1, 0, 0.9, 0.0), (2, 1, 0.8, 0.5), (4, 3, 0.3005, 0.7)), expected) == 0
    assert _apart(_rows((1, 0, 0.9, 0.0), (2, 6, 0.8005, 0.52), (4, 2, 0.3, 0.0)), expected) == 0


def test_suppression_that_did_not_happen_counts():
    both = _rows((1, 0, 0.9, 0.0), (1, 1, 0.9, 0.01))
    assert _apart(both, both) == 0.5


def test_rows_near_the_threshold_are_forgiven():
    padding = (0, -1, 0.0, 0.0)
    assert _apart(_rows((1, 0, 0.9, 0.0), padding), _rows((1, 0, 0.9, 0.0), (2, 1, 0.0105, 0.5))) == 0
    assert _apart(_rows((1, 0, 0.9, 0.0), padding), _rows((1, 0, 0.9, 0.0), (2, 1, 0.02, 0.5))) == 0.5


def test_nothing_equals_nothing():
    padding = _rows((0, -1, 0.0, 0.0))
    assert _apart(padding, padding) == 0
    assert _apart(padding, _rows((1, 0, 0.9, 0.0))) == 1


def test_clips_fit_the_model():
    config = StepConfig(image_size_px=64)
    clips = dict(verification_clips(config, batches=(2, 2)))
    assert set(clips) == {"noise", "moving shapes"}
    for frames in clips.values():
        assert frames.shape == (2, 36, 64, 64, 3)
        assert frames.dtype == np.uint8
    assert np.abs(np.diff(clips["moving shapes"].astype(int), axis=1)).mean() < 20
