"""What the documents and the commands' help name exists: paths, links, folders, commands and their options."""

import re
import shlex
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
PACKAGES = (
    "step",
    "export/step_export",
    "runtime/step_runtime",
    "plugins/step_plugins",
    "benchmarks",
    "docker",
    "tests",
)
SCRIPTS = {script.name: script for script in entry_points(group="console_scripts") if script.name.startswith("step-")}
_TOP = "step|export|runtime|plugins|benchmarks|docker|tests|docs|examples|\\.ci"
_PATH = re.compile(rf"(?<![\w./-])(?:{_TOP})/[\w./-]*\w|(?<![\w./-])(?:pyproject\.toml|constraints\.txt|Makefile)\b")
_LINK = re.compile(r"\]\(([^)#]+)[^)]*\)")
_COMMAND = re.compile(r"(?:`|^\s*)((?:step-[a-z]+|python benchmarks/\w+\.py)\s[^`\n]*)", re.MULTILINE)


def _paths(document: Path) -> set[str]:
    return set(_PATH.findall(document.read_text()))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_paths_and_links_exist(document: Path):
    missing = {path for path in _paths(document) if not (ROOT / path).exists()}
    for target in _LINK.findall(document.read_text()):
        if "://" not in target and not (document.parent / target).exists():
            missing.add(target)
    assert missing == set()


def test_paths_are_found():
    """The expression above sees what architecture.md is made of."""
    assert len(_paths(ROOT / "docs/architecture.md")) > 60


def test_every_folder_has_its_line():
    text = (ROOT / "docs/architecture.md").read_text()
    listed = re.findall(r"^\| `([\w./-]+)/` \| \S.* \|$", text, re.MULTILINE)
    existing = {
        path.parent.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.*")
        if path.is_file() and path.parent.name != "__pycache__" and not path.name.startswith(".")
    }
    assert sorted(listed) == sorted(existing)


def _commands() -> list[tuple[str, str]]:
    """Every command of ours in the documents, with the document's name."""
    return [
        (document.name, found.split("  #")[0].strip())
        for document in DOCUMENTS
        for found in _COMMAND.findall(document.read_text().replace("\\\n", " "))
    ]


def _options(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}


@pytest.mark.parametrize(("document", "command"), _commands())
def test_options_exist(document: str, command: str):
    """Commands that take hours or data that we may not carry are not run; what they are called with exists."""
    words = shlex.split(command)
    used = {word.split("=")[0] for word in words if re.fullmatch(r"--[a-z][\w-]*(=.*)?", word)}
    if words[0] == "python":
        source = "\n".join(path.read_text() for path in (ROOT / "benchmarks").glob("*.py"))
        assert {option for option in used if f'"{option}"' not in source} == set()
        return
    assert words[0] in SCRIPTS, document
    assert used <= _options(_chosen(SCRIPTS[words[0]].load(), words)[0]), document


def _chosen(script: click.Command, words: list[str]) -> tuple[click.Command, list[str]]:
    """The command or subcommand that some words call, and what is left of them."""
    if not isinstance(script, click.Group) or len(words) < 2:
        return script, words[1:]
    if words[1] in script.commands:
        return script.commands[words[1]], words[2:]
    return script.commands.get("run", script), words[1:]  # `step-bench toy` means `step-bench run toy`


def _examples(command: click.Command) -> list[str]:
    return [line.strip() for line in (command.epilog or "").splitlines() if line.startswith("  ")]


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_help_ends_with_examples_that_can_be_typed(name: str):
    script = SCRIPTS[name].load()
    helped = {name: script}
    if isinstance(script, click.Group):
        helped |= {f"{name} {word}": command for word, command in script.commands.items()}
    for typed, command in helped.items():
        lines = _examples(command)
        assert 2 <= len(lines) <= 4, typed
        for line in lines:
            assert f"{line} ".startswith(f"{typed.removesuffix(' run')} ")
            chosen, rest = _chosen(script, shlex.split(line))
            chosen.make_context(line, rest).close()
