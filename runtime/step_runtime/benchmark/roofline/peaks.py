"""What a machine can do at most: multiply-adds and bytes a second, measured.

The peak is what the best matrix product and the best copying reach here, not what a data sheet says: a network is made
of such products, and no library's convolutions can be expected to beat all libraries' matrix products.
"""

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from step.errors import StepError
from step.parent import child_command
from step.shown import quoted
from step_runtime.benchmark.machine import machine
from step_runtime.benchmark.roofline.peak_answer import PEAK_WORKER, PeakAnswer
from step_runtime.benchmark.roofline.peak_worker import CUDA_PRECISIONS, PRECISIONS

_SECONDS = 1.0
_LIMIT_S = 120
_LONGEST_SAID = 100
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
# Where a processor has no instructions for them, products of these are slower than in fp32.
_INSTRUCTIONS = {"bf16": ("avx512_bf16", "amx_bf16"), "fp16": ("avx512_fp16", "amx_fp16")}


@dataclass(frozen=True, kw_only=True)
class Product:
    """A library's best matrix product.

    Attributes:
        library: which, as it is imported.
        precision: of the factors.
        multiply_adds_per_s: its rate; None where there is none.
        size: rows and columns of both factors; None where there is no rate.
        problem: why there is none; None where there is.
    """

    library: str
    precision: str
    multiply_adds_per_s: float | None = None
    size: int | None = None
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """What a machine can do at most.

    Attributes:
        name: what it is.
        multiply_adds_per_s: the most, by precision of the factors.
        bytes_per_s: the most that memory gives and takes together.
        source: measured, or a data sheet.
        products: what was measured; empty where nothing was.
    """

    name: str
    multiply_adds_per_s: dict[str, float]
    bytes_per_s: float
    source: str
    products: tuple[Product, ...] = ()

    def rate(self, precision: str) -> float:
        """Multiply-adds a second.

        Raises:
            StepError: there is no rate in this precision.
        """
        if precision not in self.multiply_adds_per_s:
            there = ", ".join(self.multiply_adds_per_s)
            raise StepError(f"{self.name} has no rate for {precision}; it has some for {there}")
        return self.multiply_adds_per_s[precision]


def measure_cpu_peaks(
    *,
    threads: int,
    seconds: float = _SECONDS,
    only_fp32: bool = False,
    progress: Callable[[str], None] = lambda _what: None,
) -> Peaks:
    """The best of NumPy's BLAS, PyTorch, ONNX Runtime and OpenVINO, as far as they are installed.

    Args:
        threads: of each, and of copying.
        seconds: of each library and precision.
        only_fp32: leave out bf16 and fp16.
        progress: is called with what is measured.

    Raises:
        StepError: nothing could be measured.
    """
    flags = cpu_flags()
    products = []
    for library, precisions in PRECISIONS.items():
        for precision in precisions:
            has_instructions = not only_fp32 and any(flag in flags for flag in _INSTRUCTIONS.get(precision, ()))
            if precision == "fp32" or has_instructions:
                progress(f"{library}'s matrix product in {precision}")
                products.append(_product(library, precision, run_peak_worker(library, precision, threads, seconds)))
    progress("copying")
    copied = run_peak_worker("copy", "bytes", threads, seconds)
    return _peaks(f"{machine()['cpu']}, {threads} threads", products, copied)


def measure_cuda_peaks(*, seconds: float = _SECONDS) -> Peaks:
    """The peaks of the first NVIDIA GPU, measured by PyTorch.

    Raises:
        StepError: no PyTorch, or no GPU that it can use.
    """
    answers = {precision: run_peak_worker("cuda", precision, 1, seconds) for precision in CUDA_PRECISIONS}
    products = [_product("torch", precision, answer) for precision, answer in answers.items()]
    name = next((answer.device for answer in answers.values() if answer.device is not None), "CUDA")
    return _peaks(name, products, run_peak_worker("cuda", "bytes", 1, seconds))


def _peaks(name: str, products: list[Product], copied: PeakAnswer) -> Peaks:
    best: dict[str, float] = {}
    for product in products:
        if product.multiply_adds_per_s is not None:
            best[product.precision] = max(best.get(product.precision, 0.0), product.multiply_adds_per_s)
    problem = copied.problem if best else next(p.problem for p in products)
    if problem is not None or copied.rate is None:
        raise StepError(f"{name}: the peak cannot be measured: {problem}")
    return Peaks(
        name=name,
        multiply_adds_per_s=best,
        bytes_per_s=copied.rate,
        source="measured: best square matrix product, best copy",
        products=tuple(products),
    )


def _product(library: str, precision: str, answer: PeakAnswer) -> Product:
    return Product(
        library=library,
        precision=precision,
        multiply_adds_per_s=answer.rate,
        size=answer.size,
        problem=answer.problem,
    )


def run_peak_worker(library: str, precision: str, threads: int, seconds: float) -> PeakAnswer:
    """Measures in a process of its own; how it ended, where it did not answer, is the answer's problem.

    Args:
        library: one of `PRECISIONS`, "copy" or "cuda".
        precision: of the product; "bytes" for copying.
        threads: of the library.
        seconds: that measuring takes.
    """
    command = child_command(PEAK_WORKER, library, precision)
    command += ["--threads", str(threads), "--seconds", str(seconds)]
    variables = os.environ | dict.fromkeys(_THREAD_VARIABLES, str(threads))
    try:
        done = subprocess.run(
            command, env=variables, capture_output=True, text=True, timeout=_LIMIT_S + seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return PeakAnswer(problem=f"{library} took more than {_LIMIT_S + seconds:g} s")
    if done.returncode or not done.stdout:
        last = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
        return PeakAnswer(problem=last)
    try:
        return PeakAnswer.model_validate_json(done.stdout)
    except ValidationError:
        return PeakAnswer(problem=f"{library} said {quoted(done.stdout.strip()[:_LONGEST_SAID])}, which is no answer")


def cpu_flags() -> set[str]:
    """Instruction sets of the processor, as Linux names them; none where nothing says."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())
