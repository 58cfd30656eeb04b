"""The last lines of step-bench: what to deploy, worked out by hand."""

import json

import pytest
from benchmark_results import make_results, make_row
from step_runtime.benchmark.floor import Floor, read_floor
from step_runtime.benchmark.machine import machine
from step_runtime.benchmark.roofline.roofline import SCHEMA
from step_runtime.benchmark.verdict import verdict_lines

from step import StepError

STEPS = {"loop": "steps"}


def test_the_fastest_is_deployed():
    results = make_results(make_row("torch-plain", [400] * 4, configuration=STEPS), make_row("openvino", [80] * 4))
    assert verdict_lines(results) == [
        "deploy openvino fp32 fused: 12.5 clips/s here (5.0 x torch-plain); enough for 12 cameras at 1 key frame/s, "
        "decoding not counted"
    ]


@pytest.mark.parametrize(
    ("time_ms", "said"),
    [
        (384.0, "2.6 clips/s here; enough for 2 cameras at 1 key frame/s,"),
        (1000.0, "1 clips/s here; enough for 1 camera at 1 key frame/s,"),
        (2410.0, "0.415 clips/s here; enough for 1 camera at a key frame every 2.5 s,"),
    ],
)
def test_cameras(time_ms, said):
    (line,) = verdict_lines(make_results(make_row(times_ms=[time_ms] * 2)))
    assert said in line


def test_a_batch_counts_clips():
    whole = make_row("openvino", [1000] * 4)
    batch = make_row("openvino", [2000] * 4, configuration={"batch": 4})
    assert verdict_lines(make_results(whole, batch)) == [
        "deploy openvino fp32 fused batch 4: 2 clips/s here (2.0 x openvino fp32 fused); enough for 2 cameras at "
        "1 key frame/s, decoding not counted"
    ]


def test_accuracy_comes_first():
    """A configuration that loses more than 0.005 is not deployed, however fast it is."""
    best = make_row("torch", [100] * 4, mean_ap=0.85)
    close = make_row("openvino", [50] * 4, mean_ap=0.846, configuration={"precision": "fp16"})
    worse = make_row("openvino", [25] * 4, mean_ap=0.74, configuration=STEPS | {"num_steps": 1})
    lines = verdict_lines(make_results(best, close, worse))
    assert lines[0].startswith(
        "deploy openvino fp16 fused: 20 clips/s here (2.0 x torch fp32), mAP 0.8460; enough for 20 "
    )
    assert lines[1:] == ["openvino fp32 steps 1 step: 40 clips/s, is faster, but its mAP is 0.7400, not 0.8460"]


def test_without_a_map_all_steps_are_run():
    lines = verdict_lines(
        make_results(make_row("openvino", [50] * 4), make_row("openvino", [25] * 4, configuration={"num_steps": 2}))
    )
    assert lines[0].startswith("deploy openvino fp32 fused: 20 clips/s")
    assert lines[1] == (
        "accuracy was not measured: --data scores every configuration; "
        "openvino fp32 fused 2 steps: 40 clips/s, is faster, but it runs fewer steps"
    )


def test_what_step_run_does_not_run_is_not_deployed():
    compiled = make_row("torch-compile", [50] * 4)
    lines = verdict_lines(make_results(make_row("torch", [100] * 4), compiled))
    assert lines[0].startswith("deploy torch fp32: 10 clips/s here; ")
    assert lines[1] == "torch-compile: 20 clips/s, is faster, but step-run does not run it"
    assert verdict_lines(make_results(compiled)) == [
        "nothing to deploy: step-run runs none of these; torch-compile: 20 clips/s is the fastest"
    ]


def test_a_draw():
    lines = verdict_lines(make_results(make_row(times_ms=[10, 12, 11, 13]), make_row("openvino", [11, 12, 10, 13.1])))
    assert lines[1] == "as fast within noise: openvino fp32 fused"


def test_nothing_and_a_part():
    assert verdict_lines(make_results(make_row(times_ms=[], problem="no"))) == []
    (line,) = verdict_lines(make_results(make_row(), partial="interrupted after 4 rounds"))
    assert line.startswith("so far: deploy onnxruntime ")


FLOOR = Floor(floor_s=0.1, batch=1, precision="fp32", threads=2, source_sha256="01")
ITS = {"threads": 2, "source_sha256": "01"}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (make_row(times_ms=[112] * 4, **ITS), "; 12 % behind the floor of 100 ms"),
        (make_row(times_ms=[112] * 4, configuration={"precision": "fp16"}, **ITS), "; 12 % behind the floor of 100 ms"),
        (make_row(times_ms=[100] * 4, **ITS), "; at the floor of 100 ms"),
        (make_row(times_ms=[234] * 4, **ITS), "; 2.3 x the floor of 100 ms"),
        (make_row(times_ms=[112] * 4, **ITS | {"threads": 1}), None),
        (make_row(times_ms=[112] * 4, **ITS | {"source_sha256": "02"}), None),
        (make_row(times_ms=[112] * 4, configuration={"precision": "int8"}, **ITS), None),
        (make_row(times_ms=[112] * 4, configuration={"batch": 2}, **ITS), None),
        (make_row(times_ms=[112] * 4, configuration={"num_steps": 2}, **ITS), None),
    ],
)
def test_the_floor_is_told_where_it_is_that_of_the_row(row, said):
    (line,) = verdict_lines(make_results(row), FLOOR)
    if said is None:
        assert "floor" not in line
    else:
        assert line.endswith(said)
    assert "floor" not in verdict_lines(make_results(row))[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        ({"threads": None}, "is the roofline of a GPU"),
        ({"machine": {"cpu": "another"}}, "is the roofline of another machine"),
        ({"schema_version": 2}, f"has schema 2, this step-bench reads {SCHEMA}"),
        ({"floor_s": "x"}, "is no roofline of ours: floor_s: "),
    ],
)
def test_a_file_of_a_floor(change, said, tmp_path):
    content = {"schema_version": SCHEMA, "batch": 1, "precision": "fp32", "threads": 2, "source_sha256": "01"}
    content |= {"floor_s": 0.1, "machine": machine(), "more": [1]} | change
    path = tmp_path / "r.json"
    path.write_text(json.dumps(content))
    if said is None:
        assert read_floor(path, machine()) == FLOOR
    else:
        with pytest.raises(StepError, match=f"r.json: {said}.*measure again"):
            read_floor(path, machine())
