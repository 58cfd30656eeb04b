"""Workers that do as they are told, without a model or a process."""

from pathlib import Path

from step_runtime.batch.attempts import Attempts
from step_runtime.batch.messages import CannotGoOn, RunVideo, VideoDone, VideoFailed
from step_runtime.batch.output import Output
from step_runtime.batch.video_list import Video
from step_runtime.batch.worker_process import WorkerDiedError


class StandIn:
    """Crashes, fails or stops at the videos that are named so; does the others."""

    def __init__(self, *, crashes: dict[str, int] | None = None) -> None:
        self.crashes = dict(crashes or {})
        self.seen: list[str] = []
        self.closed = 0

    def open(self) -> str:
        return "stand-in"

    def run(self, request: RunVideo) -> VideoDone | VideoFailed | CannotGoOn:
        self.seen.append(request.name)
        if self.crashes.get(request.name, 0) > 0:
            self.crashes[request.name] -= 1
            raise WorkerDiedError("was ended by SIGSEGV")
        if request.name == "bad":
            return VideoFailed(reason=f"{request.location}: not a video")
        if request.name == "full":
            return CannotGoOn(reason="cannot write people: No space left on device")
        return VideoDone(seconds=1.0, video_s=2.0, clips=3, dropped_clips=0, people=4, rows=5)

    def close(self) -> None:
        self.closed += 1


def attempts(folder: Path, performer: StandIn, *, run: str = "run", node: str = "node") -> Attempts:
    return Attempts(Output(folder), performer, run=run, node=node, detections=True)


def video(name: str) -> Video:
    return Video(name=name, location=f"/videos/{name}.mp4")
