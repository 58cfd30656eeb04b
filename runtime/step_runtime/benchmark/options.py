"""Holds what `step-bench run` was asked for, and refuses what can be refused before long work."""

from dataclasses import dataclass
from pathlib import Path

from step.checkpoints.toy_model import CHECKPOINT, NAME, find_checkpoint, is_packaged
from step.errors import StepError
from step.files.atomic import check_outputs
from step.pages.page import check_packages
from step_runtime.backends.gpus import cuda_driver_is_present
from step_runtime.backends.select import check_device
from step_runtime.benchmark.configurations import BENCH_BACKENDS, CPU_BACKENDS
from step_runtime.benchmark.floor import Floor, read_floor
from step_runtime.benchmark.machine import machine


@dataclass(frozen=True)
class BenchCommand:
    """Holds what was typed; see `step-bench run --help`."""

    bundles: tuple[Path, ...]
    checkpoint: Path | None
    backends: tuple[str, ...] | None
    batches: tuple[int, ...]
    steps: tuple[int, ...] | None
    source: Path | None
    data: Path | None
    split: str
    device: str
    threads: int | None
    runs: int
    seconds: float
    baseline: str | None
    roofline: Path | None
    json_file: Path | None
    markdown_file: Path | None
    html_file: Path | None

    def check(self) -> None:
        """Refuses what can be refused before long work.

        Raises:
            StepError: an output that cannot be written, or a missing package or checkpoint.
        """
        check_outputs({"--json": self.json_file, "--markdown": self.markdown_file, "--html": self.html_file})
        if self.html_file is not None:
            check_packages()
        check_device(self.device)
        if self.checkpoint_file is not None and not self.checkpoint_file.is_file():
            raise StepError(f"--checkpoint {self.checkpoint}: no such file; give the .pth that was exported")

    @property
    def is_toy(self) -> bool:
        """Tells whether the packaged model is meant, and no bundle of that name."""
        return list(map(str, self.bundles)) == [NAME] and is_packaged(NAME)

    @property
    def model(self) -> str:
        """Names what is measured, for the heads of tables and pages."""
        names = [path.resolve().name for path in self.bundles]
        return ", ".join(names if self.checkpoint is None else [*names, self.checkpoint.name])

    @property
    def checkpoint_file(self) -> Path | None:
        """Finds the checkpoint that PyTorch runs; None for none."""
        if self.checkpoint is None:
            return CHECKPOINT if self.is_toy else None
        return find_checkpoint(self.checkpoint)

    @property
    def data_folder(self) -> Path | None:
        """Gives the data set for mAP; None for none."""
        data = Path(NAME) if self.data is None and self.is_toy else self.data
        return None if data is None or str(data) == "none" else data

    @property
    def wanted(self) -> list[str]:
        """Gives the names of backends."""
        if self.backends is not None:
            return list(self.backends)
        return list(BENCH_BACKENDS if cuda_driver_is_present() else CPU_BACKENDS)

    @property
    def num_steps(self) -> list[int | None]:
        """Gives the numbers of progressive steps; None for all."""
        return [None] if self.steps is None else list(self.steps)

    def floor(self) -> Floor | None:
        """Reads --roofline; None where there is none.

        Raises:
            StepError: see `read_floor`.
        """
        return None if self.roofline is None else read_floor(self.roofline, machine())
