"""A way of running a model: which files, which library, which graphs."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from step.bundle import Manifest, read_bundle
from step.errors import StepError
from step.flavours import FLAVOURS
from step.graph_spec import FUSED
from step_runtime.backends.base import Loop

BENCH_BACKENDS = ("torch", "torch-bf16", "torch-fp16", "torch-compile", "onnxruntime", "openvino", *FLAVOURS)
"""What --backends takes; torch is eager float32."""
CPU_BACKENDS = ("torch", "onnxruntime", "openvino")


@dataclass(frozen=True, kw_only=True)
class Way:
    """One row of a benchmark.

    Attributes:
        model: bundle folder, or checkpoint for PyTorch.
        backend: one of `BENCH_BACKENDS`.
        precision: of the graphs, or of PyTorch's networks.
        loop: fused graph or step loop.
        device: "auto", "cpu", "cuda" or "cuda:N".
        batch: clips of a call.
        num_steps: progressive steps; None for all.
        threads: CPU threads; None for the library's choice.
    """

    model: str
    backend: str
    precision: str
    loop: Loop
    device: str = "auto"
    batch: int = 1
    num_steps: int | None = None
    threads: int | None = None

    @property
    def name(self) -> str:
        """As tables have it."""
        parts = [self.backend, self.precision] if self.backend != "torch-compile" else [self.backend]
        if not self.backend.startswith("torch"):
            parts.append(self.loop)
        parts += [f"batch {self.batch}"] if self.batch != 1 else []
        parts += [f"{self.num_steps} steps"] if self.num_steps is not None else []
        return " ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        return cls(**values)


def list_ways(
    bundles: list[Path],
    checkpoint: Path | None,
    *,
    backends: list[str],
    batches: list[int],
    steps: list[int | None],
    device: str,
    threads: int | None,
) -> list[Way]:
    """Every combination that the bundles and the checkpoint have; PyTorch's come first.

    Args:
        bundles: folders.
        checkpoint: for PyTorch; None leaves it out.
        backends: of `BENCH_BACKENDS`.
        batches: clips of a call.
        steps: progressive steps; None for all.
        device, threads: see `Way`.

    Raises:
        StepError: a backend that there is none of, or no bundle at a path.
    """
    unknown = [name for name in backends if name not in BENCH_BACKENDS]
    if unknown:
        raise StepError(f"--backends has {unknown[0]!r}; give some of {', '.join(BENCH_BACKENDS)}")
    manifests = {bundle: read_bundle(bundle) for bundle in bundles}
    ways: list[Way] = []
    for batch in batches:
        for num_steps in steps:
            common: dict[str, Any] = {"batch": batch, "num_steps": num_steps, "device": device, "threads": threads}
            for backend in backends:
                if backend.startswith("torch"):
                    if checkpoint is not None:
                        mode = backend.partition("-")[2] or "fp32"
                        precision = "fp32" if mode == "compile" else mode
                        ways.append(
                            Way(model=str(checkpoint), backend=backend, precision=precision, loop="steps", **common)
                        )
                    continue
                for bundle, manifest in manifests.items():
                    ways += [
                        Way(model=str(bundle), backend=backend, precision=manifest.precision, loop=loop, **common)
                        for loop in _loops(manifest, num_steps, batch)
                    ]
    if not ways:
        raise StepError("nothing to measure: give a bundle, or --checkpoint for torch")
    return ways


def _loops(manifest: Manifest, num_steps: int | None, batch: int) -> list[Loop]:
    if manifest.batch not in (None, batch):
        return []
    loops: list[Loop] = []
    if FUSED in manifest.graphs and num_steps in (None, manifest.num_steps):
        loops.append("fused")
    if len(manifest.graphs) > (FUSED in manifest.graphs) and (num_steps or 1) <= manifest.num_steps:
        loops.append("steps")
    return loops
