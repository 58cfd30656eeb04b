import numpy as np
import pytest
import torch
from step_plugins import roi_align

from step.ops.roi_align import tube_roi_align, tube_roi_align_op
from step.ops.roi_pool import tube_roi_pool


def _by_roi(pool, golden_ops) -> torch.Tensor:
    """The golden RoIs, each as a clip of one frame with one tube."""
    rois = torch.from_numpy(golden_ops["rois"])
    features = torch.from_numpy(golden_ops["roi_feat"])[rois[:, 0].long()][:, None]
    return pool(features, rois[:, None, None, 1:], pool_size=7)[:, 0, :, 0]


@pytest.mark.parametrize(("pool", "name"), [(tube_roi_align, "roi_align"), (tube_roi_pool, "roi_pool")])
def test_equals_golden(pool, name, golden_ops):
    expected = torch.from_numpy(golden_ops[name])
    assert (_by_roi(pool, golden_ops) - expected).abs().max() <= 1e-5


def test_equals_the_reference():
    state = np.random.RandomState(0)
    feature = state.standard_normal((12, 12))
    low = state.uniform(-40, 180, (40, 2))
    boxes = np.concatenate((low, low + state.uniform(-10, 190, (40, 2))), axis=1)
    features, tubes = torch.from_numpy(feature)[None, None, None], torch.from_numpy(boxes)[None, :, None]
    found = tube_roi_align(features, tubes, pool_size=3)[0, :, 0, 0].numpy()
    expected = roi_align.reference(features.numpy(), tubes.numpy(), pool_size=3)[0, :, 0, 0]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_gradients_reach_the_features():
    features = torch.rand(1, 2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    low = torch.rand(1, 2, 2, 2, dtype=torch.float64) * 30
    tubes = torch.cat((low, low + 40), dim=-1)
    assert torch.autograd.gradcheck(lambda f: tube_roi_align(f, tubes, pool_size=2), (features,))


def test_operator_contract():
    torch.library.opcheck(tube_roi_align_op, (torch.rand(2, 3, 4, 5, 5), torch.rand(2, 6, 3, 4) * 80, 7))


def test_half_features_are_pooled_with_float_tubes():
    features = torch.rand(1, 1, 4, 25, 25)
    tubes = torch.tensor([[[[10.0, 20.0, 300.0, 333.3]]]])
    exact = tube_roi_align(features.double(), tubes.double(), pool_size=7)
    half = tube_roi_align(features.half(), tubes, pool_size=7)
    assert half.dtype == torch.float16
    # Two roundings of products that sum to at most 1, in half precision, plus the feature's own rounding.
    assert (half.double() - exact).abs().max() <= 4 * 2**-11


def test_roi_pool_takes_the_largest_and_zero_for_empty_bins():
    features = torch.arange(25.0).reshape(1, 1, 1, 5, 5) + 1
    whole = tube_roi_pool(features, torch.tensor([[[[0.0, 0.0, 64.0, 64.0]]]]), pool_size=1)
    outside = tube_roi_pool(features, torch.tensor([[[[900.0, 900.0, 990.0, 990.0]]]]), pool_size=2)
    assert whole.flatten().tolist() == [25.0]
    assert outside.flatten().tolist() == [0.0] * 4
