"""TensorRT on a real GPU: parity with PyTorch, both loops, CUDA graphs, memory. Run with: pytest -m gpu"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from gpu_check.models import find_checkpoint, random_clips
from helpers import SHARED, shared_path
from numpy.typing import NDArray
from step_export.bundle_writer import ExportSettings, export_bundle
from step_export.engines.writer import build_engines
from step_runtime import Detector
from step_runtime.backends.gpus import find_gpu
from step_runtime.backends.select import open_backend
from step_runtime.backends.tensorrt import TensorRTBackend
from step_runtime.evaluation.map_parity import DEFAULT_TOLERANCES, ParityConfiguration, compare_map
from step_runtime.verification.graph_runners.onnxruntime import OnnxRuntimeRunner
from step_runtime.verification.graph_runners.tensorrt import TensorRTRunner
from step_runtime.verification.graph_tensors import read_tensors

from step import load_checkpoint
from step.bundles.engines import RTX_DEFAULT_TARGETS, BuildOptions
from step.bundles.libraries import LIBRARIES, load_library
from step.bundles.manifest import read_bundle
from step.data.dataset_folder import DatasetFolder
from step.errors import StepError
from step.parity.compare import compare
from step.parity.tolerances import TOLERANCES, detections_apart

pytestmark = pytest.mark.gpu
GOLDEN = SHARED / "reference/golden.py"


@pytest.fixture(scope="module")
def checkpoint(request, tmp_path_factory) -> Path:
    """The golden weights; without the reference material random ones of the full size whose signals do not fade."""
    if GOLDEN.exists():
        return request.getfixturevalue("golden_checkpoint")
    return find_checkpoint("full", tmp_path_factory.mktemp("full"), "cuda")


@pytest.fixture(scope="module")
def frames(request, checkpoint) -> NDArray[np.uint8]:
    """uint8 [1, 36, 400, 400, 3]: the golden frames, or moving noise."""
    if GOLDEN.exists():
        return request.getfixturevalue("golden_frames")
    return random_clips(load_checkpoint(checkpoint).config, 1)


@pytest.fixture(scope="module", params=LIBRARIES)
def library(request):
    try:
        load_library(request.param)
        gpu = find_gpu("auto")
    except StepError as error:
        pytest.skip(str(error))
    if request.param == "tensorrt-rtx" and gpu.capability not in RTX_DEFAULT_TARGETS:
        pytest.skip(f"tensorrt-rtx does not run on {gpu.name}")
    return request.param


@pytest.fixture(scope="module", params=["fp32 plugins", "fp16 plugins", "fp32 bodies", "fp16 bodies"])
def engine_bundle(request, library, checkpoint, tmp_path_factory) -> Path:
    """The full-size model with engines for 1 to 2 clips; without TF32, whose ten bits are half's."""
    precision, operators = request.param.split()
    plugins = operators == "plugins"
    if plugins and library == "tensorrt-rtx":
        pytest.skip("tensorrt-rtx takes no plugins")
    bundle = tmp_path_factory.mktemp("gpu") / f"{library}-{precision}-{operators}"
    export_bundle(checkpoint, bundle, ExportSettings(precision=precision, verify=False))
    options = BuildOptions(library=library, opt_batch=1, max_batch=2, tf32=False, plugins=plugins)
    engines, _ = build_engines(bundle, options)
    assert engines.plugin_problem is None
    assert bool(engines.engines["fused"].plugins) == plugins
    return bundle


@pytest.fixture(scope="module")
def static_bundle(library, checkpoint, tmp_path_factory) -> Path:
    bundle = tmp_path_factory.mktemp("gpu") / f"{library}-static"
    export_bundle(checkpoint, bundle, ExportSettings(precision="fp16", verify=False))
    build_engines(bundle, BuildOptions(library=library))
    return bundle


