"""NVIDIA's Triton server from the wheel `nvidia-pytriton`, without a container, on a CPU: for tests and measurements.

    python benchmarks/triton_server.py REPOSITORY --server FOLDER

Serves a repository until it is interrupted. FOLDER is where pip has put the wheel, and a NumPy that its Python backend
can read (see docs/triton.md); the server's Python finds what this one finds. The wheel's server is 2.51 and has the
Python backend alone.
"""

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_READY_S = 120
_END_S = 40
_PAUSE_S = 0.05


@dataclass(frozen=True)
class Ports:
    """Where a server listens, on this machine alone."""

    http: int
    grpc: int
    metrics: int


class ServerError(RuntimeError):
    """The server did not get ready; says the end of its log."""


def default_folder() -> Path:
    """Where `make triton-server` puts the wheel: in this Python's environment."""
    return Path(sys.prefix) / "tritonserver"


def is_there(folder: Path) -> bool:
    """Whether the wheel, with a stub of this Python's version, lies in a folder."""
    return _stub(folder).is_file()


@contextlib.contextmanager
def serving(repository: Path, folder: Path, *, log: Path, models: Sequence[str] = ("step",)) -> Iterator[Ports]:
    """Runs a server until the context is left.

    Args:
        repository: as `step-export --triton` writes it.
        folder: where the wheel lies.
        log: file for what the server says.
        models: are loaded; the wheel has no backend for `fused`.

    Raises:
        ServerError: it ends, or is not ready in time.
    """
    with tempfile.TemporaryDirectory(prefix="triton-server-") as scratch, log.open("wb") as said:
        ports = Ports(*_free_ports(3))
        process = subprocess.Popen(
            _command(repository, folder, Path(scratch), ports, models),
            env=_environment(folder, Path(scratch)),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # with its Python processes, which outlive a server that crashes
        )
        try:
            _wait_until_ready(process, ports, log)
            yield ports
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_S)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _stub(folder: Path) -> Path:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return folder / "pytriton/tritonserver/python_backend_stubs" / version / "triton_python_backend_stub"


def _command(repository: Path, folder: Path, scratch: Path, ports: Ports, models: Sequence[str]) -> list[str]:
    backends = scratch / "backends"
    shutil.copytree(folder / "pytriton/tritonserver/backends", backends)
    shutil.copy(_stub(folder), backends / "python")
    return [
        str(folder / "pytriton/tritonserver/bin/tritonserver"),
        f"--model-repository={repository.resolve()}",
        f"--backend-directory={backends}",
        "--model-control-mode=explicit",
        *(f"--load-model={model}" for model in models),
        *(f"--{kind}-address=127.0.0.1" for kind in ("http", "grpc", "metrics")),
        f"--http-port={ports.http}",
        f"--grpc-port={ports.grpc}",
        f"--metrics-port={ports.metrics}",
    ]


def _environment(folder: Path, scratch: Path) -> dict[str, str]:
    """A Python for the stub, which takes the first on the PATH: what this one finds, behind the folder's NumPy."""
    venv.EnvBuilder(symlinks=True).create(scratch / "python")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    paths = [str(folder.resolve()), *(str(Path(path).resolve()) for path in sys.path if path)]
    site = scratch / "python/lib" / version / "site-packages"
    (site / "paths.pth").write_text("\n".join(paths) + "\n")
    libraries = [str(folder / "nvidia_pytriton.libs"), sysconfig.get_config_var("LIBDIR")]
    return os.environ | {
        "PATH": f"{scratch / 'python/bin'}{os.pathsep}{os.environ['PATH']}",
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, [*libraries, os.environ.get("LD_LIBRARY_PATH")])),
    }


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _wait_until_ready(process: "subprocess.Popen[bytes]", ports: Ports, log: Path) -> None:
    end_s = time.monotonic() + _READY_S
    while time.monotonic() < end_s and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{ports.http}/v2/health/ready", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(_PAUSE_S)
    said = log.read_text(errors="replace")[-4000:]
    raise ServerError(f"the server {'is not ready' if process.poll() is None else 'has ended'}; it said:\n{said}")


def main() -> None:
    """Serves until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("repository", type=Path)
    parser.add_argument("--server", type=Path, default=default_folder(), help="folder with the wheel")
    parser.add_argument("--log", type=Path, default=Path("tritonserver.log"))
    arguments = parser.parse_args()
    if not is_there(arguments.server):
        parser.error(f"{arguments.server} has no tritonserver for this Python; see docs/triton.md")
    with (
        serving(arguments.repository, arguments.server, log=arguments.log) as ports,
        contextlib.suppress(KeyboardInterrupt),
    ):
        print(f"ready: gRPC 127.0.0.1:{ports.grpc}, HTTP :{ports.http}, metrics :{ports.metrics}/metrics", flush=True)
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main()
