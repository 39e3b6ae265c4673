"""What people's poses over a clip come to in numbers: who reaches whom, how limbs move, how bodies stand.

Lengths are in sizes of the person they are of (the root of the box's area), so that neither distance nor resolution
counts; speeds in sizes a second. People are followed from frame to frame by the nearest middle.
"""

from __future__ import annotations

import numpy as np

#: Joints of MoveNet: wrists and ankles, which hit and kick; others by name.
TIPS = [9, 10, 15, 16]
LIMBS = {
    "head": [0, 1, 2],
    "shoulders": [5, 6],
    "elbows": [7, 8],
    "wrists": [9, 10],
    "hips": [11, 12],
    "knees": [13, 14],
    "ankles": [15, 16],
}
_SEEN, _JOINT, _STEADY_JOINT = 0.15, 0.15, 0.2
_FAR, _LOST_BEYOND, _LEAST_JOINTS = 9.0, 0.8, 4


def of_clip(people: np.ndarray, step_s: float) -> dict[str, float]:
    """Numbers by name, of (T, P, 56) as movenet.MoveNet gives them for frames `step_s` apart."""
    joints = people[..., :51].reshape(*people.shape[:2], 17, 3)
    boxes, seen = people[..., 51:55], people[..., 55] > _SEEN
    height = np.maximum(boxes[..., 2] - boxes[..., 0], 0.03)
    width = np.maximum(boxes[..., 3] - boxes[..., 1], 0.02)
    size = np.maximum(np.sqrt(height * width), 0.04)
    out = {
        "people": float(seen.sum(1).mean()),
        "several": float((seen.sum(1) >= 2).mean()),
        "score": float(people[..., 55].max(1).mean()),
    }
    between, reach = _between(joints, boxes, size, seen)
    moving, followed = _moving(joints, boxes, np.log(height / width), size, seen, max(step_s, 0.02), reach)
    out["followed"] = followed / max(1, int(seen[:-1].sum()))
    for name, series in between.items():
        out |= {
            f"{name}, mean": float(series.mean()),
            f"{name}, high": float(np.quantile(series, 0.9)),
            f"{name}, change": float(np.abs(np.diff(series)).mean()),
        }
    for name, speeds in moving.items():
        logs = np.log1p(speeds) if speeds else np.zeros(1)
        out |= {f"{name}, mean": float(logs.mean()), f"{name}, high": float(np.quantile(logs, 0.9))}
    for name, values in _standing(joints[seen], height[seen], width[seen], size[seen]).items():
        some = values if len(values) else np.zeros(1)
        out |= {
            f"{name}, mean": float(some.mean()),
            f"{name}, spread": float(some.std()),
            f"{name}, high": float(np.quantile(some, 0.9)),
        }
    return out


def visibility(people: np.ndarray) -> float:
    """How well the best-seen person's joints are seen, 0 to 1: the mean of their scores from 0.2 to 0.6."""
    best = people[..., 2:51:3].mean(2).max(1).mean()
    return float(np.clip((best - 0.2) / 0.4, 0, 1))


