"""YAML configs: the packaged ones, and what is said of bad ones."""

import pytest
import yaml

from step import StepError
from step.classes import AVA_CLASS_NAMES, CHALLENGE_CLASS_IDS
from step.training.config import CONFIG_FOLDER, read_config

GOOD = {"kind": "detect", "data": {"folder": "ava"}}


@pytest.fixture
def read(tmp_path):
    def write(content, kind="detect", **changes):
        text = content if isinstance(content, str) else yaml.safe_dump(content)
        (tmp_path / "c.yaml").write_text(text)
        return read_config(str(tmp_path / "c.yaml"), kind=kind, changes=changes)

    return write


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIG_FOLDER.glob("*.yaml")))
def test_packaged(name):
    kind = "classify" if "classify" in name else "detect"
    config = read_config(name, kind=kind)
    assert config.kind == kind
    config.step_config()


def test_the_published_settings_are_the_defaults(read):
    config = read(GOOD)
    assert config.selection.positive_iou == (0.2, 0.35, 0.5)
    assert (config.optimizer.batch, config.optimizer.epochs, config.optimizer.warmup) == (8, 14, 1000)
    assert config.step_config().clip_frames == 36
    assert config.data.class_ids == CHALLENGE_CLASS_IDS


def test_changes_and_classes(read):
    config = read(GOOD, **{"optimizer.batch": 4, "data.classes": "all"})
    assert config.optimizer.batch == 4
    assert config.step_config().class_ids == tuple(AVA_CLASS_NAMES)
    assert read(GOOD | {"data": {"folder": "x", "classes": [14, 12]}}).step_config().class_ids == (12, 14)
    named = read(GOOD | {"data": {"folder": "x", "classes": {14: "stroll", 3: "bike"}}}).step_config()
    assert (named.class_ids, named.class_names) == ((3, 14), ("bike", "stroll"))
    assert [named.class_name(label) for label in (3, 14, 12)] == ["bike", "stroll", "stand"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (GOOD | {"optimiser": {}}, r"c.yaml: unknown key 'optimiser'; did you mean 'optimizer'\?"),
        (GOOD | {"optimizer": {"batchsize": 4}}, "unknown key 'optimizer.batchsize'; did you mean 'batch'"),
        (GOOD | {"optimizer": {"batch": 0}}, "optimizer.batch is 0: Input should be greater than or equal to 1"),
        (GOOD | {"optimizer": {"batch": "many"}}, "optimizer.batch is 'many'"),
        (
            GOOD | {"model": {"chunks": [1, 1]}},
            r"c.yaml: model.chunks \[1, 1\] makes 2 steps, but selection.positive_iou has 3 values and "
            "selection.regression_iou has 3 values; give one for each step$",
        ),
        (
            GOOD | {"selection": {"positive_iou": [0.2]}, "checkpointing": True, "model": {"freeze_norm": False}},
            "makes 3 steps, but selection.positive_iou has 1 values; give one for each step; checkpointing needs",
        ),
        (GOOD | {"model": {"chunks": [1, 1, 2]}}, "chunks is .1, 1, 2.; it must be"),
        (GOOD | {"model": {"kinetics": "a", "checkpoint": "b"}}, "kinetics and checkpoint exclude each other"),
        (GOOD | {"checkpointing": True, "model": {"freeze_norm": False}}, "checkpointing needs model.freeze_norm"),
        (GOOD | {"model": {"kinetics": "a", "checkpoint": "b"}}, "c.yaml: model: kinetics and checkpoint exclude"),
        (GOOD | {"seed": 2**32}, "seed is 4294967296: Input should be less than 4294967296"),
        (GOOD | {"selection": {"positive_iou": [5, 0.2, 0.3]}}, "selection.positive_iou.0 is 5: Input should be less"),
        (GOOD | {"selection": {"positive_iou": [0.1, float("nan"), 0.3]}}, "selection.positive_iou.1 is nan"),
        *(
            (
                GOOD | {"data": {"folder": "x", "classes": classes}},
                r"data.classes is .*: give challenge, all, a list of ids",
            )
            for classes in ("foo", 5, [], {}, {7: 3}, {"x": "a"}, [-1], [0, True], {1: "a", 2: "a"}, {1: " "})
        ),
        ({"kind": "detect"}, "data is missing; it has to be given"),
        ({"kind": "classify", "data": {"folder": "x"}}, "is for step-train classify, not for step-train detect"),
        ("[1, 2]", "expected keys and values, found list"),
        ("a: [", "not YAML"),
    ],
)
def test_bad_configs(content, said, read):
    with pytest.raises(StepError, match=said):
        read(content)


def test_no_such_file():
    with pytest.raises(StepError, match="nowhere.yaml: no such file; give a YAML file or one of .*toy_detect.yaml"):
        read_config("nowhere.yaml", kind="detect")
