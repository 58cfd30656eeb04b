"""AVA's label maps (pbtxt): which classes there are and which count (torch-free).

Two spellings are in use: `item { name: "walk" id: 14 }` (2018 challenge, 60 classes) and `label { name: "walk"
label_id: 14 label_type: PERSON_MOVEMENT }` (version 2.2, 80 classes).
"""

import re
from pathlib import Path

from step.errors import StepError
from step.evaluation.box_table import LARGEST_LABEL
from step.shown import quoted

_BLOCK = re.compile(r"""\b(?:item|label)\s*\{((?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^}"'])*)\}""", re.DOTALL)
_MOST_DIGITS = 10
_COMMENT = re.compile(r"^[ \t]*#.*$", re.MULTILINE)
_ID = re.compile(r"\b(?:label_)?id:\s*(\d+)")
_NAME = re.compile(r"""\bname:\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)')""")


def read_label_map(path: Path) -> dict[int, str]:
    """Class names by id, in the file's order.

    Raises:
        StepError: no such file, no class in it, a class without name or id, or an id twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise StepError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise StepError(f"{path}: cannot be read as a label map: {error}") from error
    text = _COMMENT.sub("", text)  # the line ends stay, for the messages
    names: dict[int, str] = {}
    for block in _BLOCK.finditer(text):
        line = text.count("\n", 0, block.start()) + 1
        found_id, found_name = _ID.search(block[1]), _NAME.search(block[1])
        if found_id is None or found_name is None:
            raise StepError(f"{path}, line {line}: a class without {'id' if found_id is None else 'name'}")
        label = int(found_id[1]) if len(found_id[1]) < _MOST_DIGITS else LARGEST_LABEL + 1
        if not 1 <= label <= LARGEST_LABEL:
            raise StepError(f"{path}, line {line}: the class is {found_id[1][:20]}; ids are 1 to {LARGEST_LABEL}")
        if label in names:
            raise StepError(f"{path}, line {line}: class {label} stands there twice")
        names[label] = found_name[1] if found_name[1] is not None else found_name[2]
    # What belongs to no class is half of one: the file was cut, or edited by hand.
    rest = _BLOCK.sub(lambda block: "\n" * block[0].count("\n"), text)
    rest = re.sub(r"#.*", "", rest)
    if rest.strip():
        number = rest[: len(rest) - len(rest.lstrip())].count("\n") + 1
        told = f"{quoted(rest.strip().splitlines()[0])} is no whole class"
        raise StepError(f"{path}, line {number}: {told}; was the file cut? copy it again")
    if not names:
        raise StepError(f"{path}: holds no class; a label map is pbtxt: item {{ name: ... id: ... }}")
    return names