def _between(
    joints: np.ndarray, boxes: np.ndarray, size: np.ndarray, seen: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Numbers (T,) of those two people who are nearest to a blow, and the share of one's tips in another's box."""
    pairs = seen[:, :, None] & seen[:, None] & ~np.eye(seen.shape[1], dtype=bool)  # (T, who, whom)
    y, x = joints[:, :, None, TIPS, 0], joints[:, :, None, TIPS, 1]
    there = (joints[..., TIPS, 2] > _JOINT)[:, :, None] & pairs[..., None]
    top, left, bottom, right = (boxes[:, None, :, None, i] for i in range(4))
    inside = there & (y > top) & (y < bottom) & (x > left) & (x < right)
    reach = inside.mean(-1).max((1, 2))
    aims = np.stack([joints[:, :, [5, 6, 11, 12], :2].mean(2), joints[:, :, 0, :2]], 2)  # torso, head
    away = np.hypot(y[..., None] - aims[:, None, :, None, :, 0], x[..., None] - aims[:, None, :, None, :, 1])
    away = np.where(there[..., None], away, _FAR).min((-1, -2)) / size[:, None]
    nearest = np.where(pairs, away, _FAR).min((1, 2)).clip(max=2.0)
    a, b = boxes[:, :, None], boxes[:, None]
    overlap = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None).prod(
        -1
    )
    area = (boxes[..., 2:] - boxes[..., :2]).clip(0.02).prod(-1)
    union = np.maximum(area[:, :, None] + area[:, None] - overlap, 1e-6)
    middles = (boxes[..., :2] + boxes[..., 2:]) / 2
    apart = np.linalg.norm(middles[:, :, None] - middles[:, None], axis=-1) / (
        size[:, :, None] + size[:, None]
    )
    return {
        "reach": reach,
        "nearness": np.where(pairs, np.exp(-apart), 0).max((1, 2)),
        "overlap": np.where(pairs, overlap / union, 0).max((1, 2)),
        "tips in others": inside.sum((1, 2, 3)).astype(float),
        "nearest tip": np.exp(-nearest),
    }, reach


def _moving(
    joints: np.ndarray,
    boxes: np.ndarray,
    shape: np.ndarray,
    size: np.ndarray,
    seen: np.ndarray,
    step_s: float,
    reach: np.ndarray,
) -> tuple[dict[str, list[float]], int]:
    """Speeds of everybody who is followed from one frame to the next, and how many those are."""
    out: dict[str, list[float]] = {f"{limb}{kind}": [] for limb in LIMBS for kind in ("", " beside the body")}
    names = ("change of speed", "blows", "body", "change of shape", "tips", "fastest tip")
    out |= {name: [] for name in names}
    middles = (boxes[..., :2] + boxes[..., 2:]) / 2
    earlier: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for t in range(len(seen) - 1):
        left: list[int] = np.flatnonzero(seen[t + 1]).tolist()
        later: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        tips: list[float] = []
        for a in np.flatnonzero(seen[t]).tolist():
            if not left:
                break
            away = np.linalg.norm(middles[t + 1, left] - middles[t, a], axis=1) / size[t, a]
            if away.min() > _LOST_BEYOND:
                continue
            b = left.pop(int(away.argmin()))
            sure = np.minimum(joints[t, a, :, 2], joints[t + 1, b, :, 2]) > _STEADY_JOINT
            if sure.sum() < _LEAST_JOINTS:
                continue
            velocity = (
                (joints[t + 1, b, :, :2] - joints[t, a, :, :2]) / ((size[t, a] + size[t + 1, b]) / 2) / step_s
            )
            body = np.median(velocity[sure], axis=0)
            speed, beside = np.linalg.norm(velocity, axis=1), np.linalg.norm(velocity - body, axis=1)
            out["body"].append(float(np.linalg.norm(body)))
            out["change of shape"].append(abs(float(shape[t + 1, b] - shape[t, a])) / step_s)
            for limb, places in LIMBS.items():
                if some := [place for place in places if sure[place]]:
                    out[limb].append(float(speed[some].max()))
                    out[f"{limb} beside the body"].append(float(beside[some].max()))
            if some := [place for place in TIPS if sure[place]]:
                tips.append(float(beside[some].max()))
                out["blows"].append(tips[-1] * max(reach[t], reach[t + 1]))
            later[b] = velocity, sure
            if a in earlier and (both := sure & earlier[a][1]).any():
                out["change of speed"].append(
                    float(np.linalg.norm((velocity - earlier[a][0])[both], axis=1).mean())
                )
        earlier = later
        out["tips"] += tips
        out["fastest tip"] += [max(tips)] if tips else []
    return out, len(out["body"])


def _standing(
    joints: np.ndarray, height: np.ndarray, width: np.ndarray, size: np.ndarray
) -> dict[str, np.ndarray]:
    """How each person who is seen stands, (N,): joints (N, 17, 3)."""
    down = joints[:, [11, 12], :2].mean(1) - joints[:, [5, 6], :2].mean(1)
    shoulders = joints[:, [5, 6], 0].mean(1)
    return {
        "lean": np.abs(np.arctan2(np.abs(down[:, 1]), down[:, 0])),
        "upright": np.log(height / width),
        "raised arm": (shoulders - joints[:, [9, 10], 0].min(1)) / size,
        "raised leg": np.ptp(joints[:, [15, 16], 0], axis=1) / size,
    }
