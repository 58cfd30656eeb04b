"""What distinguishes one STEP model from another (torch-free)."""

import itertools
import numbers
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self, get_args

from pydantic import TypeAdapter, ValidationError

from step.classes import CHALLENGE_CLASS_IDS, class_name
from step.errors import StepError

TemporalMode = Literal["predict", "extrapolate", "mean"]
PoolMode = Literal["align", "pool"]

_LARGEST = 4096  # of any size: a damaged config must not ask for all memory

_TYPES: dict[str, tuple[type, bool, str]] = {  # of a field: what it holds, whether several of them
    **dict.fromkeys(
        ("image_size_px", "chunk_frames", "num_classes", "anchor_mode", "pool_size", "fc_dim"),
        (numbers.Integral, False, "a whole number"),
    ),
    **dict.fromkeys(("chunks", "class_ids"), (numbers.Integral, True, "a tuple of whole numbers")),
    "class_names": (str, True, "a tuple of names"),
    "context": (bool, False, "True or False"),
    "width": (numbers.Real, False, "a number"),
}

FEATURE_STRIDE = 16
"""Input pixels per feature cell, in both axes (SPEC, Backbone)."""
TIME_STRIDE = 4
"""Input frames per feature frame (SPEC, Backbone)."""
CLIP_FPS = 12
"""Frames per second inside a clip (SPEC, Clip and preprocessing)."""


