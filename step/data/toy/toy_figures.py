"""Moves and draws articulated figures for toy videos (torch-free).

A body is 1 high; positions are (x, y) from the point between its feet, y upwards; angles are from hanging down,
forwards positive. What a single frame shows of standing and of walking is the same: a standing figure is frozen at a
random moment of a walk, so only motion tells them apart.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float]

_HIP, _SHOULDER, _HEAD, _HEAD_RADIUS = 0.47, 0.78, 0.9, 0.075
_THIGH, _SHIN, _UPPER_ARM, _FOREARM = 0.24, 0.23, 0.17, 0.17
_LINE_WIDTH = 0.075
_STRIDES = {"walk": 0.9, "run": 1.7}  # a second
_SWINGS = {"walk": 0.45, "run": 0.85}  # radians
SPEEDS = {"walk": 0.35, "run": 0.95}
"""Body heights a second."""


@dataclass(frozen=True)
class Body:
    """Says who a figure is.

    Attributes:
        height_px: of the standing body.
        facing: 1 to the right, -1 to the left.
        phase: 0 to 1, where in its cycle it begins; standing figures stay there.
        colours: of head, body, arms and legs, RGB.
    """

    height_px: float
    facing: int
    phase: float
    colours: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Pose:
    """Holds the angles of both legs and arms, and how far the feet are off the ground (in body heights)."""

    thighs: Point
    shins: Point
    upper_arms: Point
    forearms: Point
    lift: float = 0.0


def pose(action: str, body: Body, time_s: float) -> Pose:
    """Says how a body stands at a moment of an action: stand, walk, run, jump, wave, hug or give."""
    if action in _STRIDES:
        return _stride(action, body.phase + _STRIDES[action] * time_s)
    if action == "jump":
        return _jump(body.phase + 0.9 * time_s)
    frozen = _stride("walk", body.phase)
    if action == "wave":
        swing = 0.5 * math.sin(2 * math.pi * (body.phase + 2.2 * time_s))
        return Pose(frozen.thighs, frozen.shins, (2.6, frozen.upper_arms[1]), (2.9 + swing, frozen.forearms[1]))
    if action == "hug":
        squeeze = 0.15 * math.sin(2 * math.pi * (body.phase + 0.8 * time_s))
        return Pose((0.08, -0.08), (0.08, -0.08), (0.8 + squeeze, 0.65 + squeeze), (2.3 + squeeze, 2.1 + squeeze))
    if action == "give":
        reach = 0.5 + 0.5 * math.sin(2 * math.pi * (body.phase + 0.6 * time_s))
        return Pose(frozen.thighs, frozen.shins, (0.3 + 1.1 * reach, 0.1), (0.9 + 0.6 * reach, 0.3))
    return frozen


def draw(canvas: NDArray[np.uint8], body: Body, at_px: Point, action: str, time_s: float) -> NDArray[np.float64]:
    """Draws a body and says where it is.

    Args:
        canvas: uint8 [H, W, 3], drawn on.
        body: who.
        at_px: the point between the feet.
        action: what it does.
        time_s: since the action began.

    Returns:
        float64 [4] x1, y1, x2, y2 in pixels, not cut at the frame's edges.
    """
    stance = pose(action, body, time_s)
    lines = _limbs(stance)
    radius = _HEAD_RADIUS * body.height_px
    width = max(round(_LINE_WIDTH * body.height_px), 2)

    def place(point: Point) -> Point:
        return at_px[0] + body.facing * point[0] * body.height_px, at_px[1] - (point[1] + stance.lift) * body.height_px

    ends: list[Point] = []
    for colour, points in lines:
        corners = [place(point) for point in points]
        ends += corners
        drawn = np.round(np.array(corners) * 16).astype(np.int32)  # sixteenths of a pixel
        cv2.polylines(canvas, [drawn], False, body.colours[colour], width, cv2.LINE_AA, shift=4)
    head = place((0.0, _HEAD))
    centre = (round(head[0] * 16), round(head[1] * 16))
    cv2.circle(canvas, centre, int(radius * 16), body.colours[0], -1, cv2.LINE_AA, shift=4)
    outline = np.array(ends)
    low = np.minimum(outline.min(0) - width / 2, (head[0] - radius, head[1] - radius))
    high = np.maximum(outline.max(0) + width / 2, (head[0] + radius, head[1] + radius))
    return np.concatenate((low, high))


def _stride(action: str, phase: float) -> Pose:
    angle = 2 * math.pi * phase
    swing, bend = _SWINGS[action], 0.6 * _SWINGS[action]
    left, right = swing * math.sin(angle), swing * math.sin(angle + math.pi)
    knees = bend * (1 + math.cos(angle)), bend * (1 + math.cos(angle + math.pi))
    elbow = 1.2 if action == "run" else 0.3
    return Pose(
        thighs=(left, right),
        shins=(left - knees[0], right - knees[1]),
        upper_arms=(0.8 * right, 0.8 * left),
        forearms=(0.8 * right + elbow, 0.8 * left + elbow),
    )


def _jump(phase: float) -> Pose:
    cycle = phase % 1
    lift = max(0.0, math.sin(2 * math.pi * cycle)) * 0.15
    crouch = max(0.0, -math.sin(2 * math.pi * cycle)) * 0.6
    arms = 0.3 + 4.0 * lift
    return Pose((crouch, crouch), (-crouch, -crouch), (arms, arms), (arms + 0.2, arms + 0.2), lift - 0.2 * crouch**2)


def _limbs(stance: Pose) -> list[tuple[int, list[Point]]]:
    """Returns joined points of legs, trunk and arms, with the number of their colour; those behind come first."""
    hip, shoulder = (0.0, _HIP), (0.0, _SHOULDER)
    legs = [_chain(hip, (_THIGH, _SHIN), angles) for angles in zip(stance.thighs, stance.shins, strict=True)]
    arms = [
        _chain(shoulder, (_UPPER_ARM, _FOREARM), angles)
        for angles in zip(stance.upper_arms, stance.forearms, strict=True)
    ]
    return [(2, arms[1]), (3, legs[1]), (1, [hip, shoulder]), (3, legs[0]), (2, arms[0])]


def _chain(start: Point, lengths: tuple[float, float], angles: tuple[float, float]) -> list[Point]:
    points = [start]
    for length, angle in zip(lengths, angles, strict=True):
        x, y = points[-1]
        points.append((x + length * math.sin(angle), y - length * math.cos(angle)))
    return points
