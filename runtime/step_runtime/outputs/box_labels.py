"""Drawing boxes and action labels on a frame."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
    """Draws in place, sized to the picture; labels keep clear of each other.

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
    taken: list[Rectangle] = []
    for item in boxes:
        x1, y1, _, _ = _pixels(item.box, width, height)
        lines = [f"{name_of(label)} {score:.2f}" for label, score in item.actions[:MAX_LABELS]]
        corner = (x1, y1)
        if not _draw_lines(frame_rgb, lines, corner, scale, _color(item), taken, above=True):
            _draw_lines(frame_rgb, lines[:1], corner, scale, _color(item), taken, above=True)


def draw_caption(frame_rgb: NDArray[np.uint8], text: str) -> None:
    """Writes one line at the lower left, in place; uint8 [H, W, 3]."""
    height = frame_rgb.shape[0]
    _draw_lines(frame_rgb, [text], (0, height), _text_scale(frame_rgb), _DARK, [])


def _text_scale(frame_rgb: NDArray[np.uint8]) -> float:
    return float(max(0.4, min(frame_rgb.shape[:2]) / 900))


def _draw_lines(
    frame_rgb: NDArray[np.uint8],
    lines: list[str],
    corner: tuple[int, int],
    scale: float,
    color: tuple[int, int, int],
    taken: list[Rectangle],
    *,
    above: bool = False,
) -> bool:
    """One block of text lines on a coloured ground, moved to where no block is yet; False where there is no room.

    It ends at the corner with `above`, if the picture goes on so far, else it begins there.
    """
    height, width = frame_rgb.shape[:2]
    pen = max(1, round(scale * 1.4))
    (_, cap), descent = cv2.getTextSize("Ag", _FONT, scale, pen)
    pad = max(2, cap // 4)
    line_height = cap + descent + pad
    lines = [_fitted(line, scale, pen, width - 2 * pad) for line in lines]
    block_width = max(cv2.getTextSize(line, _FONT, scale, pen)[0][0] for line in lines) + 2 * pad
    block_height = line_height * len(lines) + pad
    x = min(max(corner[0], 0), max(width - block_width, 0))
    top = corner[1] - block_height
    y = _free_row(x, top if above and top >= 0 else corner[1], block_width, block_height, height, taken)
    if y is None:
        return False
    taken.append((x, y, x + block_width, y + block_height))
    ground = frame_rgb[y : y + block_height, x : x + block_width]
    ground[:] = (0.25 * ground + 0.75 * np.array(color)).astype(np.uint8)
    ink = _DARK if 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2] > 128 else _LIGHT
    for number, line in enumerate(lines, 1):
        cv2.putText(frame_rgb, line, (x + pad, y + number * line_height - descent), _FONT, scale, ink, pen, cv2.LINE_AA)
    return True


def _free_row(x: int, y: int, width: int, height: int, frame_height: int, taken: list[Rectangle]) -> int | None:
    """The row nearest to y where a block lies in the picture and overlaps no other; None where there is none."""
    lowest = frame_height - height
    wanted = min(max(y, 0), lowest)
    rows = [wanted, *(bottom for _, _, _, bottom in taken), *(top - height for _, top, _, _ in taken)]
    for row in sorted(rows, key=lambda row: (abs(row - wanted), row)):  # upwards, off the people, where both are near
        clear = all(
            x + width <= left or right <= x or row + height <= top or bottom <= row
            for left, top, right, bottom in taken
        )
        if clear and 0 <= row <= lowest:
            return row
    return None


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