@pytest.fixture(scope="module")
def ucf24_data(tmp_path_factory) -> Path:
    """The six clips as a data set, without the annotation beyond the end of one."""
    folder = tmp_path_factory.mktemp("ucf24")
    rows = shared_path("real/ucf24/ava_style.csv").read_text().splitlines(keepends=True)
    (folder / "val.csv").write_text("".join(row for row in rows if not row.startswith("v_Biking_g01_c01,0006")))
    (folder / "videos").symlink_to(shared_path("real/ucf24"))
    return folder


@pytest.fixture(scope="module")
def expected(checkpoint, frames):
    return load_checkpoint(checkpoint).detect(torch.from_numpy(frames))


def _random_clips(count: int, size_px: int = 400) -> Iterator[np.ndarray]:
    state = np.random.RandomState(0)
    for _ in range(count):
        yield state.randint(0, 256, (1, 36, size_px, size_px, 3), np.uint8)


def _open(bundle: Path, library: str, *, loop: str, cuda_graph: bool = True) -> TensorRTBackend:
    manifest = read_bundle(bundle)
    return TensorRTBackend.open(
        bundle, manifest, library=library, loop=loop, num_steps=3, device="cuda", cuda_graph=cuda_graph
    )


@pytest.mark.parametrize("loop", ["fused", "steps"])
def test_parity_with_torch(loop, engine_bundle, library, frames, expected):
    tolerance = TOLERANCES[read_bundle(engine_bundle).precision]
    with Detector.open(engine_bundle, library, loop=loop) as detector:
        found = detector.detect(frames)
    assert np.abs(found.tubes_px - expected.tubes_px.numpy()).max() <= tolerance.boxes_px
    names = ("boxes", "scores", "labels", "tube_indices")
    apart = detections_apart(
        {name: getattr(found, name)[0] for name in names},
        {name: getattr(expected, name)[0].numpy() for name in names},
        score_tolerance=tolerance.scores,
        score_threshold=0.01,
        nms_iou=0.4,
    )
    assert apart <= 1 - tolerance.rows_matched


@pytest.mark.parametrize("loop", ["fused", "steps"])
def test_map_parity(loop, engine_bundle, library, checkpoint, ucf24_data):
    """On six real clips, after every step; the same gate as `step-eval parity`'s."""
    reference = ParityConfiguration(model=checkpoint, backend="torch", loop=None, precision="fp32")
    precision = read_bundle(engine_bundle).precision
    configuration = ParityConfiguration(model=engine_bundle, backend=library, loop=loop, precision=precision)
    _, row = compare_map(
        [reference, configuration],
        DatasetFolder.open(ucf24_data, "val"),
        steps=[1, 2, 3],
        thresholds=read_bundle(engine_bundle).thresholds,
    )
    assert row.problem is None
    assert row.passed(DEFAULT_TOLERANCES), row
    assert row.matched >= TOLERANCES[precision].rows_matched


def test_fused_against_steps(engine_bundle, library):
    tolerance = TOLERANCES[read_bundle(engine_bundle).precision]
    with (
        Detector.open(engine_bundle, library, loop="fused") as fused,
        Detector.open(engine_bundle, library, loop="steps") as steps,
    ):
        for clip in _random_clips(4):
            one, other = fused.detect(clip), steps.detect(clip)
            assert np.abs(one.tubes_px - other.tubes_px).max() <= 2 * tolerance.boxes_px
            assert np.abs(one.scores - other.scores).max() <= 2 * tolerance.scores


@pytest.mark.parametrize("loop", ["fused", "steps"])
def test_a_replayed_graph_equals_eager_launches(loop, static_bundle, library):
    """The same kernels on the same buffers: not a bit may differ."""
    replayed = _open(static_bundle, library, loop=loop)
    eager = _open(static_bundle, library, loop=loop, cuda_graph=False)
    try:
        assert replayed._loop.capture_problem is None
        for clip in _random_clips(100):
            one, other = replayed.submit(clip).result(), eager.submit(clip).result()
            for name in one._fields:
                assert np.array_equal(getattr(one, name), getattr(other, name)), name
    finally:
        replayed.close()
        eager.close()


