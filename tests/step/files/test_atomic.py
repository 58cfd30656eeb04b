from pathlib import Path

import pytest

from step.errors import StepError
from step.files.atomic import atomic_files, atomic_path, check_outputs


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "new" / "file.txt"
    with pytest.raises(KeyError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert not list(target.parent.iterdir())
    with atomic_path(target) as temporary:
        temporary.write_text("whole")
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"]


def test_a_folder_is_replaced_only_when_the_new_one_is_complete(tmp_path):
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "old").write_text("")
    with pytest.raises(KeyError), atomic_path(target) as temporary:
        temporary.mkdir()
        raise KeyError
    assert [path.name for path in target.iterdir()] == ["old"]
    with atomic_path(target) as temporary:
        temporary.mkdir()
        (temporary / "new").write_text("")
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_files_join_what_is_there(tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(KeyError), atomic_files(tmp_path) as scratch:
        (scratch / "half").write_text("")
        raise KeyError
    with atomic_files(tmp_path) as scratch:
        (scratch / "whole").write_text("")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "whole"]


def test_a_folder_made_for_nothing_goes_again(tmp_path):
    with pytest.raises(KeyError), atomic_files(tmp_path / "out"):
        raise KeyError
    assert not (tmp_path / "out").exists()


def test_unwritable_place_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StepError, match="cannot write .*a file is in the way"), atomic_files(tmp_path / "file" / "out"):
        pass


def test_every_output_has_a_place_of_its_own(tmp_path):
    out = tmp_path / "a.json"
    check_outputs({"--json": out, "--csv": tmp_path / "b.csv", "--html": None, "--plot": None})
    with pytest.raises(StepError, match=r"--json and --csv are both .*a\.json; give each a file of its own"):
        check_outputs({"--json": out, "--csv": tmp_path / "sub" / ".." / "a.json"})
    check_outputs({"--json": Path("/dev/null"), "--csv": Path("/dev/null")})
