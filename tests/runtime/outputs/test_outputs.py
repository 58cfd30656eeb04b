import csv
import dataclasses
import json
import sys
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
from pyarrow import parquet
from runtime_helpers import key_frame
from step_runtime import merge_classes
from step_runtime.outputs.box_labels import LabelledBox, draw_boxes
from step_runtime.outputs.overlay import OverlayWriter, box_along_tube
from step_runtime.outputs.tables import TableWriter
from step_runtime.people.table import COLUMNS
from step_runtime.sources.frame_folder import image_frame
from step_runtime.sources.video import VideoSource

from step import StepConfig, StepError

CONFIG = StepConfig(image_size_px=100)
ROWS = [(12, 0.9, 0.1, 0.2, 0.5, 0.9), (79, 0.8, 0.1, 0.2, 0.5, 0.9), (14, 0.012345, 0.6, 0.1, 0.9, 0.9)]


@pytest.fixture
def tables(tmp_path):
    writer = TableWriter(tmp_path)
    for time_s in (Fraction(2), Fraction(5, 2)):
        frame = key_frame(ROWS, time_s=time_s)
        writer.write(frame, merge_classes(frame, CONFIG, score_threshold=0.4))
    writer.close()
    return tmp_path


def test_jsonl(tables):
    first, second = map(json.loads, (tables / "detections.jsonl").read_text().splitlines())
    assert (first["video"], first["time_s"], first["frame"]) == ("clip", 2.0, 50)
    assert second["time_s"] == 2.5
    (person,) = first["boxes"]
    assert person["box"] == [0.1, 0.2, 0.5, 0.9]
    assert person["box_px"] == [20.0, 20.0, 100.0, 90.0]
    assert [action["id"] for action in person["actions"]] == [12, 79]
    assert person["actions"][0]["name"] == "stand"
    assert len(person["tube"]["boxes"]) == len(person["tube"]["times_s"]) == 9
    assert person["tube"]["times_s"][4] == pytest.approx(2 + 0.5 / 12, abs=1e-4)


def test_people_csv(tables):
    """One row a person and action: those of the JSONL."""
    rows = list(csv.DictReader((tables / "people.csv").read_text().splitlines()))
    assert list(rows[0]) == list(COLUMNS)
    assert [(row["time_s"], row["person"], row["class_id"], row["class_name"]) for row in rows] == [
        (time_s, "0", label, CONFIG.class_name(int(label))) for time_s in ("2.0", "2.5") for label in ("12", "79")
    ]
    assert rows[0]["video"] == "clip"
    assert rows[0]["frame"] == "50"
    assert rows[1]["confidence"] == "0.8"
    assert [float(rows[0][name]) for name in ("x1", "y1", "x2", "y2")] == [0.1, 0.2, 0.5, 0.9]
    assert [float(rows[0][f"{name}_px"]) for name in ("x1", "y1", "x2", "y2")] == [20, 20, 100, 90]


def test_people_parquet(tmp_path):
    """The same rows with types, more than a group of them; none, too. It is there once it is closed."""
    config = StepConfig(image_size_px=100, class_ids=(12, 14, 79), num_classes=3, class_names=("=cook", "bike", "chat"))
    counts = {}
    for key_frames in (0, 5001):
        folder = tmp_path / str(key_frames)
        folder.mkdir()
        writer = TableWriter(folder, parquet=True)
        frame = dataclasses.replace(key_frame(ROWS, config=config), video="\udcff=clip")
        people = frame.people()
        for index in range(key_frames):
            writer.write(dataclasses.replace(frame, frame=index), people)
        writer.close()
        table = parquet.read_table(folder / "people.parquet")
        assert table.column_names == list(COLUMNS)
        assert [str(field.type) for field in table.schema] == [
            {str: "string", int: "int64", float: "double"}[kind] for kind in COLUMNS.values()
        ]
        counts[key_frames] = table.num_rows
    assert counts == {0: 0, 5001: 10002}
    assert table.slice(10001).to_pylist()[0] == {
        "video": "\\udcff=clip",
        "time_s": 2.0,
        "frame": 5000,
        "person": 0,
        "class_id": 79,
        "class_name": "chat",
        "confidence": 0.8,
        **{"x1_px": 20.0, "y1_px": 20.0, "x2_px": 100.0, "y2_px": 90.0, "x1": 0.1, "y1": 0.2, "x2": 0.5, "y2": 0.9},
    }
    text = (folder / "people.csv").read_bytes().decode(errors="surrogateescape")
    assert text.splitlines()[1].startswith("\udcff=clip,2.0,0,0,12,'=cook,0.9,")  # as file names are; for spreadsheets


