"""Says how engines of a bundle are built, what the manifest holds of them, and whether they fit (torch-free).

Compute capabilities are written as TensorRT-RTX names them: "sm86" is 8.6, "sm120" is 12.0.
Source: https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/inference-library/cpu-engines.html
"""

import contextlib
import platform
import re
import secrets
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, Field, model_validator

from step.bundles.graph_spec import Precision, is_graph_name
from step.bundles.libraries import Library
from step.bundles.records import Record
from step.errors import StepError
from step.files.atomic import sha256
from step.files.scratch import is_scratch_name, sweep

ENGINES = "engines"
RTX_DEFAULT_TARGETS = ("sm80", "sm86", "sm89", "sm120")
_OLDEST_COMPATIBLE = 80  # Ampere
_RTX_ONWARDS = 120  # tensorrt-rtx: this and later, but none of the data-centre GPUs between


_FOLDER = re.compile(r"tensorrt(-rtx)?-[0-9a-f]{8}")
_FILE = re.compile(r"(?P<graph>[a-z0-9]+)\.(engine|log|layers\.json|sm[0-9]+\.cache)")


def new_engines_name(library: Library) -> str:
    """Makes a name for the folder of a build, one of many in the bundle's folder of engines."""
    return f"{library}-{secrets.token_hex(4)}"


def is_engines_name(name: str) -> bool:
    """Says whether the folder of a build is called so."""
    return _FOLDER.fullmatch(name) is not None


def is_engine_file_name(name: str) -> bool:
    """Says whether a build, or a run with its engines, calls a file in its folder so."""
    found = _FILE.fullmatch(name)
    return found is not None and is_graph_name(found["graph"])


def is_engine_path(text: str) -> bool:
    """Says whether it is where a build puts an engine, from the bundle's folder on."""
    place, _, rest = text.partition("/")
    folder, _, file = rest.partition("/")
    return place == ENGINES and is_engines_name(folder) and is_engine_file_name(file)


@dataclass(frozen=True)
class Typed:
    """Says how a build option is typed on the command line, and what it takes.

    Attributes:
        flag: "--workspace", or "--tf32/--no-tf32" for a switch that is on by default.
        help: one line.
        metavar: what stands for its value in the help.
        least, most: bounds of a number.
        unit: of the number.
        only: the one library that takes it; None for both.
        instead: what to do with the other.
    """

    flag: str
    help: str
    metavar: str | None = None
    least: int | None = None
    most: int | None = None
    unit: str = ""
    only: Library | None = None
    instead: str = ""

    def words(self, value: object) -> list[str]:
        """Returns the words that give a value which is not the default."""
        on, _, off = self.flag.partition("/")
        if isinstance(value, bool):
            return [on if value else off]
        return [on, ",".join(value) if isinstance(value, tuple) else str(value)]


