"""A configuration of running a model: which files, which library, which graphs."""

import importlib.util
import itertools
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from step.bundles.graph_spec import FUSED
from step.bundles.libraries import LIBRARIES, Library
from step.bundles.manifest import Manifest, read_bundle
from step.errors import ArgumentError, StepError
from step_runtime.backends.base import Loop

CPU_BACKENDS = ("torch-plain", "torch", "onnxruntime", "openvino")
GPU_BACKENDS = (
    "torch-bf16",
    "torch-fp16",
    "torch-compile",
    "onnxruntime-cuda",
    "tensorrt",
    "tensorrt-no-graph",
    "tensorrt-rtx",
    "tensorrt-rtx-no-graph",
)
BENCH_BACKENDS = (*CPU_BACKENDS, *GPU_BACKENDS)
"""What --backends takes.

"torch" is eager float32; "torch-plain" the same with PyTorch's own max-pools, as in the authors' code, which on a CPU
are slower than those that "torch" takes from oneDNN. "-no-graph" launches kernel by kernel, not as a CUDA graph.
"""
_NO_GRAPH = "-no-graph"


@dataclass(frozen=True, kw_only=True)
class BenchConfiguration:
    """One row of a benchmark.

    Attributes:
        model: bundle folder, or checkpoint for PyTorch.
        backend: one of `BENCH_BACKENDS`.
        precision: of the graphs, or of PyTorch's networks.
        loop: fused graph or step loop.
        label: tells bundles of the same precision apart; "" where there is one.
        device: "auto", "cpu", "cuda" or "cuda:N".
        batch: clips of a call.
        num_steps: progressive steps; None for all.
        threads: CPU threads; None for the library's choice.
    """

    model: str
    backend: str
    precision: str
    loop: Loop
    label: str = ""
    device: str = "auto"
    batch: int = 1
    num_steps: int | None = None
    threads: int | None = None

    @property
    def name(self) -> str:
        """As tables have it."""
        parts = [self.backend] if self.backend.startswith("torch-") else [self.backend, self.precision]
        if not self.is_torch:
            parts.append(self.loop)
        parts += [f"batch {self.batch}"] if self.batch != 1 else []
        parts += [f"{self.num_steps} step{'s' * (self.num_steps > 1)}"] if self.num_steps is not None else []
        parts += [f"({self.label})"] if self.label else []
        return " ".join(parts)

    @property
    def is_torch(self) -> bool:
        """Whether it runs a checkpoint."""
        return self.backend.startswith("torch")

    @property
    def scored_as(self) -> "BenchConfiguration":
        """The configuration that gives the same detections clip by clip: whoever computes a maximum, it is the same."""
        return replace(self, batch=1, backend="torch" if self.backend == "torch-plain" else self.backend)

    @property
    def library(self) -> Library | None:
        """The library of the engines that it runs; None where it runs none."""
        name = self.backend.removesuffix(_NO_GRAPH)
        return next((library for library in LIBRARIES if library == name), None)

    @property
    def uses_gpu(self) -> bool:
        """Whether it needs one; PyTorch does not."""
        return self.library is not None or self.backend.endswith("-cuda")

    @property
    def has_cuda_graph(self) -> bool:
        """Whether an engine's launches may be recorded."""
        return not self.backend.endswith(_NO_GRAPH)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        return cls(**values)


