"""Builds each ONNX file given with TensorRT-RTX for a batch of 1 to 4; run by a test in a process of its own."""

import sys

import tensorrt_rtx as trt


def build(path: str) -> None:
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network()
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(path):
        sys.exit(f"{path}: {[parser.get_error(i).desc() for i in range(parser.num_errors)]}")
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        smallest = [1 if side < 0 else side for side in tensor.shape]
        largest = [4 if side < 0 else side for side in tensor.shape]
        profile.set_shape(tensor.name, smallest, smallest, largest)
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        sys.exit(f"{path}: the build failed")
    print(f"built {path}: {engine.nbytes} bytes")


for argument in sys.argv[1:]:
    build(argument)
