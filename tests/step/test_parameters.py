"""What options may be: one rule for every command about numbers out of their bounds and words that cannot be read."""

import math
from importlib.metadata import entry_points

import click
import pytest
from helpers import assert_one_error, run_command

from step.cli import OneLineCommand
from step.parameters import Choice, FilePath, ListOf, Number, OrWord, Seconds, Whole

SCRIPTS = sorted(script.name for script in entry_points(group="console_scripts") if script.name.startswith("step-"))


def _commands(name):
    (script,) = entry_points(group="console_scripts", name=name)
    main = script.load()
    yield main
    if isinstance(main, click.Group):
        yield from main.commands.values()


def _kind(option):
    kind = option.type
    while isinstance(kind, (ListOf, OrWord)):
        kind = kind.kind
    return kind


def _out_of_bounds(kind):
    if isinstance(kind, Seconds):
        return ["0", "-1", "nan", "inf", "1/0"]
    if isinstance(kind, Whole):
        return [str(kind.least - 1), *([] if kind.most == math.inf else [str(kind.most + 1)])]
    below = [kind.above, None if kind.least is None else math.nextafter(kind.least, -math.inf)]
    beyond = [kind.below, None if kind.most is None else math.nextafter(kind.most, math.inf)]
    return [*(repr(number) for number in below + beyond if number is not None), "nan", "inf", "-inf"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_number_of_every_command_has_bounds(name, capsys):
    for command in _commands(name):
        for option in command.params:
            kind = _kind(option)
            assert type(kind).__module__ == "step.parameters" or isinstance(
                kind, (click.Path, click.types.StringParamType, click.types.BoolParamType)
            ), (name, option.name)
            if not isinstance(kind, (Whole, Number, Seconds)):
                continue
            typed = max(option.opts, key=len)
            for value in _out_of_bounds(kind):
                done = run_command(command, capsys, f"{typed}={value}")
                assert_one_error(done, f"^error: {typed} is .*; it must be (a (whole )?number|above 0 seconds)")
            said = f"'{typed}': 'x' is not a valid"
            assert_one_error(run_command(command, capsys, f"{typed}=x"), said, exit_code=2)


@click.command(cls=OneLineCommand)
@click.option("--sizes", type=ListOf(Whole(1, 8)), default="1,2")
@click.option("--loops", type=ListOf(Choice(["fused", "steps"])))
@click.option("--every", type=OrWord(Seconds(), "frame"), default="1/3")
@click.option("--file", type=FilePath())
def _says(sizes, loops, every, file) -> None:
    click.echo(f"{sizes} {loops} {every}")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "(1, 2) None 1/3"),
        (["--sizes", "8", "--loops", "steps, fused", "--every", "frame"], "(8,) ('steps', 'fused') None"),
        (["--every", "0.1"], "(1, 2) None 1/10"),
    ],
)
def test_lists_and_words(words, said, capsys):
    assert run_command(_says, capsys, *words) == (0, f"{said}\n", "")


@pytest.mark.parametrize(
    ("words", "said", "exit_code"),
    [
        (["--sizes", "1,9"], "--sizes is 9; it must be a whole number from 1 to 8", 1),
        (["--sizes", "1,,2"], "'' is not a valid integer", 2),
        (["--loops", "steps,fusd"], "'fusd' is not one of 'fused', 'steps'; did you mean 'fused'", 2),
        (["--file="], "'--file': it is empty; give a path", 2),
        (["--every", "often"], "'often' is not a valid float; give one, or frame", 2),
    ],
)
def test_what_is_wrong_in_lists_and_words(words, said, exit_code, capsys):
    assert_one_error(run_command(_says, capsys, *words), said, exit_code=exit_code)
