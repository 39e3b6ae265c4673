"""Draw the generated sample clips: a place, a camera, and figures that move in front of it.

A *source* stands for one published video: its place, its camera, its colours and how its people look. Scenes of both
classes come from each source, so that only the motion tells the classes apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from violence_detection.datasets.generated.figures import Limb, Pose, Wobble, activity
from violence_detection.system.storage import stable_seed

Colour = tuple[int, int, int]  # BGR

#: By what factor the place is larger than the frame, so that scenes can show different parts of it.
_MARGIN = 1.35
_SHIFT = 4  # fractional bits of the fixed-point coordinates with which OpenCV draws at sub-pixel precision
_SKINS: tuple[Colour, ...] = ((150, 180, 226), (110, 145, 200), (70, 100, 150), (45, 65, 100))


@dataclass(frozen=True)
class SceneSource:
    """What all scenes of one source share. Sizes and shake are in pixels, noise is in grey levels."""

    place: np.ndarray  # (_MARGIN * height, _MARGIN * width, 3) uint8 BGR
    width: int
    height: int
    fps: float
    ground: float  # height at which the feet are, as a share of the frame's height, from the top
    figure_px: float
    shirts: tuple[Colour, Colour, Colour]
    trousers: tuple[Colour, Colour, Colour]
    skins: tuple[Colour, Colour, Colour]
    gain: float
    infrared: bool
    noise_sigma: float
    shake_px: float
    blur_sigma: float


def make_source(setting: str, seed: int) -> SceneSource:
    """Make the source that belongs to a seed. `setting` is street, room or rink, one for each published layout."""
    rng = np.random.default_rng(stable_seed("source", setting, seed))
    width, height = {
        "street": [(320, 240), (320, 180), (288, 216)], "room": [(320, 180), (256, 192), (284, 160)],
        "rink": [(240, 192)],
    }[setting][seed % (1 if setting == "rink" else 3)]  # fmt: skip
    ground = float(rng.uniform(0.8, 0.93))
    size = (round(height * _MARGIN), round(width * _MARGIN))
    shirts = tuple(_colour(rng, 30, 220) for _ in range(3))
    infrared = setting == "room" and rng.random() < 0.4
    return SceneSource(
        place=_PLACES[setting](rng, size),
        width=width, height=height,
        fps=25.0 if setting == "rink" else float(rng.choice([20, 24, 25])),
        ground=ground,
        figure_px=float(height * rng.uniform(0.5, 0.66)),
        shirts=(shirts[0], shirts[1], shirts[2]),
        trousers=(_colour(rng, 20, 120), _colour(rng, 20, 120), _colour(rng, 20, 120)),
        skins=(_SKINS[rng.integers(4)], _SKINS[rng.integers(4)], _SKINS[rng.integers(4)]),
        gain=float(rng.uniform(0.6, 1.05)) if setting != "rink" else float(rng.uniform(0.9, 1.05)),
        infrared=bool(infrared),
        noise_sigma=float(rng.uniform(2, 9)),
        shake_px=float(rng.uniform(0, 2.2)) if setting == "street" else float(rng.uniform(0, 0.9)),
        blur_sigma=float(rng.choice([0.0, 0.5, 0.8])),
    )  # fmt: skip


def render_scene(source: SceneSource, label: str, variant: int, seed: int) -> np.ndarray:
    """Render one scene of 1.8 to 2.3 s. Returns its frames, (n_frames, height, width, 3) uint8 BGR.

    `variant` chooses the kind of activity, `seed` everything else. Camera, length and lighting do not depend on the
    label.
    """
    camera = np.random.default_rng(stable_seed("camera", seed))
    people = activity(label, variant, np.random.default_rng(stable_seed("people", label, seed)))
    n_frames = round(source.fps * camera.uniform(1.8, 2.3))
    zoom, centre = camera.uniform(0.85, 1.12), camera.uniform(0.38, 0.62)
    slack = (source.place.shape[1] - source.width - 8, source.place.shape[0] - source.height - 8)
    look_at = (4 + camera.uniform(0, 1) * slack[0], 4 + camera.uniform(0.35, 0.65) * slack[1])
    shake = [Wobble(camera, source.shake_px * 2, 1.5) for _ in range(2)]
    flicker, hum = Wobble(camera, 0.05, 0.8), Wobble(camera, 0.03, 9.0)
    order = camera.permutation(3)
    noise = _noise_field(camera, source)
    frames = np.empty((n_frames, source.height, source.width, 3), np.uint8)
    for i in range(n_frames):
        t = i / source.fps
        dx, dy = shake[0](t), shake[1](t)
        frame = cv2.getRectSubPix(
            source.place, (source.width, source.height),
            (look_at[0] + dx + (source.width - 1) / 2, look_at[1] + dy + (source.height - 1) / 2),
        )  # fmt: skip
        origin = (centre * source.width - dx, source.ground * source.height - dy)
        for person, pose in enumerate(people(t)):
            _draw_figure(frame, pose, origin, source.figure_px * zoom, _look(source, int(order[person])))
        frames[i] = _through_camera(frame, source, source.gain * (1 + flicker(t) + hum(t)), noise, camera)
    return frames


def _colour(rng: np.random.Generator, low: int, high: int) -> Colour:
    """A colour with channels between `low` and `high`, halfway to grey, as colours look through a camera."""
    bgr = rng.integers(low, high, 3)
    b, g, r = (bgr + bgr.mean()) / 2
    return int(b), int(g), int(r)


def _look(source: SceneSource, person: int) -> tuple[Colour, Colour, Colour]:
    return source.shirts[person], source.trousers[person], source.skins[person]


def _noise_field(rng: np.random.Generator, source: SceneSource) -> np.ndarray:
    """A field of sensor noise, 48 pixels larger than a frame each way, from which each frame's noise is cut.

    Drawing new noise for each frame would take most of the time.
    """
    size = (source.height + 48, source.width + 48, 3)
    field = rng.standard_normal(size, dtype=np.float32) * source.noise_sigma
    return np.round(field).astype(np.int16)


def _through_camera(
    frame: np.ndarray, source: SceneSource, gain: float, noise: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Apply the camera's blur, infrared, exposure and noise to a frame. Returns (height, width, 3) uint8."""
    if source.blur_sigma:
        frame = cv2.GaussianBlur(frame, (0, 0), source.blur_sigma)
    if source.infrared:
        frame = cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    y, x = rng.integers(0, 48, 2)
    lit = cv2.convertScaleAbs(frame, alpha=gain).astype(np.int16)
    lit += noise[y : y + source.height, x : x + source.width]
    return np.clip(lit, 0, 255).astype(np.uint8)


