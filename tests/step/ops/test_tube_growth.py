import torch

from step.ops.tube_growth import extrapolate_tubes, grow_tubes


def test_extrapolation_equals_golden(golden_ops):
    found = extrapolate_tubes(torch.from_numpy(golden_ops["tubes"]), chunk_frames=3, image_size_px=400)
    assert torch.equal(found, torch.from_numpy(golden_ops["extrapolated_T3"]))


def test_extrapolation_continues_a_straight_tube():
    time = torch.arange(-3.0, 6.0)[:, None]
    line = torch.tensor([100.0, 110.0, 200.0, 210.0]) + time * torch.tensor([2.0, 3.0, 4.0, 5.0])
    found = extrapolate_tubes(line[None, None, 3:6], chunk_frames=3, image_size_px=400)
    torch.testing.assert_close(found[0, 0], line)


def test_predict_puts_the_neighbours_outside():
    middle, first, last = torch.rand(3, 2, 5, 3, 4).unbind(0)
    found = grow_tubes(middle, first, last, temporal_mode="predict", chunk_frames=3, image_size_px=400)
    assert torch.equal(found, torch.cat((first, middle, last), dim=2))


def test_mean_repeats_the_mean_box():
    middle = torch.rand(2, 5, 3, 4)
    found = grow_tubes(middle, middle, middle, temporal_mode="mean", chunk_frames=3, image_size_px=400)
    assert found.shape == (2, 5, 9, 4)
    assert torch.equal(found[:, :, 3:6], middle)
    torch.testing.assert_close(found[:, :, 0], middle.mean(dim=2))
    torch.testing.assert_close(found[:, :, 8], middle.mean(dim=2))