def list_configurations(
    bundles: list[Path],
    checkpoint: Path | None,
    *,
    backends: list[str],
    batches: list[int],
    steps: list[int | None],
    device: str,
    threads: int | None,
) -> tuple[list[BenchConfiguration], list[str]]:
    """Every combination that the bundles and the checkpoint have; PyTorch's come first.

    Args:
        bundles: folders.
        checkpoint: for PyTorch; None leaves it out.
        backends: of `BENCH_BACKENDS`.
        batches: clips of a call.
        steps: progressive steps; None for all.
        device: of PyTorch and the engines. ONNX Runtime is measured on the CPU, and on CUDA as "onnxruntime-cuda".
        threads: see `BenchConfiguration`.

    Returns:
        The configurations, and a line for each thing that was asked for and that there is no model for.

    Raises:
        StepError: a backend that there is none of, or no bundle at a path.
    """
    unknown = [name for name in backends if name not in BENCH_BACKENDS]
    if unknown:
        raise ArgumentError(f"`backends` has {unknown[0]!r}; give some of {', '.join(BENCH_BACKENDS)}")
    manifests = {bundle: read_bundle(bundle) for bundle in dict.fromkeys(bundles)}
    backends, batches, steps = list(dict.fromkeys(backends)), list(dict.fromkeys(batches)), list(dict.fromkeys(steps))
    missing: list[str] = []
    of_torch = [name for name in backends if name.startswith("torch")]
    if of_torch and (checkpoint is None or importlib.util.find_spec("torch") is None):
        reason = "a checkpoint is run; give --checkpoint"
        if checkpoint is not None:
            reason = "torch is not installed; pip install 'step-trt[export]'"
        missing.append(f"{', '.join(of_torch)}: not measured: {reason}")
        backends = [name for name in backends if name not in of_torch]
    configurations: list[BenchConfiguration] = []
    for batch, num_steps in itertools.product(batches, steps):
        if manifests and not any(_loops(manifest, num_steps, batch) for manifest in manifests.values()):
            what = f"batch {batch}" if num_steps is None else f"batch {batch}, {num_steps} steps"
            missing.append(f"{what}: not measured: no bundle takes that ({_taken(manifests)})")
        for backend in backends:
            if checkpoint is not None and backend.startswith("torch"):
                found = [_of_checkpoint(checkpoint, backend, batch, num_steps, device)]
            else:
                found = _of_bundles(manifests, backend, batch, num_steps, device)
            configurations += [replace(each, threads=threads) for each in found]
    if not configurations:
        raise StepError(f"nothing to measure: {'; '.join(missing)}")
    return configurations, missing


def _of_checkpoint(
    checkpoint: Path, backend: str, batch: int, num_steps: int | None, device: str
) -> BenchConfiguration:
    mode = backend.partition("-")[2] or "fp32"
    return BenchConfiguration(
        model=str(checkpoint),
        backend=backend,
        precision="fp32" if mode in ("compile", "plain") else mode,
        loop="steps",
        device=device,
        batch=batch,
        num_steps=num_steps,
    )


def _of_bundles(
    manifests: dict[Path, Manifest], backend: str, batch: int, num_steps: int | None, device: str
) -> list[BenchConfiguration]:
    labels = _labels(manifests)
    return [
        BenchConfiguration(
            model=str(bundle),
            backend=backend,
            precision=manifest.precision,
            loop=loop,
            label=labels[bundle],
            device=_device(backend, device),
            batch=batch,
            num_steps=num_steps,
        )
        for bundle, manifest in manifests.items()
        for loop in _loops(manifest, num_steps, batch)
    ]


def _taken(manifests: dict[Path, Manifest]) -> str:
    return ", ".join(
        f"{bundle.name}: {manifest.num_steps} steps, batch {manifest.batch or 'any'}"
        for bundle, manifest in manifests.items()
    )


def _device(backend: str, asked: str) -> str:
    if backend in ("onnxruntime", "openvino"):
        return "cpu"
    return "cuda" if backend == "onnxruntime-cuda" and asked in ("auto", "cpu") else asked


def _labels(manifests: dict[Path, Manifest]) -> dict[Path, str]:
    """The folder's name, as much of the path as tells it apart, where another bundle has the same precision."""
    labels: dict[Path, str] = {}
    for bundle, manifest in manifests.items():
        others = [other for other, its in manifests.items() if other != bundle and its.precision == manifest.precision]
        is_unique = bundle.name not in [other.name for other in others]
        labels[bundle] = "" if not others else bundle.name if is_unique else str(bundle)
    return labels


def _loops(manifest: Manifest, num_steps: int | None, batch: int) -> list[Loop]:
    if manifest.batch not in (None, batch):
        return []
    loops: list[Loop] = []
    if FUSED in manifest.graphs and num_steps in (None, manifest.num_steps):
        loops.append("fused")
    if len(manifest.graphs) > (FUSED in manifest.graphs) and (num_steps or 1) <= manifest.num_steps:
        loops.append("steps")
    return loops
