"""Whether a bundle's engines can run on this machine."""

from pathlib import Path

from step.bundles.engines import check_engines
from step.bundles.libraries import Library, load_library
from step.bundles.manifest import Manifest
from step.checkpoints.toy_model import BUNDLE, NAME
from step.errors import StepError
from step_runtime.backends.gpus import Gpu, find_gpu


def check_present(folder: Path, manifest: Manifest, library: Library, device: str) -> None:
    """Whether there is a GPU, the library and engines.

    Raises:
        StepError: everything that is missing, at once.
    """
    missing: list[str] = []
    for check in (
        lambda: find_gpu(device),
        lambda: load_library(library),
        lambda: _check_built(folder, manifest, library),
    ):
        try:
            check()
        except StepError as error:
            missing.append(str(error))
    if missing:
        raise StepError("; ".join(missing))


def _check_built(folder: Path, manifest: Manifest, library: Library) -> None:
    if library not in manifest.engines:
        if folder == BUNDLE:  # nothing is written into the package
            raise StepError(
                f"{NAME} has no {library} engines; export one that has: step-export {NAME} -o BUNDLE --engine {library}"
            )
        raise StepError(f"{folder} has no {library} engines; build them: step-build {folder} --engine {library}")


def check_runnable(folder: Path, manifest: Manifest, library: Library, *, version: str, gpu: Gpu) -> None:
    """Whether a bundle has engines that this library and this GPU run.

    Raises:
        StepError: with the command that builds them.
    """
    _check_built(folder, manifest, library)
    check_engines(
        manifest.engines[library],
        folder,
        onnx_sha256={name: record.sha256 for name, record in manifest.graphs.items()},
        version=version,
        capability=gpu.capability,
        device=gpu.index,
    )
