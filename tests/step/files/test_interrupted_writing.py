"""An interrupt and a kill before and after every name that changes, while something is written over an older one."""

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import step.files.atomic
import step.files.exchange
import step.files.scratch
from step.errors import StepError
from step.files.atomic import atomic_files, atomic_path
from step.files.scratch import recover, sweep

_CALLS = ("rename", "replace", "unlink", "rmdir")
RUN = ("detections.csv", "detections.jsonl", "overlay.mp4")


class Fault:
    """Counts the calls that change names; does something before or after one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, can_exchange: bool) -> None:
        self.count, self.number, self.is_after, self.strike = 0, -1, False, lambda: None
        for name in _CALLS:
            monkeypatch.setattr(os, name, self._watched(getattr(os, name)))
        exchange = step.files.exchange.exchange if can_exchange else (lambda _first, _second: False)
        monkeypatch.setattr(step.files.atomic, "exchange", self._watched(exchange))

    def _watched(self, call: Callable[..., object]) -> Callable[..., object]:
        def watched(*args: object, **kwargs: object) -> object:
            number, self.count = self.count, self.count + 1
            if number == self.number and not self.is_after:
                self.strike()
            try:
                return call(*args, **kwargs)
            finally:
                if number == self.number and self.is_after:
                    self.strike()

        return watched

    @contextmanager
    def at(self, number: int, *, is_after: bool, strike: Callable[[], None]) -> Iterator[None]:
        self.count, self.number, self.is_after, self.strike = 0, number, is_after, strike
        yield
        self.number = -1


def _write_run(folder: Path, content: str, names: tuple[str, ...] = RUN) -> None:
    with atomic_files(folder, names=RUN) as scratch:
        for name in names:
            (scratch / name).write_text(content)


def _write_bundle(target: Path, content: str) -> None:
    with atomic_path(target) as folder:
        folder.mkdir()
        for name in ("manifest.json", "fused.onnx"):
            (folder / name).write_text(content)
        with atomic_path(folder / "manifest.json") as file:  # as exports do it
            file.write_text(content)


def _write_file(target: Path, content: str) -> None:
    with atomic_path(target) as path:
        path.write_text(content)


def _content(target: Path) -> str:
    """Asserts that all is of one time and says of which; empty where there is nothing."""
    if not target.exists():
        return ""
    if target.is_file():
        return target.read_text()
    found = {
        path.name: path.read_text() for path in target.iterdir() if path.name in (*RUN, "manifest.json", "fused.onnx")
    }
    if "manifest.json" in found or "fused.onnx" in found:
        assert len(found) == 2, found
    (content,) = set(found.values()) or {""}
    assert content != "new" or "overlay.mp4" not in found, found  # the new run has none
    assert "detections.csv" not in found or len(found) == (2 if content == "new" else 3), found
    return content


def _new(write: Callable[..., None], target: Path) -> None:
    write(target, "new", RUN[:2]) if write is _write_run else write(target, "new")


def _left(place: Path) -> list[str]:
    return [str(path) for path in place.rglob(".step-*")]


def _interrupt() -> None:
    raise KeyboardInterrupt


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _killed(do: Callable[[], None]) -> None:
    """Runs it in a process of its own, which has to be killed."""
    child = os.fork()
    if child == 0:
        try:
            do()
        finally:
            os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])


CASES = {
    "folder": (_write_bundle, True, False),
    "folder, no exchange": (_write_bundle, False, False),
    "file": (_write_file, True, False),
    "files": (_write_run, True, False),
    "files, no exchange": (_write_run, False, False),
    "files beside others": (_write_run, True, True),
}


@pytest.mark.parametrize("old", ["old", ""])
@pytest.mark.parametrize("case", CASES)
def test_whatever_interrupts_what_is_there_is_whole(case, old, tmp_path, monkeypatch):
    write, can_exchange, has_others = CASES[case]
    fault = Fault(monkeypatch, can_exchange=can_exchange)

    def prepared(place: Path) -> Path:
        target = place / "target"
        place.mkdir()
        if has_others:
            target.mkdir()
            (target / "mine").write_text("mine")
        if old:
            write(target, old)
        return target

    target = prepared(tmp_path / "undisturbed")
    with fault.at(-1, is_after=False, strike=_interrupt):
        _new(write, target)
    all_seen = set()
    moments = ((False, False), (True, False), (False, True))  # a kill after a call is one before the next
    for number, (is_after, kill) in itertools.product(range(fault.count), moments):
        place = tmp_path / f"{number}-{is_after}-{kill}"
        target = prepared(place)
        with fault.at(number, is_after=is_after, strike=_kill if kill else _interrupt):
            if kill:
                _killed(lambda target=target: _new(write, target))
            else:
                with pytest.raises(KeyboardInterrupt):
                    _new(write, target)
        if kill and (has_others or not can_exchange):  # what is not done in one step is completed by the next one
            recover(target)
            sweep(place)
            if target.is_dir():
                sweep(target)
        assert _content(target) in (old, "new")
        all_seen.add(_content(target))
        write(target, "next")
        assert _content(target) == "next"
        assert not _left(place)
        assert not has_others or (target / "mine").read_text() == "mine"
    assert all_seen == {old, "new"}


def test_one_writer_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(step.files.scratch, "PATIENCE_S", 0.05)
    for write in (_write_file, _write_bundle, _write_run):
        target = tmp_path / write.__name__
        write(target, "old")
        nested = atomic_files(target, names=RUN) if write is _write_run else atomic_path(target)
        with pytest.raises(KeyError), nested:
            with pytest.raises(StepError, match=f"cannot write {target}: another process is writing it"):
                write(target, "new")
            raise KeyError
        assert _content(target) == "old"
        write(target, "new, and whole") if write is not _write_run else write(target, "next")
    assert not _left(tmp_path)


def test_a_scratch_folder_of_nobody_is_left_alone(tmp_path):
    (tmp_path / "elsewhere" / "new").mkdir(parents=True)
    (tmp_path / "elsewhere" / "lock").write_text('{"by": "step-trt scratch folder", "target": "a"}')
    (tmp_path / ".step-linkedto").symlink_to(tmp_path / "elsewhere")
    (tmp_path / ".step-notebook").mkdir()
    (tmp_path / ".step-notebook" / "lock").write_text("mine")
    (tmp_path / ".step-outside_").mkdir()
    (tmp_path / ".step-outside_" / "lock").write_text('{"by": "step-trt scratch folder", "target": "../a"}')
    (tmp_path / ".step-notebooks").mkdir()
    before = sorted(path for path in tmp_path.rglob("*"))
    sweep(tmp_path)
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_files_are_those_of_one_run_also_where_the_new_one_has_fewer(tmp_path):
    for others in ((), ("mine",)):
        folder = tmp_path / f"run{len(others)}"
        _write_run(folder, "old")
        for name in others:
            (folder / name).write_text("")
        _new(_write_run, folder)
        assert sorted(path.name for path in folder.iterdir()) == sorted([*RUN[:2], *others])


def test_the_folder_keeps_its_mode_and_the_current_folder_stays(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    _write_run(folder, "old")
    folder.chmod(0o750)
    _write_run(folder, "new", RUN[:2])
    assert folder.stat().st_mode & 0o777 == 0o750
    monkeypatch.chdir(folder)
    _write_run(folder, "next")
    assert Path("detections.csv").read_text() == "next"
