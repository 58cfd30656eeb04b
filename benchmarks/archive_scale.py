"""What `step-batch` costs besides the model: workers that only sleep, and the curve to a million hours.

`python benchmarks/archive_scale.py --videos 10000 --json scale.json` measures the driver's time and memory, listing,
records and the manifest on this machine. `--plot curve.png --of scale.json` draws what follows for a million hours.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from step_runtime.batch.local_run import run_here
from step_runtime.batch.manifest import fold
from step_runtime.batch.messages import RunVideo, VideoDone
from step_runtime.batch.options import Settings
from step_runtime.batch.output import Output
from step_runtime.batch.ray_run import RayOptions, run_on_ray
from step_runtime.batch.records import VideoRecord
from step_runtime.batch.video_list import Video, list_videos, name_videos

_HOURS = 1e6
_VIDEOS = 6e6  # of ten minutes


class Sleeper:
    """A worker that sleeps in place of running a model.

    Args:
        seconds: for each video.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def open(self) -> str:
        """Nothing is to be opened."""
        return "sleep"

    def run(self, request: RunVideo) -> VideoDone:
        """Sleeps."""
        assert request.name
        time.sleep(self._seconds)
        return VideoDone(seconds=self._seconds, video_s=600.0, clips=600, dropped_clips=0, people=0, rows=0)

    def close(self) -> None:
        """Nothing is to be closed."""


@dataclass(frozen=True)
class MakeSleeper:
    """Makes sleepers; it can be sent to an actor."""

    seconds: float

    def __call__(self) -> Sleeper:
        """A new one."""
        return Sleeper(self.seconds)


@dataclass(frozen=True)
class Measured:
    """What an archive of empty files costs.

    Attributes:
        videos, workers, sleep_s, how: what was run.
        list_s, name_s: of finding and naming the videos.
        run_s: from the first row to the last record.
        first_s: until the first record, in which Ray starts.
        fold_s, again_s: of the manifest after the run, and of finding that nothing is left.
        driver_mb: by which the driver's memory grew over the run.
    """

    videos: int
    workers: int
    sleep_s: float
    how: str
    list_s: float
    name_s: float
    run_s: float
    first_s: float
    fold_s: float
    again_s: float
    driver_mb: float

    @property
    def overhead_ms(self) -> float:
        """What a video costs on one worker, after the first record, besides its sleep."""
        return 1000 * ((self.run_s - self.first_s) * self.workers / self.videos - self.sleep_s)


def _resident_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def measure(root: Path, *, videos: int, workers: int, sleep_s: float, how: str) -> Measured:
    """Makes an archive of empty files, and runs it with sleepers."""
    for number in range(videos):
        place = root / "videos" / f"{number // 1000:04d}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"video_{number:07d}.mp4").touch()
    times = [time.perf_counter()]
    found = list_videos([str(root / "videos")])
    times.append(time.perf_counter())
    named = name_videos(found, {})
    del found
    times.append(time.perf_counter())
    output = Output(root / "out")
    output.prepare("sleep", Settings(model="sleep"))
    before_mb = most_mb = 0.0
    first_s = 0.0
    start_s = time.perf_counter()
    for count, _record in enumerate(_records(named, output, sleep_s, workers, how), 1):
        if count == 1:
            first_s, before_mb = time.perf_counter() - start_s, _resident_mb()
        if count % 100 == 0:
            most_mb = max(most_mb, _resident_mb())
    run_s = time.perf_counter() - start_s
    folded_s = _timed(output)
    return Measured(
        videos=videos,
        workers=workers,
        sleep_s=sleep_s,
        how=how,
        list_s=times[1] - times[0],
        name_s=times[2] - times[1],
        run_s=run_s,
        first_s=first_s,
        fold_s=folded_s,
        again_s=_timed(output),
        driver_mb=most_mb - before_mb,
    )


def _records(videos: list[Video], output: Output, sleep_s: float, workers: int, how: str) -> Iterator[VideoRecord]:
    make = MakeSleeper(sleep_s)
    if how == "shard":
        return run_here(videos, output, make, workers=workers, detections=False)
    return run_on_ray(videos, output, make, RayOptions(workers=workers, gpus=0), detections=False)


def _timed(output: Output) -> float:
    start_s = time.perf_counter()
    fold(output)
    return time.perf_counter() - start_s


def draw(measured: Measured, path: Path) -> None:
    """Draws how long a million hours take, in videos of ten minutes, with so many workers of three speeds.

    The driver settles as many videos a second as it did here; the workers' speeds are assumed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    workers = [10 ** (power / 20) for power in range(20, 101)]
    driver_h = _VIDEOS * (measured.run_s - measured.first_s) / measured.videos / 3600
    for speed, style in ((0.5, "-"), (10, "--"), (50, ":")):
        hours = [max(_HOURS / (count * speed), driver_h) for count in workers]
        axes.loglog(workers, hours, style, color="tab:blue", label=f"a worker does {speed:g} h of video an hour")
    axes.axhline(driver_h, color="tab:red", linewidth=0.8, label=f"one Ray driver, as measured: {driver_h:.0f} h")
    axes.set_xlabel("workers")
    axes.set_ylabel("hours for 1 million hours of video")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--sleep", type=float, default=0.02, help="seconds of each video")
    parser.add_argument("--how", choices=["ray", "shard"], default="ray")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="draw the curve, instead of measuring")
    parser.add_argument("--of", type=Path, help="what --json wrote")
    arguments = parser.parse_args()
    if arguments.plot is not None:
        content = json.loads(arguments.of.read_text())
        draw(Measured(**{field.name: content[field.name] for field in fields(Measured)}), arguments.plot)
        return
    with tempfile.TemporaryDirectory(prefix="archive-scale-") as root:
        measured = measure(
            Path(root), videos=arguments.videos, workers=arguments.workers, sleep_s=arguments.sleep, how=arguments.how
        )
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for name, value in asdict(measured).items():
        print(f"{name}: {value:.3f}" if isinstance(value, float) else f"{name}: {value}")
    print(f"overhead of a video on one worker: {measured.overhead_ms:.2f} ms; the driver at most {peak_mb:.0f} MB")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(asdict(measured) | {"overhead_ms": measured.overhead_ms}, indent=1) + "\n")


if __name__ == "__main__":
    main()
