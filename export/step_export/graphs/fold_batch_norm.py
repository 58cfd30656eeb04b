"""Folding BatchNorm into the convolution before it, in float32, before anything is cast to half."""

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from step import StepDetector
from step.models.i3d import ConvUnit


def fold_batch_norm(detector: StepDetector) -> StepDetector:
    """A copy of the detector, in eval mode, whose convolutions carry their BatchNorm's scale and shift.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.fuse_conv_bn_eval.html
    """
    folded = copy.deepcopy(detector).eval()
    with torch.no_grad():
        for module in folded.modules():
            if isinstance(module, ConvUnit) and isinstance(module.batch3d, nn.BatchNorm3d):
                module.conv3d = fuse_conv_bn_eval(module.conv3d, module.batch3d)
                module.batch3d = nn.Identity()
    return folded.requires_grad_(False)
