"""Fixtures shared by all tests: tiny and full-size models, bundles, synthetic videos, the reference material."""

import csv
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from export_cache import kept
from filelock import FileLock
from helpers import ONE_STEP, TINY, MakeVideo, make_detector, numbered_picture, release_cfg, shared_path
from numpy.typing import NDArray
from step_export import bundle_writer
from step_export.bundle_writer import ExportSettings, export_bundle
from step_runtime import Detector
from torch import nn

from step import StepDetector, reporter, save_checkpoint
from step.checkpoints.toy_model import BUNDLE
from step.data.dataset_folder import DatasetFolder
from step.data.extract import extract

# Minutes each; two processes end together only if neither begins one of these last.
_LONGEST_FILES = (
    "test_readme.py",
    "test_step_build.py",
    "test_full_size.py",
    "test_bisect.py",
    "test_demo.py",
    "test_toy_model.py",
    "test_trainer.py",
    "test_dataset_run.py",
)


# Fixtures that export, and files that train, build or run commands in processes: `make test-fast` leaves them out.
_EXPORTS = frozenset({"golden_bundles", "golden_checkpoint", "half_bundle", "one_step_bundle", "tiny_bundle"})
_LONG_FILES = frozenset(
    {
        *_LONGEST_FILES,
        "test_step_export.py",
        "test_bundle.py",
        "test_plugins.py",
        "test_function_bodies.py",
        "test_keep_fp32.py",
        "test_what_is_removed.py",
        "test_graph_variants.py",
        "test_backends.py",
        "test_classification.py",
        "test_cpu_mode.py",
        "test_distributed.py",
        "test_live.py",
        "test_loading_speed.py",
        "test_interrupted_writing.py",
        "test_records.py",
        "test_resuming.py",
        "test_runner.py",
        "test_texts.py",
        "test_torchvision.py",
        "test_toy.py",
        "test_video_stream.py",
    }
)


def pytest_configure() -> None:
    """Tests press Ctrl-C; a shell that started us in the background has us and our children ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first, an order that `make test` has xdist keep; what takes long is marked."""
    items.sort(key=lambda item: item.path.name not in _LONGEST_FILES)
    for item in items:
        wants_export = not _EXPORTS.isdisjoint(getattr(item, "fixturenames", ()))
        if wants_export or item.path.name in _LONG_FILES:
            item.add_marker("long")


@pytest.fixture(scope="session")
def golden() -> ModuleType:
    """shared/reference/golden.py: the formula weights and frames behind the golden numbers."""
    folder = shared_path("reference/golden.py").parent
    sys.path.insert(0, str(folder))
    try:
        import golden as module
    finally:
        sys.path.remove(str(folder))
    return module


@pytest.fixture(scope="session")
def golden_ops() -> dict[str, NDArray[np.generic]]:
    return dict(np.load(shared_path("reference/golden_ops.npz")))


@pytest.fixture(scope="session")
def golden_predict() -> dict[str, NDArray[np.generic]]:
    return dict(np.load(shared_path("reference/golden_predict.npz")))