@pytest.mark.parametrize("loop", ["fused", "steps"])
def test_no_allocation_after_warm_up_and_none_kept(loop, static_bundle, library):
    from cuda.bindings import runtime as cudart

    def free_bytes() -> int:
        return cudart.cudaMemGetInfo()[1]

    clips = list(_random_clips(3))
    _open(static_bundle, library, loop=loop).close()  # the context of the process itself
    before = free_bytes()
    backend = _open(static_bundle, library, loop=loop)
    backend.submit(clips[0]).result()
    warm = free_bytes()
    for clip in clips * 5:
        backend.submit(clip).result()
    assert free_bytes() == warm
    backend.close()
    assert before - free_bytes() < 64e6  # kernels stay loaded


def test_two_clips_under_way(static_bundle, library):
    backend = _open(static_bundle, library, loop="fused")
    clips = list(_random_clips(6))
    alone = [backend.submit(clip).result() for clip in clips]
    pending = [backend.submit(clips[0])]
    for index, clip in enumerate(clips[1:]):
        pending.append(backend.submit(clip))
        assert np.array_equal(pending[index].result().scores, alone[index].scores)
    backend.close()


def test_batches_of_a_profile(engine_bundle, library):
    clips = np.concatenate(list(_random_clips(3)))
    tolerance = TOLERANCES[read_bundle(engine_bundle).precision]
    with Detector.open(engine_bundle, library) as detector:
        together = detector.detect(clips)
        for index in range(3):
            alone = detector.detect(clips[index : index + 1])
            assert np.abs(together.tubes_px[index] - alone.tubes_px[0]).max() <= 2 * tolerance.boxes_px


def test_auto_takes_the_engines(static_bundle, library):
    backend = open_backend(static_bundle)
    assert backend.name == library
    backend.close()


def test_every_graph_against_onnx_runtime(engine_bundle, library, frames):
    manifest = read_bundle(engine_bundle)
    graphs = OnnxRuntimeRunner(engine_bundle, manifest, device="cpu")
    engines = TensorRTRunner.open(engine_bundle, manifest, library=library, device="cuda")
    rows = list(compare(graphs, engines, manifest, [("golden", frames)]))
    assert [row for row in rows if not row.passed] == []
    engines.close()


def test_marked_outputs(static_bundle, library, frames):
    manifest = read_bundle(static_bundle)
    engines = TensorRTRunner.open(static_bundle, manifest, library=library, device="cuda")
    tensor = read_tensors(static_bundle / "backbone.onnx")[4]
    found = engines.run("backbone", {"frames": frames}, [tensor.name])
    assert np.isfinite(found[tensor.name].astype(np.float32)).all()
    assert found[tensor.name].size == tensor.size(1)
    engines.close()


def test_the_runtime_cache_is_kept(static_bundle, library):
    if library != "tensorrt-rtx":
        pytest.skip("tensorrt compiles when it builds")
    backend = _open(static_bundle, library, loop="fused")
    backend.submit(next(_random_clips(1))).result()
    backend.close()
    assert list((static_bundle / "engines").rglob("fused.sm*.cache"))


def test_engines_of_another_gpu_are_refused(static_bundle, library, tmp_path):
    shutil.copytree(static_bundle, tmp_path / "b")
    manifest = read_bundle(tmp_path / "b")
    engines = manifest.engines[library].model_copy(update={"compute_capabilities": ("sm75",)})
    options = engines.options.model_copy(update={"targets": ("sm75",) if library == "tensorrt-rtx" else ()})
    changed = manifest.model_copy(update={"engines": {library: engines.model_copy(update={"options": options})}})
    with pytest.raises(StepError, match="are for sm75, this machine's GPU is sm"):
        TensorRTBackend.open(tmp_path / "b", changed, library=library, loop="fused", num_steps=3, device="cuda")


def test_a_gpu_that_is_not_there(static_bundle, library):
    with pytest.raises(StepError, match="`device` is cuda:99; this machine has cuda:0"):
        Detector.open(static_bundle, library, device="cuda:99")