def test_a_broken_pyarrow_costs_its_file_alone(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    writer = TableWriter(tmp_path, parquet=True)
    frame = key_frame(ROWS)
    writer.write(frame, frame.people())
    writer.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["detections.csv", "detections.jsonl", "people.csv"]


def test_a_record_is_a_line(tables):
    frame = key_frame(ROWS, time_s=Fraction(2))
    line = (tables / "detections.jsonl").read_text().splitlines()[0]
    assert frame.to_json() == line
    assert frame.to_dict() == json.loads(line)
    assert frame.to_dict(0.85)["boxes"][0]["actions"] == [{"id": 12, "name": CONFIG.class_name(12), "score": 0.9}]


def test_people_have_what_their_record_has():
    (person,) = key_frame(ROWS, time_s=Fraction(5, 2)).people()
    assert (person.name, person.time_s) == (CONFIG.class_name(12), 2.5)
    np.testing.assert_allclose(person.box_px, [20, 20, 100, 90], rtol=1e-6)
    record = person.to_dict()
    assert record["tube"]["times_s"] == pytest.approx(person.tube_times_s, abs=1e-5)
    assert [action["name"] for action in record["actions"]] == list(person.names)


def test_pandas_table(monkeypatch):
    """The rows of people.csv with types; pandas itself is none of our dependencies."""
    seen = {}

    class DataFrame:
        def __init__(self, rows, columns):
            seen.update(rows=rows, columns=columns)

        def astype(self, types):
            seen["types"] = types
            return self

    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=DataFrame))
    assert isinstance(key_frame(ROWS).to_pandas(), DataFrame)
    assert seen["columns"] == list(seen["types"]) == list(COLUMNS)
    assert [row[:7] for row in seen["rows"]] == [
        ("clip", 2.0, 50, 0, 12, CONFIG.class_name(12), 0.9),
        ("clip", 2.0, 50, 0, 79, CONFIG.class_name(79), 0.8),
    ]
    assert all(type(cell) is kind for row in seen["rows"] for cell, kind in zip(row, COLUMNS.values(), strict=True))
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(StepError, match="^`to_pandas` needs pandas; install it with: pip install pandas$"):
        key_frame(ROWS).to_pandas()


def test_names_of_the_models_own(tmp_path):
    """A model of another data set says what its actions are called, in the tables and in the overlay."""
    config = StepConfig(image_size_px=100, class_ids=(12, 14, 79), num_classes=3, class_names=("cook", "bike", "chat"))
    frame = key_frame(ROWS, time_s=Fraction(2))
    writer = TableWriter(tmp_path)
    writer.write(frame, merge_classes(frame, config, score_threshold=0.4))
    writer.close()
    (person,) = json.loads((tmp_path / "detections.jsonl").read_text())["boxes"]
    assert [action["name"] for action in person["actions"]] == ["cook", "chat"]
    boxes = [LabelledBox(box=np.array([0.1, 0.2, 0.5, 0.9], np.float32), actions=((12, 0.9),), color_index=0)]
    pictures = [np.zeros((240, 320, 3), np.uint8) for _ in range(3)]
    for picture, names in zip(pictures, (config.class_name, CONFIG.class_name, None), strict=True):
        draw_boxes(picture, boxes, **({} if names is None else {"name_of": names}))
    assert (pictures[1] == pictures[2]).all()
    assert (pictures[0] != pictures[1]).any()


def test_csv_is_ava_format(tables):
    rows = list(csv.reader((tables / "detections.csv").read_text().splitlines()))
    assert rows[0] == ["clip", "0002", "0.1", "0.2", "0.5", "0.9", "12", "0.9"]
    assert rows[2] == ["clip", "0002", "0.6", "0.1", "0.9", "0.9", "14", "0.01235"]
    assert rows[3][1] == "0002.500"
    assert len(rows) == 6


def test_boxes_follow_the_tube():
    tube = np.array([[10.0 * i, 0, 10.0 * i + 5, 5] for i in range(9)], np.float32)
    middle = box_along_tube(tube, 0.5 / 12, CONFIG)
    later = box_along_tube(tube, 0.5 / 12 + 2 / 12, CONFIG)
    np.testing.assert_allclose(middle, tube[4], atol=1e-4)
    np.testing.assert_allclose(later, [45, 0, 50, 5], atol=1e-3)
    np.testing.assert_allclose(box_along_tube(tube, 99.0, CONFIG), tube[8])


def _overlay(tmp_path, source, key_frames):
    writer = OverlayWriter(tmp_path / "overlay.mp4", config=CONFIG, interval_s=source.interval_s)
    for frame in key_frames:
        writer.add_key_frame(frame, merge_classes(frame, CONFIG, score_threshold=0.4))
    for frame in source.frames():
        writer.write(frame)
    writer.close()
    with av.open(str(tmp_path / "overlay.mp4")) as container:
        stream = container.streams.video[0]
        decoded = [(f.pts * stream.time_base, f.to_ndarray(format="rgb24")) for f in container.decode(stream)]
        return stream.codec.name, decoded