class BuildOptions(Record):
    """Holds what an engine build can be told; the same object travels to the build process and into the manifest.

    A new option is one more field here with its `Typed`, and a line in `step_export.engines.builder` that heeds it:
    the commands' options, the checks, the manifest's record and `command` follow from the fields.

    Attributes:
        library: which library builds and runs the engines; "flavour" in the manifest.
        min_batch, opt_batch, max_batch: clips a call; all the same is a static batch.
        workspace_mb: most scratch memory that a layer may take, MiB; None lets the library choose.
        optimization_level: 0 to 5; None for the library's default (3).
        hardware_compatible: tensorrt: runs on every Ampere or later GPU, not only on the one it was built on.
        version_compatible: runs with later versions of the same major version.
        targets: tensorrt-rtx: compute capabilities to build for; empty for the library's default (Ampere and later).
        tf32: float32 layers may use TF32.
        plugins: tensorrt: the custom operators run as plugins, where they can be; tensorrt-rtx takes none.
        profile_layers: keep what an inspector or profiler wants to know about every layer.
    """

    library: Library = Field(validation_alias=AliasChoices("library", "flavour"), serialization_alias="flavour")
    min_batch: int = 1
    opt_batch: int = 1
    max_batch: int = 1
    workspace_mb: Annotated[
        int | None, Typed("--workspace", "Most scratch memory of a layer.", metavar="MIB", least=1, unit=" (MiB)")
    ] = None
    optimization_level: Annotated[
        int | None,
        Typed("--optimization-level", "How long to look for faster kernels.", metavar="0-5", least=0, most=5),
    ] = None
    hardware_compatible: Annotated[
        bool,
        Typed(
            "--hardware-compatible",
            "tensorrt: for every Ampere or later GPU.",
            only="tensorrt",
            instead="name GPUs for tensorrt-rtx with `targets` sm86,sm89",
        ),
    ] = False
    version_compatible: Annotated[
        bool,
        Typed(
            "--version-compatible",
            "tensorrt: for later versions of it too.",
            only="tensorrt",
            instead="build tensorrt-rtx engines again for every version",
        ),
    ] = False
    targets: Annotated[
        tuple[str, ...],
        Typed(
            "--target",
            "tensorrt-rtx: GPUs to build for, as sm86,sm89,sm120.",
            metavar="SM,...",
            only="tensorrt-rtx",
            instead="tensorrt builds for the GPU that it builds on (`hardware_compatible` widens)",
        ),
    ] = ()
    tf32: Annotated[bool, Typed("--tf32/--no-tf32", "TF32 in float32 layers.  [default: tf32]")] = True
    plugins: Annotated[
        bool,
        Typed(
            "--plugins/--no-plugins",
            "tensorrt: the custom operators as plugins, or as their bodies of standard operators.  [default: plugins]",
            only="tensorrt",
            instead="tensorrt-rtx takes none and runs the operators' function bodies",
        ),
    ] = True
    profile_layers: Annotated[
        bool, Typed("--profile-layers", "Keep every layer's details for inspectors and profilers.")
    ] = False

    @model_validator(mode="before")
    @classmethod
    def _no_plugins_in_rtx(cls, values: Any) -> Any:
        if isinstance(values, dict) and "tensorrt-rtx" in (values.get("flavour"), values.get("library")):
            return {"plugins": False, **values}
        return values

    def command(self, bundle: Path) -> str:
        """Returns the `step-build` call that builds with these options."""
        words = ["step-build", str(bundle), "--engine", self.library]
        if self.min_batch == self.opt_batch == self.max_batch:
            words += ["--batch", str(self.opt_batch)] if self.opt_batch != 1 else []
        else:
            for name in ("min", "opt", "max"):
                words += [f"--{name}-batch", str(getattr(self, f"{name}_batch"))]
        defaults = BuildOptions(library=self.library)
        for name, typed in typed_options().items():
            value = getattr(self, name)
            words += [] if value == getattr(defaults, name) else typed.words(value)
        return shlex.join(words)


def typed_options() -> dict[str, Typed]:
    """Returns the options that are typed as they are, by field of `BuildOptions`, in the order of the help."""
    found = {
        name: next((part for part in field.metadata if isinstance(part, Typed)), None)
        for name, field in BuildOptions.model_fields.items()
    }
    return {name: typed for name, typed in found.items() if typed is not None}


class EngineRecord(Record):
    """Describes one engine file, as trtexec --loadEngine takes it.

    Attributes:
        file: inside the bundle; the build's log and the list of its layers lie beside it.
        onnx_sha256: of the graph that it was built from.
        build_s: seconds that the library took.
        layers: how many layers of each type the parsed network had.
        plugins: names of the plugin layers among them.
        scratch_bytes: device memory that a context needs besides weights and tensors; None where the log does not say.
        weights_bytes: device memory of the weights; None where the log does not say.
    """

    file: str
    sha256: str
    size_bytes: int
    onnx_sha256: str
    log_file: str
    log_sha256: str
    layers_file: str
    build_s: float
    layers: dict[str, int]
    plugins: tuple[str, ...]
    scratch_bytes: int | None
    weights_bytes: int | None


class EngineSet(Record):
    """Holds the engines that one build of a bundle made, one per graph.

    Attributes:
        version: of the library; an engine belongs to it.
        platform: where it was built, as `this_platform` names it.
        gpu: name of the GPU that it was tuned on; None where none was seen (tensorrt-rtx needs none).
        compute_capabilities: of the GPUs that it runs on.
        plugin_problem: why operators' function bodies were built although plugins were asked for; None if not so.
        plugins_unfit: whether that lies in the model or the library, so that a second build would end the same.
    """

    options: BuildOptions
    version: str
    platform: str
    gpu: str | None
    compute_capabilities: tuple[str, ...]
    precision: Precision
    plugin_problem: str | None = None
    plugins_unfit: bool = False
    engines: dict[str, EngineRecord]


def this_platform() -> str:
    """Returns operating system and processor, as "linux-x86_64"."""
    return f"{sys.platform}-{platform.machine().lower()}"


def check_batch(engines: EngineSet, bundle: Path, batch: int) -> None:
    """Refuses a batch outside the profile.

    Raises:
        StepError: with the command that builds engines for it.
    """
    options = engines.options
    if not options.min_batch <= batch <= options.max_batch:
        smallest, largest = min(batch, options.min_batch), max(batch, options.max_batch)
        wider = options.model_copy(update={"min_batch": smallest, "max_batch": largest})
        raise StepError(
            f"the {options.library} engines of {bundle} take {options.min_batch} to {options.max_batch} clips a call, "
            f"not {batch}; build wider ones: {wider.command(bundle)}"
        )


