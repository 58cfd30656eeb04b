"""Drawing boxes and action labels on a frame."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from step.classes import class_name

MAX_LABELS = 5
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_COLORS_RGB = (
    (255, 99, 71),
    (64, 156, 255),
    (80, 200, 120),
    (255, 191, 0),
    (186, 104, 255),
    (0, 206, 209),
    (255, 105, 180),
    (173, 255, 47),
)
_DARK, _LIGHT = (0, 0, 0), (255, 255, 255)

Rectangle = tuple[int, int, int, int]


@dataclass(frozen=True)
class LabelledBox:
    """A box [4] in [0, 1], its actions (class id, score) best first, and a number that picks its colour."""

    box: NDArray[np.float32]
    actions: Sequence[tuple[int, float]]
    color_index: int


def draw_boxes(
    frame_rgb: NDArray[np.uint8], boxes: Sequence[LabelledBox], *, name_of: Callable[[int], str] = class_name
) -> None:
    """Draws in place, sized to the picture; labels keep clear of each other, and of others' boxes where they can.

    In a full picture a box shows its best label only, or none: better boxes come first.

    Args:
        frame_rgb: uint8 [H, W, 3].
        boxes: best score first.
        name_of: what an action is called.
    """
    height, width = frame_rgb.shape[:2]
    unit = min(height, width)
    thickness = max(1, round(unit / 240))
    scale = _text_scale(frame_rgb)
    for item in boxes:
        x1, y1, x2, y2 = _pixels(item.box, width, height)
        cv2.rectangle(frame_rgb, (x1, y1), (x2, y2), _color(item), thickness, cv2.LINE_AA)
    room = _Room(width, height, [_pixels(item.box, width, height) for item in boxes])
    for number, item in enumerate(boxes):
        lines = [f"{name_of(label)} {score:.2f}" for label, score in item.actions[:MAX_LABELS]]
        place = functools.partial(room.find_place, number)
        if not _draw_lines(frame_rgb, lines, scale, _color(item), place):
            _draw_lines(frame_rgb, lines[:1], scale, _color(item), place)


def draw_caption(frame_rgb: NDArray[np.uint8], text: str) -> None:
    """Writes one line at the lower left, in place; uint8 [H, W, 3]."""
    height = frame_rgb.shape[0]
    _draw_lines(frame_rgb, [text], _text_scale(frame_rgb), _DARK, lambda _width, of_block: (0, height - of_block))


@dataclass
class _Room:
    """Where in a picture labels can be: clear of each other, and off other people's boxes where that can be had.

    Attributes:
        width, height: of the picture, px.
        boxes: of all people, px.
        taken: by labels, px.
    """

    width: int
    height: int
    boxes: list[Rectangle]
    taken: list[Rectangle] = field(default_factory=list)

    def find_place(self, number: int, width: int, height: int) -> tuple[int, int] | None:
        """Takes the best place of a block of text for a box: at it, off the others, above it, flush left.

        Args:
            number: of the box.
            width, height: of the block, px.

        Returns:
            The block's upper left corner; None where there is no room.
        """
        x1, y1, x2, y2 = self.boxes[number]
        others = [*self.boxes[:number], *self.boxes[number + 1 :]]
        last_x, lowest = max(self.width - width, 0), self.height - height
        left, right = (min(max(x, 0), last_x) for x in (x1, x2 - width))
        top = min(max(y1 - height if y1 >= height else y1, 0), lowest)
        rows = {top, y1, y2, *(bottom for *_, bottom in self.taken), *(each[1] - height for each in self.taken)}

        def cost(place: tuple[int, int]) -> tuple[float, ...]:
            x, y = place
            is_far = max(y1 - y - height, y - y2) > height
            block = (x, y, x + width, y + height)
            # In quarters, so that a label does not jump to and fro while people move a little.
            covered = round(4 * sum(_common_area(block, other) for other in others) / (width * height))
            return is_far, 0 if is_far else covered, abs(y - top) + abs(x - left), y

        places = [
            (x, y)
            for x in (left, right)
            for y in rows
            if 0 <= y <= lowest and not any(_common_area((x, y, x + width, y + height), block) for block in self.taken)
        ]
        if not places:
            return None
        x, y = min(places, key=cost)
        self.taken.append((x, y, x + width, y + height))
        return x, y


def _text_scale(frame_rgb: NDArray[np.uint8]) -> float:
    return float(max(0.4, min(frame_rgb.shape[:2]) / 900))


def _draw_lines(
    frame_rgb: NDArray[np.uint8],
    lines: list[str],
    scale: float,
    color: tuple[int, int, int],
    find_place: Callable[[int, int], tuple[int, int] | None],
) -> bool:
    """One block of text lines on a coloured ground; False where no place is found for its width and height."""
    width = frame_rgb.shape[1]
    pen = max(1, round(scale * 1.4))
    (_, cap), descent = cv2.getTextSize("Ag", _FONT, scale, pen)
    pad = max(2, cap // 4)
    line_height = cap + descent + pad
    lines = [_fitted(line, scale, pen, width - 2 * pad) for line in lines]
    block_width = max(cv2.getTextSize(line, _FONT, scale, pen)[0][0] for line in lines) + 2 * pad
    block_height = line_height * len(lines) + pad
    place = find_place(block_width, block_height)
    if place is None or place[1] < 0:
        return False
    x, y = place
    ground = frame_rgb[y : y + block_height, x : x + block_width]
    ground[:] = (0.25 * ground + 0.75 * np.array(color)).astype(np.uint8)
    ink = _DARK if 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2] > 128 else _LIGHT
    for number, line in enumerate(lines, 1):
        cv2.putText(frame_rgb, line, (x + pad, y + number * line_height - descent), _FONT, scale, ink, pen, cv2.LINE_AA)
    return True


def _common_area(one: Rectangle, other: Rectangle) -> int:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0)


def _fitted(line: str, scale: float, pen: int, width: int) -> str:
    """The line, its middle cut out so that it fits: the score at its end stays readable."""
    if cv2.getTextSize(line, _FONT, scale, pen)[0][0] <= width:
        return line
    name, _, score = line.rpartition(" ")
    while name and cv2.getTextSize(f"{name}.. {score}", _FONT, scale, pen)[0][0] > width:
        name = name[:-1]
    return f"{name}.. {score}"


def _pixels(box: NDArray[np.float32], width: int, height: int) -> Rectangle:
    x1, y1, x2, y2 = (box * (width - 1, height - 1, width - 1, height - 1)).round().astype(int).tolist()
    return x1, y1, x2, y2


def _color(item: LabelledBox) -> tuple[int, int, int]:
    return _COLORS_RGB[item.color_index % len(_COLORS_RGB)]