@pytest.fixture(scope="session")
def golden_checkpoint(golden: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in the release's format, as a training run leaves it, with the golden weights."""
    content: dict[str, object] = {}
    for net, state in golden.weights(0).items():
        prefix = "" if net.startswith("det_net") else "module."
        content[net] = {prefix + key: torch.from_numpy(value) for key, value in state.items()}
    content |= {"cfg": release_cfg(), "val_mAP": np.float64(0.2), "epochs": 13, "iteration": 1000}
    path = tmp_path_factory.mktemp("golden") / "model.pth"
    torch.save(content, path)
    return path


@pytest.fixture(scope="session")
def golden_frames(golden: ModuleType) -> NDArray[np.uint8]:
    """uint8 [1, 36, 400, 400, 3]."""
    return np.ascontiguousarray(golden.frames(1, 0).transpose(0, 1, 3, 4, 2))


@pytest.fixture(scope="session")
def golden_bundles(golden_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The full-size model exported in both precisions."""
    folder = tmp_path_factory.mktemp("golden-bundles")
    for precision in ("fp32", "fp16"):
        export_bundle(golden_checkpoint, folder / precision, ExportSettings(precision=precision, verify=False))
    return {precision: folder / precision for precision in ("fp32", "fp16")}


@pytest.fixture(scope="session", autouse=True)
def _no_lines_of_progress() -> Iterator[None]:
    """However slow the machine, commands in this process say what they say on a fast one."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(reporter, "LINE_EVERY_S", 3600.0)
        yield


MakeOnce = Callable[[str, Callable[[Path], None]], Path]


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """What all processes of a test run share."""
    base = tmp_path_factory.getbasetemp()
    root = (base if worker_id == "master" else base.parent) / "shared"
    root.mkdir(exist_ok=True)
    return root


@pytest.fixture(scope="session", autouse=True)
def _graphs_are_exported_once(shared_folder: Path) -> Iterator[None]:
    """No test of this process exports a graph that another one has exported; see `export_cache`."""
    (shared_folder / "graphs").mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(bundle_writer, "export_graph", kept(bundle_writer.export_graph, shared_folder / "graphs"))
        yield


@pytest.fixture(scope="session")
def make_once(shared_folder: Path) -> MakeOnce:
    """Makes a folder that all test processes share: what takes half a minute is done by the first that wants it."""
    root = shared_folder

    def make(name: str, fill: Callable[[Path], None]) -> Path:
        with FileLock(root / f"{name}.lock"):
            if not (root / name).exists():
                (root / f"{name}.part").mkdir()
                fill(root / f"{name}.part")
                (root / f"{name}.part").rename(root / name)
        return root / name

    return make


@pytest.fixture(scope="session")
def tiny_detector() -> StepDetector:
    """Its signals do not fade with depth: results depend on the frames, by tens of pixels."""
    detector = make_detector(TINY)
    for module in detector.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    with torch.no_grad():
        for name, parameter in detector.named_parameters():
            if "_reg" in name:
                parameter.mul_(0.5)  # so that half's errors of boxes stay below a pixel
    return detector


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_detector: StepDetector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "tiny.pth"
    save_checkpoint(tiny_detector, path)
    return path


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoint: Path, make_once: MakeOnce) -> Path:
    """The tiny model, every graph, verified; `model.pth` lies beside it."""

    def fill(folder: Path) -> None:
        shutil.copy(tiny_checkpoint, folder / "model.pth")
        export_bundle(tiny_checkpoint, folder / "bundle", ExportSettings())

    return make_once("tiny", fill) / "bundle"


@pytest.fixture(scope="session")
def toy_bundle(make_once: MakeOnce) -> Path:
    """A copy of the packaged model, which tests may write to."""
    return make_once("toy", lambda folder: shutil.copytree(BUNDLE, folder / "bundle") and None) / "bundle"


@pytest.fixture(scope="session")
def one_step_bundle(make_once: MakeOnce) -> Path:
    """The smallest model in fp32, every graph, any number of clips; not verified, which its tests do."""

    def fill(folder: Path) -> None:
        save_checkpoint(make_detector(ONE_STEP), folder / "model.pth")
        export_bundle(folder / "model.pth", folder / "bundle", ExportSettings(verify=False))

    return make_once("one-step", fill) / "bundle"


@pytest.fixture(scope="session")
def half_bundle(make_once: MakeOnce) -> Path:
    """The smallest model in fp16, every graph, always two clips at a time; not verified, which its tests do."""

    def fill(folder: Path) -> None:
        save_checkpoint(make_detector(ONE_STEP), folder / "model.pth")
        export_bundle(folder / "model.pth", folder / "bundle", ExportSettings(precision="fp16", batch=2, verify=False))

    return make_once("half", fill) / "bundle"


@pytest.fixture(scope="session")
def tiny_clips() -> NDArray[np.uint8]:
    """uint8 [2, 36, 64, 64, 3]."""
    return np.random.RandomState(1).randint(0, 256, (2, 36, 64, 64, 3), np.uint8)


@pytest.fixture
def make_video(tmp_path: Path) -> MakeVideo:
    """Writes a video of numbered pictures, so that a frame can be told from its pixels."""

    def make(
        name: str = "video.mp4",
        *,
        frames: int = 50,
        rate: Fraction = Fraction(25),
        size: tuple[int, int] = (96, 64),
        times: list[Fraction] | None = None,
        options: dict[str, str] | None = None,
    ) -> Path:
        import av  # so that tests of other things run without it

        path = tmp_path / name
        with av.open(str(path), "w", options=options or {}) as container:
            stream = container.add_stream("libx264", rate=rate)
            assert isinstance(stream, av.video.VideoStream)
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            stream.options = {"crf": "1", "preset": "ultrafast"}
            time_base = 1 / rate if times is None else Fraction(1, 90000)
            stream.codec_context.time_base = time_base
            for index in range(frames):
                frame = av.VideoFrame.from_ndarray(numbered_picture(index % 256, *size), format="rgb24")
                frame.time_base = time_base
                frame.pts = index if times is None else round(times[index] / time_base)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return make


@pytest.fixture
def tiny_data(tiny_checkpoint: Path, make_video: MakeVideo, tmp_path: Path) -> Path:
    """A data set of two key frames whose ground truth is what PyTorch finds with the weights of `tiny_checkpoint`."""
    video = make_video("v.mp4", frames=24 * 5, rate=Fraction(24), size=(96, 64))
    folder = tmp_path / "data"
    extract(video, folder / "frames")
    (folder / "val.csv").write_text("v,2,0,0,1,1,12,0\nv,3,0,0,1,1,12,0\n")
    place = DatasetFolder.open(folder, "val")
    rows = []
    with Detector.open(tiny_checkpoint) as detector:
        for second in (2, 3):
            found = detector.detect(place.read("v", second, detector.config)[None])
            for row in range(20):
                rows.append(["v", second, *np.clip(found.boxes[0, row], 0, 1), found.labels[0, row], row])
    with (folder / "val.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder
