"""`step-run --reuse-backbone`: what it saves, and what it costs in mAP and in feature error.

    python benchmarks/reuse.py speed bundle --source video.mp4 --backend openvino --threads 2 --json speed.json
    python benchmarks/reuse.py parts bundle --backend openvino --threads 2 --json parts.json
    python benchmarks/reuse.py map toy-bundle --json map.json
    python benchmarks/reuse.py features --weights i3d-kinetics-400.ckpt --source video.mp4 --plot docs/reuse.png

Speed is measured in rounds, without and with, on the same backend, decoding included; where others use the machine,
trust the ratio of CPU time. "parts" times the loop's halves, from which the ratio of a long run follows. mAP is that of
the same key frames of the toy validation set, without and with. Feature errors: benchmarks/reuse_features.py.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from step_runtime import Detector
from step_runtime.benchmark.statistics import median_ratio
from step_runtime.clips.feature_reuse import MARGIN, extract_one, submit_one
from step_runtime.clips.feature_windows import WindowPlan
from step_runtime.evaluation.map_parity import matched_share
from step_runtime.evaluation.open_data import open_data
from step_runtime.sources.base import SourceFrame
from step_runtime.sources.video import VideoSource

from step import StepError
from step.data.dataset_folder import DatasetFolder
from step.data.videos import videos_by_name
from step.evaluation.ava_csv import read_boxes
from step.evaluation.ava_rows import detection_rows, write_rows
from step.evaluation.scoring import score_files
from step.reporter import Reporter

_IOU, _SCORE_TOLERANCE = 0.5, 0.05
_EVERY_S = (Fraction(1, 3), Fraction(2, 3), Fraction(1))


class Beginning(VideoSource):
    """The first seconds of a video."""

    def __init__(self, location: str, seconds: float) -> None:
        super().__init__(location)
        self._seconds = seconds

    def frames(self) -> Iterator[SourceFrame]:
        """See `Source.frames`."""
        for frame in super().frames():
            if frame.time_s >= self._seconds:
                return
            yield frame


def measure_speed(arguments: argparse.Namespace, console: Console) -> list[dict[str, object]]:
    """Seconds a key frame, without (the default loop) and with, in rounds."""
    common = {"device": "cpu", "threads": arguments.threads} if arguments.cpu else {"threads": arguments.threads}
    rows: list[dict[str, object]] = []
    with (
        Detector.open(arguments.model, arguments.backend, **common) as without,
        Detector.open(arguments.model, arguments.backend, loop="steps", **common) as shared,
    ):
        for every_s in arguments.every:
            times_s: dict[bool, list[list[float]]] = {False: [], True: []}
            cpu_s: dict[bool, list[float]] = {False: [], True: []}
            count = 0
            for round in track(range(arguments.rounds + 1), f"every {every_s} s", console=console, transient=True):
                for reuse in (False, True):
                    seconds = arguments.seconds if round else float(every_s) / 2  # the first round warms up
                    source = Beginning(arguments.source, seconds)
                    start_s, start_cpu_s = time.monotonic(), time.process_time()
                    run = (shared if reuse else without).run(source, every_s=every_s, reuse_backbone=reuse)
                    count = sum(1 for _ in run)
                    if round:
                        times_s[reuse].append([(time.monotonic() - start_s) / count])
                        cpu_s[reuse].append((time.process_time() - start_cpu_s) / count)
            ratio = median_ratio(times_s[True], times_s[False])
            rows.append(
                {
                    "every_s": str(every_s),
                    "key_frames": count,
                    "without_s": [round[0] for round in times_s[False]],
                    "with_s": [round[0] for round in times_s[True]],
                    "without_cpu_s": cpu_s[False],
                    "with_cpu_s": cpu_s[True],
                    "cpu_ratio": float(np.median(cpu_s[True]) / np.median(cpu_s[False])),
                    "ratio": ratio.value,
                    "ratio_low": ratio.low,
                    "ratio_high": ratio.high,
                }
            )
    table = Table(title=f"{arguments.backend}, seconds a key frame, {arguments.rounds} rounds", title_justify="left")
    for column in ("every s", "key frames", "without", "with", "ratio", "95 %", "of CPU time"):
        table.add_column(column, justify="right")
    for row in rows:
        without_s, with_s = float(np.median(row["without_s"])), float(np.median(row["with_s"]))
        spread = "" if row["ratio_low"] is None else f"{row['ratio_low']:.3f}-{row['ratio_high']:.3f}"
        every, count, ratio_text = str(row["every_s"]), str(row["key_frames"]), f"{row['ratio']:.3f}"
        table.add_row(every, count, f"{without_s:.3f}", f"{with_s:.3f}", ratio_text, spread, f"{row['cpu_ratio']:.3f}")
    console.print(table)
    return rows


def measure_parts(arguments: argparse.Namespace, console: Console) -> list[dict[str, object]]:
    """The whole loop, the backbone and the rest of one clip, in rounds, and what follows for a long video."""
    common = {"device": "cpu", "threads": arguments.threads} if arguments.cpu else {"threads": arguments.threads}
    rounds: list[dict[str, tuple[float, float]]] = []
    with (
        Detector.open(arguments.model, arguments.backend, **common) as without,
        Detector.open(arguments.model, arguments.backend, loop="steps", **common) as shared,
    ):
        size_px, count = without.config.image_size_px, without.config.clip_frames
        frames = np.random.RandomState(0).randint(0, 256, (1, count, size_px, size_px, 3), np.uint8)
        clip = extract_one(shared.backend, frames)
        calls = {
            "whole": lambda: without.detect(frames),
            "backbone": lambda: extract_one(shared.backend, frames),
            "rest": lambda: submit_one(shared.backend, clip).result(),
        }
        for round in track(range(arguments.rounds + 1), "rounds", console=console, transient=True):
            spent: dict[str, tuple[float, float]] = {}
            for name, call in calls.items():
                start_s, start_cpu_s = time.monotonic(), time.process_time()
                call()
                spent[name] = time.monotonic() - start_s, time.process_time() - start_cpu_s
            if round:
                rounds.append(spent)
        plans = [WindowPlan.of(without.config, every_s=every_s, margin=MARGIN) for every_s in arguments.every]
    rows: list[dict[str, object]] = [{"rounds": rounds}]
    table = Table(title=f"{arguments.backend}, {arguments.rounds} rounds, ratio of a long run", title_justify="left")
    for column in ("every s", "of time", "lowest to highest round", "of CPU time"):
        table.add_column(column, justify="right")
    for plan, every_s in zip(plans, arguments.every, strict=True):
        share = plan.key_groups / plan.advance
        wall, cpu = (
            [(round["rest"][kind] + share * round["backbone"][kind]) / round["whole"][kind] for round in rounds]
            for kind in (0, 1)
        )
        rows.append({"every_s": str(every_s), "ratio": float(np.median(wall)), "cpu_ratio": float(np.median(cpu))})
        spread = f"{min(wall):.3f} to {max(wall):.3f}"
        table.add_row(str(every_s), f"{np.median(wall):.3f}", spread, f"{np.median(cpu):.3f}")
    for name in ("whole", "backbone", "rest"):
        wall_s, cpu_s = np.median([round[name] for round in rounds], axis=0)
        console.print(f"{name}: {wall_s:.3f} s, {cpu_s:.3f} s of CPU time")
    console.print(table)
    return rows


def measure_map(arguments: argparse.Namespace, console: Console) -> list[dict[str, object]]:
    """mAP on the toy validation set, without and with, for several margins."""
    data = open_data(arguments.data, "val", Reporter())
    rows: list[dict[str, object]] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        Detector.open(arguments.model, arguments.backend, loop="steps", threads=arguments.threads) as detector,
    ):
        expected = None
        for margin in (None, *arguments.margins):
            output = Path(folder) / f"{margin}.csv"
            _write(detector, data, output, margin=margin, console=console)
            score = score_files(output, data.truth, label_map=data.label_map, exclude=data.exclude)
            found = read_boxes(output, last="score")
            expected = found if expected is None else expected
            matched = matched_share(found, expected, score_tolerance=_SCORE_TOLERANCE)
            rows.append({"margin": margin, "mean_ap": score.mean_ap(_IOU), "matched": matched})
    table = Table(title=f"mAP@{_IOU} on {arguments.data}", title_justify="left")
    for column in ("margin", "mAP", "difference", f"same box, class and score (within {_SCORE_TOLERANCE})"):
        table.add_column(column, justify="right")
    for row in rows:
        mean_ap, apart = float(str(row["mean_ap"])), float(str(row["mean_ap"])) - float(str(rows[0]["mean_ap"]))
        name = "without" if row["margin"] is None else str(row["margin"])
        table.add_row(name, f"{100 * mean_ap:.2f}", f"{100 * apart:+.2f}", f"{100 * float(str(row['matched'])):.1f} %")
    console.print(table)
    return rows


def _write(detector: Detector, data: DatasetFolder, output: Path, *, margin: int | None, console: Console) -> None:
    """Results of the annotated key frames; all margins share the key frames of 1/3 s, without runs only each second."""
    wanted = set(data.key_frames())
    every_s = Fraction(1) if margin is None else Fraction(1, 3)
    name = "without" if margin is None else f"margin {margin}"
    with output.open("w", newline="") as file:
        for video in track(list(videos_by_name([data.videos]).values()), name, console=console, transient=True):
            run = detector.run(str(video), every_s=every_s, reuse_backbone=margin is not None, reuse_margin=margin or 0)
            for key in run:
                if key.scheduled_s.denominator != 1 or (video.stem, int(key.scheduled_s)) not in wanted:
                    continue
                found = key.detections
                columns = (values[0, : int(found.counts[0])] for values in (found.boxes, found.labels, found.scores))
                boxes, labels, scores = columns
                second = int(key.scheduled_s)
                write_rows(file, detection_rows(video.stem, second, np.clip(boxes, 0, 1), labels, scores))


def measure_features(arguments: argparse.Namespace, console: Console) -> object:
    """See benchmarks/reuse_features.py."""
    import reuse_features
    import torch

    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    errors = reuse_features.measure(arguments.source, arguments.weights, console)
    reuse_features.print_errors(errors, console)
    if arguments.plot is not None:
        reuse_features.draw(errors, arguments.plot)
    return reuse_features.as_dict(errors)


def main() -> None:
    """One of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    speed = kinds.add_parser("speed")
    speed.add_argument("model", type=Path)
    speed.add_argument("--source", required=True, help="video")
    speed.add_argument("--backend", default="openvino")
    speed.add_argument("--gpu", dest="cpu", action="store_false", help="let the backend choose its device")
    speed.add_argument("--every", type=Fraction, nargs="+", default=list(_EVERY_S))
    speed.add_argument("--seconds", type=float, default=10.0, help="of the video, from its start")
    speed.add_argument("--rounds", type=int, default=2)
    parts = kinds.add_parser("parts")
    parts.add_argument("model", type=Path)
    parts.add_argument("--backend", default="openvino")
    parts.add_argument("--gpu", dest="cpu", action="store_false", help="let the backend choose its device")
    parts.add_argument("--every", type=Fraction, nargs="+", default=list(_EVERY_S))
    parts.add_argument("--rounds", type=int, default=5)
    accuracy = kinds.add_parser("map")
    accuracy.add_argument("model", type=Path)
    accuracy.add_argument("--data", type=Path, default=Path("toy"))
    accuracy.add_argument("--backend", default="openvino")
    accuracy.add_argument("--margins", type=int, nargs="+", default=[0, 1, MARGIN, MARGIN + 1])
    features = kinds.add_parser("features")
    features.add_argument("--weights", type=Path, required=True, help="i3d-kinetics-400.ckpt")
    features.add_argument("--source", type=Path, nargs="+", required=True, help="videos of 8.4 s or more")
    features.add_argument("--plot", type=Path)
    for each in (speed, parts, accuracy, features):
        each.add_argument("--threads", type=int)
        each.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    console = Console()
    measure = {"speed": measure_speed, "parts": measure_parts, "map": measure_map, "features": measure_features}[
        arguments.kind
    ]
    try:
        found = measure(arguments, console)
    except StepError as error:
        raise SystemExit(f"error: {error}") from error
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
