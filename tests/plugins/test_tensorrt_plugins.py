"""NVIDIA's real `tensorrt.plugin` code registers, validates and evaluates both plugins, on a CPU."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import tensorrt_without_gpu
from step_plugins import class_nms, roi_align

HERE = Path(__file__).parent
DYNAMIC = [{"B": 1, "N": 1}, {"B": 3, "N": 34}, {"B": 8, "N": 200}]
NMS = {"score_threshold": 0.01, "iou_threshold": 0.4}


def _roi_align_case(dtype, channels=832, height=25, width=25, frames=3, pool_size=7):
    return {
        "name": "TubeRoIAlign",
        "attributes": {"pool_size": pool_size},
        "inputs": [[dtype, ["B", frames, channels, height, width]], ["FLOAT", ["B", "N", frames, 4]]],
        "sizes": DYNAMIC,
    }


def _nms_case(boxes, classes):
    return {
        "name": "ClassNms",
        "attributes": NMS,
        "inputs": [["FLOAT", ["B", boxes, 4]], ["FLOAT", ["B", boxes, classes]]],
        "sizes": DYNAMIC,
    }


DESCRIBE = [
    _roi_align_case("HALF"),
    _roi_align_case("FLOAT"),
    _roi_align_case("HALF", channels=100, height=13, width=40, frames=9, pool_size=3),
    _roi_align_case("FLOAT", channels=102, height=70, width=40, frames=9),
    {**_nms_case(34, 24), "attributes": {"score_threshold": 0.3, "iou_threshold": 0.7}},
    _nms_case("N", 60),
    _nms_case(34, 24),
]
REFUSE = {
    "step::TubeRoIAlign: pool_size is 9; it can be 1 to 8": [["HALF", [1] * 5], ["FLOAT", [1] * 4]],
    "step::ClassNms: iou_threshold is 2.0; it must be above 0 and at most 1": [["FLOAT", [1] * 3]] * 2,
    "step::TubeRoIAlign: features is INT8; it must be FLOAT or HALF": [["INT8", [1] * 5], ["FLOAT", [1] * 4]],
    "step::TubeRoIAlign: tubes_px is HALF; it must be FLOAT": [["HALF", [1] * 5], ["HALF", [1] * 4]],
    "step::TubeRoIAlign: features has 4 dimensions; it must have 5": [["HALF", [1] * 4], ["FLOAT", [1] * 4]],
    "step::TubeRoIAlign: tubes_px has 3 dimensions; it must have 4": [["HALF", [1] * 5], ["FLOAT", [1] * 3]],
    "step::ClassNms: boxes_xyxy is HALF; it must be FLOAT": [["HALF", [1] * 3], ["FLOAT", [1] * 3]],
    "step::ClassNms: scores has 2 dimensions; it must have 3": [["FLOAT", [1] * 3], ["FLOAT", [1] * 2]],
}


def _refused_case(message, inputs):
    name = message.split(":")[2]
    attributes = {"pool_size": 9 if "pool_size" in message else 7}
    if name == "ClassNms":
        attributes = {**NMS, "iou_threshold": 2.0} if "iou_threshold" in message else NMS
    return {"name": name, "attributes": attributes, "inputs": inputs}


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    refuse = [_refused_case(message, inputs) for message, inputs in REFUSE.items()]
    cache = tmp_path_factory.mktemp("ptx")
    done = subprocess.run(
        tensorrt_without_gpu(sys.executable, HERE / "describe_plugins.py"),
        input=json.dumps({"describe": DESCRIBE, "refuse": refuse}),
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "STEP_PLUGINS_CACHE": str(cache)},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_both_are_registered_once(answers):
    assert sorted(answers["registered"]) == [["ClassNms", "1"], ["TubeRoIAlign", "1"]]


def test_they_are_compiled_ahead_of_time(answers):
    assert all(found["aot"] for found in answers["described"])


@pytest.mark.parametrize("index", range(4))
def test_roi_aligns_shape(index, answers):
    case, found = DESCRIBE[index], answers["described"][index]
    dtype, (_, frames, channels, _, _) = case["inputs"][0]
    assert found["output_dtype"] == dtype
    side = case["attributes"]["pool_size"]
    assert found["output_shape"] == [[size["B"], size["N"], channels, frames, side, side] for size in DYNAMIC]


@pytest.mark.parametrize("index", range(4))
def test_roi_aligns_combinations(index, answers):
    dtype = DESCRIBE[index]["inputs"][0][0]
    found = {(*kernel["formats"], kernel["tactic"]) for kernel in answers["described"][index]["kernels"]}
    channels_last = {"HALF": "HWC8", "FLOAT": "HWC"}[dtype]
    layouts = (channels_last, "LINEAR")
    assert found == {(layout, "LINEAR", "LINEAR", tactic) for layout in layouts for tactic in roi_align.TACTICS}
    assert all(kernel["types"] == [dtype, "FLOAT", dtype] for kernel in answers["described"][index]["kernels"])
    assert len(roi_align.TACTICS) >= 2


@pytest.mark.parametrize("index", range(4))
def test_roi_aligns_kernel(index, answers):
    """The very PTX of the variant that these types, this layout and these sizes want."""
    dtype, (_, _, channels, height, width) = DESCRIBE[index]["inputs"][0]
    for found in answers["described"][index]["kernels"]:
        wanted = roi_align.kernel(
            half=dtype == "HALF",
            channels_last=found["formats"][0] != "LINEAR",
            pitch=-(-channels // 8) * 8 if dtype == "HALF" else channels,
            max_cells=max(height, width),
            pool_size=DESCRIBE[index]["attributes"]["pool_size"],
            tactic=found["tactic"],
        )
        assert found["ptx_sha256"] == hashlib.sha256(wanted.ptx()).hexdigest()


@pytest.mark.parametrize("index", [4, 5, 6])
def test_nms_kernel(index, answers):
    """For the most boxes that the profile allows, with the thresholds where they belong."""
    boxes = DESCRIBE[index]["inputs"][1][1][1]
    for found in answers["described"][index]["kernels"]:
        wanted = class_nms.kernel(
            max_boxes=DYNAMIC[-1]["N"] if boxes == "N" else boxes,
            tactic=found["tactic"],
            **DESCRIBE[index]["attributes"],
        )
        assert found["ptx_sha256"] == hashlib.sha256(wanted.ptx()).hexdigest()


@pytest.mark.parametrize("index", range(4))
def test_roi_aligns_launch(index, answers):
    dtype, (_, frames, channels, height, width) = DESCRIBE[index]["inputs"][0]
    for kernel in answers["described"][index]["kernels"]:
        tile = roi_align.TACTICS[kernel["tactic"]]
        assert kernel["entry"] == roi_align.ENTRY
        assert kernel["threads_in_ptx"] == tile.threads
        pitch = -(-channels // 8) * 8 if dtype == "HALF" else channels
        for size, launch, arguments in zip(DYNAMIC, kernel["launch"], kernel["arguments"], strict=True):
            tiles = -(-channels // tile.channels)
            assert (launch["grid_x"], launch["grid_y"], launch["grid_z"]) == (tiles * size["N"], frames, size["B"])
            assert (launch["block_x"], launch["block_y"], launch["block_z"]) == (tile.threads, 1, 1)
            assert launch["shared_mem"] == 0
            assert arguments == [size["N"], frames, channels, height, width, pitch]


@pytest.mark.parametrize("index", [4, 5, 6])
def test_nms(index, answers):
    case, found = DESCRIBE[index], answers["described"][index]
    _, (_, boxes, classes) = case["inputs"][1]
    counts = [size["N"] if boxes == "N" else boxes for size in DYNAMIC]
    assert found["output_dtype"] == "FLOAT"
    assert found["output_shape"] == [[size["B"], count, classes] for size, count in zip(DYNAMIC, counts, strict=True)]
    assert [kernel["tactic"] for kernel in found["kernels"]] == list(class_nms.TACTICS)
    for kernel in found["kernels"]:
        assert kernel["types"] == ["FLOAT"] * 3
        assert kernel["formats"] == ["LINEAR"] * 3
        assert kernel["entry"] == class_nms.ENTRY
        assert kernel["threads_in_ptx"] == class_nms.TACTICS[kernel["tactic"]]
        for size, count, launch, arguments in zip(DYNAMIC, counts, kernel["launch"], kernel["arguments"], strict=True):
            assert (launch["grid_x"], launch["grid_y"], launch["grid_z"]) == (classes, size["B"], 1)
            assert launch["block_x"] == kernel["threads_in_ptx"]
            assert arguments == [count, classes]


@pytest.mark.parametrize("index", range(len(REFUSE)))
def test_refusals_name_the_operator_the_value_and_what_is_allowed(index, answers):
    assert answers["refused"][index] == list(REFUSE)[index]
