"""Damaged tables, label maps, configurations and videos: read, or refused with one line."""

from pathlib import Path

import pytest
from mutations import damaged_bytes, survives
from step_runtime.sources.video import VideoSource

from step.evaluation.ava_csv import read_boxes, read_frames
from step.evaluation.label_map import read_label_map
from step.training.config import read_config
from step.training.yaml_file import read_yaml

MANY = pytest.mark.slow
ROWS = b'v,0902,0.1,0.1,0.5,0.5,12,0.9\nv,0903,0.1,0.2,0.5,0.6,14,0.8\n\nw,0904\n"a,b",0902,0,0,1,1,12,1\n'
LABELS = b"""item {
  name: "walk"
  id: 14
}
label {
  name: "sit"
  label_id: 11
  label_type: PERSON_MOVEMENT
}
# end
"""
CONFIG = Path(__file__).parents[2] / "step" / "training" / "configs" / "toy_detect.yaml"


@pytest.mark.parametrize("examples", [600, pytest.param(10_000, marks=MANY)])
@pytest.mark.parametrize("last", ["score", "person"])
def test_boxes(last, examples, tmp_path):
    known = (
        b'v,0902,0.1,0.1,0.5,0.5,12,0.9\n"a,b",0902\n',
        b"v,0902,0.1,0.1,0.5,0.5,12,0.9\nv\xe9,0902,0.1\n",
        b"v,0902\r\rw,1,2\r",
    )
    survives(
        lambda path: read_boxes(path, last=last),
        tmp_path / "r.csv",
        damaged_bytes(ROWS),
        examples=examples,
        known=known,
    )


@pytest.mark.parametrize("examples", [600, pytest.param(10_000, marks=MANY)])
def test_key_frames(examples, tmp_path):
    survives(read_frames, tmp_path / "e.csv", damaged_bytes(b'v,0902\n"a,b",0903\nw,0904\n'), examples=examples)


@pytest.mark.parametrize("examples", [1000, pytest.param(10_000, marks=MANY)])
def test_label_maps(examples, tmp_path):
    survives(read_label_map, tmp_path / "l.pbtxt", damaged_bytes(LABELS), examples=examples)


@pytest.mark.parametrize("examples", [60, pytest.param(5000, marks=MANY)])
def test_configurations(examples, tmp_path):
    known = (
        b"[" * 3000,
        b"a: &a [*a]",
        b"a: 2001-99-99",
        b"? {a: 1}\n: 2",
        b"a: " + b"9" * 10_000,
        b"{[]: 1}",
        b"\xff",
    )
    content = CONFIG.read_bytes()
    survives(
        lambda path: read_config(str(path), kind="detect"),
        tmp_path / "c.yaml",
        damaged_bytes(content),
        examples=examples,
        known=known,
    )


def test_many_values_of_a_few_lines(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    survives(read_yaml, tmp_path / "c.yaml", damaged_bytes(b"a: 1"), examples=1, known=("\n".join(lines).encode(),))


def _decode(path: Path) -> None:
    source = VideoSource(str(path))
    for frame, _ in zip(source.frames(), range(30), strict=False):
        frame.rgb()


@pytest.mark.parametrize("examples", [120, pytest.param(2000, marks=MANY)])
@pytest.mark.parametrize("kind", ["mp4", "avi", "mkv", "ts"])
def test_videos(kind, examples, make_video, tmp_path):
    content = make_video(f"good.{kind}", frames=20).read_bytes()
    survives(_decode, tmp_path / f"v.{kind}", damaged_bytes(content), examples=examples)