def test_overlay_has_the_sources_frames_and_times(make_video, tmp_path):
    times = [Fraction(t, 100) for t in (0, 4, 8, 40, 44, 90)]
    source = VideoSource(str(make_video(frames=6, times=times)))
    codec, frames = _overlay(tmp_path, source, [key_frame(ROWS, time_s=Fraction(0))])
    assert codec == "h264"
    assert [time_s for time_s, _ in frames] == times
    assert frames[0][1].shape == (64 * 6, 96 * 6, 3)  # enlarged to at least 360 px


@pytest.mark.parametrize("size", [(176, 144), (1920, 1080), (98, 62), (2000, 4)])
def test_overlay_sizes(size, make_video, tmp_path):
    source = VideoSource(str(make_video(frames=3, size=size)))
    _, frames = _overlay(tmp_path, source, [key_frame(ROWS, time_s=Fraction(0))])
    height, width = frames[0][1].shape[:2]
    assert min(height, width) >= 360 or max(height, width) >= 1920
    assert width / height == pytest.approx(size[0] / size[1], rel=0.02)


@pytest.mark.parametrize(("height", "tag"), [(720, 1), (480, 6)])
def test_overlay_says_its_colours(height, tag, tmp_path):
    """BT.709 where players expect it, BT.601 below; decoded by its tags, a colour is what it was."""
    colour = np.array([32, 192, 64], np.uint8)
    frame = image_frame(np.broadcast_to(colour, (height, 640, 3)), Fraction(0), 0)
    writer = OverlayWriter(tmp_path / "a:b.mp4", config=CONFIG, interval_s=Fraction(1, 25))
    writer.write(frame)
    writer.close()
    with av.open(f"file:{tmp_path}/a:b.mp4") as container:
        codec = container.streams.video[0].codec_context
        assert (codec.colorspace, codec.color_primaries, codec.color_trc, codec.color_range) == (tag, tag, tag, 1)
        shown = next(container.decode(video=0)).to_ndarray(format="rgb24")
    # One step of eight-bit YUV is up to 2.1 of RGB; rounding twice, and once more in the decoder's conversion.
    assert np.abs(shown[100:-100, 100:-100].astype(int) - colour).max() <= 5


def test_overlay_draws_near_the_key_frame_only(make_video, tmp_path):
    """Tubes are known 1.5 s around their key frame."""
    source = VideoSource(str(make_video(frames=100)))
    _, frames = _overlay(tmp_path, source, [key_frame(ROWS, time_s=Fraction(1))])

    def coloured(pixels: np.ndarray) -> bool:
        return bool((np.ptp(pixels.astype(int), axis=2) > 60).any())

    drawn = [float(time_s) for time_s, pixels in frames if coloured(pixels)]
    assert min(drawn) == 0
    assert max(drawn) == pytest.approx(2.5, abs=0.05)


@pytest.mark.parametrize("size", [(144, 176), (360, 480), (1080, 1920), (2, 2)])
def test_drawing_stays_inside_any_picture(size):
    pixels = np.zeros((*size, 3), np.uint8)
    boxes = [
        LabelledBox(
            box=np.array([x, 0.0, 1.0, 1.0], np.float32),
            actions=[(79, 0.99), (80, 0.9), (12, 0.8), (17, 0.7), (49, 0.6), (1, 0.5)],
            color_index=i,
        )
        for i, x in enumerate((0.0, 0.5, 0.95, 1.0))
    ]
    draw_boxes(pixels, boxes)
    assert pixels.any()


def test_labels_keep_clear_of_each_other():
    def area(*corners):
        pixels = np.zeros((400, 400, 3), np.uint8)
        boxes = [LabelledBox(np.array([*c, 0.9, 0.9], np.float32), [(12, 0.9)], i) for i, c in enumerate(corners)]
        draw_boxes(pixels, boxes)
        return int((pixels.max(axis=2) > 0).sum())

    same_place = area((0.1, 0.1), (0.1, 0.1))
    assert same_place > area((0.1, 0.1)) + 500  # the second label is not drawn over the first


def test_a_label_keeps_off_a_neighbour():
    """The second box has another right above it."""
    pixels = np.zeros((400, 400, 3), np.uint8)
    corners = ((0.3, 0.1, 0.7, 0.5), (0.3, 0.5, 0.7, 0.8))
    draw_boxes(pixels, [LabelledBox(np.array(c, np.float32), [(12, 0.9)], i) for i, c in enumerate(corners)])
    assert not pixels[50:195, 130:270].any()  # inside the upper box
    assert pixels[204:216, 126:160].any()  # but in the lower one