def _draw_figure(
    frame: np.ndarray, pose: Pose, origin: tuple[float, float], size_px: float,
    look: tuple[Colour, Colour, Colour],
) -> None:  # fmt: skip
    """Draw one person from back to front: shadow, far limbs (darker), torso, head, near limbs."""
    shirt, trousers, skin = look
    thigh, torso = 0.25 * size_px, 0.3 * size_px
    reach = max(math.cos(h) + math.cos(h - k) for h, k in pose.legs)
    hip = (origin[0] + pose.x * size_px, origin[1] - thigh * reach)
    lean = pose.facing * pose.lean
    neck = (hip[0] + torso * math.sin(lean), hip[1] - torso * math.cos(lean))
    head = (neck[0] + 0.1 * size_px * math.sin(lean), neck[1] - 0.1 * size_px * math.cos(lean))
    shoulder = (neck[0] * 0.92 + hip[0] * 0.08, neck[1] * 0.92 + hip[1] * 0.08)
    cv2.ellipse(frame, (int(hip[0]), int(origin[1])), (int(0.2 * size_px), max(int(0.035 * size_px), 1)),
                0, 0, 360, tuple(int(c * 0.5) for c in frame[-1, 0]), -1, cv2.LINE_AA)  # fmt: skip
    for near in (False, True):
        shade = 1.0 if near else 0.7
        leg, arm = (pose.legs[0], pose.arms[0]) if near else (pose.legs[1], pose.arms[1])
        if near:
            _bone(frame, hip, neck, shirt, 0.155 * size_px)
            _bone(frame, neck, head, skin, 0.07 * size_px)
            cv2.circle(
                frame, _fixed(head), round(0.065 * size_px * (1 << _SHIFT)), skin, -1, cv2.LINE_AA, _SHIFT
            )
        _limb(frame, hip, leg, -1, pose.facing, (thigh, thigh), (_dim(trousers, shade),) * 2, 0.085 * size_px)
        _limb(frame, shoulder, arm, 1, pose.facing, (0.17 * size_px, 0.18 * size_px),
              (_dim(shirt, shade * 0.9), _dim(skin, shade)), 0.06 * size_px)  # fmt: skip


