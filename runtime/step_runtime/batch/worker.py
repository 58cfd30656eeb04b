"""A process that holds one `Detector` and runs videos on it, one after the other.

It is a process of its own, so that a video that makes a decoder or a library crash takes nothing else with it.
Requests come by standard input and answers go by what was standard output, as `step_runtime.batch.messages` has both;
what a library prints goes to standard error.
"""

import os
import signal
import sys

from step.errors import ArgumentError, StepError
from step_runtime.batch.job import VideoError, run_video
from step_runtime.batch.messages import REQUESTS, Answer, CannotGoOn, Open, Opened, RunVideo, VideoFailed
from step_runtime.batch.options import WorkerOptions
from step_runtime.detector import Detector

_OPTIONS = {"backend": "--backend", "device": "--device", "num_steps": "--steps", "threads": "--threads"}
"""What `step-batch` calls the arguments that are told in errors."""


def main() -> None:
    """Answers until its input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the supervisor, which ends this process
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    detector: Detector | None = None
    options: WorkerOptions | None = None
    for line in sys.stdin:
        request = REQUESTS.validate_json(line)
        answer: Answer
        try:
            if isinstance(request, Open):
                options = request.options
                detector = _open(options)
                answer = Opened(backend=detector.backend.name, device=detector.backend.device)
            else:
                assert detector is not None
                assert options is not None
                answer = _run(detector, request, options)
        except ArgumentError as error:
            answer = CannotGoOn(reason=error.naming(_OPTIONS))
        except StepError as error:
            answer = CannotGoOn(reason=str(error))
        answers.write(answer.model_dump_json() + "\n")
        answers.flush()


def _open(options: WorkerOptions) -> Detector:
    return Detector.open(
        options.model,
        options.backend,
        loop="steps" if options.settings.reuse_backbone else options.loop,
        num_steps=options.settings.steps,
        device=options.device,
        threads=options.threads,
    )


def _run(detector: Detector, request: RunVideo, options: WorkerOptions) -> Answer:
    try:
        return run_video(detector, request, options)
    except VideoError as error:
        return VideoFailed(reason=str(error))


if __name__ == "__main__":
    main()
