"""The overlay of a live source: frames are drawn as they come, with the newest result there is and its age."""

import dataclasses
import threading
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path

from step.config import StepConfig
from step_runtime.clips.channel import Channel, Stopped
from step_runtime.clips.key_frame import KeyFrame
from step_runtime.outputs.box_labels import LabelledBox
from step_runtime.outputs.overlay import OverlayWriter, box_along_tube
from step_runtime.sources.base import Source, SourceFrame, Stoppable
from step_runtime.tracing.tracer import LIVE_OVERLAY, READER, SILENT, Tracer

_FRAMES_WAITING = 16  # 6 MB each at 1080p


class TappedSource:
    """A live source whose frames also go to a channel; see `Source` for the attributes.

    Args:
        source: the live source.
        tap: takes every frame; it drops its oldest rather than make the source wait.
    """

    def __init__(self, source: Source, tap: Channel[SourceFrame]) -> None:
        self._source = source
        self._tap = tap
        self.name = source.name
        self.interval_s, self.slack_s = source.interval_s, source.slack_s
        self.duration_s, self.is_live = source.duration_s, source.is_live
        self.problem: str | None = None
        self.notes: list[str] = []

    def frames(self) -> Iterator[SourceFrame]:
        """See `Source.frames`."""
        return self._pass_on(self._source.frames())

    def stop(self) -> None:
        """See `Stoppable.stop`."""
        if isinstance(self._source, Stoppable):
            self._source.stop()

    def _pass_on(self, frames: Iterator[SourceFrame]) -> Iterator[SourceFrame]:
        try:
            for frame in frames:
                # Converted here, once: a decoder's frame must not be converted by two threads at a time.
                converted = _converted(frame)
                self._tap.put(converted)
                yield converted
        except Stopped:
            return  # the overlay has failed; its owner raises why
        finally:
            if isinstance(frames, Generator):
                frames.close()
            self.problem, self.notes = self._source.problem, self._source.notes
            self._tap.end()


def _converted(frame: SourceFrame) -> SourceFrame:
    pixels = frame.rgb()
    return dataclasses.replace(frame, rgb=lambda: pixels)


class LiveOverlay:
    """Draws a live source's frames in a thread of its own.

    Args:
        path: the mp4 to write.
        source: the live source; read it through `tapped`.
        config: of the model.
        score_threshold: of people that are drawn.
        tracer: records what the thread does, and when.
    """

    def __init__(
        self, path: Path, source: Source, *, config: StepConfig, score_threshold: float, tracer: Tracer = SILENT
    ) -> None:
        self._tracer = tracer
        self._frames: Channel[SourceFrame] = Channel(capacity=_FRAMES_WAITING, drop_oldest=True)
        self.tapped = TappedSource(source, self._frames)
        self._writer = OverlayWriter(path, config=config, interval_s=source.interval_s, is_live=True, tracer=tracer)
        self._config = config
        self._score_threshold = score_threshold
        self._newest: tuple[Fraction, list[LabelledBox]] | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name=f"step-{LIVE_OVERLAY}", daemon=True)
        self._thread.start()

    def show(self, key_frame: KeyFrame) -> None:
        """From now on these people are drawn, where they were when last seen."""
        people = key_frame.people(self._score_threshold)
        boxes = [
            LabelledBox(box=box_along_tube(person.tube, 0.0, self._config), actions=person.actions, color_index=i)
            for i, person in enumerate(people)
        ]
        self._newest = (key_frame.time_s, boxes)

    def finish(self) -> None:
        """Waits until every frame that was tapped is written.

        Raises:
            BaseException: what the thread failed with.
        """
        self._frames.end()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def abort(self) -> None:
        """Ends the thread without finishing the file."""
        self._frames.stop()
        self._thread.join()

    def _work(self) -> None:
        try:
            for frame in self._tracer.each("wait for a frame", self._frames, waits_for=READER):
                newest = self._newest  # one read: the other thread replaces it whole
                if newest is None:
                    self._writer.draw(frame, [], caption="no result yet")
                else:
                    age_s = float(frame.time_s - newest[0])
                    self._writer.draw(frame, newest[1], caption=f"result is {age_s:.1f} s old")
            self._writer.close()
        except BaseException as error:  # noqa: BLE001 - it is not swallowed: `finish` raises it
            self._failure = error
        finally:
            self._frames.stop()
            self._writer.abort()