def _limb(
    frame: np.ndarray, root: tuple[float, float], limb: Limb, bends: int, facing: int,
    lengths: tuple[float, float], colours: tuple[Colour, Colour], thick: float,
) -> None:  # fmt: skip
    """Draw an arm (`bends` is +1, forward) or a leg (-1, backward)."""
    upper, lower = limb[0], limb[0] + bends * limb[1]
    joint = (root[0] + facing * lengths[0] * math.sin(upper), root[1] + lengths[0] * math.cos(upper))
    end = (joint[0] + facing * lengths[1] * math.sin(lower), joint[1] + lengths[1] * math.cos(lower))
    _bone(frame, root, joint, colours[0], thick)
    _bone(frame, joint, end, colours[1], thick * 0.85)


def _bone(
    frame: np.ndarray, a: tuple[float, float], b: tuple[float, float], colour: Colour, thick: float
) -> None:
    cv2.line(frame, _fixed(a), _fixed(b), colour, max(round(thick), 1), cv2.LINE_AA, _SHIFT)


def _fixed(point: tuple[float, float]) -> tuple[int, int]:
    return round(point[0] * (1 << _SHIFT)), round(point[1] * (1 << _SHIFT))


def _dim(colour: Colour, share: float) -> Colour:
    return int(colour[0] * share), int(colour[1] * share), int(colour[2] * share)


def _floor_and_wall(
    rng: np.random.Generator, size: tuple[int, int], horizon: float, wall: Colour, floor: Colour
) -> np.ndarray:
    """A wall and a floor that meet at `horizon`: two shaded planes with coarse stains and fine grain."""
    h, w = size
    y = np.linspace(0, 1, h, dtype=np.float32)[:, None, None]
    tilt = np.linspace(-1, 1, w, dtype=np.float32)[None, :, None] * rng.uniform(-0.15, 0.15)
    wall_bgr, floor_bgr = np.array(wall, np.float32), np.array(floor, np.float32)
    plane = np.where(y < horizon, wall_bgr * (1.1 - 0.4 * y), floor_bgr * (0.55 + 0.5 * y))
    stain = cv2.resize(
        rng.uniform(0.75, 1.2, (7, 9)).astype(np.float32), (w, h), interpolation=cv2.INTER_CUBIC
    )
    grain = rng.uniform(0.92, 1.08, (h, w, 1)).astype(np.float32)
    return np.clip(plane * (1 + tilt) * stain[:, :, None] * grain, 0, 255).astype(np.uint8)