def check_engines(
    engines: EngineSet, bundle: Path, *, onnx_sha256: dict[str, str], version: str, capability: str, device: int = 0
) -> None:
    """Refuses engines that this machine's library or GPU cannot run, or that belong to other graphs.

    Args:
        engines: from the manifest.
        bundle: the bundle folder.
        onnx_sha256: of the bundle's graphs, by name.
        version: of the library that is to run them.
        capability: of the GPU that is to run them, as "sm89".
        device: that GPU's index.

    Raises:
        StepError: with the command that rebuilds them.
    """
    options = engines.options
    if options.library == "tensorrt-rtx" and not _rtx_runs_on(capability):
        raise StepError(
            f"tensorrt-rtx does not run on this machine's GPU ({capability}), which is for tensorrt: "
            f"step-build {bundle} --engine tensorrt"
        )
    problem = _misfit(engines, onnx_sha256=onnx_sha256, version=version, capability=capability)
    if problem is None:
        problem = find_damage(engines, bundle)
    if problem is not None:
        if options.targets and capability not in options.targets:
            options = options.model_copy(update={"targets": (*options.targets, capability)})
        where = f" --build-device cuda:{device}" if device and options.library == "tensorrt" else ""
        raise StepError(
            f"the {options.library} engines of {bundle} {problem}; build them again: {options.command(bundle)}{where}"
        )


def _misfit(engines: EngineSet, *, onnx_sha256: dict[str, str], version: str, capability: str) -> str | None:
    for name, digest in onnx_sha256.items():
        if name not in engines.engines:
            return f"are not complete (there is none of {name})"
        if engines.engines[name].onnx_sha256 != digest:
            return f"were built from another {name}.onnx"
    if not _version_fits(engines, version):
        return f"were built with version {engines.version}, this machine has {version}"
    if engines.options.library == "tensorrt" and engines.platform != this_platform():
        return f"were built on {engines.platform}, this machine is {this_platform()}"
    if not _capability_fits(engines, capability):
        return f"are for {', '.join(engines.compute_capabilities) or 'no GPU'}, this machine's GPU is {capability}"
    return None


def _version_fits(engines: EngineSet, version: str) -> bool:
    if not engines.options.version_compatible:
        return version == engines.version
    built, here = (tuple(int(part) for part in text.split(".")[:3]) for text in (engines.version, version))
    return built[0] == here[0] and built <= here


def _capability_fits(engines: EngineSet, capability: str) -> bool:
    if capability in engines.compute_capabilities:
        return True
    number = int(capability.removeprefix("sm"))
    if engines.options.library == "tensorrt-rtx":
        return not engines.options.targets and number >= _RTX_ONWARDS
    return engines.options.hardware_compatible and number >= _OLDEST_COMPATIBLE


def _rtx_runs_on(capability: str) -> bool:
    return capability in RTX_DEFAULT_TARGETS or int(capability.removeprefix("sm")) >= _RTX_ONWARDS


def find_damage(engines: EngineSet, bundle: Path) -> str | None:
    """Returns what is wrong with the engine files, or None."""
    for record in engines.engines.values():
        path = bundle / record.file
        if not path.is_file():
            return f"are not complete ({record.file} is missing)"
        size = path.stat().st_size
        if size != record.size_bytes:
            return f"are damaged ({record.file} has {size} bytes, the manifest says {record.size_bytes})"
        if sha256(path) != record.sha256:
            return f"are damaged ({record.file} has changed since it was built)"
    return None


def find_foreign_engine(folder: Path) -> Path | None:
    """Finds the first thing among a bundle's engines that no build and no run put there; follows no links."""
    for path in sorted(folder.iterdir()):
        if is_scratch_name(path.name):
            continue
        if not is_engines_name(path.name) or path.is_symlink() or not path.is_dir():
            return path
        for file in sorted(path.iterdir()):
            if not is_scratch_name(file.name) and (not is_engine_file_name(file.name) or file.is_dir()):
                return file
    return None


def remove_engines(folder: Path) -> None:
    """Removes what a build wrote, and what runs kept there of kernels, but nothing else and nothing through a link."""
    if not is_engines_name(folder.name) or folder.is_symlink() or not folder.is_dir():
        return
    sweep(folder)
    for path in folder.iterdir():
        if is_engine_file_name(path.name) and (path.is_symlink() or path.is_file()):
            path.unlink()
    with contextlib.suppress(OSError):  # it is not empty
        folder.rmdir()
