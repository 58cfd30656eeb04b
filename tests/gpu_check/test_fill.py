"""Documents written from a check: what of it they show, and that they are what the command makes of the last one."""

import shutil

import pytest
from gpu_check import fill
from gpu_check.fill import BENCHMARKS, CHECK_FILE, ONNX_RUNTIME, PYTORCH, documents
from gpu_check.results import CheckResult, Figure, StageResult, read_check, write_record
from helpers import ROOT, assert_one_error, run_command

TITLES = {table.title: table.stage for tables in BENCHMARKS.values() for table in tables}


def _stage(name: str, title: str, values: dict[str, float | str], status: str = "passed") -> StageResult:
    figures = tuple(Figure(table=title, row=row, column="median ms", value=value) for row, value in values.items())
    return StageResult(name=name, title="t", command="c", status=status, seconds=1.0, figures=figures)


def _check(device: str) -> CheckResult:
    pytorch = {
        "torch fp32, kernels": 40.0,
        "torch-fp16, kernels": 12.0,
        "torch fp16 weights, kernels": 11.25,
        "torch fp16 weights, kernels, batch 4": 3.0,
        "torch-compile fp16 weights, kernels": "left out: no time",
    }
    stages = (
        _stage("pytorch", PYTORCH.title, pytorch),
        _stage(
            "onnxruntime_cuda", ONNX_RUNTIME.title, {"fp16 fused, batch 1": 15.5, "fp16 fused, batch 4": 9.0}, "failed"
        ),
        _stage("training", "an update of the full-size detector", {"fp16, batch 2": 321.5}),
    )
    return CheckResult(device=device, made_at="2026-11-26T10:00:00+00:00", versions={}, seconds=3.0, stages=stages)


@pytest.fixture
def project(tmp_path):
    """The documents alone."""
    (tmp_path / "docs").mkdir()
    for path in ("README.md", "docs/benchmarks.md"):
        shutil.copy(ROOT / path, tmp_path / path)
    return tmp_path


def _fill(project, check: CheckResult, capsys):
    write_record(check, project / "given.json")
    return run_command(fill.main, capsys, project / "given.json", "--root", project)


def test_what_was_measured_stands_in_the_documents(project, capsys):
    code, printed, error = _fill(project, _check("NVIDIA H100 80GB HBM3"), capsys)
    assert code == 0, error
    assert set(printed.split()) == {"docs/gpu.md", "README.md", "docs/benchmarks.md", "docs/gpu_check.json"}
    readme = (project / "README.md").read_text()
    assert (
        "ran on NVIDIA H100 80GB HBM3 (2026-11-26): 2 of 3 stages passed; 1 of 3 stages failed (onnxruntime_cuda)"
        in readme
    )
    benchmarks = (project / "docs/benchmarks.md").read_text()
    assert "| card | compute floor, ms | memory floor, ms | PyTorch, ms | ONNX Runtime, ms |" in benchmarks
    assert "| H100 SXM | 0.9 | 0.9 | 11.2 | 15.5 |" in benchmarks
    assert "| L4 | 7.4 | 9.9 |  |  |" in benchmarks
    assert "| torch fp16 weights, kernels | 11.25 |" in benchmarks
    assert "| fp16, batch 2 | 321.5 |" in benchmarks
    assert benchmarks.count("Not measured on a GPU yet") == 2  # the toy's mAP, the kernels
    assert "| fp16, batch 2 | 321.5 |" in (project / "docs/gpu.md").read_text()
    assert read_check(project / CHECK_FILE) == _check("NVIDIA H100 80GB HBM3")


def test_twice_changes_nothing_and_a_newer_run_takes_its_place(project, capsys):
    _fill(project, _check("NVIDIA H100 80GB HBM3"), capsys)
    assert _fill(project, _check("NVIDIA H100 80GB HBM3"), capsys) == (0, "", "")
    _fill(project, _check("NVIDIA A100-PCIE-40GB"), capsys)
    assert "H100 80GB HBM3" not in (project / "README.md").read_text()
    benchmarks = (project / "docs/benchmarks.md").read_text()
    assert "| H100 SXM | 0.9 | 0.9 |  |  |" in benchmarks
    assert "| NVIDIA A100-PCIE-40GB |  |  | 11.2 | 15.5 |" in benchmarks


def test_a_stage_that_was_run_again(project, capsys):
    """With --only: the others are those of the run before."""
    again = _check("NVIDIA L4").model_copy(
        update={"stages": (_stage("onnxruntime_cuda", ONNX_RUNTIME.title, {"fp16 fused, batch 1": 14.0}),)}
    )
    write_record(again, project / "again.json")
    write_record(_check("NVIDIA L4"), project / "first.json")
    words = (project / "first.json", project / "again.json", "--root", project)
    assert run_command(fill.main, capsys, *words)[0] == 0
    stages = {stage.name: stage for stage in read_check(project / CHECK_FILE).stages}
    assert list(stages) == ["pytorch", "onnxruntime_cuda", "training"]
    assert stages["onnxruntime_cuda"].status == "passed"
    assert stages["pytorch"] == _check("NVIDIA L4").stages[0]
    write_record(_check("NVIDIA T4"), project / "first.json")
    assert_one_error(run_command(fill.main, capsys, *words), "the checks are of NVIDIA T4 and of NVIDIA L4")


def test_what_no_usable_gpu_made(project, capsys):
    assert_one_error(_fill(project, _check("unknown GPU"), capsys), r"no GPU made it \(device: unknown GPU\)")


def test_what_no_gpu_made(project, capsys):
    before = (project / "README.md").read_bytes()
    assert_one_error(_fill(project, _check("none"), capsys), r"no GPU made it \(device: none\); run make gpu-check")
    assert (project / "README.md").read_bytes() == before


def test_a_document_without_marks(project, capsys):
    (project / "README.md").write_text("# step-trt\n")
    done = _fill(project, _check("NVIDIA L4"), capsys)
    assert_one_error(done, r"README.md: has no <!-- gpu_check: begin state --> \.\.\. <!-- end -->; put the marks")
    assert not (project / "docs/gpu.md").exists()


def test_the_documents_here_are_those_of_the_last_check():
    """After a change by hand: python -m gpu_check.fill docs/gpu_check.json."""
    check = read_check(ROOT / CHECK_FILE) if (ROOT / CHECK_FILE).exists() else None
    for path, text in documents(ROOT, check).items():
        assert (ROOT / path).read_text() == text, path


@pytest.mark.parametrize("title", TITLES)
def test_a_stage_has_a_table_of_every_title(title):
    sources = [ROOT / f"benchmarks/gpu_check/stages/{TITLES[title]}.py"]
    sources += (ROOT / "benchmarks/gpu_check").glob("*training*.py")
    assert any(f'"{title}"' in source.read_text() for source in sources)