def _street(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A street: house fronts, windows, parked cars, a kerb."""
    h, w = size
    horizon = rng.uniform(0.55, 0.68)
    place = _floor_and_wall(rng, size, horizon, _colour(rng, 120, 220), _colour(rng, 70, 150))
    x = 0
    while x < w:
        house = int(rng.integers(w // 6, w // 3))
        top = int(h * rng.uniform(0.02, 0.25))
        front = _colour(rng, 60, 190)
        cv2.rectangle(place, (x, top), (x + house, int(h * horizon)), front, -1)
        step, glass = int(rng.integers(20, 42)), _colour(rng, 20, 235)
        for wy in range(top + 8, int(h * horizon) - step, step):
            for wx in range(x + 6, x + house - step // 2, step):
                cv2.rectangle(place, (wx, wy), (wx + step // 2, wy + int(step * 0.6)), glass, -1)
        x += house
    for _ in range(int(rng.integers(0, 3))):
        _car(rng, place, int(rng.integers(0, w)), int(h * (horizon + 0.06)), w // 5)
    cv2.line(place, (0, int(h * (horizon + 0.1))), (w, int(h * (horizon + rng.uniform(0.07, 0.16)))),
             _colour(rng, 150, 230), 2, cv2.LINE_AA)  # fmt: skip
    return place


def _car(rng: np.random.Generator, place: np.ndarray, x: int, y: int, length: int) -> None:
    paint = _colour(rng, 20, 230)
    cv2.rectangle(place, (x, y - length // 4), (x + length, y), paint, -1)
    roof = np.array(
        [
            [x + length // 6, y - length // 4],
            [x + length // 3, y - length // 2],
            [x + 3 * length // 4, y - length // 2],
            [x + 9 * length // 10, y - length // 4],
        ],
        np.int32,
    )
    cv2.fillPoly(place, [roof], _dim(paint, 0.6), cv2.LINE_AA)
    for wheel in (x + length // 5, x + 4 * length // 5):
        cv2.circle(place, (wheel, y), length // 10, (25, 25, 25), -1, cv2.LINE_AA)


def _room(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A shop or corridor: tiles, a door, shelves or posters."""
    h, w = size
    horizon = rng.uniform(0.45, 0.65)
    place = _floor_and_wall(rng, size, horizon, _colour(rng, 90, 230), _colour(rng, 60, 190))
    tile, seam = int(rng.integers(22, 60)), _colour(rng, 40, 200)
    middle = int(w * rng.uniform(0.2, 0.8))
    for x in range(-2 * w, 3 * w, tile):
        cv2.line(place, (middle + (x - middle) // 3, int(h * horizon)), (x, h), seam, 1, cv2.LINE_AA)
    for k in range(1, 7):
        y = int(h * (horizon + (1 - horizon) * (k / 6) ** 1.7))
        cv2.line(place, (0, y), (w, y), seam, 1, cv2.LINE_AA)
    for _ in range(int(rng.integers(3, 8))):
        x, y = int(rng.integers(0, w)), int(rng.integers(0, int(h * horizon * 0.6)))
        cv2.rectangle(place, (x, y), (x + int(rng.integers(18, 80)), y + int(rng.integers(14, 70))),
                      _colour(rng, 20, 245), -1)  # fmt: skip
    door = int(rng.integers(0, w - w // 8))
    cv2.rectangle(
        place, (door, int(h * horizon * 0.2)), (door + w // 8, int(h * horizon)), _colour(rng, 30, 150), -1
    )
    return place


def _rink(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """An ice rink: ice with a line, boards with advertisements, a crowd."""
    h, w = size
    horizon = rng.uniform(0.4, 0.6)
    place = _floor_and_wall(rng, size, horizon, (60, 55, 60), (245, 235, 225))
    crowd = rng.integers(20, 200, (h // 8, w // 8, 3)).astype(np.uint8)
    stands = cv2.resize(crowd, (w, h), interpolation=cv2.INTER_NEAREST)[: int(h * horizon)]
    place[: int(h * horizon)] = cv2.addWeighted(stands, 0.6, place[: int(h * horizon)], 0.4, 0)
    boards = int(h * (horizon - rng.uniform(0.08, 0.16)))
    cv2.rectangle(place, (0, boards), (w, int(h * horizon)), _colour(rng, 180, 250), -1)
    x = int(rng.integers(0, 30))
    while x < w:
        panel = int(rng.integers(30, 90))
        cv2.rectangle(place, (x, boards + 3), (x + panel, int(h * horizon) - 3), _colour(rng, 20, 240), -1)
        x += panel + int(rng.integers(8, 50))
    line, x = (40, 40, 200) if rng.random() < 0.5 else (190, 70, 40), int(w * rng.uniform(0.15, 0.85))
    cv2.line(place, (x, int(h * horizon)), (int(x + rng.uniform(-0.3, 0.3) * w), h), line,
             int(rng.integers(4, 12)), cv2.LINE_AA)  # fmt: skip
    return place


_PLACES = {"street": _street, "room": _room, "rink": _rink}
