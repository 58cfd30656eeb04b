"""Losses worked out by hand, schedules against the golden curve, parameter groups."""

import math

import pytest
import torch
import torch.nn.functional as F
from helpers import ONE_STEP, TINY, make_detector

from step.models.head import HeadOutput
from step.ops.box_coding import decode_boxes, encode_boxes
from step.training.objectives.losses import StepTargets, step_losses
from step.training.schedule import LearningRates, cosine_factor, parameter_groups


def _case(frames=9, chunk=3):
    """Two clips of two tubes: positive, box alone; positive, filling."""
    torch.manual_seed(0)
    tubes = torch.tensor([10.0, 20.0, 60.0, 90.0]) + 5 * torch.rand(2, 2, frames, 4)
    output = HeadOutput(
        torch.randn(2, 2, 6), torch.randn(2, 2, frames, 4), torch.randn(2, 2, chunk, 4), torch.randn(2, 2, chunk, 4)
    )
    labels = torch.zeros(2, 2, 6)
    labels[0, 0, [1, 4]] = 1
    labels[1, 0, 2] = 1
    boxes = torch.tensor([12.0, 22.0, 55.0, 85.0]).repeat(2, 2, 1)
    neighbour = torch.zeros(2, 2, 2, dtype=torch.bool)
    neighbour[0, 0, 1] = True
    return output, StepTargets(
        tubes_px=tubes,
        valid=torch.tensor([[True, True], [True, False]]),
        labels=labels,
        boxes_px=boxes,
        regress=torch.tensor([[True, True], [True, False]]),
        neighbour_px=boxes[:, :, None].repeat(1, 1, 2, 1) + 3,
        neighbour=neighbour,
    )


def test_by_hand():
    output, targets = _case()
    losses = step_losses(output, targets)
    rows = [(0, 0), (0, 1), (1, 0)]
    wanted = [F.binary_cross_entropy(output.logits[r].sigmoid(), targets.labels[r]) for r in rows]
    assert losses.classification == pytest.approx(float(sum(wanted) / 3), rel=1e-5)

    def smooth(apart):
        return torch.where(apart.abs() < 1, 0.5 * apart**2, apart.abs() - 0.5).mean()

    boxes = [smooth(output.deltas[r][4] - encode_boxes(targets.boxes_px[r], targets.tubes_px[r][4])) for r in rows]
    assert losses.box == pytest.approx(float(sum(boxes) / 3), rel=1e-5)
    apart = output.last_deltas[0, 0, 1] - encode_boxes(targets.neighbour_px[0, 0, 1], targets.tubes_px[0, 0, 7])
    assert losses.neighbour == pytest.approx(float(smooth(apart)), rel=1e-5)
    assert losses.total == pytest.approx(float(losses.classification + 5 * losses.box + losses.neighbour), rel=1e-6)


def test_the_right_deltas_lose_nothing():
    output, targets = _case(frames=3)
    wanted = encode_boxes(targets.boxes_px[:, :, None], targets.tubes_px)
    assert torch.allclose(decode_boxes(wanted, targets.tubes_px)[:, :, 1], targets.boxes_px, atol=1e-3)
    assert step_losses(output._replace(deltas=wanted), targets).box == pytest.approx(0, abs=1e-8)


def test_nothing_to_find_has_gradients_of_zero():
    output, targets = _case()
    output = HeadOutput(*(value.requires_grad_() for value in output))
    nothing = targets._replace(regress=targets.regress & False, neighbour=targets.neighbour & False)
    losses = step_losses(output, nothing)
    losses.total.backward()
    assert losses.box.item() == losses.neighbour.item() == 0
    for value in (output.deltas, output.first_deltas, output.last_deltas):
        assert value.grad is not None
        assert not value.grad.any()
    assert output.logits.grad.any()


def test_processes_average_to_one_with_all_clips():
    """Clip by clip with the mean counts, then averaged, as distributed training does."""
    output, targets = _case()
    whole = step_losses(output, targets)

    def part(clip):
        mine = HeadOutput(*(value[clip : clip + 1] for value in output))
        return mine, StepTargets(*(value[clip : clip + 1] for value in targets))

    counts = []
    for clip in range(2):
        step_losses(*part(clip), mean_counts=lambda c: counts.append(c) or c)
    mean = torch.stack(counts).mean(0)
    parts = [step_losses(*part(clip), mean_counts=lambda _c: mean) for clip in range(2)]
    for name in whole._fields:
        average = sum(float(getattr(each, name)) for each in parts) / 2
        assert average == pytest.approx(float(getattr(whole, name)), rel=1e-5)


def test_the_golden_curve(golden_ops):
    """The release's curve has 20,000 iterations, 1,000 of them warm-up, and a rate of 7.5e-4."""
    for iteration, rate in golden_ops["cosine_lr"]:
        found = 7.5e-4 * cosine_factor(int(iteration), warmup=1000, total=20000)
        assert found == pytest.approx(rate, rel=1e-6, abs=1e-12)
    assert cosine_factor(19999, warmup=1000, total=20000) == pytest.approx(0, abs=1e-12)
    assert cosine_factor(0, warmup=0, total=1) == pytest.approx(0, abs=1e-12)
    assert math.isfinite(cosine_factor(5, warmup=10, total=10))


def test_parameter_groups():
    detector = make_detector(TINY)
    groups = parameter_groups(detector, LearningRates(backbone=8.0, context=100.0, heads=1000.0), weight_decay=0.1)
    found = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    expected = {
        "backbone.conv3d_1a_7x7.conv3d.weight": (1.0, 0.1),
        "backbone.conv3d_2c_3x3.conv3d.weight": (2.0, 0.1),
        "backbone.mixed_3c.branch_0.conv3d.weight": (4.0, 0.1),
        "backbone.mixed_4f.branch_0.conv3d.weight": (8.0, 0.1),
        "backbone.mixed_4f.branch_0.batch3d.bias": (16.0, 0.0),
        "context.mixed_5b.branch_0.conv3d.weight": (100.0, 0.1),
        "heads.1.mixed_5c.branch_0.conv3d.weight": (100.0, 0.1),
        "heads.1.global_cls.weight": (1000.0, 0.1),
        "heads.1.local_reg.bias": (2000.0, 0.0),
    }
    parameters = dict(detector.named_parameters())
    assert {name: found[id(parameters[name])] for name in expected} == expected
    assert len(found) == len(parameters)


def test_frozen_parameters_are_in_no_group():
    detector = make_detector(ONE_STEP)
    detector.backbone.requires_grad_(False)
    groups = parameter_groups(detector, LearningRates(), weight_decay=0.0)
    ids = {id(p) for group in groups for p in group["params"]}
    assert not ids & {id(p) for p in detector.backbone.parameters()}
    assert ids
