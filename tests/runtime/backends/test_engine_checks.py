"""Engines of another GPU, version, machine or graph, and damaged ones, are refused with the command that builds new."""

import shutil

import pytest
from fake_gpu import GPU, VERSION, add_fake_engines
from step_runtime.backends.engine_checks import check_runnable
from step_runtime.backends.gpus import Gpu

from step import StepError
from step.bundles.manifest import read_bundle


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": "10.8.0.43"}, "built with version 10.8.0.43, this machine has 11.4.0.106"),
        ({"platform": "linux-aarch64"}, "built on linux-aarch64, this machine is"),
        ({"compute_capabilities": ("sm90",)}, "are for sm90, this machine's GPU is sm89"),
        ({"compute_capabilities": ()}, "are for no GPU"),
    ],
)
def test_engines_of_another_machine(changes, message, tiny_bundle, tmp_path):
    shutil.copytree(tiny_bundle, tmp_path / "b")
    add_fake_engines(tmp_path / "b", max_batch=2, opt_batch=2, **changes)
    with pytest.raises(StepError, match=message) as caught:
        check_runnable(tmp_path / "b", read_bundle(tmp_path / "b"), "tensorrt", version=VERSION, gpu=GPU)
    command = "--engine tensorrt --min-batch 1 --opt-batch 2 --max-batch 2"
    assert str(caught.value).endswith(f"build them again: step-build {tmp_path / 'b'} {command}")


@pytest.mark.parametrize(
    ("library", "changes"),
    [
        ("tensorrt", {"hardware_compatible": True, "compute_capabilities": ("sm80",)}),
        ("tensorrt", {"version_compatible": True, "version": "11.2.0.1"}),
        ("tensorrt-rtx", {"targets": ("sm86", "sm89"), "compute_capabilities": ("sm86", "sm89")}),
        ("tensorrt-rtx", {"platform": "win32-amd64"}),
    ],
)
def test_engines_that_travel(library, changes, tiny_bundle, tmp_path):
    shutil.copytree(tiny_bundle, tmp_path / "b")
    add_fake_engines(tmp_path / "b", library, **changes)
    check_runnable(tmp_path / "b", read_bundle(tmp_path / "b"), library, version=VERSION, gpu=GPU)


def test_rtx_engines_without_this_gpu_among_their_targets(tiny_bundle, tmp_path):
    shutil.copytree(tiny_bundle, tmp_path / "b")
    add_fake_engines(tmp_path / "b", "tensorrt-rtx", targets=("sm86",), compute_capabilities=("sm86",))
    with pytest.raises(StepError, match="this machine's GPU is sm89; build them again: .* --target sm86,sm89$"):
        check_runnable(tmp_path / "b", read_bundle(tmp_path / "b"), "tensorrt-rtx", version=VERSION, gpu=GPU)


def test_rtx_engines_without_targets_run_on_later_gpus(tiny_bundle, tmp_path):
    shutil.copytree(tiny_bundle, tmp_path / "b")
    add_fake_engines(tmp_path / "b", "tensorrt-rtx", compute_capabilities=("sm80", "sm86", "sm89", "sm120"))
    gpu = Gpu(index=0, name="NVIDIA GB10", capability="sm121", memory_bytes=1, uuid="GPU-0")
    check_runnable(tmp_path / "b", read_bundle(tmp_path / "b"), "tensorrt-rtx", version=VERSION, gpu=gpu)


def test_rtx_does_not_run_on_data_centre_gpus(tiny_bundle, tmp_path):
    shutil.copytree(tiny_bundle, tmp_path / "b")
    add_fake_engines(tmp_path / "b", "tensorrt-rtx")
    gpu = Gpu(index=0, name="NVIDIA H200", capability="sm90", memory_bytes=1, uuid="GPU-0")
    with pytest.raises(StepError, match=r"does not run on this machine's GPU \(sm90\).* --engine tensorrt$"):
        check_runnable(tmp_path / "b", read_bundle(tmp_path / "b"), "tensorrt-rtx", version=VERSION, gpu=gpu)


def test_engines_for_the_first_gpu_on_the_second(tiny_bundle, tmp_path):
    shutil.copytree(tiny_bundle, tmp_path / "b")
    add_fake_engines(tmp_path / "b")
    gpu = Gpu(index=1, name="another", capability="sm86", memory_bytes=1, uuid="GPU-0")
    with pytest.raises(StepError, match=r"are for sm89, .* is sm86; build them again: .* --build-device cuda:1$"):
        check_runnable(tmp_path / "b", read_bundle(tmp_path / "b"), "tensorrt", version=VERSION, gpu=gpu)


def test_a_set_without_an_engine(tiny_bundle, tmp_path):
    shutil.copytree(tiny_bundle, tmp_path / "b")
    add_fake_engines(tmp_path / "b")
    manifest = read_bundle(tmp_path / "b")
    engines = manifest.engines["tensorrt"]
    fewer = {name: record for name, record in engines.engines.items() if name != "step1"}
    manifest = manifest.model_copy(update={"engines": {"tensorrt": engines.model_copy(update={"engines": fewer})}})
    with pytest.raises(StepError, match="are not complete .there is none of step1"):
        check_runnable(tmp_path / "b", manifest, "tensorrt", version=VERSION, gpu=GPU)


def test_no_engines(tiny_bundle):
    with pytest.raises(StepError, match=r"has no tensorrt engines; build them: step-build .* --engine tensorrt$"):
        check_runnable(tiny_bundle, read_bundle(tiny_bundle), "tensorrt", version=VERSION, gpu=GPU)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "are not complete .*is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-5]), r"are damaged .* has \d+ bytes, the manifest says \d+"),
        (lambda path: path.write_bytes(path.read_bytes()[::-1]), "has changed since it was built"),
    ],
)
def test_damaged_engines(damage, message, tiny_bundle, tmp_path):
    shutil.copytree(tiny_bundle, tmp_path / "b")
    add_fake_engines(tmp_path / "b")
    damage(next((tmp_path / "b/engines").rglob("fused.engine")))
    with pytest.raises(StepError, match=message):
        check_runnable(tmp_path / "b", read_bundle(tmp_path / "b"), "tensorrt", version=VERSION, gpu=GPU)
