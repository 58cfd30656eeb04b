"""The kernels on a real GPU: the host's bits, PyTorch's operators. Run with: pytest -m gpu

compute-sanitizer runs on the same kernels in `make gpu-check`.
"""

import gpu_kernels
import host_kernels
import numpy as np
import pytest
import torch
from helpers import TINY, make_detector
from step_plugins import torch_ops
from step_runtime.backends.torch_kernels import use_kernels

from step.ops.class_nms import matrix_nms
from step.ops.roi_align import matrix_roi_align
from step.parity.tolerances import TOLERANCES, detections_apart

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def need_cuda():
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no CUDA device")


def test_roi_align_gives_the_hosts_bits():
    for case in gpu_kernels.roi_align_cases():
        found = host_kernels.tube_roi_align(**case, entry_point=gpu_kernels.entry_point)
        np.testing.assert_array_equal(found, host_kernels.tube_roi_align(**case))


def test_class_nms_gives_the_hosts_bits():
    for case in gpu_kernels.nms_cases():
        found = host_kernels.class_nms_kept(**case, entry_point=gpu_kernels.entry_point)
        np.testing.assert_array_equal(found, host_kernels.class_nms_kept(**case))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_roi_align_operator(dtype):
    features = torch.randn(2, 9, 832, 25, 25, device="cuda").to(dtype)
    low = 300 * torch.rand(2, 34, 9, 2, device="cuda")
    tubes = torch.cat((low, low + 90), -1)
    torch.library.opcheck(torch_ops.tube_roi_align, (features, tubes, 7))
    exact = matrix_roi_align(features.double(), tubes.double(), 7)
    mine = (torch_ops.tube_roi_align(features, tubes, 7) - exact).abs().max()
    assert mine <= 2 * (matrix_roi_align(features, tubes, 7) - exact).abs().max()


def test_class_nms_operator():
    low = 300 * torch.rand(2, 34, 2, device="cuda")
    boxes, scores = torch.cat((low, low + 90), -1), torch.rand(2, 34, 60, device="cuda")
    torch.library.opcheck(torch_ops.class_nms, (boxes, scores, 0.01, 0.4))
    assert torch.equal(torch_ops.class_nms(boxes, scores, 0.01, 0.4), matrix_nms(boxes, scores, 0.01, 0.4))


def test_a_whole_detector_on_the_kernels(monkeypatch):
    """Without TF32, whose ten bits turn the last bit of what is pooled into the eleventh."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    detector = make_detector(TINY).cuda()
    clips = torch.randint(0, 256, (2, 36, 64, 64, 3), dtype=torch.uint8, device="cuda")
    before = detector.detect(clips)
    assert use_kernels("cuda") is None
    after = detector.detect(clips)
    tolerance = TOLERANCES["fp32"]
    torch.testing.assert_close(after.tubes_px, before.tubes_px, atol=tolerance.boxes_px, rtol=0)
    names = ("boxes", "scores", "labels", "tube_indices")
    for clip in range(len(clips)):
        found, expected = (
            {name: getattr(rows, name)[clip].cpu().numpy() for name in names} for rows in (after, before)
        )
        # Rows of nearly equal scores may change places.
        apart = detections_apart(found, expected, score_tolerance=tolerance.scores, score_threshold=0.01, nms_iou=0.4)
        assert apart <= 1 - tolerance.rows_matched