@dataclass(frozen=True, kw_only=True)
class StepConfig:
    """Describes the architecture of a STEP detector; the defaults are the released AVA model.

    Attributes:
        image_size_px: side of the square input frames.
        chunk_frames: T, feature frames in a chunk.
        chunks: chunks that each progressive step looks at, first step first.
        num_classes: number of class scores per tube.
        class_ids: data-set id of each score column, ascending (AVA ids for the release).
        class_names: of the ids, where they are not AVA's; empty for AVA's names.
        anchor_mode: 1..4, which grids of initial boxes are used (34, 59, 84 or 109 boxes).
        temporal_mode: how a tube grows before a step with more chunks.
        pool_mode: RoI align or RoI max-pool.
        pool_size: P, bins per side of a pooled RoI.
        fc_dim: channels after the heads' 1x1 reductions.
        context: whether the whole-frame context branch feeds the classifier.
        width: multiplier on every channel count of the I3D and residual layers.

    Raises:
        StepError: a value outside what the method defines.

    Source: SPEC.md, sections "Backbone" to "Tubes".
    """

    image_size_px: int = 400
    chunk_frames: int = 3
    chunks: tuple[int, ...] = (1, 1, 3)
    num_classes: int = 60
    class_ids: tuple[int, ...] = field(default=CHALLENGE_CLASS_IDS)
    class_names: tuple[str, ...] = ()
    anchor_mode: int = 1
    temporal_mode: TemporalMode = "predict"
    pool_mode: PoolMode = "align"
    pool_size: int = 7
    fc_dim: int = 256
    context: bool = True
    width: float = 1.0

    def __post_init__(self) -> None:
        self._check_types()
        # JSON has no tuples.
        object.__setattr__(self, "chunks", tuple(self.chunks))
        object.__setattr__(self, "class_ids", tuple(self.class_ids))
        object.__setattr__(self, "class_names", tuple(self.class_names))
        checks = {
            "image_size_px": (
                2 * FEATURE_STRIDE <= self.image_size_px <= _LARGEST,
                f"{2 * FEATURE_STRIDE} to {_LARGEST}",
            ),
            "chunk_frames": (self.chunk_frames >= 2 or self.temporal_mode != "extrapolate", "at least 2 to extrapolate")
            if 1 <= self.chunk_frames <= _LARGEST
            else (False, f"1 to {_LARGEST}"),
            "chunks": (_growing(self.chunks), "1 to 4 odd numbers, never falling, growing by at most 2 a step, from 1"),
            "num_classes": (self.num_classes == len(self.class_ids), f"{len(self.class_ids)}, one per class id"),
            "class_ids": (list(self.class_ids) == sorted(set(self.class_ids)), "ascending and unique"),
            "class_names": (
                len(self.class_names) in (0, len(self.class_ids)),
                f"empty, or {len(self.class_ids)}, one per class id",
            ),
            "anchor_mode": (self.anchor_mode in (1, 2, 3, 4), "1, 2, 3 or 4"),
            "temporal_mode": (self.temporal_mode in get_args(TemporalMode), "predict, extrapolate or mean"),
            "pool_mode": (self.pool_mode in get_args(PoolMode), "align or pool"),
            "pool_size": (1 <= self.pool_size <= _LARGEST, f"1 to {_LARGEST}"),
            "fc_dim": (1 <= self.fc_dim <= _LARGEST, f"1 to {_LARGEST}"),
            "width": (0 < self.width <= 4, "in (0, 4]"),
        }
        for name, (fine, allowed) in checks.items():
            if not fine:
                raise StepError(f"model config: {name} is {getattr(self, name)!r}; it must be {allowed}")

    def _check_types(self) -> None:
        """Refuses values of other types, with which what is checked next would not compare."""
        for name, (kind, several, allowed) in _TYPES.items():
            value = getattr(self, name)
            values = value if several and isinstance(value, (tuple, list)) else (value,)
            is_bool = any(isinstance(one, bool) for one in values) and kind is not bool
            if is_bool or not all(isinstance(one, kind) for one in values) or (several and values is not value):
                raise StepError(f"model config: {name} is {value!r}; it must be {allowed}")

    @property
    def num_steps(self) -> int:
        """Counts the progressive steps."""
        return len(self.chunks)

    @property
    def feature_frames(self) -> int:
        """Counts the feature frames of a whole clip: the last step sees all of them."""
        return self.chunk_frames * self.chunks[-1]

    @property
    def clip_frames(self) -> int:
        """Counts F, the input frames of a clip (36 for the release)."""
        return self.feature_frames * TIME_STRIDE

    @property
    def feature_size(self) -> int:
        """Returns the side of the square backbone feature map, in cells (25 for the release)."""
        size = self.image_size_px // 2  # the stem's convolution rounds down, the three max-pools round up
        for _ in range(3):
            size = -(-size // 2)
        return size

    @property
    def feature_channels(self) -> int:
        """Counts the channels of the backbone's features: mixed 4f (832 at full width)."""
        return sum(self.channels(count) for count in (256, 320, 128, 128))

    @property
    def context_channels(self) -> int:
        """Counts the channels of the context vector: mixed 5c (1024 at full width)."""
        return sum(self.channels(count) for count in (384, 384, 128, 128))

    def step_frames(self, step: int) -> int:
        """Counts T', the feature frames that `step` (0-based) looks at."""
        return self.chunk_frames * self.chunks[step]

    def grows_after(self, step: int) -> bool:
        """Says whether tubes grow between `step` (0-based) and the step after it."""
        return self.chunks[step + 1] > self.chunks[step]

    def step_first_frame(self, step: int) -> int:
        """Returns the first of the feature frames that `step` (0-based) looks at: it uses the clip's middle chunks."""
        return (self.feature_frames - self.step_frames(step)) // 2

    def channels(self, full_width: int) -> int:
        """Returns a layer's channel count at this model's width."""
        return max(1, round(full_width * self.width))

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values only, for JSON and checkpoints."""
        return asdict(self) | {
            "chunks": list(self.chunks),
            "class_ids": list(self.class_ids),
            "class_names": list(self.class_names),
        }

    def class_name(self, class_id: int) -> str:
        """Names an action."""
        if self.class_names and class_id in self.class_ids:
            return self.class_names[self.class_ids.index(class_id)]
        return class_name(class_id)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Inverts `to_dict`.

        Raises:
            StepError: an unknown field, or a value that the constructor refuses.
        """
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise StepError(f"model config: unknown field {unknown[0]!r}; it was written by a newer step-trt, upgrade")
        try:
            return TypeAdapter(cls).validate_python(values)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"]))
            raise StepError(f"model config: {name} is {first['input']!r}: {first['msg']}") from error


def _growing(chunks: tuple[int, ...]) -> bool:
    """Says whether a tube can grow through these chunk counts: one chunk to each side at a time."""
    if not 1 <= len(chunks) <= 4 or chunks[0] != 1:
        return False
    return all(after - before in (0, 2) for before, after in itertools.pairwise(chunks))
