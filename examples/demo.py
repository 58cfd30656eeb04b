"""The main job on one screen: the packaged toy model through export and engine build and on a video, with an overlay.

Run it with `make demo`. The video is made up by `step-data toy`, of another seed than the model was trained on.
"""

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path

SEED = 7  # of figures that the model has not seen
SCORE_THRESHOLD = 0.4


def main() -> None:
    """Makes a video, exports the model, builds an engine where that can be, runs the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/demo"))
    parser.add_argument("--video", type=Path, help="another video than a made-up one")
    arguments = parser.parse_args()
    out: Path = arguments.out
    video = arguments.video
    if video is None:
        toy = out / "toy"
        if not toy.exists():
            run("step-data", "toy", toy, "--train", 1, "--val", 1, "--seed", SEED)
        video = toy / "videos" / "val_000.mp4"
    bundle = out / "bundle"
    # TensorRT-RTX builds engines without a GPU; ONNX Runtime runs the same bundle here.
    engine = ["--engine", "tensorrt-rtx"] if importlib.util.find_spec("tensorrt_rtx") else []
    run("step-export", "toy", "-o", bundle, "--graphs", "fused", "--overwrite", *engine)
    run("step-run", video, "--model", bundle, "--out", out, "--overwrite", "--score-threshold", SCORE_THRESHOLD)
    print(f"look at {out / 'overlay.mp4'}")


def run(command: str, *arguments: object) -> None:
    """Runs one of the installed commands, shown as it would be typed."""
    words = [str(argument) for argument in arguments]
    print("$", command, *words, flush=True)
    done = subprocess.run([Path(sys.executable).with_name(command), *words], check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
