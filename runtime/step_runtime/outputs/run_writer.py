"""The writer thread: everything a run leaves behind, written beside inference and published at the end."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from step.config import StepConfig
from step.files.atomic import cannot_write
from step_runtime.clips.channel import Channel, Stopped
from step_runtime.clips.key_frame import KeyFrame
from step_runtime.outputs.overlay import OverlayWriter, frames_until
from step_runtime.outputs.run_summary import Seen
from step_runtime.outputs.tables import TableWriter
from step_runtime.people.person import Person
from step_runtime.sources.base import Source, SourceFrame
from step_runtime.tracing.tracer import INFERENCE, SILENT, WRITER, Tracer

_WAITING = 8


class RunWriter:
    """Writes one source's results into a folder that is not published yet, in a thread of its own.

    Args:
        folder: where the files go.
        target: where they end up, which messages name; None for `folder`.
        reopen: opens the source a second time, for the overlay at full size; None for no overlay.
        config: of the model.
        score_threshold: of people in the tables and the overlay.
        parquet: whether people.parquet is written.
        tracer: records what the thread does, and when.
    """

    def __init__(
        self,
        folder: Path,
        *,
        target: Path | None = None,
        reopen: Callable[[], Source] | None,
        config: StepConfig,
        score_threshold: float,
        parquet: bool = False,
        tracer: Tracer = SILENT,
    ) -> None:
        self._tracer = tracer
        self._folder = folder
        self._target = target or folder
        self._reopen = reopen
        self._draw_rest = True
        self._aborted = False
        # Waited for instead of joining: Python 3.11 takes a thread for ended when Ctrl-C interrupts its join.
        self._done = threading.Event()
        self._config = config
        self._score_threshold = score_threshold
        self._parquet = parquet
        self._channel: Channel[KeyFrame] = Channel(capacity=_WAITING)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name=f"step-{WRITER}", daemon=True)
        self.seen = Seen()
        self._thread.start()

    def put(self, key_frame: KeyFrame) -> None:
        """Hands over a key frame; waits when the writer is behind.

        Raises:
            StepError: what the writer failed with.
        """
        try:
            with self._tracer.span("wait for the writer", waits_for=WRITER):
                self._channel.put(key_frame)
        except Stopped:
            self._join()

    def finish(self, *, draw_rest: bool = True) -> None:
        """Waits until everything is written.

        Args:
            draw_rest: whether the overlay goes on to the source's end, after the last key frame.

        Raises:
            StepError: what the writer failed with.
        """
        self._draw_rest = draw_rest
        self._channel.end()
        self._join()

    def abort(self) -> None:
        """Ends the thread without finishing the files."""
        self._aborted = True
        self._channel.end(Stopped())
        self._done.wait()

    def _join(self) -> None:
        with self._tracer.span("wait for the writer", waits_for=WRITER):
            self._done.wait()
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        try:
            self._write_all()
        except Stopped:
            pass
        except OSError as error:
            self._failure = cannot_write(self._target, error)
        except BaseException as error:  # noqa: BLE001 - it is not swallowed: `put` and `finish` raise it
            self._failure = error
        finally:
            self._channel.stop()
            self._done.set()

    def _write_all(self) -> None:
        tables = TableWriter(self._folder, parquet=self._parquet)
        overlay = None
        frames: Iterator[SourceFrame] = iter(())
        if self._reopen is not None:
            source = self._reopen()
            overlay = OverlayWriter(
                self._folder / "overlay.mp4", config=self._config, interval_s=source.interval_s, tracer=self._tracer
            )
            frames = self._tracer.each("decode", source.frames())
        try:
            for key_frame in self._tracer.each("wait for a result", self._channel, waits_for=INFERENCE):
                with self._tracer.span("tables"):
                    people = key_frame.people(self._score_threshold)
                    self.seen.add(people)
                    tables.write(key_frame, people)
                if overlay is not None:
                    self._draw_until(overlay, frames, key_frame, people)
            if overlay is not None:
                for frame in frames:
                    if not self._draw_rest:
                        break
                    self._draw(overlay, frame)
                overlay.close()
        finally:
            tables.close()
            if overlay is not None:
                overlay.abort()

    def _draw(self, overlay: OverlayWriter, frame: SourceFrame) -> None:
        if self._aborted:
            raise Stopped
        overlay.write(frame)

    def _draw_until(
        self, overlay: OverlayWriter, frames: Iterator[SourceFrame], key_frame: KeyFrame, people: list[Person]
    ) -> None:
        """Frames before this key frame have their nearest key frame now."""
        overlay.add_key_frame(key_frame, people)
        for frame in frames_until(frames, key_frame.time_s):
            self._draw(overlay, frame)
