"""What a TensorRT library says reaches whoever called it."""

import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from step.bundles.libraries import library_logger, listening


class _Library:
    class ILogger:
        pass


def _says(text: str, severity: str = "ERROR") -> None:
    library_logger(_Library).log(SimpleNamespace(name=severity), text)


def test_the_caller_hears_it_and_nobody_else():
    outer, inner = [], []
    with listening(_Library, lambda *message: outer.append(message)):
        _says("one")
        with listening(_Library, lambda *message: inner.append(message)):
            _says("two", "INFO")
        _says("three")
    _says("four")
    assert outer == [("ERROR", "one"), ("ERROR", "three")]
    assert inner == [("INFO", "two")]


def test_threads_hear_their_own():
    """And a thread of the library's own speaks to all who are in a call."""
    heard: dict[str, list[str]] = {"a": [], "b": []}
    both_listen, library_spoke = threading.Barrier(3), threading.Barrier(3)

    def call(name: str) -> None:
        with listening(_Library, lambda _severity, text: heard[name].append(text)):
            _says(name)
            both_listen.wait(10)
            library_spoke.wait(10)

    threads = [threading.Thread(target=call, args=[name]) for name in heard]
    for thread in threads:
        thread.start()
    both_listen.wait(10)
    _says("from a thread of the library")
    library_spoke.wait(10)
    for thread in threads:
        thread.join()
    assert heard == {"a": ["a", "from a thread of the library"], "b": ["b", "from a thread of the library"]}


def test_the_library_s_logger_outlives_whoever_was_first():
    """NVIDIA's library keeps the first logger that it is given; TensorRT-RTX 1.7 crashed here when it was collected."""
    pytest.importorskip("tensorrt_rtx")
    code = """
import gc
import tensorrt_rtx as trt
from step.bundles.engines import BuildOptions
from step_runtime.backends.engine import Messages, make_runtime
options = BuildOptions(library="tensorrt-rtx")
messages = [Messages(trt), Messages(trt)]
runtimes = [make_runtime(trt, each, options) for each in messages]
del messages[0], runtimes[0]
gc.collect()
assert trt.get_plugin_registry().get_creator("none", "1", "") is None
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, (done.returncode, done.stderr)
