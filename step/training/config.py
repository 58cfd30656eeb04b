"""What a training run is: small YAML files, checked field by field.

Source: SPEC.md, "Training (detection)", "Training (classification pre-training)".
"""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from step.classes import AVA_CLASS_NAMES, CHALLENGE_CLASS_IDS
from step.config import PoolMode, StepConfig, TemporalMode
from step.errors import ArgumentError, StepError
from step.nearest import did_you_mean
from step.shown import quoted
from step.training.yaml_file import read_yaml

CONFIG_FOLDER = Path(__file__).parent / "configs"
Precision = Literal["fp32", "bf16", "fp16"]
_CLASS_SETS: dict[str, tuple[int, ...]] = {"challenge": CHALLENGE_CLASS_IDS, "all": tuple(AVA_CLASS_NAMES)}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_Share = Annotated[float, Field(ge=0, le=1)]


class DataConfig(_Section):
    """Names the data set: a folder as `step-data` makes it.

    Attributes:
        folder: with <split>.csv and frames or videos.
        train, val: names of the splits.
        classes: "challenge" (60), "all" (80), a list of AVA's class ids, or ids with their names.
        cache: keep decoded clips in memory at the model's input size; augmentation then works on these.
        workers: processes that load clips.
    """

    folder: Path
    train: str = "train"
    val: str = "val"
    classes: Literal["challenge", "all"] | tuple[int, ...] | dict[int, str] = "challenge"
    cache: bool = False
    workers: int = Field(default=4, ge=0)

    @field_validator("classes", mode="before")
    @classmethod
    def _ids_or_names(cls, value: object) -> object:
        if isinstance(value, dict):
            named = {int(key) if str(key).isdecimal() else 0: name for key, name in value.items()}
            names = set(named.values())
            good = all(isinstance(name, str) and name.strip() for name in names) and len(names) == len(value)
            if named and good and min(named) > 0:
                return named
        elif isinstance(value, (list, tuple)):
            if value and all(type(each) is int and each > 0 for each in value):
                return tuple(value)
        elif value in _CLASS_SETS:
            return value
        raise ValueError("give challenge, all, a list of ids from 1, or ids with a name each: {1: biking, 3: diving}")

    @property
    def class_ids(self) -> tuple[int, ...]:
        """Returns the ids of the model's score columns."""
        return _CLASS_SETS[self.classes] if isinstance(self.classes, str) else tuple(sorted(set(self.classes)))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Returns the names in the order of the ids; empty where they are AVA's."""
        return tuple(self.classes[label] for label in self.class_ids) if isinstance(self.classes, dict) else ()


class ModelConfig(_Section):
    """Names the architecture, see `StepConfig`, and where its weights begin.

    Attributes:
        kinetics: I3D weights for backbone, context and heads.
        classifier: a checkpoint of classification pre-training: backbone, context and its head into every step.
        checkpoint: a whole model of the same architecture.
        dropout: share of a head's features that are dropped in training.
        freeze_norm: BatchNorm's statistics and factors stay as they are.
        freeze_backbone: the backbone's weights stay as they are.
    """

    image_size_px: int = 400
    chunk_frames: int = 3
    chunks: tuple[int, ...] = (1, 1, 3)
    anchor_mode: int = 1
    temporal_mode: TemporalMode = "predict"
    pool_mode: PoolMode = "align"
    pool_size: int = 7
    fc_dim: int = 256
    context: bool = True
    width: float = 1.0
    kinetics: Path | None = None
    classifier: Path | None = None
    checkpoint: Path | None = None
    dropout: float = Field(default=0.3, ge=0, lt=1)
    freeze_norm: bool = True
    freeze_backbone: bool = False

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        given = [name for name in ("kinetics", "classifier", "checkpoint") if getattr(self, name) is not None]
        if "checkpoint" in given and len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other; a checkpoint holds all weights")
        return self


class SelectionConfig(_Section):
    """Says which tubes a step is trained on; see `SelectionOptions`."""

    positive_iou: tuple[_Share, ...] = (0.2, 0.35, 0.5)
    regression_iou: tuple[_Share, ...] = (0.2, 0.35, 0.5)
    max_positives: int = Field(default=5, ge=1)
    negatives_per_positive: int = Field(default=2, ge=0)
    max_candidates: int = Field(default=300, ge=1)


class AugmentationConfig(_Section):
    """Says what is done to training clips; see `AugmentationOptions`."""

    photometric: bool = True
    crop: bool = True
    flip: bool = True
    erase: bool = True


class OptimizerConfig(_Section):
    """Sets up Adam with a rate for each part of the model; see `LearningRates`.

    Attributes:
        batch: clips of one process and update.
        accumulate: batches whose gradients are added before an update.
        epochs: over the training split.
        warmup: updates over which the rates rise.
        clip_norm: largest norm of the gradient; None for any.
        ema: decay of the averaged weights, which are then evaluated and saved; None for none.
    """

    backbone_rate: float = Field(default=7.5e-5, ge=0)
    context_rate: float = Field(default=1.5e-4, ge=0)
    head_rate: float = Field(default=7.5e-4, ge=0)
    weight_decay: float = Field(default=1e-7, ge=0)
    batch: int = Field(default=8, ge=1)
    accumulate: int = Field(default=1, ge=1)
    epochs: int = Field(default=14, ge=1)
    warmup: int = Field(default=1000, ge=0)
    clip_norm: float | None = Field(default=None, gt=0)
    ema: float | None = Field(default=None, gt=0, lt=1)


