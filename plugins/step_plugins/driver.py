"""Whether this machine's NVIDIA driver takes PTX of a version, and which driver would.

A driver compiles the PTX of its own version of CUDA and of earlier ones. NVIDIA's minor version compatibility, by which
it also runs programs of a later CUDA of the same major version, holds for compiled code only.

Sources: https://docs.nvidia.com/cuda/parallel-thread-execution/ (PTX release history: version, CUDA, driver) and
https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__VERSION.html
"""

import re

Version = tuple[int, int]

_RELEASES: dict[Version, tuple[Version, int]] = {
    (8, 0): ((12, 0), 525),
    (8, 1): ((12, 1), 530),
    (8, 2): ((12, 2), 535),
    (8, 3): ((12, 3), 545),
    (8, 4): ((12, 4), 550),
    (8, 5): ((12, 5), 555),
    (8, 6): ((12, 7), 565),
    (8, 7): ((12, 8), 570),
    (8, 8): ((12, 9), 575),
    (9, 0): ((13, 0), 580),
    (9, 1): ((13, 1), 590),
    (9, 2): ((13, 2), 595),
    (9, 3): ((13, 3), 610),
}
"""By version of PTX: the first CUDA with it, and the first driver of that CUDA."""


def ptx_version(ptx: bytes) -> Version | None:
    """Returns the version of PTX that a text is written in; None where it does not say."""
    found = re.search(rb"^\.version (\d+)\.(\d+)", ptx, re.MULTILINE)
    return None if found is None else (int(found[1]), int(found[2]))


def driver_cuda_version() -> Version | None:
    """Returns the newest CUDA that this machine's driver knows; None without a driver or without cuda-bindings."""
    try:
        from cuda.bindings import driver

        status, number = driver.cuDriverGetVersion()
    except (ImportError, RuntimeError):  # the latter is the bindings' word for a driver that they do not find
        return None
    return divmod(int(number) // 10, 100) if status == driver.CUresult.CUDA_SUCCESS else None


def find_driver_problem(ptx: bytes, *, cuda12_extra: str) -> str | None:
    """Says why this machine's driver cannot compile a kernel, and what to do.

    Args:
        ptx: as NVRTC wrote it.
        cuda12_extra: of this package, whose NVRTC suits a driver of CUDA 12.

    Returns:
        None where the driver can, or where that is not known: no driver, or a version of PTX that is not in the table.
    """
    version, have = ptx_version(ptx), driver_cuda_version()
    if version is None or version not in _RELEASES or have is None:
        return None
    needed, first_driver = _RELEASES[version]
    if have >= needed:
        return None
    other = f", or pip install 'step-trt[{cuda12_extra}]'" if have[0] == 12 and needed[0] > 12 else ""
    return (
        f"the kernels' PTX is of version {_text(version)}, which needs a driver of CUDA {_text(needed)} "
        f"({first_driver} or later); this driver is of CUDA {_text(have)}: update it{other}"
    )


def _text(version: Version) -> str:
    return f"{version[0]}.{version[1]}"
