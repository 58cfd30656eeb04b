"""The text of a config.pbtxt, parsed with Triton's own definitions."""

import pytest
from google.protobuf import text_format
from step_export.triton.model_config import QUEUE_DELAY_US, ConfigTensor, ModelConfig, WarmUp

definitions = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="pip install 'step-trt[triton]'")

FRAMES = ConfigTensor("frames", "uint8", (36, 64, 64, 3))


def parse(config: ModelConfig):
    return text_format.Parse(config.text(), definitions.ModelConfig())


def make(**changes) -> ModelConfig:
    values = {
        "name": "m",
        "backend": "python",
        "file": "model.py",
        "max_batch": 4,
        "inputs": (FRAMES,),
        "outputs": (ConfigTensor("counts", "int64", (), is_scalar=True),),
        "kind": "KIND_CPU",
        "instances": 2,
    }
    return ModelConfig(**(values | changes))


def test_every_field_arrives():
    config = make(
        preferred=(2, 4),
        inputs=(FRAMES, ConfigTensor("video", "bytes", (1,), optional=True, ragged=True)),
        warm_ups=(WarmUp(4, (FRAMES,)),),
        parameters={"bundle": "bundle"},
    )
    parsed = parse(config)
    assert (parsed.name, parsed.backend, parsed.platform) == ("m", "python", "")
    assert (parsed.default_model_filename, parsed.max_batch_size) == ("model.py", 4)
    frames, video = parsed.input
    assert (frames.name, frames.data_type, list(frames.dims)) == ("frames", definitions.TYPE_UINT8, [36, 64, 64, 3])
    assert not frames.optional
    assert not frames.allow_ragged_batch
    assert (video.data_type, video.optional, video.allow_ragged_batch) == (definitions.TYPE_STRING, True, True)
    assert parsed.version_policy.latest.num_versions == 1
    assert list(parsed.dynamic_batching.preferred_batch_size) == [2, 4]
    assert parsed.dynamic_batching.max_queue_delay_microseconds == QUEUE_DELAY_US
    (group,) = parsed.instance_group
    assert (group.kind, group.count) == (definitions.ModelInstanceGroup.KIND_CPU, 2)
    (warm_up,) = parsed.model_warmup
    assert warm_up.batch_size == 4
    assert warm_up.inputs["frames"].zero_data
    assert list(warm_up.inputs["frames"].dims) == [36, 64, 64, 3]
    assert parsed.parameters["bundle"].string_value == "bundle"


def test_a_tensor_of_one_number_a_clip():
    """Triton has no empty dims: clients see [B, 1], the model [B]."""
    (counts,) = parse(make()).output
    assert list(counts.dims) == [1]
    assert counts.HasField("reshape")
    assert list(counts.reshape.shape) == []


def test_full_shapes_are_not_batched():
    parsed = parse(make(max_batch=0))
    assert parsed.max_batch_size == 0
    assert not parsed.HasField("dynamic_batching")


@pytest.mark.parametrize("value", ["/a b/c", 'quo"te', "back\\slash", "ünï", "new\nline", "a\tb", "日本"])
def test_any_text_arrives(value):
    assert parse(make(parameters={"bundle": value})).parameters["bundle"].string_value == value
