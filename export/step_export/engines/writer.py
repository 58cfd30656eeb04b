"""Builds the engines of a bundle and enters them into its manifest.

Every build has a folder of its own, `engines/<library>-<token>`; it becomes visible when the manifest, replaced in one
step, names that folder. Until then the bundle is as it was.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import step_plugins
from filelock import FileLock, Timeout

from step.bundles.build_process import BuildCrashedError, BuildRequest, BuildResult, BuildStoppedError, run_build
from step.bundles.engines import (
    ENGINES,
    RTX_DEFAULT_TARGETS,
    BuildOptions,
    EngineRecord,
    EngineSet,
    find_damage,
    new_engines_name,
    remove_engines,
    this_platform,
    typed_options,
)
from step.bundles.manifest import ENGINES_LOCK, Manifest, read_bundle, write_manifest
from step.errors import ArgumentError, StepError
from step.files.atomic import atomic_path, cannot_write, sha256
from step.files.scratch import sweep
from step_export.engines.option_checks import check_options, load_for_build
from step_export.engines.plugin_checks import check_plugin_limits, find_missing_plugins

ProgressCallback = Callable[[str, str, float], None]
"""Takes the graph, the phase and the share of all builds that is done (0 to 1)."""


def build_engines(
    bundle: Path,
    options: BuildOptions,
    *,
    timing_cache: Path | None = None,
    device: int = 0,
    force: bool = False,
    progress: ProgressCallback = lambda _graph, _phase, _fraction: None,
    waiting: Callable[[], None] = lambda: None,
) -> tuple[EngineSet, bool]:
    """Builds an engine of every graph of a bundle; older engines of the same library are replaced.

    Args:
        bundle: the folder that `step-export` wrote.
        options: how to build.
        timing_cache: tensorrt: layer timings, read where the file exists, and written.
        device: index of the GPU to build on, for tensorrt.
        force: build even if the bundle has engines of these options, this version and these graphs.
        progress: is called with how far it is.
        waiting: is called if another process is building engines of this bundle.

    Returns:
        The engines, and whether they were built now.

    Raises:
        StepError: bad options or bundle, a graph that cannot be built, or nowhere to write.
    """
    check_options(options, timing_cache=timing_cache)
    trt = load_for_build(options)
    version = trt.__version__
    problem = step_plugins.find_problem(trt) if options.plugins else None
    if timing_cache is not None and not timing_cache.exists():
        force = True  # only a build can write it
    _check_batch(read_bundle(bundle), bundle, options)
    try:
        with _locked(bundle / ENGINES_LOCK, waiting):
            manifest = read_bundle(bundle)  # another process may have built meanwhile
            present = manifest.engines.get(options.library)
            if present is not None and not force and _is_current(present, manifest, bundle, options, version, problem):
                return present, False
            try:
                job = _Job(
                    bundle=bundle, manifest=manifest, timing_cache=timing_cache, device=device, progress=progress
                )
                engines = _build(job, options, problem)
                all_engines = {**manifest.engines, options.library: engines}
                write_manifest(manifest.model_copy(update={"engines": all_engines}), bundle)
            finally:
                _remove_unnamed(bundle)
    except OSError as error:
        raise cannot_write(bundle / ENGINES, error) from error
    return engines, True


def _check_batch(manifest: Manifest, bundle: Path, options: BuildOptions) -> None:
    asked = (options.min_batch, options.opt_batch, options.max_batch)
    if manifest.batch is not None and asked != (manifest.batch,) * 3:
        raise ArgumentError(
            f"{bundle} was exported for a batch of {manifest.batch}, the build asks for "
            f"{'-'.join(map(str, sorted(set(asked))))}; give `batch` {manifest.batch}, or export with `batch` dynamic"
        )


@contextlib.contextmanager
def _locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Holds a lock file; tells once if it has to wait for it."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _is_current(
    present: EngineSet, manifest: Manifest, bundle: Path, options: BuildOptions, version: str, problem: str | None
) -> bool:
    built_from = {name: record.onnx_sha256 for name, record in present.engines.items()}
    graphs = {name: record.sha256 for name, record in manifest.graphs.items()}
    same = present.options == options and present.version == version and built_from == graphs
    # What kept the plugins out may have been mended since.
    same = same and (present.plugins_unfit or (present.plugin_problem is None) == (problem is None))
    return same and find_damage(present, bundle) is None


@dataclass(frozen=True, kw_only=True)
class _Job:
    """Holds what is the same with plugins and without; see `build_engines`."""

    bundle: Path
    manifest: Manifest
    timing_cache: Path | None
    device: int
    progress: ProgressCallback


def _build(job: _Job, options: BuildOptions, plugin_problem: str | None) -> EngineSet:
    """Builds with the operators' function bodies where the plugins have a problem, or a build with them fails."""
    with atomic_path(job.bundle / ENGINES / new_engines_name(options.library)) as folder:
        folder.mkdir()
        if not options.plugins:
            return _build_graphs(job, options, folder)
        unfit = False
        if plugin_problem is None:
            try:
                return _build_with_plugins(job, options, folder)
            except BuildStoppedError:
                raise
            except BuildCrashedError as error:
                plugin_problem = error.how
            except StepError as error:
                plugin_problem, unfit = _in_one_line(error), True
        # If what failed has nothing to do with the plugins, this fails too, and says so.
        engines = _build_graphs(job, options.model_copy(update={"plugins": False}), folder)
    problem = {"plugin_problem": plugin_problem, "plugins_unfit": unfit}
    return engines.model_copy(update={"options": options, **problem})


