"""The moving figures that the generated sample clips show, as functions of time.

A pose is a set of joint angles; an activity is a function from time in seconds to the poses of the people in the scene.
Fights are fast, erratic and close. The peaceful activities include close ones (a hug) and lively ones (waving), so that
neither distance nor the mere presence of motion gives the class away.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

#: Angle of the upper part, and by how much the lower part is bent against it, in radians.
Limb = tuple[float, float]
Activity = Callable[[float], "list[Pose]"]


@dataclass(frozen=True)
class Pose:
    """One figure at one moment. Lengths are in figure heights, angles in radians.

    `x`: the hip's position, measured from the middle of the scene. `facing`: +1 (right) or -1 (left). Angles are
    positive in the direction in which the figure faces; a limb at angle 0 hangs straight down.
    """

    x: float
    facing: int
    lean: float = 0.0
    arms: tuple[Limb, Limb] = ((0.1, 0.2), (-0.1, 0.2))
    legs: tuple[Limb, Limb] = ((0.08, 0.05), (-0.08, 0.05))


class Wobble:
    """A smooth, erratic function of time: a sum of three sines of up to `hz`, within +-`amplitude`."""

    def __init__(self, rng: np.random.Generator, amplitude: float, hz: float):
        self._amplitude = amplitude / 3
        self._hz = rng.uniform(0.35, 1.0, 3) * hz
        self._phase = rng.uniform(0, 2 * math.pi, 3)

    def __call__(self, t: float) -> float:
        return self._amplitude * float(np.sin(2 * math.pi * self._hz * t + self._phase).sum())


def _strikes(rng: np.random.Generator, per_s: float) -> Callable[[float], float]:
    """Sudden thrusts at random times: 0 at rest, 1 fully out; out in 0.09 s and back in 0.16 s."""
    times = np.cumsum(rng.exponential(1 / per_s, 32) + 0.12) - rng.uniform(0.1, 0.4)

    def extension(t: float) -> float:
        since = t - times
        out = np.clip(since / 0.09, 0, 1) * np.clip(1 - (since - 0.09) / 0.16, 0, 1)
        return float(np.where(since > 0, out, 0).max())

    return extension


def _walker(rng: np.random.Generator, x: float, facing: int, speed: float) -> Callable[[float], Pose]:
    """Someone walking at `speed`, in figure heights per second (0.7 is a stroll)."""
    phase, swing = rng.uniform(0, 2 * math.pi), rng.uniform(0.25, 0.4)
    rate = 2 * math.pi * (0.55 + 0.5 * speed)

    def pose(t: float) -> Pose:
        s, c = math.sin(phase + rate * t), math.cos(phase + rate * t)
        return Pose(
            x + facing * speed * t, facing, 0.04,
            arms=((swing * s, 0.35), (-swing * s, 0.35)),
            legs=((-0.42 * s, 0.25 + 0.25 * c), (0.42 * s, 0.25 - 0.25 * c)),
        )  # fmt: skip

    return pose


def _stander(
    rng: np.random.Generator, x: float, facing: int, gesture: float = 0.15
) -> Callable[[float], Pose]:
    """Someone standing, whose arms move by up to `gesture` radians, at the pace of somebody who talks."""
    sway, base = Wobble(rng, 0.04, 0.5), rng.uniform(0.0, 1.0) * (gesture > 0.2)
    upper, lower = (
        [Wobble(rng, gesture, 0.9) for _ in range(2)],
        [Wobble(rng, gesture, 1.2) for _ in range(2)],
    )

    def pose(t: float) -> Pose:
        return Pose(
            x + 0.3 * sway(t), facing, sway(t),
            arms=((0.1 + 0.5 * base + upper[0](t), 0.3 + base + lower[0](t)),
                  (-0.1 + upper[1](t), 0.3 + lower[1](t))),
        )  # fmt: skip

    return pose


def _pass_by(rng: np.random.Generator) -> Activity:
    a = _walker(rng, -rng.uniform(0.5, 1.0), 1, rng.uniform(0.55, 0.95))
    b = _walker(rng, rng.uniform(0.5, 1.0), -1, rng.uniform(0.55, 0.95))
    return lambda t: [a(t), b(t)]


def _walk_together(rng: np.random.Generator) -> Activity:
    facing, speed, gap = int(rng.choice([-1, 1])), rng.uniform(0.5, 0.85), rng.uniform(0.25, 0.6)
    a = _walker(rng, -facing * 0.9, facing, speed)
    b = _walker(rng, -facing * (0.9 - gap), facing, speed * rng.uniform(0.95, 1.05))
    return lambda t: [a(t), b(t)]


def _talk(rng: np.random.Generator) -> Activity:
    gap = rng.uniform(0.25, 0.55)
    a = _stander(rng, -gap, 1, rng.uniform(0.2, 0.6))
    b = _stander(rng, gap, -1, rng.uniform(0.1, 0.4))
    return lambda t: [a(t), b(t)]


def _wave(rng: np.random.Generator) -> Activity:
    gap, hz, phase = rng.uniform(0.3, 0.8), rng.uniform(1.0, 1.8), rng.uniform(0, 6.3)
    a = _stander(rng, -gap, 1)
    b = _walker(rng, gap, -1, 0.35) if rng.random() < 0.5 else _stander(rng, gap, -1)

    def activity(t: float) -> list[Pose]:
        rest = a(t)
        arm = (2.5, 0.4 + 0.5 * math.sin(2 * math.pi * hz * t + phase))
        return [Pose(rest.x, rest.facing, rest.lean, (arm, rest.arms[1])), b(t)]

    return activity


def _hug(rng: np.random.Generator) -> Activity:
    start, meet = rng.uniform(0.25, 0.5), rng.uniform(0.5, 1.1)
    sway, reach = Wobble(rng, 0.07, 0.6), rng.uniform(1.1, 1.5)

    def activity(t: float) -> list[Pose]:
        near = 0.5 - 0.5 * math.cos(math.pi * min(t / meet, 1.0))
        x, raise_ = 0.11 + (start - 0.11) * (1 - near), reach * near
        arms = ((raise_, 0.1 + 0.5 * near), (raise_ * 0.85, 0.1 + 0.4 * near))
        stride = 0.25 * math.sin(2 * math.pi * 1.2 * t) * (1 - near)
        legs = ((stride + 0.06, 0.1), (-stride - 0.06, 0.1))
        return [Pose(s * x + sway(t), -s, 0.1 * near + (-s) * sway(t) * 0.8, arms, legs) for s in (-1, 1)]

    return activity


def _hand_over(rng: np.random.Generator) -> Activity:
    gap, hz, phase = rng.uniform(0.22, 0.32), rng.uniform(0.7, 1.4), rng.uniform(0, 6.3)
    a, b = _stander(rng, -gap, 1), _stander(rng, gap, -1)

    def activity(t: float) -> list[Pose]:
        arm = (0.95 + 0.12 * math.sin(2 * math.pi * hz * t + phase), 0.35)
        return [Pose(p.x, p.facing, p.lean + 0.05, (arm, p.arms[1])) for p in (a(t), b(t))]

    return activity


def _brawler(rng: np.random.Generator, side: int, gap: float, kicks: float) -> Callable[[float, float], Pose]:
    """One side of a fist fight: guard, strikes, kicks. `hit` (0 to 1): how hard this figure is being hit."""
    left, right, kick = _strikes(rng, 2.2), _strikes(rng, 2.2), _strikes(rng, max(kicks, 1e-3))
    step, lean, guard = Wobble(rng, 0.13, 2.6), Wobble(rng, 0.28, 3.0), Wobble(rng, 0.5, 4.5)
    feet = Wobble(rng, 0.55, 3.2)

    def pose(t: float, hit: float) -> Pose:
        out_left, out_right, out_kick = left(t), right(t), kick(t) * (kicks > 0)
        arms = (
            (0.9 + 0.75 * out_left + 0.4 * guard(t), 1.7 * (1 - out_left) + 0.1),
            (0.7 + 0.9 * out_right - 0.4 * guard(t), 1.8 * (1 - out_right) + 0.1),
        )
        legs = ((0.3 + feet(t) + 1.1 * out_kick, 0.35 * (1 - out_kick)), (-0.35 + 0.6 * feet(t + 0.2), 0.3))
        drive = 0.12 * max(out_left, out_right) - 0.1 * hit
        return Pose(side * (gap - drive) + step(t), -side, 0.2 + lean(t) + drive - 0.45 * hit, arms, legs)

    return pose


def _punches(rng: np.random.Generator, kicks: float = 0.0) -> Activity:
    gap = rng.uniform(0.18, 0.27) + 0.06 * (kicks > 0)
    a, b = _brawler(rng, -1, gap, kicks), _brawler(rng, 1, gap, kicks)
    hit_a, hit_b, drift = _strikes(rng, 1.4), _strikes(rng, 1.4), Wobble(rng, 0.2, 0.9)

    def activity(t: float) -> list[Pose]:
        pair = [a(t, hit_a(t)), b(t, hit_b(t))]
        return [Pose(p.x + drift(t), p.facing, p.lean, p.arms, p.legs) for p in pair]

    return activity


def _kicks(rng: np.random.Generator) -> Activity:
    return _punches(rng, kicks=1.6)


def _grapple(rng: np.random.Generator) -> Activity:
    drift, twist = Wobble(rng, 0.4, 1.5), Wobble(rng, 0.75, 2.4)
    own = [[Wobble(rng, 0.7, 3.5) for _ in range(4)] for _ in range(2)]
    gap = rng.uniform(0.13, 0.19)

    def activity(t: float) -> list[Pose]:
        poses = []
        for side, w in zip((-1, 1), own, strict=True):
            arms = ((1.3 + w[0](t), 0.5 + 0.5 * w[1](t)), (1.0 + w[1](t), 0.6 + 0.5 * w[0](t)))
            legs = ((0.35 + w[2](t), 0.4), (-0.45 + w[3](t), 0.35))
            x = side * (gap + 0.08 * w[3](t)) + drift(t)
            poses.append(Pose(x, -side, 0.25 - side * twist(t), arms, legs))
        return poses

    return activity


def _shoves(rng: np.random.Generator) -> Activity:
    thrust = [_strikes(rng, 1.5), _strikes(rng, 1.5)]
    wild = [[Wobble(rng, 0.6, 3.2) for _ in range(3)] for _ in range(2)]
    drift, gap = Wobble(rng, 0.25, 1.2), rng.uniform(0.19, 0.25)

    def activity(t: float) -> list[Pose]:
        poses = []
        for i, side in enumerate((-1, 1)):
            push, pushed, w = thrust[i](t), thrust[1 - i](t - 0.07), wild[i]
            flail = 0.9 * pushed
            arms = ((1.1 + 0.5 * push + flail * w[0](t) * 2, 1.4 * (1 - push)),
                    (1.0 + 0.6 * push + flail * w[1](t) * 2, 1.4 * (1 - push)))  # fmt: skip
            legs = ((0.3 + w[2](t) + 0.4 * push, 0.3), (-0.4 - 0.7 * w[2](t), 0.3 + 0.3 * pushed))
            x = side * (gap - 0.13 * push + 0.32 * pushed) + drift(t)
            poses.append(Pose(x, -side, 0.15 + 0.35 * push - 0.6 * pushed + 0.3 * w[0](t), arms, legs))
        return poses

    return activity


ACTIVITIES: dict[str, tuple[Callable[[np.random.Generator], Activity], ...]] = {
    "nonfight": (_pass_by, _talk, _hug, _wave, _walk_together, _hand_over),
    "fight": (_punches, _grapple, _shoves, _kicks),
}


def activity(label: str, variant: int, rng: np.random.Generator) -> Activity:
    """An activity of class `label`, whose kind `variant` selects in turn; `rng` sets distances, paces and phases.

    In a third of the scenes of either class, a third person stands there or walks by.
    """
    kinds = ACTIVITIES[label]
    pair = kinds[variant % len(kinds)](rng)
    if rng.random() > 1 / 3:
        return pair
    facing = int(rng.choice([-1, 1]))
    other = (
        _stander(rng, -facing * rng.uniform(0.8, 1.1), facing)
        if rng.random() < 0.5
        else _walker(rng, -facing * 1.2, facing, rng.uniform(0.3, 0.6))
    )
    return lambda t: [other(t), *pair(t)]
