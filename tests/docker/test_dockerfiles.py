"""The Dockerfiles: pinned versions that fit the project's, a user who is not root, commands that exist."""

import json
import re
import shlex
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from helpers import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
REQUIREMENTS = ROOT / "docker/requirements"
X86 = {"sys_platform": "linux", "platform_machine": "x86_64"}
ARM = {"sys_platform": "linux", "platform_machine": "aarch64"}
# What an image has beside the base install; TensorRT itself is in NVIDIA's base image.
EXTRAS = {"cpu": ("openvino", "batch"), "tensorrt": ("plugins", "batch")}


def _instructions(path: Path) -> list[tuple[str, str]]:
    """Each instruction with what follows it, lines joined and comments left out."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined.splitlines()]


def _listed(name: str) -> list[Requirement]:
    """The requirements of a file and of those that it includes."""
    found = []
    for line in (REQUIREMENTS / name).read_text().splitlines():
        if line.startswith("-r "):
            found += _listed(line.removeprefix("-r "))
        elif line and not line.startswith("#"):
            found.append(Requirement(line))
    return found


def _pins(name: str, machine: dict[str, str]) -> dict[str, str]:
    pins = {}
    for line in _listed(name):
        if line.marker is None or line.marker.evaluate(machine):
            (specifier,) = line.specifier
            assert specifier.operator == "==", line
            pins[canonicalize_name(line.name)] = specifier.version
    return pins


def _wanted(extras: tuple[str, ...], machine: dict[str, str]) -> list[Requirement]:
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    wanted = map(Requirement, lines)
    return [line for line in wanted if line.marker is None or line.marker.evaluate(machine)]


@pytest.mark.parametrize("machine", [X86, ARM], ids=["x86", "arm"])
@pytest.mark.parametrize("image", EXTRAS)
def test_versions_are_what_the_project_wants(image: str, machine: dict[str, str]):
    pins = _pins(f"{image}.txt", machine)
    for requirement in _wanted(EXTRAS[image], machine):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


@pytest.mark.parametrize("name", sorted(path.name for path in REQUIREMENTS.glob("*.txt")))
def test_versions_are_those_of_the_tests(name: str):
    constraints = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if not line.startswith("#"):
            package, version = line.split("==")
            constraints[canonicalize_name(package)] = version
    pins = _pins(name, X86)
    assert {package: pins[package] for package in pins.keys() & constraints.keys()} == {
        package: constraints[package] for package in pins.keys() & constraints.keys()
    }


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_dockerfile(path: Path):
    instructions = _instructions(path)
    stages = [rest for word, rest in instructions if word == "FROM"]
    assert [stage.partition(" AS ")[::2] for stage in stages] == [
        ("${BASE}", "wheel"),
        ("wheel", "venv"),
        ("${BASE}", ""),
    ]
    base = next(rest for word, rest in instructions if word == "ARG").removeprefix("BASE=")
    assert re.fullmatch(r"[\w./-]+:[\w.-]*\d{2}[\w.-]*(@sha256:[0-9a-f]{64})?", base)
    last = instructions[max(i for i, (word, _) in enumerate(instructions) if word == "FROM") :]
    assert [rest for word, rest in last if word == "USER"] == ["${UID}:${UID}"]
    assert ("ARG", "UID=10001") in last
    program, *words = json.loads(next(rest for word, rest in last if word == "CMD"))
    (script,) = entry_points(group="console_scripts", name=program)
    script.load().make_context(program, words).close()


def test_context_has_what_the_wheel_is_made_of():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    wanted = {*packages["packages"], PROJECT["readme"], *PROJECT["license-files"], "pyproject.toml"}
    assert let_in == wanted | {"docker/requirements"}


def test_documented_commands_exist():
    """What stands behind the name of an image in docs/containers.md is a command of ours with its options."""
    text = (ROOT / "docs/containers.md").read_text().replace("\\\n", " ")
    typed = re.findall(r"step-trt:(?:cpu|tensorrt) (step-[^\n`]*)", text)
    assert len(typed) >= 4
    for line in typed:
        program, *words = shlex.split(line.split("  #")[0])
        (script,) = entry_points(group="console_scripts", name=program)
        script.load().make_context(program, words).close()
