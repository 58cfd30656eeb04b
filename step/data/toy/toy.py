"""Makes toy AVA: short synthetic videos in AVA's form, the same to the bit for the same seed (torch-free)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from step.classes import AVA_CLASS_NAMES
from step.data import stored_image
from step.data.frame_store import FrameIndex, frame_file, second_folder, write_index
from step.data.toy.toy_figures import SPEEDS, Body, draw
from step.errors import StepError
from step.evaluation.ava_rows import Row, ava_row, rows_text
from step.files.atomic import atomic_path
from step.video.files import ffmpeg_name

WIDTH_PX, HEIGHT_PX, FPS, SECONDS = 320, 240, 24, 7
KEY_SECONDS = range(2, SECONDS - 1)
"""Annotated seconds: those whose clips lie within the video."""

ACTIONS: dict[str, tuple[int, ...]] = {
    "stand": (12,),
    "walk": (14,),
    "run": (10,),
    "jump": (7,),
    "wave": (12, 69),
    "hug": (12, 70),
    "give": (12, 65),
}
"""AVA ids of what a figure does; who waves, hugs or gives stands."""

# One thread, because how the work is divided shows in the file; and neither B-frames nor looking ahead, with which
# libx264 (of PyAV 18.1) gave other images now and then for the same frames.
_ENCODER = {"crf": "16", "preset": "veryfast", "tune": "zerolatency", "threads": "1"}
_ALONE = ("stand", "walk", "run", "jump", "wave")
_PAIRED = ("hug", "give")
_PLACES, _APART_SHARE = 8, 0.25  # tries for a figure's place, and how far from the others it should be
_SPLIT_SEEDS = {"train": 0, "val": 1}
_JPEG_QUALITY = 90  # of OpenCV, 0 to 100


@dataclass(frozen=True)
class _Actor:
    body: Body
    action: str
    start_px: tuple[float, float]
    speed_px_s: float


@dataclass(frozen=True)
class Annotation:
    """Holds what a row of ground truth says, but for its video.

    Attributes:
        second: of the key frame.
        corners: float64 [4] in shares of the image.
        label: class id.
        person: their number in the scene.
    """

    second: int
    corners: NDArray[np.float64]
    label: int
    person: int

    def of(self, video: str) -> Row:
        """Returns the row of a video."""
        return ava_row(video, self.second, self.corners, self.label, str(self.person), form=".4f")


@dataclass(frozen=True)
class Scene:
    """Describes what a toy video shows: figures in front of a background that drifts."""

    _actors: tuple[_Actor, ...]
    _background: NDArray[np.uint8]
    _drift_px_s: NDArray[np.float64]

    def frames(self) -> Iterator[tuple[NDArray[np.uint8], list[Annotation]]]:
        """Draws the frames in order, `FPS` a second for `SECONDS`, and what is annotated in each.

        Yields:
            The frame, uint8 [240, 320, 3] RGB, and its rows of ground truth without the video's name, as AVA's csv
            has them; no rows where it is not the first of one of `KEY_SECONDS`.
        """
        for index in range(FPS * SECONDS):
            time_s = index / FPS
            canvas = _moved(self._background, self._drift_px_s * time_s)
            boxes = [_draw_actor(canvas, actor, time_s) for actor in self._actors]
            is_key = index % FPS == 0 and index // FPS in KEY_SECONDS
            yield canvas, _rows(index // FPS, self._actors, boxes) if is_key else []


def make_scene(state: np.random.RandomState) -> Scene:
    """Makes a scene from random numbers."""
    return Scene(tuple(_cast(state)), _background(state), state.uniform(-25, 25, 2))


def generate(
    folder: Path,
    *,
    videos: dict[str, int],
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> None:
    """Writes a data set: <split>.csv for each split, videos, and the label map of the classes that occur.

    Args:
        folder: to make; must not exist or be empty.
        videos: how many of each split, "train" and "val".
        seed: of everything.
        progress: is called with how many videos are done, of how many.

    Raises:
        StepError: the folder holds something, a bad number, or nowhere to write.
    """
    _generate(folder, _write_video, videos=videos, seed=seed, progress=progress)


def generate_frames(
    folder: Path,
    *,
    videos: dict[str, int],
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> None:
    """Writes the same scenes as `generate`, as extracted frames (`step.data.frame_store`) in place of videos.

    The frames were never a video, so they are not to the bit what extraction would give; PyAV is not needed.

    Args:
        folder: to make; must not exist or be empty.
        videos: how many of each split, "train" and "val".
        seed: of everything.
        progress: is called with how many scenes are done, of how many.

    Raises:
        StepError: see `generate`.
    """
    _generate(folder, _write_frames, videos=videos, seed=seed, progress=progress)


def _generate(
    folder: Path,
    write: Callable[[Path, str, Scene], list[Annotation]],
    *,
    videos: dict[str, int],
    seed: int,
    progress: Callable[[int, int], None],
) -> None:
    for split, count in videos.items():
        if count < 1:
            raise StepError(f"--{split} is {count}; it must be at least 1")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StepError(f"{folder}: {'is not empty' if folder.is_dir() else 'is a file'}; name a new folder")
    done = 0
    with atomic_path(folder) as scratch:
        scratch.mkdir()
        for split, count in videos.items():
            rows: list[Row] = []
            for number in range(count):
                name = f"{split}_{number:03d}"
                scene = make_scene(np.random.RandomState([seed, _SPLIT_SEEDS[split], number]))
                rows += [row.of(name) for row in write(scratch, name, scene)]
                done += 1
                progress(done, sum(videos.values()))
            (scratch / f"{split}.csv").write_text(rows_text(rows))
        ids = sorted({label for labels in ACTIONS.values() for label in labels})
        items = (f'item {{\n  name: "{AVA_CLASS_NAMES[label]}"\n  id: {label}\n}}\n' for label in ids)
        (scratch / "label_map.pbtxt").write_text("".join(items))


def _write_video(folder: Path, name: str, scene: Scene) -> list[Annotation]:
    """Writes a scene as a video, and returns its rows of ground truth."""
    import av
    import av.video

    (folder / "videos").mkdir(exist_ok=True)
    rows: list[Annotation] = []
    with av.open(ffmpeg_name(folder / "videos" / f"{name}.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=_ENCODER)
        assert isinstance(stream, av.video.VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        for index, (canvas, found) in enumerate(scene.frames()):
            rows += found
            frame = av.VideoFrame.from_ndarray(canvas, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return rows


def _write_frames(folder: Path, name: str, scene: Scene) -> list[Annotation]:
    """Writes a scene's frames as JPEG, a folder a second, and returns its rows of ground truth."""
    root = folder / "frames"
    size_px = (2 * round(WIDTH_PX * stored_image.HEIGHT_PX / HEIGHT_PX / 2), stored_image.HEIGHT_PX)
    rows: list[Annotation] = []
    for index, (canvas, found) in enumerate(scene.frames()):
        rows += found
        second = second_folder(root, name, index // FPS)
        second.mkdir(parents=True, exist_ok=True)
        pixels = cv2.cvtColor(cv2.resize(canvas, size_px, interpolation=cv2.INTER_CUBIC), cv2.COLOR_RGB2BGR)
        _, content = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        frame_file(second, index % FPS).write_bytes(content.tobytes())
    counts = dict.fromkeys(range(SECONDS), FPS)
    write_index(root, name, FrameIndex(counts=counts, last_second=SECONDS - 1, is_whole=True))
    return rows


def _cast(state: np.random.RandomState) -> list[_Actor]:
    """Makes one to three figures: alone, or two of them doing something together."""
    actors: list[_Actor] = []
    ground_px = HEIGHT_PX * state.uniform(0.82, 0.95)
    if state.rand() < 0.4:
        action = str(state.choice(_PAIRED))
        height_px, middle_px = state.uniform(0.5, 0.7) * HEIGHT_PX, state.uniform(0.3, 0.7) * WIDTH_PX
        apart_px = height_px * (0.4 if action == "hug" else 0.45)  # NMS would take closer ones for one
        for facing in (1, -1):
            body = _body(state, height_px, facing)
            actors.append(_Actor(body, action, (middle_px - facing * apart_px / 2, ground_px), 0.0))
    while len(actors) < 3 and (not actors or state.rand() < 0.45):
        action, facing = str(state.choice(_ALONE)), int(state.choice((-1, 1)))
        body = _body(state, state.uniform(0.4, 0.7) * HEIGHT_PX, facing)
        speed_px_s = facing * SPEEDS.get(action, 0.0) * body.height_px
        half_way_px = _free_place(state, actors)
        start = (half_way_px - speed_px_s * SECONDS / 2, ground_px + state.uniform(-8, 4))
        actors.append(_Actor(body, action, start, speed_px_s))
    return actors


def _free_place(state: np.random.RandomState, actors: list[_Actor]) -> float:
    """Picks where a figure is half way through: mostly in the frame then, and away from the others where that goes."""
    others = [actor.start_px[0] + actor.speed_px_s * SECONDS / 2 for actor in actors]
    places = state.uniform(0.15, 0.85, _PLACES) * WIDTH_PX
    apart_px = [min((abs(place - other) for other in others), default=WIDTH_PX) for place in places]
    return float(places[np.argmax(np.array(apart_px) >= _APART_SHARE * WIDTH_PX)])


def _body(state: np.random.RandomState, height_px: float, facing: int) -> Body:
    colours = tuple(tuple(int(value) for value in state.randint(0, 256, 3)) for _ in range(4))
    return Body(height_px, facing, float(state.rand()), colours)


def _background(state: np.random.RandomState) -> NDArray[np.uint8]:
    """Draws blurred noise of a random grain and colour, larger than the frame, so that it can drift."""
    grain, colour = int(state.choice((8, 16, 32))), state.randint(60, 196, 3)
    noise = state.randint(-50, 51, (2 * HEIGHT_PX // grain, 2 * WIDTH_PX // grain, 1)) + state.randint(-10, 11, 3)
    noise = np.clip(colour + noise, 0, 255).astype(np.uint8)
    size = (2 * WIDTH_PX, 2 * HEIGHT_PX)
    return np.asarray(cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def _moved(background: NDArray[np.uint8], by_px: NDArray[np.float64]) -> NDArray[np.uint8]:
    x, y = round(float(by_px[0])) + WIDTH_PX // 2, round(float(by_px[1])) + HEIGHT_PX // 2
    rows, columns = np.arange(y, y + HEIGHT_PX) % len(background), np.arange(x, x + WIDTH_PX) % background.shape[1]
    return np.ascontiguousarray(background[rows[:, None], columns])


def _draw_actor(canvas: NDArray[np.uint8], actor: _Actor, time_s: float) -> NDArray[np.float64]:
    at_px = (actor.start_px[0] + actor.speed_px_s * time_s, actor.start_px[1])
    return draw(canvas, actor.body, at_px, actor.action, time_s)


def _rows(second: int, actors: tuple[_Actor, ...], boxes: list[NDArray[np.float64]]) -> list[Annotation]:
    """Annotates the figures of which at least half can be seen."""
    rows = []
    size = np.array([WIDTH_PX, HEIGHT_PX] * 2)
    for person, (actor, box) in enumerate(zip(actors, boxes, strict=True)):
        seen = np.clip(box, 0, size)
        if np.prod(seen[2:] - seen[:2]) < 0.5 * np.prod(box[2:] - box[:2]):
            continue
        rows += [Annotation(second, seen / size, label, person) for label in ACTIONS[actor.action]]
    return rows
