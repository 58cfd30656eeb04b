"""Loads the two TensorRT libraries that share one Python API (torch-free, imports neither until asked).

Sources: https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api/ and
https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/_static/python-api/
"""

import contextlib
import importlib
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Literal

from step.errors import StepError

Library = Literal["tensorrt", "tensorrt-rtx"]
LIBRARIES: tuple[Library, ...] = ("tensorrt", "tensorrt-rtx")

_MODULES: dict[Library, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_EXTRAS: dict[Library, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "rtx"}


def load_library(library: Library) -> Any:
    """Imports a TensorRT library.

    Raises:
        StepError: it is not installed, or its shared libraries do not load.
    """
    install = f"pip install 'step-trt[{_EXTRAS[library]}]'"
    try:
        module: ModuleType = importlib.import_module(_MODULES[library])
    except ModuleNotFoundError as error:
        raise StepError(f"{library} is not installed (no module {error.name}); {install}") from error
    except (ImportError, OSError) as error:
        raise StepError(f"{library} is installed but does not load: {error}; reinstall it: {install}") from error
    return module


def needs_typing_flag(library: Library, version: str) -> bool:
    """Says whether a network has to be told to be strongly typed: TensorRT 10; later ones and RTX always are."""
    return library == "tensorrt" and int(version.split(".")[0]) < 11


Listener = Callable[[str, str], None]
"""Receives the severity and the text of a message."""


class _Listeners:
    """Knows who hears what a library says: whoever called it from the same thread.

    What the library says from a thread of its own goes to everybody who is inside a call just then.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal's handler may call the library while it is held
        self._by_thread: dict[int, list[Listener]] = {}

    @contextlib.contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        thread = threading.get_ident()
        with self._lock:
            self._by_thread.setdefault(thread, []).append(listener)
        try:
            yield
        finally:
            with self._lock:
                self._by_thread[thread].pop()
                if not self._by_thread[thread]:
                    del self._by_thread[thread]

    def report(self, severity: str, message: str) -> None:
        with self._lock:
            own = self._by_thread.get(threading.get_ident())
            heard = [own[-1]] if own else [each[-1] for each in self._by_thread.values()]
        for listener in heard:
            listener(severity, message)


# The library keeps the first logger that it is given for good, and calls it after the object that it came with is
# gone: so there is one logger for each library, which lives as long as the process.
_loggers: dict[type, tuple[Any, _Listeners]] = {}
_loggers_lock = threading.Lock()


def library_logger(trt: Any) -> Any:
    """Returns the one logger of a library, which every object of it is made with; it prints nothing.

    Args:
        trt: the library.
    """
    return _logger_and_listeners(trt)[0]


@contextlib.contextmanager
def listening(trt: Any, listener: Listener) -> Iterator[None]:
    """Sends `listener` severity and text of what the library says in the block, whatever thread says it."""
    with _logger_and_listeners(trt)[1].listening(listener):
        yield


def _logger_and_listeners(trt: Any) -> tuple[Any, _Listeners]:
    with _loggers_lock:
        if trt.ILogger not in _loggers:
            listeners = _Listeners()
            _loggers[trt.ILogger] = _make_logger(trt, listeners.report), listeners
        return _loggers[trt.ILogger]


def _make_logger(trt: Any, report: Listener) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]  # the library's own way to say where messages go
        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Any, message: str) -> None:
            report(severity.name, message)

    return Logger()
