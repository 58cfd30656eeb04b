"""What known NVIDIA GPUs can do at most, from their data sheets.

Rates are dense (no structured sparsity) and, on tensor cores, with float32 accumulation; bandwidth is the memory's.
"""

from dataclasses import dataclass

from step.errors import StepError
from step_runtime.benchmark.roofline.peaks import Peaks

_OPERATIONS = 2  # data sheets count a multiplication and an addition apart


@dataclass(frozen=True, kw_only=True)
class KnownGpu:
    """One GPU.

    Attributes:
        name: as the data sheet has it, without NVIDIA.
        fp32: TFLOPS outside the tensor cores.
        tf32, fp16: TFLOPS of the tensor cores; None where the GPU or its data sheet has none.
        gigabytes_per_s: memory bandwidth.
        source: which document.
    """

    name: str
    fp32: float
    tf32: float | None
    fp16: float
    gigabytes_per_s: float
    source: str

    def peaks(self) -> Peaks:
        """In multiply-adds and bytes a second."""
        teraflops = {"fp32": self.fp32, "tf32": self.tf32, "fp16": self.fp16}
        rates = {name: value * 1e12 / _OPERATIONS for name, value in teraflops.items() if value is not None}
        return Peaks(
            name=self.name,
            multiply_adds_per_s=rates,
            bytes_per_s=self.gigabytes_per_s * 1e9,
            source=self.source,
        )


_A100, _H100 = "NVIDIA A100 data sheet", "NVIDIA H100 data sheet; Hopper architecture whitepaper"
_ADA, _GA102 = "NVIDIA Ada GPU architecture whitepaper", "NVIDIA Ampere GA102 GPU architecture whitepaper"
_SPECIFICATIONS: tuple[tuple[str, float, float | None, float, float, str], ...] = (
    ("A100 40GB SXM", 19.5, 156.0, 312.0, 1555, _A100),
    ("A100 80GB SXM", 19.5, 156.0, 312.0, 2039, _A100),
    ("H100 PCIe", 51.0, 378.0, 756.0, 2000, _H100),
    ("H100 SXM", 66.9, 494.7, 989.4, 3350, _H100),
    ("H200", 66.9, 494.7, 989.4, 4800, "NVIDIA H200 data sheet"),
    ("L4", 30.3, 60.0, 121.0, 300, "NVIDIA L4 data sheet"),
    ("RTX 3090", 35.6, 35.6, 71.0, 936, _GA102),
    ("RTX 4090", 82.6, 82.6, 165.2, 1008, _ADA),
    ("RTX 5090", 104.8, 104.8, 209.5, 1792, "NVIDIA RTX Blackwell GPU architecture whitepaper"),
    ("T4", 8.1, None, 65.0, 320, "NVIDIA T4 data sheet"),
)


def known_gpus() -> list[KnownGpu]:
    """All, by name."""
    return [
        KnownGpu(name=name, fp32=fp32, tf32=tf32, fp16=fp16, gigabytes_per_s=bandwidth, source=source)
        for name, fp32, tf32, fp16, bandwidth, source in _SPECIFICATIONS
    ]


def known_gpu(name: str) -> KnownGpu:
    """The one of a name, however it is capitalised and spaced.

    Raises:
        StepError: there is none, or several begin so.
    """
    wanted = _letters(name)
    found = [gpu for gpu in known_gpus() if wanted and _letters(gpu.name).startswith(wanted)]
    exact = [gpu for gpu in found if _letters(gpu.name) == wanted]
    if len(exact or found) != 1:
        what = "may be several" if found else "is not known"
        raise StepError(f"--gpu {name!r} {what}; give one of {', '.join(gpu.name for gpu in found or known_gpus())}")
    return (exact or found)[0]


def _letters(name: str) -> str:
    plain = "".join(letter for letter in name.lower() if letter.isalnum())
    return plain.removeprefix("nvidia").removeprefix("geforce")
