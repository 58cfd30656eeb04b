"""What is read from ncu, and the list of the backbone's convolutions."""

import pytest
from gpu_check.convolutions import backbone_convolutions
from gpu_check.stages.kernel_times import read_counters

from step.errors import StepError

NCU = """==PROF== Connected to process 17 (/usr/bin/python3.12)
==PROF== Profiling "step_tube_roi_align" - 0: 0%....50%....100% - 3 passes
==PROF== Disconnected from process 17
"ID","Process ID","Kernel Name","Section Name","Metric Name","Metric Unit","Metric Value"
"0","17","step_tube_roi_align","Command line profiler metrics","dram__bytes_read.sum","byte","11,234,560"
"0","17","step_tube_roi_align","Command line profiler metrics","gpu__time_duration.sum","nsecond","23,488"
"1","17","step_tube_roi_align","Command line profiler metrics","dram__bytes_read.sum","byte","256"
"""


def test_counters_of_every_launch():
    assert read_counters(NCU) == [
        {"dram__bytes_read.sum": 11234560.0, "gpu__time_duration.sum": 23488.0},
        {"dram__bytes_read.sum": 256.0},
    ]


def test_no_counters():
    with pytest.raises(StepError, match="ncu counted nothing"):
        read_counters("==ERROR== ERR_NVGPUCTRPERM - The user does not have permission\n")


def test_the_backbone_s_convolutions_are_all_there():
    """Three of the stem, and six of each of the seven mixed blocks up to 4f."""
    shapes = backbone_convolutions(frames=36, image_size_px=400)
    assert sum(shape.count for shape in shapes) == 3 + 7 * 6
    assert shapes[0].input_shape == (1, 3, 41, 405, 405)
    assert shapes[0].multiply_adds == 64 * 18 * 200 * 200 * 3 * 7**3
    assert len({(shape.input_shape, shape.weight_shape) for shape in shapes}) == len(shapes)
