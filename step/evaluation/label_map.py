"""Reads AVA's label maps (pbtxt): which classes there are and which count (torch-free).

Two spellings are in use: `item { name: "walk" id: 14 }` (2018 challenge, 60 classes) and `label { name: "walk"
label_id: 14 label_type: PERSON_MOVEMENT }` (version 2.2, 80 classes). Both are protobuf's text format, and protobuf
reads them, with all its forms of strings, numbers, comments and blocks.

Source: https://protobuf.dev/reference/protobuf/textformat-spec/; `StringIntLabelMap` of TensorFlow's object detection.
"""

import functools
from pathlib import Path
from typing import Any

from step.errors import StepError
from step.evaluation.box_table import LARGEST_LABEL
from step.shown import quoted

_LONGEST_REASON = 150  # it quotes the line
# Field -> what it holds, and whether it can be there several times. Read are the first three, and allowed are all.
_FIELDS = {
    "name": ("text", False),
    "id": ("number", False),
    "label_id": ("number", False),
    "label_type": ("type", False),
    "display_name": ("text", False),
    "instance_count": ("number", False),
    "frequency": ("frequency", False),
    "keypoints": ("keypoint", True),
    "ancestor_ids": ("number", True),
    "descendant_ids": ("number", True),
}
_KEYPOINT_FIELDS = {"id": "number", "label": "text"}
_FREQUENCIES = ("UNSPECIFIED", "FREQUENT", "COMMON", "RARE")
_LABEL_TYPES = ("PERSON_MOVEMENT", "OBJECT_MANIPULATION", "PERSON_INTERACTION")


def read_label_map(path: Path) -> dict[int, str]:
    """Reads class names by id, in the file's order.

    Raises:
        StepError: no such file, not protobuf's text format, a field that label maps have not, no class, a class without
            name or id, or an id twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise StepError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise StepError(f"{path}: cannot be read as a label map: {error}") from error
    classes = _parse(path, text)
    names: dict[int, str] = {}
    for number, entry in enumerate(classes, 1):
        where = f"{path}, class {number} of {len(classes)}"
        has_id = entry.HasField("id") or entry.HasField("label_id")
        if not has_id or not entry.HasField("name"):
            raise StepError(f"{where}: is without {'name' if has_id else 'id'}")
        label = entry.label_id if entry.HasField("label_id") else entry.id
        if not 1 <= label <= LARGEST_LABEL:
            raise StepError(f"{where}: the id is {label}; ids are 1 to {LARGEST_LABEL}")
        if label in names:
            raise StepError(f"{where}: id {label} stands there twice, for {quoted(names[label])} too")
        names[label] = entry.name
    if not names:
        raise StepError(f"{path}: holds no class; a label map is pbtxt: item {{ name: ... id: ... }}")
    return names


def _parse(path: Path, text: str) -> list[Any]:
    """Parses the file's classes into protobuf's messages."""
    from google.protobuf import text_format

    message = _label_map_type()()
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        line = f", line {error.GetLine()}" if error.GetLine() else ""
        said = " ".join(str(error).split())[:_LONGEST_REASON]
        advice = "was the file cut? copy it again"
        if '"step.Class" has no field named' in said:
            advice = "label maps have " + ", ".join(_FIELDS)
        raise StepError(f"{path}{line}: is no label map in protobuf's text format: {quoted(said)}; {advice}") from error
    except (UnicodeError, ValueError, RecursionError) as error:
        raise StepError(f"{path}: is no label map in protobuf's text format: {quoted(str(error))}") from error
    return [*message.item, *message.label]


@functools.cache
def _label_map_type() -> Any:
    """Builds the message type of a file: both spellings, and the other fields that such maps have."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="step/label_map.proto", package="step", syntax="proto2")
    for type_name, values in (("LabelType", _LABEL_TYPES), ("Frequency", _FREQUENCIES)):
        enumeration = file.enum_type.add(name=type_name)
        for number, name in enumerate(values, 1):
            enumeration.value.add(name=name, number=number)
    entry = file.message_type.add(name="Class")
    kinds = {
        "text": field.TYPE_STRING,
        "number": field.TYPE_INT64,
        "type": field.TYPE_ENUM,
        "frequency": field.TYPE_ENUM,
        "keypoint": field.TYPE_MESSAGE,
    }
    keypoint = file.message_type.add(name="Keypoint")
    for number, (name, kind) in enumerate(_KEYPOINT_FIELDS.items(), 1):
        keypoint.field.add(name=name, number=number, label=field.LABEL_OPTIONAL, type=kinds[kind])
    for number, (name, (kind, is_repeated)) in enumerate(_FIELDS.items(), 1):
        entry.field.add(
            name=name,
            number=number,
            label=field.LABEL_REPEATED if is_repeated else field.LABEL_OPTIONAL,
            type=kinds[kind],
            type_name={"type": ".step.LabelType", "frequency": ".step.Frequency", "keypoint": ".step.Keypoint"}.get(
                kind
            ),
        )
    whole = file.message_type.add(name="LabelMap")
    for number, name in enumerate(("item", "label"), 1):
        whole.field.add(
            name=name, number=number, label=field.LABEL_REPEATED, type=field.TYPE_MESSAGE, type_name=".step.Class"
        )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("step.LabelMap"))
