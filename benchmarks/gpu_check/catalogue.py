"""The stages, in the order in which they are reported."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """Describes one stage.

    Attributes:
        name: of its module, and in `--only`.
        title: what it checks.
        limit_s: seconds after which it is cut, on an H100-class machine.
        alone: whether it measures times, so that nothing else may run beside it.
        first: whether others wait for what it makes.
        package: that holds its module.
    """

    name: str
    title: str
    limit_s: float
    alone: bool = False
    first: bool = False
    package: str = "gpu_check.stages"


STAGES = (
    Stage("environment", "GPU, driver, libraries, step-doctor", 60),
    Stage("bundles", "the toy and the full-size model are exported here, toy data is drawn", 110, first=True),
    Stage("kernels", "tests/plugins on the GPU: the host's bits, opcheck, every tactic and layout", 100),
    Stage("sanitizer", "compute-sanitizer: memcheck, racecheck, synccheck of the kernels", 100),
    Stage("cuda_runtime", "every call of CudaRuntime", 45),
    Stage("engine_loop", "the engine loop's data, with stand-in engines that launch kernels", 90),
    Stage("video_decoding", "what decodes video here", 45),
    Stage("engines", "TensorRT engines: tests/runtime/backends/test_gpu.py", 300, alone=True),
    Stage("kernel_times", "the kernels and the backbone's convolutions against memory and arithmetic", 60, alone=True),
    Stage("sharing", "one detector that eight threads call", 120, alone=True),
    Stage("onnxruntime_cuda", "ONNX Runtime on CUDA: parity, mAP parity, times", 95, alone=True),
    Stage("pytorch", "PyTorch at full size: the baselines", 110, alone=True),
    Stage("training", "training updates at full size, a minute of the toy model", 95, alone=True),
)


def stage_named(name: str) -> Stage | None:
    """Finds the stage of that name."""
    return next((stage for stage in STAGES if stage.name == name), None)
