"""Puts NVIDIA's own plugin classes through a build's calls and prints what the plugins answer, as JSON.

Run by a test in a process of its own, in which `tensorrt` is NVIDIA's real Python API; see shared/tools. What the
library hands to a plugin and cannot be made in Python stands in here: sizes (`Size`) and what receives the launch.
"""

import hashlib
import json
import sys
from types import SimpleNamespace

import numpy as np
import step_plugins
import tensorrt as trt
import tensorrt_bindings.plugin._lib as library
import tensorrt_bindings.plugin._tensor as tensors

OPERATIONS = {
    "SUM": lambda a, b: a + b,
    "SUB": lambda a, b: a - b,
    "PROD": lambda a, b: a * b,
    "FLOOR_DIV": lambda a, b: a // b,
    "CEIL_DIV": lambda a, b: -(-a // b),
    "MAX": max,
    "MIN": min,
}


class Size:
    """A symbolic size: nothing knows its value until `at`; one that is constant says so."""

    def __init__(self, compute, *, constant):
        self.at, self._constant = compute, constant

    def is_constant(self):
        return self._constant

    def get_constant_value(self):
        assert self._constant, "asked for the value of a size that is not known at build time"
        return self.at({})


class Sizes:
    """What the library calls an expression builder."""

    def constant(self, value):
        return Size(lambda _: value, constant=True)

    def operation(self, operation, first, second):
        compute = OPERATIONS[operation.name]
        constant = first.is_constant() and second.is_constant()
        return Size(lambda named: compute(first.at(named), second.at(named)), constant=constant)

    def named(self, name):
        return Size(lambda named: named[name], constant=False)

    def shape(self, shape):
        return [self.named(side) if isinstance(side, str) else self.constant(side) for side in shape]


trt.IDimensionExpr = Size
trt.DimsExprs = lambda count: [None] * count
tensors.SymExprImpl = lambda expression: expression._expr
SIZES = Sizes()


def make(name, attributes):
    """The plugin as the ONNX parser makes it, with no wish for JIT or AOT spoken."""
    kinds = {int: (np.int64, trt.PluginFieldType.INT64), float: (np.float32, trt.PluginFieldType.FLOAT32)}
    creator = trt.get_plugin_registry().get_creator(name, "1", "step")
    fields = [
        trt.PluginField(field.name, np.array([value], kinds[type(value)][0]), kinds[type(value)][1])
        for field in creator.field_names
        for value in [attributes[field.name]]
    ]
    request = trt.QuickPluginCreationRequest.UNKNOWN
    return creator.create_plugin(name, "step", trt.PluginFieldCollection(fields), trt.TensorRTPhase.BUILD, request)


def tensor(dtype, layout, shape, largest):
    result = trt.DynamicPluginTensorDesc()
    result.desc.type, result.desc.format = dtype, layout
    result.desc.dims = [-1 if isinstance(side, str) else side for side in shape]
    for field in ("min", "opt", "max"):
        setattr(result, field, [largest[side] if isinstance(side, str) else side for side in shape])
    return result


def describe(name, attributes, inputs, sizes):
    """All answers of one plugin.

    Args:
        inputs: (dtype, shape) of each; a name in a shape is a dynamic size.
        sizes: values of the named sizes, with which the launch is evaluated; the last is the profile's largest.
    """
    plugin = make(name, attributes)
    dtypes, shapes = [getattr(trt.DataType, dtype) for dtype, _ in inputs], [shape for _, shape in inputs]
    outputs = plugin.get_output_data_types(dtypes, [len(shape) for shape in shapes])
    (expressions,) = plugin.get_output_shapes([SIZES.shape(shape) for shape in shapes], [], SIZES)
    output_shape = [[side.at(named) for side in expressions] for named in sizes]
    linear, largest = trt.TensorFormat.LINEAR, sizes[-1]
    ends = [tensor(dtype, linear, shape, largest) for dtype, shape in zip(dtypes, shapes, strict=True)]
    ends += [tensor(outputs[0], linear, output_shape[-1], largest)]
    supported = plugin.get_supported_format_combinations(ends, len(inputs))
    width = len(ends)
    combinations = [supported[start : start + width] for start in range(0, len(supported), width)]
    kernels = []
    for combination in combinations:
        for end, found in zip(ends, combination, strict=True):
            end.desc.type, end.desc.format = found.type, found.format
        plugin.configure_plugin(ends[: len(inputs)], ends[len(inputs) :])
        for tactic in sorted(plugin.get_valid_tactics()):
            plugin.set_tactic(tactic)
            launch, extra = SimpleNamespace(), Arguments()
            plugin.get_launch_params([SIZES.shape(shape) for shape in shapes], ends, len(inputs), launch, extra, SIZES)
            entry, ptx = plugin.get_kernel([end.desc for end in ends[:-1]], [ends[-1].desc])
            kernels.append(
                {
                    "types": [found.type.name for found in combination],
                    "formats": [found.format.name for found in combination],
                    "tactic": tactic,
                    "entry": entry,
                    "ptx_sha256": hashlib.sha256(ptx).hexdigest(),
                    "threads_in_ptx": int(ptx.decode().split(".maxntid ")[1].split(",")[0]),
                    "launch": [
                        {axis: expression.at(named) for axis, expression in vars(launch).items()} for named in sizes
                    ],
                    "arguments": [[expression.at(named) for expression in extra.values] for named in sizes],
                }
            )
    return {
        "aot": isinstance(plugin, library._TemplateAOTPlugin),
        "output_dtype": outputs[0].name,
        "output_shape": output_shape,
        "kernels": kernels,
    }


class Arguments:
    """Receives the kernel's extra arguments."""

    def __setattr__(self, name, value):
        assert name == "nbSymExprs"
        self.__dict__["values"] = [None] * value

    def __setitem__(self, index, value):
        self.values[index] = value


def refusal(name, attributes, inputs):
    plugin = make(name, attributes)
    try:
        plugin.get_output_data_types([getattr(trt.DataType, dtype) for dtype, _ in inputs], [len(s) for _, s in inputs])
    except step_plugins.PluginError as error:
        return str(error)
    return None


def main():
    assert step_plugins.find_problem(trt) is None
    step_plugins.register(trt)
    step_plugins.register(trt)  # changes nothing
    registered = [
        (c.name, c.plugin_version) for c in trt.get_plugin_registry().all_creators if c.plugin_namespace == "step"
    ]
    cases = json.load(sys.stdin)
    answers = {
        "registered": registered,
        "described": [describe(**case) for case in cases["describe"]],
        "refused": [refusal(**case) for case in cases["refuse"]],
    }
    sys.stdout.write("\n" + json.dumps(answers))


main()
