"""What every command shares: which signals end it in order, -v and -q, and what is typed wrong."""

import os
import signal
import sys
import warnings

import click
import pytest
from helpers import assert_one_error, run_command
from step_runtime.cli import main as step_run

from step.cli import OneLineCommand, OneLineGroup, examples, find_reporter
from step.errors import ArgumentError
from step.parameters import Choice
from step.revision import project_version

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="other signals")


@click.command(cls=OneLineCommand)
@click.argument("number", type=int)
def _signals_itself(number: int) -> None:
    os.kill(os.getpid(), number)
    click.echo("it goes on")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_a_command_in_order(number, capsys):
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended:
        _signals_itself.main([str(int(number))])
    assert ended.value.code == 130
    assert capsys.readouterr().err.strip() == "error: interrupted"
    assert signal.getsignal(number) == before


def test_nohup_is_heeded(capsys):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run_command(_signals_itself, capsys, int(signal.SIGHUP)) == (0, "it goes on\n", "")
    finally:
        signal.signal(signal.SIGHUP, before)


@click.command(cls=OneLineCommand)
@click.argument("model")
@click.option("--steps", type=int)
@click.option("--every", type=float)
@click.option("--device")
def _says(model: str, steps: int, every: float, device: str) -> None:
    raise ArgumentError("`num_steps` is 9 for `model`; with `every_s`, `device` and `other` as they are")


@click.group(cls=OneLineGroup)
def _group() -> None:
    pass


_group.add_command(_says, "says")


@pytest.mark.parametrize(("command", "words"), [(_says, ["m"]), (_group, ["says", "m"])])
def test_arguments_of_the_library_are_options_of_the_command(command, words, capsys):
    said = "--steps is 9 for MODEL; with --every, --device and `other` as they are"
    assert run_command(command, capsys, *words) == (1, "", f"error: {said}\n")


@click.group(cls=OneLineGroup, invoke_without_command=True)
@click.option("--steps", type=int)
def _group_alone(steps: int) -> None:
    raise ArgumentError("`num_steps` is 9")


def test_a_group_has_options_too(capsys):
    assert run_command(_group_alone, capsys, "--steps", "9") == (1, "", "error: --steps is 9\n")


@click.command(cls=OneLineCommand, epilog=examples("talks --loop fused", "talks " + "--loop steps " * 10))
@click.option("--loop", type=Choice(["fused", "steps"]))
def _talks(loop: str | None) -> None:
    find_reporter().note("a note")
    find_reporter().detail("a detail")
    warnings.warn("a warning", FutureWarning, stacklevel=1)
    find_reporter().result("a result")


@click.group(cls=OneLineGroup)
def _talking() -> None:
    pass


_talking.add_command(_talks, "talks")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], "a note\n"),
        (["-q"], ""),
        (["--quiet"], ""),
        (["-v"], "a note\na detail\nwarning: a warning\n"),
        (["--verbose"], "a note\na detail\nwarning: a warning\n"),
    ],
)
@pytest.mark.filterwarnings("always")
def test_every_command_takes_verbose_and_quiet(words, error, capsys):
    assert run_command(_talks, capsys, *words) == (0, "a result\n", error)
    assert run_command(_talking, capsys, "talks", *words) == (0, "a result\n", error)
    assert run_command(_talking, capsys, *words, "talks") == (0, "a result\n", error)


@pytest.mark.parametrize("words", [["-v", "-q", "talks"], ["-v", "talks", "-q"], ["talks", "--quiet", "--verbose"]])
def test_verbose_and_quiet_exclude_each_other(words, capsys):
    said = "error: --verbose and --quiet exclude each other; give one of them\n"
    assert run_command(_talking, capsys, *words) == (2, "", said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["talks", "--lop", "fused"], "--loop"),
        (["talks", "--loop", "fusd"], "'fusd' is not one of 'fused', 'steps'; did you mean 'fused'?"),
        (["talks", "--loop", "x"], "'x' is not one of 'fused', 'steps'\n"),
        (["talk"], "no such command 'talk'; did you mean 'talks'?"),
        (["sing"], "no such command 'sing'\n"),
        (["talks", "extra"], "extra"),
        (["talks", "--loop"], "--loop"),
    ],
)
def test_what_is_typed_wrong_is_exit_code_2(words, said, capsys):
    code, out, error = run_command(_talking, capsys, *words)
    assert (code, out) == (2, "")
    assert error.startswith("error: ")
    assert said in error
    assert error.count("\n") == 1


def test_examples_are_lines_of_the_help(capsys):
    _, out, _ = run_command(_talks, capsys, "--help")
    assert "  Examples:\n    talks --loop fused\n    talks --loop steps --loop steps" in out
    assert max(map(len, out.splitlines())) > 120


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_and_version(option, capsys):
    code, printed, error = run_command(step_run, capsys, option)
    assert (code, error) == (0, "")
    assert printed.startswith("Usage: ")
    code, printed, error = run_command(step_run, capsys, "--version")
    assert (code, printed, error) == (0, f"step-trt {project_version()}\n", "")


def test_a_package_of_an_extra_that_is_missing(capsys):
    """What the base install lacks is one line in every command; what is missing by our own mistake is not hidden."""

    @click.command(cls=OneLineCommand)
    @click.argument("name")
    def command(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    done = run_command(command, capsys, "torch.nn")
    assert_one_error(done, r"this needs torch.nn, which is not installed; pip install 'step-trt\[export\]'")
    with pytest.raises(ModuleNotFoundError):
        command(["step.no_such_module"])