def _in_one_line(error: StepError) -> str:
    """Returns what is wrong, said of `step-build`'s options: the manifest is read where no argument has a name."""
    options = {name: typed.flag.partition("/")[0] for name, typed in typed_options().items()}
    options |= {"library": "--engine", "timing_cache": "--timing-cache"}
    text = error.naming(options) if isinstance(error, ArgumentError) else str(error)
    return " ".join(text.split())


def _build_with_plugins(job: _Job, options: BuildOptions, folder: Path) -> EngineSet:
    check_plugin_limits(job.manifest)
    engines = _build_graphs(job, options, folder)
    missing = find_missing_plugins(engines, job.manifest)
    return engines.model_copy(update={"plugin_problem": missing, "plugins_unfit": missing is not None})


def _build_graphs(job: _Job, options: BuildOptions, folder: Path) -> EngineSet:
    """Builds into a folder; the logs of an earlier try in it are kept in the new ones."""
    records: dict[str, EngineRecord] = {}
    results: list[BuildResult] = []
    graphs = job.manifest.graphs
    # The larger a graph, the longer its build: good enough for a bar.
    sizes = {graph: (job.bundle / record.file).stat().st_size for graph, record in graphs.items()}
    done = 0
    for graph, record in graphs.items():

        def report(phase: str, fraction: float, graph: str = graph, done: int = done) -> None:
            job.progress(graph, phase, (done + fraction * sizes[graph]) / sum(sizes.values()))

        report("starting", 0.0)
        request = BuildRequest(
            onnx_file=job.bundle / record.file,
            engine_file=folder / f"{graph}.engine",
            log_file=folder / f"{graph}.log",
            layers_file=folder / f"{graph}.layers.json",
            options=options,
            timing_cache=job.timing_cache,
            device=job.device,
        )
        earlier = request.log_file.read_bytes() if request.log_file.exists() else b""
        result = run_build(request, report)
        if earlier:
            own = request.log_file.read_bytes()
            request.log_file.write_bytes(earlier + b"[step-build] again, with function bodies\n" + own)
        results.append(result)
        records[graph] = _record(request, result, f"{ENGINES}/{folder.name}", record.sha256)
        done += sizes[graph]
    return EngineSet(
        options=options,
        version=results[0].version,
        platform=this_platform(),
        gpu=results[0].gpu,
        compute_capabilities=_capabilities(options, results[0].compute_capability),
        precision=job.manifest.precision,
        engines=records,
    )


def _record(request: BuildRequest, result: BuildResult, place: str, onnx_sha256: str) -> EngineRecord:
    return EngineRecord(
        file=f"{place}/{request.engine_file.name}",
        sha256=sha256(request.engine_file),
        size_bytes=request.engine_file.stat().st_size,
        onnx_sha256=onnx_sha256,
        log_file=f"{place}/{request.log_file.name}",
        log_sha256=sha256(request.log_file),
        layers_file=f"{place}/{request.layers_file.name}",
        build_s=round(result.build_s, 2),
        layers=result.layers,
        plugins=result.plugins,
        scratch_bytes=result.scratch_bytes,
        weights_bytes=result.weights_bytes,
    )


def _capabilities(options: BuildOptions, own: str | None) -> tuple[str, ...]:
    if options.library == "tensorrt-rtx":
        return options.targets or RTX_DEFAULT_TARGETS
    return () if own is None else (own,)


def _remove_unnamed(bundle: Path) -> None:
    """Removes what an earlier or a failed build wrote and the manifest does not name.

    What is behind a link stays: other bundles may have their engines there too.
    """
    folder = bundle / ENGINES
    if folder.is_symlink() or not folder.is_dir():
        return
    sets = read_bundle(bundle).engines.values()
    named = {Path(record.file).parts[1] for engines in sets for record in engines.engines.values()}
    sweep(folder)
    for path in folder.iterdir():
        if path.name not in named:
            remove_engines(path)
    if not named:
        with contextlib.suppress(OSError):  # it is not empty
            folder.rmdir()
