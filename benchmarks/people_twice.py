"""How often the same person is shown twice: as the release's demo merges boxes, and as `KeyFrame.people` joins them.

    python benchmarks/people_twice.py video.mp4 folder-of-videos --model bundle

Counts people, and pairs of them whose boxes overlap (IoU) by more than 0.6, over the key frames of each source.
"""

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from step_runtime import Detector, KeyFrame, Person, merge_classes
from step_runtime.people.merging import SAME_IOU, plain_iou


@dataclass
class Count:
    """What was seen at the key frames of a source.

    Attributes:
        key_frames: how many.
        merged, joined: people by the release's rule, and by ours.
        merged_pairs, joined_pairs: pairs of them at the same key frame that overlap.
    """

    key_frames: int = 0
    merged: int = 0
    merged_pairs: int = 0
    joined: int = 0
    joined_pairs: int = 0

    def add(self, key_frame: KeyFrame, score_threshold: float) -> None:
        """Takes a key frame."""
        merged = merge_classes(key_frame, key_frame.config, score_threshold=score_threshold)
        joined = key_frame.people(score_threshold)
        self.key_frames += 1
        self.merged += len(merged)
        self.merged_pairs += pairs(merged)
        self.joined += len(joined)
        self.joined_pairs += pairs(joined)

    def line(self, name: str) -> str:
        """As a row of the table."""
        numbers = (self.key_frames, self.merged, self.merged_pairs, self.joined, self.joined_pairs)
        return f"{name:32.32}" + "".join(f"{number:>12}" for number in numbers)


def pairs(people: Sequence[Person]) -> int:
    """Pairs of people whose boxes overlap by more than 0.6."""
    return sum(
        bool(plain_iou(person.box, other.box[None])[0] > SAME_IOU)
        for person, other in itertools.combinations(people, 2)
    )


def main() -> None:
    """Prints a line for each source, which may be a folder of videos."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--every", type=Fraction, default=Fraction(1))
    parser.add_argument("--score-threshold", type=float, default=0.4)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    heads = ("key frames", "merged", "pairs", "joined", "pairs")
    print(f"{'source':32}" + "".join(f"{head:>12}" for head in heads))
    with Detector.open(arguments.model, "onnxruntime", device="cpu", threads=arguments.threads) as detector:
        for source in arguments.sources:
            count = Count()
            for key_frame in detector.run(source, every_s=arguments.every):
                count.add(key_frame, arguments.score_threshold)
            print(count.line(Path(source).stem), flush=True)


if __name__ == "__main__":
    main()
