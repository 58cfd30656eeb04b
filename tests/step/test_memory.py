"""A shortage of memory is said as one."""

import errno
import os
import resource
import subprocess
import sys

import click
import pytest
from helpers import assert_one_error, run_command

from step.cli import OneLineCommand
from step.files.atomic import cannot_write
from step.memory import is_memory_shortage


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        ImportError("Exception caught: std::bad_alloc"),
        RuntimeError("can't start new thread"),
    ],
    ids=str,
)
def test_shortages(error):
    assert is_memory_shortage(error)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), RuntimeError("shape"), KeyError()])
def test_other_failures(error):
    assert not is_memory_shortage(error)


def test_what_is_to_be_freed(tmp_path):
    assert str(cannot_write(tmp_path, OSError(errno.ENOMEM, ""))).endswith(
        "Cannot allocate memory; free memory, then run it again"
    )
    assert str(cannot_write(tmp_path, OSError(errno.ENOSPC, ""))).endswith("device; free space or choose another place")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("std::bad_alloc\nat 0x1")], ids=str)
def test_commands_say_one_line(error, capsys):
    @click.command(cls=OneLineCommand)
    def command() -> None:
        raise error

    assert_one_error(run_command(command, capsys), "not enough memory: ")


def test_other_failures_are_not_hidden():
    @click.command(cls=OneLineCommand)
    def command() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        command.main([])


def test_a_limit_of_the_system(tmp_path):
    """`ulimit -v`; NumPy asks for more than there is."""
    code = """
import click, numpy
from step.cli import OneLineCommand
@click.command(cls=OneLineCommand)
def command():
    numpy.ones(2**32)
command.main([])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33)),
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: not enough memory: Unable to allocate 32.0 GiB")
    assert len(done.stderr.splitlines()) == 1
