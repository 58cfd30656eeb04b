"""A client of the `step` model on a Triton server: a video in, people and their actions out.

    python examples/triton_client.py video.mp4 --url localhost:8001

Needs tritonclient alone: pip install 'step-trt[triton]', or 'tritonclient[grpc]'.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException


def main() -> None:
    """Sends a video and prints what comes back."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--url", default="localhost:8001", help="of the server's gRPC port")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between key frames")
    parser.add_argument("--score-threshold", type=float, default=0.4)
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds until the request is given up")
    parser.add_argument("--json", action="store_true", help="print the lines of JSON as they come")
    arguments = parser.parse_args()
    try:
        for key_frame in detect(arguments):
            print(json.dumps(key_frame) if arguments.json else "\n".join(describe(key_frame)), flush=True)
    except (InferenceServerException, OSError) as error:
        said = error.message() if isinstance(error, InferenceServerException) else error
        sys.exit(f"error: {said}")


def detect(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Returns the key frames of a video, with the people at each: lines of detections.jsonl."""
    inputs = [
        tensor("video", [arguments.video.read_bytes()], "BYTES", np.object_),
        tensor("every_s", [arguments.every], "FP64", np.float64),
        tensor("score_threshold", [arguments.score_threshold], "FP64", np.float64),
    ]
    outputs = [triton.InferRequestedOutput("people"), triton.InferRequestedOutput("problems")]
    with triton.InferenceServerClient(arguments.url) as client:
        answer = client.infer("step", inputs, outputs=outputs, client_timeout=arguments.timeout)
    for line in answer.as_numpy("people")[0]:
        yield json.loads(line)
    for line in answer.as_numpy("problems")[0]:
        print(f"warning: {line.decode()}", file=sys.stderr)


def tensor(name: str, values: list[Any], datatype: str, dtype: type[np.generic]) -> triton.InferInput:
    """Returns an input of one request: the first dimension is Triton's batch, always 1."""
    content = np.array([values], dtype)
    made = triton.InferInput(name, list(content.shape), datatype)
    made.set_data_from_numpy(content)
    return made


def describe(key_frame: dict[str, Any]) -> list[str]:
    """Returns a line for each person."""
    people = key_frame["boxes"]
    time_s = f"{key_frame['time_s']:8.2f} s"
    if not people:
        return [f"{time_s}  nobody"]
    lines = []
    for person in people:
        box = " ".join(f"{corner:6.0f}" for corner in person["box_px"])
        actions = ", ".join(f"{action['name']} {action['score']:.2f}" for action in person["actions"])
        lines.append(f"{time_s}  {box}  {actions}")
    return lines


if __name__ == "__main__":
    main()
