"""Training on several processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from training_helpers import detect_config, weights_of

from step.training.config import parse_config
from step.training.initialise import build_detector

TESTS = Path(__file__).resolve().parents[2]


def test_two_processes_equal_one_with_twice_the_batch(data, tmp_path):
    """Gloo on the CPU, as on two machines; the same clips and losses, so the same update but for rounding."""
    machines = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--master-port", "29511"]
    launchers = {"one": [[]], "two": [[*machines, "--node-rank", "0"], [*machines, "--node-rank", "1"]]}
    for name, batch in (("one", 4), ("two", 2)):
        values = detect_config(data, optimizer__batch=batch, optimizer__epochs=1, model__dropout=0.0)
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(values))
        script = [TESTS / "torchvision_on_cpu.py", "step.training.cli"]
        words = ["detect", tmp_path / f"{name}.yaml", "-o", tmp_path / name, "--accelerator", "cpu"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        started = [
            subprocess.Popen(
                [sys.executable, *map(str, [*launcher, *script, *words])],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for launcher in launchers[name]
        ]
        for process in started:
            printed, _ = process.communicate(timeout=280)
            assert process.returncode == 0, printed
    lines = [json.loads(line) for line in (tmp_path / "two" / "log.jsonl").read_text().splitlines()]
    assert [line["update"] for line in lines if "loss" in line] == [1, 2]  # the first process alone logs
    one, two = (weights_of(tmp_path / name / "checkpoints" / "0000002.pth") for name in ("one", "two"))
    config = parse_config(detect_config(data), "two.yaml")
    torch.manual_seed(config.seed)
    began = build_detector(config).state_dict()
    assert any(not torch.equal(value, began[key]) for key, value in one.items() if key.endswith("weight"))
    for key, value in one.items():
        assert torch.allclose(value, two[key], rtol=1e-3, atol=2e-5), key
    results = [(tmp_path / name / "results" / "results_step2.csv").read_text().splitlines() for name in ("one", "two")]
    assert len(results[0]) == pytest.approx(len(results[1]), rel=0.05)
