"""Clips a second of `step-batch` with two workers beside two `step-run` processes that somebody starts by hand.

`python benchmarks/archive_speed.py --videos 24` makes toy videos, and runs them each way in turns. The rate is that of
the time in which videos run, from the first that is begun to the last that is done: how long Ray and the models take to
start is said beside it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from step_runtime.batch.manifest import read_rows
from step_runtime.batch.output import Output

from step.data.toy.toy import generate

_RUN = "import sys; from step_runtime.cli import main; main(sys.argv[1:])"
_LOOK_EVERY_S = 0.02


@dataclass(frozen=True)
class Rate:
    """How fast one way was.

    Attributes:
        clips: key frames.
        running_s: from the first video's begin to the last one's end.
        whole_s: of the command or commands.
    """

    clips: int
    running_s: float
    whole_s: float

    def __str__(self) -> str:
        return (
            f"{self.clips / self.running_s:.2f} clips/s while videos run ({self.running_s:.1f} s), "
            f"{self.clips / self.whole_s:.2f} over all ({self.whole_s:.1f} s)"
        )


def by_hand(videos: list[Path], folder: Path, options: list[str]) -> Rate:
    """Two step-run processes, each with every other video."""
    start_s = time.time()
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, "-c", _RUN, *map(str, videos[part::2])),
                *("--out", str(folder / str(part)), "-q", "--no-overlay", *options),
            ],
            stdout=subprocess.DEVNULL,
        )
        for part in range(2)
    ]
    assert not any(process.wait() for process in processes)
    whole_s = time.time() - start_s
    runs = [json.loads(path.read_text()) for path in folder.glob("*/*/run.json")]
    began = min(datetime.fromisoformat(run["started"]) for run in runs)
    ended = max(datetime.fromisoformat(run["ended"]) for run in runs)
    return Rate(sum(run["key_frames"] for run in runs), (ended - began).total_seconds(), whole_s)


def as_archive(videos: list[Path], folder: Path, options: list[str]) -> Rate:
    """One step-batch with two workers."""
    start_s = time.time()
    words = ["-m", "step_runtime.batch.cli", str(videos[0].parent), "-o", str(folder), "--workers", "2", "-q"]
    process = subprocess.Popen([sys.executable, *words, *options], stdout=subprocess.DEVNULL)
    while process.poll() is None and not any((folder / "records").glob("*/*.json")):
        time.sleep(_LOOK_EVERY_S)
    began_s = time.time()
    assert process.wait() == 0
    whole_s = time.time() - start_s
    ended_s = max(path.stat().st_mtime for path in (folder / "records").glob("*/*.json"))
    return Rate(sum(row["clips"] for row in read_rows(Output(folder))), ended_s - began_s, whole_s)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--every", default="1")
    parser.add_argument("--backend", default="auto")
    arguments = parser.parse_args()
    options = ["--model", "toy", "--threads", "1", "--every", arguments.every, "--backend", arguments.backend]
    ways: dict[str, tuple[Callable[[list[Path], Path, list[str]], Rate], list[str]]] = {
        "two step-run": (by_hand, options),
        "step-batch on Ray": (as_archive, options),
        "step-batch --shard 0/1": (as_archive, [*options, "--shard", "0/1"]),
    }
    with tempfile.TemporaryDirectory(prefix="archive-speed-") as root:
        generate(Path(root) / "toy", videos={"val": arguments.videos})
        videos = sorted((Path(root) / "toy" / "videos").iterdir())
        rates: dict[str, list[Rate]] = {name: [] for name in ways}
        for number in range(arguments.rounds):
            for name, (run, words) in ways.items():
                rates[name].append(run(videos, Path(root) / f"{number} {name}", words))
                print(f"{name}: {rates[name][-1]}", flush=True)
    best = {name: max(rate.clips / rate.running_s for rate in each) for name, each in rates.items()}
    for name, rate in best.items():
        print(f"best of {name}: {rate:.2f} clips/s, {rate / best['two step-run']:.3f} of two step-run")


if __name__ == "__main__":
    main()
