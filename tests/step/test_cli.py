"""What every command shares: which signals end it in order."""

import os
import signal
import sys

import click
import pytest
from helpers import run_command

from step.cli import OneLineCommand, OneLineGroup
from step.errors import ArgumentError

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
