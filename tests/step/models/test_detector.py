import numpy as np
import pytest
import torch
from helpers import TINY, make_detector

from step import StepConfig, StepDetector, load_checkpoint
from step.ops.box_coding import make_boxes_valid

SMALL = {"width": 0.06, "image_size_px": 48, "fc_dim": 8}


@pytest.fixture(scope="module")
def golden_outputs(golden_checkpoint, golden_frames):
    detector = load_checkpoint(golden_checkpoint)
    with torch.inference_mode():
        clip = detector.extract(torch.from_numpy(golden_frames))
        return detector, clip, detector.run_steps(clip, num_steps=3)


def test_features_are_golden(golden_outputs, golden_predict):
    _, clip, _ = golden_outputs
    for found, name in (
        (clip.features[:, :, ::32, ::6, ::6], "conv_feat_slice"),
        (clip.features.mean(dim=(3, 4)), "conv_feat_mean"),
        (clip.context, "context_feat"),
    ):
        assert np.abs(found.numpy() - golden_predict[name]).max() <= 1e-4, name


@pytest.mark.parametrize("step", [1, 2, 3])
def test_steps_are_golden(step, golden_outputs, golden_predict):
    _, _, outputs = golden_outputs
    output = outputs[step - 1]
    assert np.abs(output.scores[0].numpy() - golden_predict[f"step{step}_prob"]).max() <= 1e-4
    # The release applies the validity rule in place, so the arrays of steps 1 and 3 were recorded after it and that of
    # step 2 before it; applied to both sides it compares all of them.
    found = make_boxes_valid(output.boxes_px[0], 400).numpy()
    expected = make_boxes_valid(torch.from_numpy(golden_predict[f"step{step}_boxes"]), 400).numpy()
    assert np.abs(found - expected).max() <= 0.05
    for found, name in ((output.first_px, "first"), (output.last_px, "last")):
        assert np.abs(found[0].numpy() - golden_predict[f"step{step}_{name}"]).max() <= 0.05, name


def test_boxes_of_step_2_are_golden_before_the_validity_rule(golden_outputs, golden_predict):
    _, _, outputs = golden_outputs
    assert np.abs(outputs[1].boxes_px[0].numpy() - golden_predict["step2_boxes"]).max() <= 0.05


@pytest.mark.parametrize("step", [1, 2, 3])
def test_detections_are_golden(step, golden_outputs, golden_predict):
    detector, _, outputs = golden_outputs
    found = detector.select(outputs[step - 1], score_threshold=0.01, nms_iou=0.4, max_detections=300)
    expected = golden_predict[f"detections_clip0_step{step}"]
    assert found.counts.tolist() == [300]
    assert np.abs(found.scores[0].numpy() - expected[:, 0]).max() <= 1e-4
    assert np.array_equal(np.searchsorted(detector.class_ids.numpy(), found.labels[0].numpy()), expected[:, 1])
    assert np.abs(found.boxes[0].numpy() - expected[:, 2:]).max() * 400 <= 0.05


@pytest.mark.parametrize("temporal_mode", ["predict", "extrapolate", "mean"])
@pytest.mark.parametrize("chunks", [(1,), (1, 1, 3, 3), (1, 3, 3, 5), (1, 1, 1)])
def test_modes_and_step_counts(temporal_mode, chunks):
    config = StepConfig(**SMALL, chunks=chunks, temporal_mode=temporal_mode)
    detector = make_detector(config)
    frames = torch.randint(0, 256, (2, config.clip_frames, 48, 48, 3), dtype=torch.uint8)
    with torch.inference_mode():
        outputs = detector(frames)
    assert [output.boxes_px.shape[2] for output in outputs] == [3 * count for count in chunks]
    for output in outputs:
        assert output.scores.shape == (2, 34, 60)
        assert output.first_px.shape == output.last_px.shape == (2, 34, 3, 4)


@pytest.mark.parametrize(
    "changes",
    [{"pool_mode": "pool"}, {"context": False}, {"anchor_mode": 4}, {"chunk_frames": 2}, {"image_size_px": 75}],
)
def test_options(changes):
    config = StepConfig(**(SMALL | changes))
    detector = make_detector(config)
    size = config.image_size_px
    found = detector.detect(torch.zeros(1, config.clip_frames, size, size, 3, dtype=torch.uint8))
    assert found.counts[0] > 0
    assert torch.isfinite(found.boxes).all()


def test_clips_of_a_batch_do_not_mix(tiny_detector, tiny_clips):
    frames = torch.from_numpy(tiny_clips)
    together = tiny_detector.detect(frames)
    for clip in range(2):
        alone = tiny_detector.detect(frames[clip : clip + 1])
        torch.testing.assert_close(alone.scores[0], together.scores[clip], rtol=0, atol=1e-5)


def test_fewer_steps_are_a_prefix(tiny_detector, tiny_clips):
    frames = torch.from_numpy(tiny_clips[:1])
    with torch.inference_mode():
        two, three = tiny_detector(frames, num_steps=2), tiny_detector(frames)
    assert len(two) == 2
    assert torch.equal(two[1].scores, three[1].scores)
    with pytest.raises(ValueError, match="num_steps is 4"):
        tiny_detector(frames, num_steps=4)


def test_nothing_between_the_steps_leaves_the_graph(tiny_detector):
    """torch.export refuses .item(), NumPy and data-dependent loops."""
    frames = torch.zeros(2, 36, 64, 64, 3, dtype=torch.uint8)
    with torch.no_grad():
        torch.export.export(tiny_detector, (frames,))


@pytest.mark.parametrize(
    "thresholds",
    [{"score_threshold": float("nan")}, {"score_threshold": 1.0}, {"nms_iou": 0.0}, {"max_detections": 0}],
)
def test_thresholds_out_of_range(thresholds, tiny_detector, tiny_clips):
    with pytest.raises(ValueError, match=next(iter(thresholds))):
        tiny_detector.detect(torch.from_numpy(tiny_clips), **thresholds)


def test_frames_of_the_wrong_dtype(tiny_detector):
    with pytest.raises(ValueError, match=r"expected uint8 \[B, 36, 64, 64, 3\] RGB, got dtype float32"):
        tiny_detector(torch.zeros(1, 36, 64, 64, 3))


def test_number_of_parameters():
    """SPEC's counts: backbone 7.53 M, context 4.76 M, a step 10.72 M."""
    detector = StepDetector.from_config(StepConfig())
    counts = [sum(p.numel() for p in m.parameters()) for m in (detector.backbone, detector.context, detector.heads[0])]
    assert [round(count / 1e6, 2) for count in counts] == [7.53, 4.76, 10.72]


def test_tiny_is_tiny():
    assert sum(p.numel() for p in make_detector(TINY).parameters()) < 1_500_000
