"""Running STEP on real video: `Detector.open(bundle).run("video.mp4")`.

Needs neither torch, onnx nor TensorRT until a backend that uses one is chosen.
"""

from step.detections import Detections
from step.errors import StepError
from step_runtime.clips.frame_stream import FrameStream
from step_runtime.clips.key_frame import KeyFrame
from step_runtime.clips.run_state import RunState
from step_runtime.detector import Detector
from step_runtime.people.merging import merge_classes
from step_runtime.people.person import Person
from step_runtime.sources.base import Source, SourceFrame

__all__ = [
    "Detections",
    "Detector",
    "FrameStream",
    "KeyFrame",
    "Person",
    "RunState",
    "Source",
    "SourceFrame",
    "StepError",
    "merge_classes",
]
