"""Running STEP on real video: `Detector.open(bundle).run("video.mp4")`.

Needs neither torch, onnx nor TensorRT until a backend that uses one is chosen.
"""

from step.detections import Detections
from step.errors import StepError
from step_runtime.clips.key_frame import KeyFrame
from step_runtime.clips.run_state import RunState
from step_runtime.detector import Detector
from step_runtime.outputs.people import Person, merge_classes

__all__ = ["Detections", "Detector", "KeyFrame", "Person", "RunState", "StepError", "merge_classes"]
