"""step-bench compare: what became slower, and files that cannot be compared."""

import json

import pytest
from benchmark_results import make_results, make_row
from helpers import assert_one_error, run_command
from step_runtime.benchmark.cli import main
from step_runtime.benchmark.comparison import compare, differences


@pytest.fixture
def compared(capsys, tmp_path):
    def run(old, new, *words):
        old.write(tmp_path / "old.json")
        new.write(tmp_path / "new.json")
        return run_command(main, capsys, "compare", tmp_path / "old.json", tmp_path / "new.json", *words)

    return run


def test_slower_noise_faster(compared):
    noise = [10, 11, 12, 10]
    old = make_results(make_row("a", noise), make_row("b", noise), make_row("c", [5] * 4))
    new = make_results(make_row("a", [20, 21, 22, 20]), make_row("b", [11, 12, 10, 12]), make_row("c", [4] * 4))
    code, printed, error = compared(old, new)
    assert [line.split()[-1] for line in printed.splitlines() if " fused" in line] == ["slower", "noise", "faster"]
    assert_one_error((code, "", error), "1 of 3 configurations became slower: a fp32 fused")


def test_files_that_are_none(compared, capsys, tmp_path):
    compared(make_results(make_row()), make_results(make_row()))
    words = ("compare", tmp_path / "old.json", tmp_path / "new.json")
    (tmp_path / "old.json").write_text(json.dumps({"schema_version": 0}))
    assert_one_error(run_command(main, capsys, *words), "has schema 0, this step-bench reads 2")
    (tmp_path / "old.json").write_text("{")
    assert_one_error(run_command(main, capsys, *words), "no JSON of ours")
    (tmp_path / "old.json").unlink()
    assert_one_error(run_command(main, capsys, *words), "old.json: cannot be read: No such file")


def test_what_differs_besides():
    old = make_results(*(make_row(name, [1.0] * 4) for name in "ab"), make_row("c", [1.0]))
    new = make_results(
        make_row("a", [1.0] * 4), make_row("c", [2.0]), make_row("d", [1.0]), clip="v.mp4", partial="cut"
    )
    assert differences(old, new) == [
        "the new file is partial: cut",
        "the clips differ: unknown, v.mp4",
        "b fp32 fused: only in the old file",
        "c fp32 fused: fewer than 4 runs, too few to call a difference one",
        "d fp32 fused: only in the new file",
    ]
    assert [(change.name, change.is_slower) for change in compare(old, new)] == [
        ("a fp32 fused", False),
        ("c fp32 fused", False),
    ]


_PLAIN = make_row(threads=2, source_sha256="0123456789")


@pytest.mark.parametrize(
    ("other", "aspect", "said"),
    [
        (
            make_row(threads=1, source_sha256="0123456789"),
            "threads",
            "the threads of onnxruntime fp32 fused were 2, are 1",
        ),
        (
            make_row(threads=2, source_sha256="abcdefghij"),
            "model",
            "the model of onnxruntime fp32 fused was m of checkpoint 01234567, is m of checkpoint abcdefgh",
        ),
        # Files of earlier versions know what was asked for only.
        (
            make_row(configuration={"threads": 1}),
            "threads",
            "the threads of onnxruntime fp32 fused were the library's choice, are 1",
        ),
        (make_row(configuration={"model": "y/n"}), "model", "the model of onnxruntime fp32 fused was m of .*, is n;"),
    ],
)
def test_other_conditions_are_refused_unless_they_are_meant(other, aspect, said, compared):
    old, new = make_results(_PLAIN), make_results(other)
    assert_one_error(compared(old, new), rf"they cannot be compared: {said}.*, or give --may-differ {aspect}$")
    code, printed, error = compared(old, new, "--may-differ", f"{aspect},machine")
    assert (code, error) == (0, "")
    assert f"they differ as allowed: the {aspect} of" in printed
    assert "within noise" in printed


def test_another_machine_is_refused_with_all_that_differs(compared):
    old, new = make_results(_PLAIN), make_results(make_row(threads=8, source_sha256="0123456789"))
    new = new.model_copy(update={"machine": {"cpu": "X9", "threads": 8}})
    done = compared(old, new, "--may-differ", "model")
    assert_one_error(done, "is X9, 8 CPUs; the threads .* were 2, are 8; .*--may-differ machine,threads$")
    assert_one_error(compared(old, new, "--may-differ", "weather"), "'weather' is not one of 'machine', ", exit_code=2)


def test_another_export_of_a_checkpoint_is_the_same_model(compared):
    code, _, error = compared(
        make_results(make_row(threads=2, source_sha256="01", configuration={"model": "before"})),
        make_results(make_row(threads=2, source_sha256="01", configuration={"model": "after"})),
    )
    assert (code, error) == (0, "")
