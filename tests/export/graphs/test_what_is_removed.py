"""Only what the project made is removed, by exact names, and nothing behind a link."""

import shutil

import pytest
from step_export.bundle_writer import ExportSettings, export_bundle
from step_export.engines import writer as engine_writer
from step_export.engines.writer import build_engines

import step.bundles.manifest
from step import StepError
from step.bundles.engines import BuildOptions, is_engines_name, new_engines_name, remove_engines
from step.bundles.manifest import find_foreign, read_bundle
from step.training import run_checkpoints as checkpoint

RTX = BuildOptions(library="tensorrt-rtx")
STALE = "tensorrt-rtx-0123abcd"


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle, tmp_path / "bundle")


def _fail(*_):
    raise StepError("the build failed")


def _files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def _engines(folder):
    """What a build leaves, and what somebody put beside it."""
    (folder / STALE).mkdir(parents=True)
    for name in ("fused.engine", "fused.log", "step1.layers.json", "step1.sm89.cache"):
        (folder / STALE / name).write_text("")
    (folder / "mine").mkdir()
    (folder / "mine" / "fused.engine").write_text("")
    (folder / "tensorrt-rtx-notes").mkdir()
    (folder / "notes.txt").write_text("")
    return folder


def test_a_build_removes_what_builds_made(bundle, monkeypatch):
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setattr(engine_writer, "run_build", _fail)
    engines = _engines(bundle / "engines")
    (engines / f"{STALE[:-1]}e").symlink_to(engines / "mine")
    with pytest.raises(StepError, match="the build failed"):
        build_engines(bundle, RTX)
    left = ["mine", "mine/fused.engine", "notes.txt", f"{STALE[:-1]}e", "tensorrt-rtx-notes"]
    assert _files(engines) == sorted(left)


def test_a_build_removes_nothing_behind_a_link(bundle, tmp_path, monkeypatch):
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setattr(engine_writer, "run_build", _fail)
    elsewhere = _engines(tmp_path / "fast-disk")
    before = _files(elsewhere)
    (bundle / "engines").symlink_to(elsewhere)
    with pytest.raises(StepError, match="the build failed"):
        build_engines(bundle, RTX)
    assert (bundle / "engines").is_symlink()
    assert _files(elsewhere) == before


def test_engines_with_something_beside_them_go_without_it(tmp_path):
    folder = tmp_path / new_engines_name("tensorrt")
    assert is_engines_name(folder.name)
    folder.mkdir()
    for name in ("fused.engine", "mine.engine", "fused.engine.txt", "step0.log"):
        (folder / name).write_text("")
    remove_engines(folder)
    assert _files(folder) == ["fused.engine.txt", "mine.engine", "step0.log"]


@pytest.mark.parametrize("name", ["notes.txt", "engines/mine", "mine.onnx", "engines/tensorrt-0123abcd/notes"])
def test_a_bundle_that_holds_something_else_is_not_replaced(name, bundle, tiny_checkpoint):
    assert find_foreign(bundle) is None
    (bundle / name).parent.mkdir(parents=True, exist_ok=True)
    (bundle / name).write_text("mine")
    with pytest.raises(StepError, match=rf"is not replaced, because .*{name} is none of a bundle's files"):
        export_bundle(tiny_checkpoint, bundle, ExportSettings())
    assert (bundle / name).read_text() == "mine"


def test_a_bundle_that_is_replaced_meanwhile_is_read_again(bundle, tmp_path, monkeypatch):
    other = shutil.copytree(bundle, tmp_path / "other")
    graph = read_bundle(bundle).graphs["detect"]
    check = step.bundles.manifest.sha256

    def replacing(path):
        if path == bundle / graph.file and other.exists():
            shutil.rmtree(bundle)
            other.rename(bundle)
            return "the one of another time"
        return check(path)

    monkeypatch.setattr(step.bundles.manifest, "sha256", replacing)
    assert read_bundle(bundle).graphs["detect"] == graph


def test_checkpoints_behind_a_link_stay(tmp_path):
    others = tmp_path / "others"
    others.mkdir()
    for name in ("0000001.pth", "0000002.pth", "mine.pth"):
        (others / name).write_text("")
    (others / "0000003.pth").mkdir()
    (tmp_path / "checkpoints").symlink_to(others)
    checkpoint.prune(tmp_path / "checkpoints", keep=1)
    with pytest.raises(StepError, match=r"is a link, and 0000002.pth in it is later than update 1"):
        checkpoint.forget_after(tmp_path / "checkpoints", 1)
    assert len(_files(others)) == 4
    checkpoint.prune(others, keep=1)
    assert _files(others) == ["0000002.pth", "0000003.pth", "mine.pth"]
