import numpy as np
import torch

from step.ops.box_coding import decode_boxes, encode_boxes, make_boxes_valid


def _tensor(array: object) -> torch.Tensor:
    return torch.from_numpy(np.asarray(array))


def test_encode_equals_golden(golden_ops):
    found = encode_boxes(_tensor(golden_ops["gt_boxes"]), _tensor(golden_ops["anchors_boxes"]))
    torch.testing.assert_close(found, _tensor(golden_ops["encoded"]), rtol=1e-6, atol=1e-6)


def test_decode_equals_golden(golden_ops):
    found = decode_boxes(_tensor(golden_ops["deltas"]), _tensor(golden_ops["anchors_boxes"]))
    assert torch.equal(found, _tensor(golden_ops["decoded"]))


def test_validity_equals_golden(golden_ops):
    assert torch.equal(make_boxes_valid(_tensor(golden_ops["tubes"]), 400), _tensor(golden_ops["valid_400"]))


def test_decode_inverts_encode():
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(500, 2, generator=generator, dtype=torch.float64) * 300
    boxes = torch.cat((low, low + 5 + torch.rand(500, 2, generator=generator, dtype=torch.float64) * 90), dim=1)
    references, targets = boxes[:250], boxes[250:]
    torch.testing.assert_close(decode_boxes(encode_boxes(targets, references), references), targets)


def test_a_box_that_is_none_becomes_the_whole_frame():
    nan, inf = float("nan"), float("inf")
    boxes = torch.tensor(
        [[10.0, 10.0, 12.0, 50.0], [nan, 0.0, 50.0, 50.0], [500.0, 10.0, 600.0, 50.0], [-inf, -inf, inf, inf]]
    )
    assert torch.equal(make_boxes_valid(boxes, 400), torch.tensor([[0.0, 0.0, 400.0, 400.0]]).expand(4, 4))
