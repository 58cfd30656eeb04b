"""What every command shares: which signals end it in order."""

import os
import signal
import sys

import click
import pytest
from helpers import run_command

from step.cli import OneLineCommand

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
