"""A model's config.pbtxt for Triton: what it says, typed, and its text (torch-free).

Triton reads protobuf's text format of `ModelConfig`; the fields here are called as there. Tests parse every text with
tritonclient's definitions.

Source: https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/model_configuration.html
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from step.bundles.service_spec import ServiceDType

Kind = Literal["KIND_AUTO", "KIND_GPU", "KIND_CPU"]
QUEUE_DELAY_US = 5000
"""How long a request waits for others to share a call with, microseconds."""

_TYPES: dict[ServiceDType, str] = {
    "uint8": "TYPE_UINT8",
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "int64": "TYPE_INT64",
    "bytes": "TYPE_STRING",
}


@dataclass(frozen=True)
class ConfigTensor:
    """An input or output.

    Attributes:
        name: as the model has it.
        dtype: of its elements.
        dims: sizes without the batch, where the model is batched; -1 where a size may be any.
        is_scalar: batched, it has no other dimension than the batch; clients see it with a dimension of 1 then.
        optional: an input that a request may leave out.
        ragged: an input whose sizes may differ among the requests of one call.
    """

    name: str
    dtype: ServiceDType
    dims: tuple[int, ...]
    is_scalar: bool = False
    optional: bool = False
    ragged: bool = False


@dataclass(frozen=True)
class WarmUp:
    """One call with zeros, before Triton says that the model is ready.

    Attributes:
        batch: requests in it.
        inputs: of each.
    """

    batch: int
    inputs: tuple[ConfigTensor, ...]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A config.pbtxt.

    Attributes:
        name: of the model, and of its folder.
        platform, backend: what runs it; one of the two.
        file: in the version's folder.
        max_batch: most requests (of one clip or video each) of a call; 0 where the model takes its full shapes only.
        preferred: sizes of calls that Triton waits for a moment for.
        inputs, outputs: in the model's order.
        kind: of device.
        instances: on each device.
        warm_ups: calls before the first request.
        parameters: what the backend is told.
    """

    name: str
    platform: str | None = None
    backend: str | None = None
    file: str
    max_batch: int
    preferred: tuple[int, ...] = ()
    inputs: tuple[ConfigTensor, ...]
    outputs: tuple[ConfigTensor, ...]
    kind: Kind
    instances: int
    warm_ups: tuple[WarmUp, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """Returns the file's content."""
        return "\n".join(_lines(self._message())) + "\n"

    def _message(self) -> "_Message":
        fields: list[tuple[str, _Value]] = [("name", self.name)]
        fields += [("platform", self.platform)] if self.platform is not None else []
        fields += [("backend", self.backend)] if self.backend is not None else []
        fields += [("default_model_filename", self.file), ("max_batch_size", self.max_batch)]
        fields += [("input", _tensor(tensor)) for tensor in self.inputs]
        fields += [("output", _tensor(tensor)) for tensor in self.outputs]
        fields += [("version_policy", _Message(("latest", _Message(("num_versions", 1)))))]
        if self.max_batch:
            sizes: list[tuple[str, _Value]] = [("preferred_batch_size", self.preferred)] if self.preferred else []
            batching = _Message(*sizes, ("max_queue_delay_microseconds", QUEUE_DELAY_US))
            fields += [("dynamic_batching", batching)]
        fields += [("instance_group", _Message(("kind", _Word(self.kind)), ("count", self.instances)))]
        fields += [("model_warmup", _warm_up(warm_up)) for warm_up in self.warm_ups]
        for key, value in self.parameters.items():
            fields.append(("parameters", _Message(("key", key), ("value", _Message(("string_value", value))))))
        return _Message(*fields)


@dataclass(frozen=True)
class _Word:
    """One of an enumeration's names, which is not quoted."""

    text: str


class _Message:
    """A message of protobuf: fields in order; one that is repeated stands there several times."""

    def __init__(self, *fields: "tuple[str, _Value]") -> None:
        self.fields = fields


_Value = str | int | bool | _Word | tuple[int, ...] | _Message


def _tensor(tensor: ConfigTensor) -> _Message:
    fields: list[tuple[str, _Value]] = [("name", tensor.name), ("data_type", _Word(_TYPES[tensor.dtype]))]
    if tensor.is_scalar:  # a tensor of one number a request is written so
        fields += [("dims", (1,)), ("reshape", _Message(("shape", ())))]
    else:
        fields += [("dims", tensor.dims)]
    fields += [("allow_ragged_batch", True)] if tensor.ragged else []
    fields += [("optional", True)] if tensor.optional else []
    return _Message(*fields)


def _warm_up(warm_up: WarmUp) -> _Message:
    fields: list[tuple[str, _Value]] = [("name", f"{warm_up.batch} of zeros"), ("batch_size", warm_up.batch)]
    for tensor in warm_up.inputs:
        content = _Message(("data_type", _Word(_TYPES[tensor.dtype])), ("dims", tensor.dims), ("zero_data", True))
        fields.append(("inputs", _Message(("key", tensor.name), ("value", content))))
    return _Message(*fields)


def _lines(message: _Message, indent: str = "") -> Iterator[str]:
    """Writes protobuf's text format, a field a line."""
    for name, value in message.fields:
        if isinstance(value, _Message):
            yield f"{indent}{name} {{"
            yield from _lines(value, indent + "  ")
            yield f"{indent}}}"
        else:
            yield f"{indent}{name}: {_scalar(value)}"


def _scalar(value: str | int | bool | _Word | tuple[int, ...]) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, _Word):
        return value.text
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return str(value) if isinstance(value, int) else json.dumps(value)  # its escapes are those of the text format
