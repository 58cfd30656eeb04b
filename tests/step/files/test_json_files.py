"""JSON that others wrote or damaged."""

import pytest

from step import StepError
from step.files.json_files import read_json


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "Expecting value"),
        (b"[" * 100_000, "nested too deeply"),
        (b"1" * 10_000, "Exceeds the limit"),
        (b'{"a": 1, "a": 2}', "the key 'a' stands there twice"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": -Infinity}', "-Infinity is no number"),
        (b'"\\ud800"', "half a character"),
        (b'{"\xff": 1}', "byte 2 is no UTF-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
    ],
)
def test_refused(content, said, tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(StepError, match=f"a.json: is damaged: .*{said}.*; make it again"):
        read_json(path, advice="make it again")


def test_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, 2.5, null, "\\u00e9\\ud83d\\ude00"]}')
    assert read_json(path, advice="") == {"a": [1, 2.5, None, "é😀"]}


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(StepError, match="cannot be read: Is a directory"):
        read_json(tmp_path, advice="make it again")
    with pytest.raises(StepError, match="cannot be read: No such file"):
        read_json(tmp_path / "none", advice="make it again")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(StepError, match="it has 1073741824 bytes"):
        read_json(tmp_path / "huge", advice="make it again")
