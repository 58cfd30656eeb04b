"""Answers requests together: their videos are read side by side, and their clips share calls of the model."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

import numpy as np

from step.arguments import check_whole
from step.bundles.service_spec import DEFAULT_CLIPS_A_CALL, DEFAULT_MAX_KEY_FRAMES, EVERY_S, VIDEO
from step.cpus import available_cpus
from step.detections import Detections
from step.errors import StepError
from step_runtime.clips.channel import Stopped
from step_runtime.clips.key_frame import KeyFrame
from step_runtime.detector import Detector
from step_runtime.service.answer import Answer
from step_runtime.service.clip_queue import ClipQueue, RequestClip
from step_runtime.service.content import cut_clips, open_content
from step_runtime.service.request import ServiceRequest


class DetectionService:
    """Answers requests with one loaded model; a context manager that ends its threads and frees the model.

    Calls have as many clips as there are, up to `clips_a_call`, of one request or of several; a model that was exported
    for a fixed batch is called as often as needed.

    Args:
        detector: the model.
        clips_a_call: most clips of one call.
        max_key_frames: most of one request, which fails if it has more.
        readers: videos that are read at the same time; as many as there are CPUs if None.

    Attributes:
        calls: calls of the model so far, as counted here.
        clips: clips in them.

    Raises:
        ArgumentError: a number below 1.
    """

    def __init__(
        self,
        detector: Detector,
        *,
        clips_a_call: int = DEFAULT_CLIPS_A_CALL,
        max_key_frames: int = DEFAULT_MAX_KEY_FRAMES,
        readers: int | None = None,
    ) -> None:
        check_whole("clips_a_call", clips_a_call, least=1)
        check_whole("max_key_frames", max_key_frames, least=1)
        self.detector = detector
        most = detector.backend.max_batch
        self._clips_a_call = clips_a_call if most is None else min(clips_a_call, most)
        self._max_key_frames = max_key_frames
        self._readers = ThreadPoolExecutor(readers or available_cpus(), thread_name_prefix="step-service")
        self.calls = self.clips = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the threads and frees the model."""
        self._readers.shutdown()
        self.detector.close()

    def warm_up(self, *, clips: int = 1) -> None:
        """Runs the model once on black clips, which are not counted, so that the first client waits no longer."""
        config = self.detector.config
        shape = (min(clips, self._clips_a_call), config.clip_frames, config.image_size_px, config.image_size_px, 3)
        self.detector.detect(np.zeros(shape, np.uint8))

    def answer(self, requests: Sequence[ServiceRequest]) -> list[Answer]:
        """Answers requests together.

        Args:
            requests: of any number of clients.

        Returns:
            An answer each, in order. One that cannot be read fails alone: `failure` says why.

        Raises:
            StepError: the model fails.
        """
        answers = [Answer(request.score_threshold) for request in requests]
        queue = ClipQueue(readers=len(requests), at_most=self._clips_a_call)
        reading = [
            self._readers.submit(self._read, index, request, answers[index], queue)
            for index, request in enumerate(requests)
        ]
        try:
            while taken := queue.take():
                self._detect(taken, answers)
        finally:
            queue.stop()
            _wait(reading)
        return answers

    def _read(self, index: int, request: ServiceRequest, answer: Answer, queue: ClipQueue) -> None:
        try:
            with open_content(request.content) as source:
                clips = cut_clips(source, config=self.detector.config, every_s=request.every_s)
                for count, clip in enumerate(clips, 1):
                    if count > self._max_key_frames:
                        raise StepError(
                            f"{source.name}: more than {self._max_key_frames} key frames, which is the most of one "
                            f"request; send a shorter one, or a greater `{EVERY_S}`"
                        )
                    queue.put(RequestClip(index, clip))
                if source.problem is not None:
                    answer.problems.append(source.problem)
        except StepError as error:
            answer.failure = error
        except Stopped:
            pass
        finally:
            queue.end()

    def _detect(self, taken: Sequence[RequestClip], answers: Sequence[Answer]) -> None:
        found = self.detector.detect(np.stack([item.clip.frames for item in taken]))
        self.calls, self.clips = self.calls + 1, self.clips + len(taken)
        for row, item in enumerate(taken):
            one = Detections(*(np.ascontiguousarray(rows[row : row + 1]) for rows in found))
            key_frame = KeyFrame.of(item.clip, one, video=VIDEO, config=self.detector.config)
            answers[item.request].key_frames.append(key_frame)


def _wait(reading: Sequence[Future[None]]) -> None:
    for each in reading:
        each.result()  # a bug in reading is raised, not swallowed
