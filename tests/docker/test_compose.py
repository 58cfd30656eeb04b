"""The compose file: what it mounts and whom it runs as, command lines that exist, and what its health check sees."""

import os
import re
import shutil
import subprocess
import time
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import ROOT

FILE = ROOT / "docker/compose.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*)|:\?[^}]*)\}")
GIVEN = {"CAMERA_URL": "rtsp://camera/stream", "BUNDLE": "./bundle"}


def _filled(text: str) -> str:
    """The text with its variables: those of the user, else their defaults."""
    return _VARIABLE.sub(lambda found: GIVEN.get(found[1], found[2] or ""), text)


@pytest.mark.parametrize("name", SERVICES)
def test_command_line_is_valid(name: str):
    program, *words = map(_filled, SERVICES[name]["command"])
    (script,) = entry_points(group="console_scripts", name=program)
    script.load().make_context(program, words).close()


def test_what_has_to_be_given_is_asked_for():
    asked = set(re.findall(r"\$\{(\w+):\?", FILE.read_text()))
    assert asked == set(GIVEN)


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="needs docker-compose, not Docker itself")
@pytest.mark.parametrize("left_out", [None, *GIVEN])
def test_compose_takes_it(left_out: str | None):
    """Its own check of names and types, which needs no engine; and one line where a variable is missing."""
    given = {name: value for name, value in GIVEN.items() if name != left_out}
    command = ["docker-compose", "--file", str(FILE), "--project-directory", str(ROOT), "config", "--quiet"]
    done = subprocess.run(command, env=os.environ | given, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (left_out is None), done.stderr
    if left_out is not None:
        assert re.search(rf"\$\{{{left_out}:\?(.*?)\}}", FILE.read_text())[1] in done.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_service(name: str):
    service = SERVICES[name]
    assert _filled(service["user"]) == "10001:10001"
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    targets = {_filled(volume).split(":")[1] for volume in service["volumes"]}
    paths = {word for word in service["command"] if word.startswith("/")}
    assert paths == targets
    gpu = "gpu" in service["profiles"]
    assert service["image"] == ("step-trt:tensorrt" if gpu else "step-trt:cpu")
    assert ("deploy" in service) == gpu
    if "build" in service:
        assert (ROOT / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


@pytest.mark.parametrize("name", ["camera", "camera-gpu"])
def test_camera_is_started_again_and_the_bundle_stays(name: str):
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert "--reconnect" in service["command"]
    assert any(_filled(volume).endswith(":/bundle:ro") for volume in service["volumes"])
    out = service["command"][service["command"].index("--out") + 1]
    assert f"{out}/detections.jsonl" in service["healthcheck"]["test"][1]


@pytest.mark.parametrize(("age_s", "healthy"), [(5, True), (600, False), (None, False)])
def test_health_check(age_s: int | None, healthy: bool, tmp_path: Path):
    """Its shell line, with a folder of results in place of the volume's."""
    if age_s is not None:
        lines = tmp_path / "detections.jsonl"
        lines.write_text("{}\n")
        written_s = time.time() - age_s
        os.utime(lines, (written_s, written_s))
    kind, line = SERVICES["camera"]["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    shell = line.replace("$$", "$").replace("/results", str(tmp_path))
    assert (subprocess.run(["/bin/sh", "-c", shell], check=False).returncode == 0) == healthy
