import pytest

from step.errors import StepError
from step.files import atomic_files, atomic_path


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
