"""Reading YAML that people write, and writing it; PyYAML is imported when there is something to read or write."""

import functools
from collections.abc import Hashable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from step.errors import StepError
from step.files.text_files import read_text

_MOST_BYTES = 2**20
_MOST_VALUES = 100_000


def read_yaml(path: Path) -> Any:
    """Reads the value in a YAML file of plain values.

    Raises:
        FileNotFoundError: no such file.
        StepError: it cannot be read, is no YAML, or see `parse_yaml`.
    """
    try:
        return parse_yaml(read_text(path, most_bytes=_MOST_BYTES, encoding="utf-8-sig"))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StepError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise StepError(f"{path}: not YAML: {error}") from error


def parse_yaml(text: str) -> Any:
    """Returns the value of a text.

    Raises:
        ValueError: it is no YAML, has a key twice, is nested too deeply, or repeats so much that it has no end.
        StepError: PyYAML is not installed.
    """
    yaml = _pyyaml()
    try:
        value = yaml.load(text, Loader=_unique_key_loader())
        _count(value, [_MOST_VALUES])
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except (OverflowError, TypeError, AttributeError) as error:  # of odd dates, numbers and merges
        raise ValueError(f"a value cannot be read: {error}") from error
    return value


def write_yaml(value: Any, path: Path) -> None:
    """Writes plain values, keys in their order.

    Raises:
        StepError: PyYAML is not installed.
    """
    path.write_text(_pyyaml().safe_dump(value, sort_keys=False), encoding="utf-8")


def _pyyaml() -> ModuleType:
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise StepError("training needs PyYAML; install it with: pip install 'step-trt[train]'") from error
    return cast(ModuleType, yaml)


@functools.cache
def _unique_key_loader() -> type:
    """PyYAML takes the last of several values of a key without a word."""
    yaml = _pyyaml()

    class UniqueKeyLoader(yaml.SafeLoader):  # type: ignore[misc, name-defined]
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
            pairs = node.value if isinstance(node, yaml.MappingNode) else []
            names = [key.value for key, _ in pairs if isinstance(key, yaml.ScalarNode)]
            for index, name in enumerate(names):
                if name in names[:index] and name != "<<":
                    line = node.start_mark.line + 1
                    raise ValueError(f"the key {name!r} stands twice in what begins in line {line}")
            return dict(super().construct_mapping(node, deep=deep))

    return UniqueKeyLoader


def _count(value: Any, left: list[int]) -> None:
    """Aliases make a few lines many values; whoever looks at each of them would never end."""
    left[0] -= 1
    if left[0] < 0:
        raise ValueError(f"it stands for more than {_MOST_VALUES} values")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, (list, set, tuple)) else ():
        _count(inner, left)
