"""What each exact change of the graph saves: the fused graph with one thing done otherwise, in rounds with the graph as
it is exported.

    python benchmarks/graph_savings.py model.pth --threads 2 --backends onnxruntime,openvino

Changes that the export makes are undone, those that it does not make are made; every variant has to give the same
tubes and scores within float32's rounding. A change is worth having where it is faster on at least one backend.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from graph_variants import EXPORTED, variants
from onnx import helper, numpy_helper
from rich.console import Console
from rich.table import Table
from step_export.bundle_writer import ExportSettings, export_bundle
from step_runtime.benchmark.configurations import BenchConfiguration
from step_runtime.benchmark.results import Results
from step_runtime.benchmark.rounds import measure
from step_runtime.benchmark.statistics import interval

from step import StepError
from step.bundles.graph_spec import FUSED
from step.bundles.manifest import Manifest, read_bundle, write_manifest
from step.cli import print_error
from step.files.atomic import sha256

_TUBES_PX, _SCORES = 0.05, 1e-4  # what float32's rounding may make of them, as in the export's parity check


def _write(model: onnx.ModelProto, manifest: Manifest, folder: Path) -> Path:
    """A bundle of this fused graph alone; outputs beyond a bundle's are cut from its list, not from the graph."""
    folder.mkdir()
    extra = [output.name for output in model.graph.output][len(manifest.graphs[FUSED].outputs) :]
    if extra:  # a sum of them all, too small to change it, joins the tubes: nothing can be left out
        _keep(model, extra)
    path = folder / manifest.graphs[FUSED].file
    onnx.save(model, path)
    record = manifest.graphs[FUSED].model_copy(update={"sha256": sha256(path)})
    write_manifest(manifest.model_copy(update={"graphs": {FUSED: record}}), folder)
    return folder


def _keep(model: onnx.ModelProto, names: list[str]) -> None:
    graph = model.graph
    tubes = next(output for output in graph.output if output.name == "tubes_px")
    producer = next(node for node in graph.node if tubes.name in node.output)
    producer.output[list(producer.output).index(tubes.name)] = "tubes_px_alone"
    for node in graph.node:
        node.input[:] = ["tubes_px_alone" if name == tubes.name else name for name in node.input]
    sums = []
    for name in names:
        graph.node.append(helper.make_node("ReduceSum", [name], [f"{name}_sum"], keepdims=0))
        sums.append(f"{name}_sum")
    graph.node.append(helper.make_node("Sum", sums, ["all_sums"]))
    graph.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), "nothing"))
    graph.node.append(helper.make_node("Mul", ["all_sums", "nothing"], ["no_sum"]))
    graph.node.append(helper.make_node("Add", ["tubes_px_alone", "no_sum"], ["tubes_px"]))
    kept = [output for output in graph.output if output.name not in names]
    del graph.output[:]
    graph.output.extend(kept)


def _difference(one: Path, other: Path, frames: np.ndarray) -> tuple[float, float]:
    """Largest difference of tubes in px, and of sorted scores."""
    found = []
    for folder in (one, other):
        session = ort.InferenceSession(folder / "fused.onnx", providers=["CPUExecutionProvider"])
        tubes_px, scores = session.run(["tubes_px", "scores"], {"frames": frames})
        found.append((tubes_px, scores))
    (tubes_px, scores), (other_tubes_px, other_scores) = found
    return float(np.abs(tubes_px - other_tubes_px).max()), float(np.abs(scores - other_scores).max())


def main() -> None:
    """Prints the ratios to the graph as it is exported, with their spread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--backends", default="onnxruntime,openvino")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--only", default="", help="variants that contain one of these words, with commas between")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.backends.split(",") if name not in ("onnxruntime", "openvino")]:
        raise StepError(f"--backends has {unknown[0]!r}; give some of onnxruntime,openvino")
    console = Console(width=max(Console().width, 110))
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch) / "bundle"
        with console.status("exporting"):
            export_bundle(arguments.checkpoint, base, ExportSettings(precision="fp32", verify=False))
        manifest = read_bundle(base)
        config = manifest.config
        shape = (1, config.clip_frames, config.image_size_px, config.image_size_px, 3)
        frames = np.random.RandomState(0).randint(0, 256, shape, np.uint8)
        np.save(Path(scratch) / "clips.npy", frames)
        folders: dict[str, Path] = {}
        for number, (name, make) in enumerate(variants(arguments.checkpoint, manifest).items()):
            if name != EXPORTED and not any(word in name for word in arguments.only.split(",")):
                continue
            with console.status(f"exporting: {name}"):
                folders[name] = _write(make(), manifest, Path(scratch) / str(number))
        table = Table(title=f"{arguments.checkpoint}: fused fp32, {arguments.threads} threads, in rounds")
        for column in ("backend", "graph", "p50 ms", "ratio", "95 %", "tubes apart px", "scores apart"):
            table.add_column(column, justify="left" if column in ("backend", "graph") else "right")
        worst = (0.0, 0.0)
        for backend in arguments.backends.split(","):
            configurations = [
                BenchConfiguration(
                    model=str(folder),
                    backend=backend,
                    precision="fp32",
                    loop="fused",
                    label=name,
                    device="cpu",
                    threads=arguments.threads,
                )
                for name, folder in folders.items()
            ]
            with console.status(f"measuring {backend}"):
                rows = measure(
                    configurations, Path(scratch) / "clips.npy", min_runs=arguments.runs, min_s=arguments.seconds
                )
            results = Results.of(rows)
            for row in results.rows:
                if row.problem is not None:
                    table.add_row(backend, row.configuration["label"], row.problem)
                    continue
                apart = _difference(folders[EXPORTED], folders[row.configuration["label"]], frames)
                worst = max(worst[0], apart[0]), max(worst[1], apart[1])
                table.add_row(
                    backend,
                    row.configuration["label"],
                    f"{row.p50_ms:.1f}",
                    f"{row.ratio:.3f}",
                    interval(row.ratio_low, row.ratio_high),
                    *(f"{value:.1e}" for value in apart),
                )
            if arguments.json is not None:
                results.write(arguments.json.with_stem(f"{arguments.json.stem}-{backend}"))
    console.print(table)
    if worst[0] > _TUBES_PX or worst[1] > _SCORES:
        raise SystemExit(f"a variant is not the same graph: {worst[0]:.1e} px and {worst[1]:.1e} of score apart")


if __name__ == "__main__":
    try:
        main()
    except StepError as error:
        print_error(str(error))
        raise SystemExit(1) from error
