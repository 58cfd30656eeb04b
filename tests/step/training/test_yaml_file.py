"""YAML that people write."""

import pytest

from step import StepError
from step.training.yaml_file import parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 3000, "nested too deeply"),
        ("a: &a [*a]", "nested too deeply|stands for more"),
        ("a: 1\nb: 2\na: 3", "the key 'a' stands twice in what begins in line 1"),
        ("a: 2001-99-99", "month must be in"),
        ("a: " + "9" * 10_000, "Exceeds the limit"),
        ("a: !!python/object:os.system {}", "could not determine a constructor"),
        ("a: [1", "expected ',' or ']'"),
        ("a:\tb\n\tc", "found character"),
        ("{[]: 1}", "unhashable"),
    ],
)
def test_refused(text, said):
    with pytest.raises(ValueError, match=said):
        parse_yaml(text)


def test_few_lines_that_stand_for_many_values():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    with pytest.raises(ValueError, match="it stands for more than 100000 values"):
        parse_yaml("\n".join(lines))


def test_read():
    text = "base: &base {lr: 1.0e-3, steps: [1, 2]}\nnow: {<<: *base, lr: 0.1}\n"
    assert parse_yaml(text)["now"] == {"lr": 0.1, "steps": [1, 2]}


def test_files(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_bytes(b"a: \xff")
    with pytest.raises(StepError, match="c.yaml: not YAML: byte 3 is no UTF-8; save it as UTF-8"):
        read_yaml(path)
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\n")
    assert read_yaml(path) == {"a": 1}
    with pytest.raises(StepError, match="cannot be read: Is a directory"):
        read_yaml(tmp_path)
    with path.open("wb") as file:
        file.truncate(2**21)
    with pytest.raises(StepError, match="has 2097152 bytes"):
        read_yaml(path)
