"""The CPU image, built from Debian's packages by buildah and run: `pytest -m slow tests/docker`, as root, some minutes.

There is no engine in it: a namespace of mounts and processes and a changed root do what `docker run --read-only --tmpfs
/tmp -v RESULTS:/results` does, so that the command is process 1 there, as in a container.
"""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from helpers import ROOT, MakeVideo, wait_while_running
from live_server import serve_live
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROGRAMS = ("buildah", "debootstrap", "unshare", "chroot")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as buildah's chroot does"),
    pytest.mark.skipif(not all(map(shutil.which, PROGRAMS)), reason=f"needs {', '.join(PROGRAMS)}"),
    pytest.mark.timeout(1800),
]
UID = 10001
_RESULTS = ["detections.csv", "detections.jsonl", "overlay.mp4", "people.csv", "people.parquet", "run.json"]
# $0 is the image's folder, then come that of the results, the user, and the command.
_AS_IN_A_CONTAINER = """
set -e
mount --bind "$0" "$0"
mount -t proc proc "$0/proc"
mount --rbind /sys "$0/sys"
mount --rbind /dev "$0/dev"
mount -t tmpfs -o noexec,nosuid,nodev tmpfs "$0/tmp"
mount --bind "$1" "$0/results"
mount -o remount,bind,ro "$0"
user=$2
shift 2
exec chroot --userspec="$user" "$0" /usr/bin/env -i -C /results "$@"
"""


@dataclass(frozen=True)
class Image:
    """A built image.

    Attributes: `root`, its files; `config`, what its Dockerfile sets: `Env`, `User`, `Cmd`.
    """

    root: Path
    config: dict[str, list[str] | str]

    def start(self, results: Path, *words: str, user: str | None = None) -> subprocess.Popen[str]:
        """Starts a command, or the image's own, as process 1 of a container with this folder as /results."""
        results.chmod(0o1777)
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _AS_IN_A_CONTAINER]
        command += [str(self.root), str(results), user or str(self.config["User"]), *self.config["Env"]]
        command += words or self.config["Cmd"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, results: Path, *words: str, user: str | None = None) -> str:
        """Runs a command that ends well; gives what it printed."""
        process = self.start(results, *words, user=user)
        printed, error = process.communicate(timeout=300)
        assert process.returncode == 0, printed + error
        return printed


def _buildah(store: Path, *words: str | Path) -> str:
    place = ["--root", store / "root", "--runroot", store / "run", "--storage-driver", "vfs"]
    done = subprocess.run(["buildah", *map(str, place), *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout.strip()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    folder = tmp_path_factory.mktemp("image")
    try:
        yield _build(folder)
    finally:
        _buildah(folder, "rm", "--all")
        shutil.rmtree(folder)


def _build(folder: Path) -> Image:
    # Certificates are in it already, since those of this machine lie over them while the image is built.
    debootstrap = ["debootstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", str(folder / "debian")]
    subprocess.run(debootstrap, stdout=subprocess.DEVNULL, check=True)
    base = _buildah(folder, "from", "scratch")
    _buildah(folder, "add", "--quiet", base, folder / "debian", "/")
    _buildah(folder, "commit", "--quiet", base, "localhost/debian:bookworm")
    shutil.rmtree(folder / "debian")
    # How this machine reaches the package index, which is no part of the image.
    lent = [path for path in (Path("/etc/pip.conf"), Path("/etc/ssl/certs")) if path.exists()]
    options = [word for path in lent for word in ("--volume", f"{path}:{path}:ro")]
    options += ["--build-arg", "BASE=localhost/debian:bookworm", "--isolation", "chroot", "--format", "docker"]
    _buildah(folder, "bud", *options, "--file", ROOT / "docker/cpu.Dockerfile", "--tag", "step-trt:cpu", ROOT)
    config = json.loads(_buildah(folder, "inspect", "--type", "image", "step-trt:cpu"))["Docker"]["config"]
    container = _buildah(folder, "from", "step-trt:cpu")
    return Image(Path(_buildah(folder, "mount", container)), config)


def test_own_command_says_what_runs(image: Image, tmp_path: Path):
    assert "backends: openvino: ok: " in image.run(tmp_path)
    assert "backends: auto: ok: takes openvino on CPU" in image.run(tmp_path, "step-doctor", "toy")


def test_versions_are_those_listed(image: Image, tmp_path: Path):
    program = "import importlib.metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions()))"
    installed = {
        canonicalize_name(word.split("==")[0]): word.split("==")[1]
        for word in image.run(tmp_path, "python", "-c", program).split()
    }
    listed = {}
    for name in ("base.txt", "batch.txt", "cpu.txt"):
        for line in (ROOT / "docker/requirements" / name).read_text().splitlines():
            if line and not line.startswith(("#", "-r")):
                requirement = Requirement(line)
                if requirement.marker is None or requirement.marker.evaluate():
                    listed[canonicalize_name(requirement.name)] = str(requirement.specifier).removeprefix("==")
    del installed["step-trt"]
    assert installed == listed


@pytest.mark.parametrize("uid", [UID, 4242])
def test_demo(uid: int, image: Image, tmp_path: Path):
    """As the image's user, and as one whom it does not know (`docker run --user`)."""
    printed = image.run(tmp_path, "step-run", "--demo", user=f"{uid}:{uid}")
    assert "7 of 7 key frames" in printed
    written = sorted((tmp_path / "runs/demo").iterdir())
    assert [path.name for path in written] == _RESULTS
    assert {path.stat().st_uid for path in written} == {uid}


def test_camera_ends_in_order(image: Image, tmp_path: Path, make_video: MakeVideo):
    """The compose file's command on a stream; SIGTERM, which `docker stop` sends to process 1, ends it."""
    compose = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
    words = list(compose["services"]["camera"]["command"])
    results = tmp_path / "results"
    results.mkdir()
    with serve_live(make_video("stream.ts", frames=100).read_bytes()) as server:
        words[1] = server.url
        words[words.index("--model") + 1] = "toy"
        words[words.index("--every") + 1] = "1/2"
        process = image.start(results, *words)
        lines = results / "detections.jsonl"
        wait_while_running(process, lambda: lines.is_file() and len(lines.read_text().splitlines()) >= 3)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        (first,) = map(int, children)
        assert Path(f"/proc/{first}/status").read_text().split("NSpid:")[1].split("\n")[0].split()[-1] == "1"
        os.kill(first, signal.SIGTERM)
        printed, error = process.communicate(timeout=10)
    assert process.returncode == 130, printed + error
    assert "interrupted; what came before is kept" in error
    assert json.loads((results / "run.json").read_text())["status"] == "interrupted"
    assert all(json.loads(line) for line in lines.read_text().splitlines())
    assert {path.stat().st_uid for path in results.iterdir()} == {UID}