class TrainingConfig(_Section):
    """Describes a whole run.

    Attributes:
        kind: detection, or classification pre-training.
        seed: of initialisation, order, augmentation and selection.
        precision: of the networks; fp16 scales the loss.
        compile: torch.compile for backbone and heads.
        checkpointing: compute the backbone's activations again instead of keeping them.
        deterministic: algorithms that give the same bits each time, where there are any: the gradient of max pooling
            has none on CUDA, which warns.
        evaluate_every: epochs between evaluations.
        keep: how many of the latest checkpoints stay, beside the best.
        save_every: updates between checkpoints within an epoch; None for its end alone.
    """

    kind: Literal["detect", "classify"]
    seed: int = Field(default=0, ge=0, lt=2**32)
    precision: Precision = "fp32"
    compile: bool = False
    checkpointing: bool = False
    deterministic: bool = False
    evaluate_every: int = Field(default=1, ge=1)
    keep: int = Field(default=2, ge=1)
    save_every: int | None = Field(default=None, ge=1)
    data: DataConfig
    model: ModelConfig = ModelConfig()
    selection: SelectionConfig = SelectionConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    optimizer: OptimizerConfig = OptimizerConfig()

    @model_validator(mode="after")
    def _values_fit_each_other(self) -> Self:
        """Says all that does not fit at once, so that nobody mends one value only to hear of the next."""
        complaints = []
        if self.kind == "classify" and self.model.chunks != (1,):
            complaints.append("model.chunks must be [1] to classify: one step, which looks at the whole clip")
        if self.kind == "detect":
            complaints += self._thresholds_that_are_not_one_a_step()
        if self.checkpointing and not self.model.freeze_norm:
            complaints.append("checkpointing needs model.freeze_norm: BatchNorm would count every clip twice")
        if complaints:
            raise ValueError("; ".join(complaints))
        return self

    def _thresholds_that_are_not_one_a_step(self) -> list[str]:
        """Returns at most one complaint, which names every list that is too short or too long."""
        steps = len(self.model.chunks)
        lists = {"positive_iou": self.selection.positive_iou, "regression_iou": self.selection.regression_iou}
        wrong = [f"selection.{name} has {len(values)} values" for name, values in lists.items() if len(values) != steps]
        if not wrong:
            return []
        shown = f"model.chunks {list(self.model.chunks)} makes {steps} step{'s' * (steps != 1)}"
        return [f"{shown}, but {' and '.join(wrong)}; give one for each step"]

    def step_config(self) -> StepConfig:
        """Returns the detector's architecture.

        Raises:
            StepError: values that make no detector.
        """
        own = {"kinetics", "classifier", "checkpoint", "dropout", "freeze_norm", "freeze_backbone"}
        ids = self.data.class_ids
        names = self.data.class_names
        return StepConfig(**self.model.model_dump(exclude=own), num_classes=len(ids), class_ids=ids, class_names=names)


def read_config(source: str, *, kind: str, changes: dict[str, Any] | None = None) -> TrainingConfig:
    """Reads a run's config.

    Args:
        source: a YAML file, or the name of one that comes with the package ("toy_detect.yaml").
        kind: "detect" or "classify", which the file has to be for.
        changes: values by dotted name ("optimizer.batch") that replace the file's.

    Raises:
        StepError: no such file, no YAML, an unknown key (the nearest known one is named) or a bad value.
        ArgumentError: a change of something within a value.
    """
    path = Path(source)
    if not path.exists() and (CONFIG_FOLDER / path.name).is_file() and path.name == source:
        path = CONFIG_FOLDER / source
    try:
        content = read_yaml(path)
    except FileNotFoundError as error:
        ours = sorted(each.name for each in CONFIG_FOLDER.glob("*.yaml"))
        near = did_you_mean(source, ours)
        raise StepError(f"{source}: no such file; give a YAML file or one of {', '.join(ours)}{near}") from error
    if not isinstance(content, dict):
        raise StepError(f"{source}: expected keys and values, found {type(content).__name__}")
    for name, value in (changes or {}).items():
        _set(content, name.split("."), value)
    if content.get("kind", kind) != kind:
        raise StepError(f"{source}: is for step-train {content['kind']}, not for step-train {kind}")
    return parse_config(content, source)


def parse_config(content: dict[str, Any], source: str) -> TrainingConfig:
    """Checks plain values; see `read_config`."""
    try:
        config = TrainingConfig.model_validate(content)
    except ValidationError as error:
        raise StepError(f"{source}: {_complaint(error)}") from error
    config.step_config()
    return config


def _set(content: dict[str, Any], names: list[str], value: Any) -> None:
    for name in names[:-1]:
        content = content.setdefault(name, {})
        if not isinstance(content, dict):
            raise ArgumentError(f"`changes` {'.'.join(names)}: {name} is a value, not a section")
    content[names[-1]] = value


def _complaint(error: ValidationError) -> str:
    first = error.errors()[0]
    name = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        section: Any = TrainingConfig
        for part in first["loc"][:-1]:
            section = section.model_fields[str(part)].annotation
        near = difflib.get_close_matches(str(first["loc"][-1]), section.model_fields, n=1, cutoff=0)
        return f"unknown key {name!r}; did you mean {near[0]!r}?"
    if first["type"] == "missing":
        return f"{name} is missing; it has to be given"
    if not name:
        return str(first["msg"]).removeprefix("Value error, ")
    if name in TrainingConfig.model_fields and isinstance(first["input"], dict):  # a section, too long to repeat
        return f"{name}: {first['msg'].removeprefix('Value error, ')}"
    return f"{name} is {quoted(first['input'])}: {first['msg'].removeprefix('Value error, ')}"
