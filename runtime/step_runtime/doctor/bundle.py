"""Whether a bundle is whole, what it holds, and whether its engines are for this machine."""

from collections.abc import Iterator
from pathlib import Path

from step.bundles.engines import EngineSet, find_damage
from step.bundles.libraries import load_library
from step.bundles.manifest import Manifest, read_bundle
from step.checkpoints.toy_model import model_name
from step.errors import StepError
from step_runtime.backends.engine_checks import check_runnable
from step_runtime.backends.gpus import find_gpu
from step_runtime.doctor.finding import Finding


def look_at_bundle(bundle: Path) -> Iterator[Finding]:
    """Yields what a bundle is; a finding has failed where it is damaged or none."""
    try:
        manifest = read_bundle(bundle)
    except StepError as error:
        yield Finding("bundle", "integrity", "failed", str(error))
        return
    yield Finding("bundle", "integrity", "ok", f"{model_name(bundle)}: every graph is as it was exported")
    yield from _describe(bundle, manifest)
    for library, engines in manifest.engines.items():
        damage = find_damage(engines, bundle)
        if damage is not None:
            command = engines.options.command(bundle)
            yield Finding("bundle", f"{library} engines", "absent", f"they {damage}; build them again: {command}")
            continue
        yield Finding("bundle", f"{library} engines", "ok", _describe_engines(engines))
        yield _engine_fit(bundle, manifest, engines)


def _describe(bundle: Path, manifest: Manifest) -> Iterator[Finding]:
    shape = manifest.preprocessing
    yield Finding(
        "bundle",
        "model",
        "ok",
        f"{manifest.source.file}: {manifest.precision}, {manifest.num_steps} steps, {len(manifest.classes)} classes, "
        f"clips of {shape.clip_frames} frames at {shape.fps} fps, {shape.image_size_px} px",
    )
    batch = "any batch" if manifest.batch is None else f"batch {manifest.batch}"
    size_mb = sum((bundle / graph.file).stat().st_size for graph in manifest.graphs.values()) / 1e6
    yield Finding("bundle", "graphs", "ok", f"{', '.join(manifest.graphs)}; {size_mb:.0f} MB, {batch}")
    if manifest.parity is None:
        yield Finding("bundle", "parity", "absent", "not compared with PyTorch when it was exported (--no-verify)")
    else:
        good = sum(row.passed for row in manifest.parity)
        yield Finding("bundle", "parity", "ok", f"{good} of {len(manifest.parity)} comparisons with PyTorch passed")


def _describe_engines(engines: EngineSet) -> str:
    options = engines.options
    one_batch = options.min_batch == options.max_batch
    batch = f"batch {options.opt_batch}" if one_batch else f"batch {options.min_batch} to {options.max_batch}"
    size_mb = sum(record.size_bytes for record in engines.engines.values()) / 1e6
    scratch = [record.scratch_bytes for record in engines.engines.values() if record.scratch_bytes is not None]
    later = ", and later" if not options.targets and options.library == "tensorrt-rtx" else ""
    memory = f", {max(scratch) / 1e6:.0f} MB scratch" if scratch else ""
    plugins = sorted({name for record in engines.engines.values() for name in record.plugins})
    without = "none" if engines.plugin_problem is None else f"none ({engines.plugin_problem})"
    return (
        f"{', '.join(engines.engines)}; version {engines.version}, {engines.precision}, {batch}, for "
        f"{', '.join(engines.compute_capabilities) or 'an unknown GPU'}{later}; {size_mb:.0f} MB{memory}, "
        f"plugins: {', '.join(plugins) or without}"
    )


def _engine_fit(bundle: Path, manifest: Manifest, engines: EngineSet) -> Finding:
    library = engines.options.library
    try:
        gpu = find_gpu("auto")
        check_runnable(bundle, manifest, library, version=load_library(library).__version__, gpu=gpu)
    except StepError as error:
        return Finding("bundle", f"{library} here", "absent", str(error))
    return Finding("bundle", f"{library} here", "ok", f"they are for this machine ({gpu.name})")
