"""Parses an ONNX file with TensorRT-RTX and prints what came of it as JSON; run by a test in a process of its own."""

import json
import sys

import tensorrt_rtx as trt

logger = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(logger)
network = builder.create_network()
parser = trt.OnnxParser(network, logger)
assert parser.parse_from_file(sys.argv[1])


def describe(tensor: trt.ITensor) -> list[object]:
    return [tensor.name, tensor.dtype.name, list(tensor.shape)]


layers = [network.get_layer(index) for index in range(network.num_layers)]
json.dump(
    {
        "inputs": [describe(network.get_input(index)) for index in range(network.num_inputs)],
        "outputs": [describe(network.get_output(index)) for index in range(network.num_outputs)],
        "layers": [
            [layer.type.name, layer.get_input(0).dtype.name if layer.num_inputs else "", layer.get_output(0).dtype.name]
            for layer in layers
        ],
    },
    sys.stdout,
)
