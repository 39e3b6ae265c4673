"""What people's poses over a clip come to in numbers: who reaches whom, how bodies stand.

Lengths are in sizes of the person that they are of, so that neither distance nor resolution counts. How people move is
not among the numbers: it gained nothing beside them (docs/decisions.md).
"""

from __future__ import annotations

from typing import Any

import numpy as np

PEOPLE, JOINTS = 6, 17
#: Joints by place: wrists and ankles, which hit and kick; what they aim at; others.
_TIPS, _TORSO, _HEAD = [9, 10, 15, 16], [5, 6, 11, 12], 0
_SHOULDERS, _WRISTS, _HIPS, _ANKLES = [5, 6], [9, 10], [11, 12], [15, 16]
#: Scores from which a person counts, and a joint.
_SEEN_PERSON, _SEEN_JOINT = 0.15, 0.15
#: A person's size is the root of the box's area; no box is taken to be smaller than this.
_LEAST_HEIGHT, _LEAST_WIDTH, _LEAST_SIZE = 0.03, 0.02, 0.04
_FAR, _NEAREST_COUNTS = 9.0, 2.0
#: The mean score of a person's joints from which they are seen a little, and up to which better.
_BLURRED, _CLEAR = 0.2, 0.6
#: Standardised numbers are cut off there: somebody who is hardly seen may look like anything.
_OUTLIER = 3.0
#: Numbers of a frame, without how clearly somebody is seen.
_OF_FRAME = 20
#: Mean and standard deviation of each number of a clip, over 1,273 clips of four data sets. Labels had no part in it.
_USUAL = np.array(
    [
        (1.188, 0.8406), (0.3213, 0.3538), (0.2646, 0.1351), (0.06864, 0.1215),
        (0.2067, 0.2391), (0.03409, 0.059), (0.4403, 0.8559), (0.2766, 0.1784),
        (0.6661, 0.3484), (0.6792, 0.3523), (0.01378, 0.03491), (0.4087, 0.3206),
        (0.4733, 0.3627), (0.06008, 0.08082), (-0.1695, 0.1377), (-0.1369, 0.1329),
        (0.03036, 0.04411), (0.03206, 0.02763), (0.04118, 0.03706), (0.008038, 0.01164),
        (0.4925, 0.3215), (0.2163, 0.2146), (0.07072, 0.03654), (0.08822, 0.1212),
        (0.1483, 0.1454), (0.04235, 0.05887), (0.5697, 0.8443), (0.1131, 0.1155),
        (0.227, 0.1999), (0.2236, 0.2056), (0.02115, 0.05052), (0.2228, 0.1347),
        (0.2463, 0.1462), (0.06028, 0.06681), (0.1153, 0.06632), (0.1223, 0.06774),
        (0.0298, 0.03401), (0.02795, 0.02344), (0.03492, 0.0274), (0.009336, 0.01146),
    ],
    np.float32,
)  # fmt: skip
FEATURES = 2 * _OF_FRAME


def of_frames(people: Any) -> Any:
    """The numbers of frames, (F, 21) float32, of the people in them, (F, 6, 56) as movenet.build_people gives them.

    How many people there are; of the two that are nearest to a blow, how near they are; of all, how they stand, as
    mean, largest and deviation. Last the mean score of the joints of whom is seen best.
    """
    from keras import ops

    joints = ops.reshape(people[..., : 3 * JOINTS], (-1, PEOPLE, JOINTS, 3))
    boxes = people[..., 3 * JOINTS : -1]
    seen = ops.cast(people[..., -1] > _SEEN_PERSON, "float32")  # (F, 6)
    height = ops.maximum(boxes[..., 2] - boxes[..., 0], _LEAST_HEIGHT)
    width = ops.maximum(boxes[..., 3] - boxes[..., 1], _LEAST_WIDTH)
    size = ops.maximum(ops.sqrt(height * width), _LEAST_SIZE)
    count = ops.sum(seen, axis=1)
    found = [count, ops.cast(count >= 2, "float32"), ops.max(people[..., -1], axis=1)]
    found += _between(joints, boxes, size, seen)
    for values in _standing(joints, height, width, size):
        found += _over_people(values, seen)
    found.append(ops.max(ops.mean(joints[..., 2], axis=-1), axis=1))
    return ops.stack(found, axis=-1)


def of_clip(frames: Any) -> Any:
    """The features of a clip, (1, 40) float32, of its frames' numbers (F, 21): mean and deviation, standardised.

    Their direction says what is seen, their length, 0 to 1, how well. The same in NumPy is `joined`.
    """
    from keras import ops

    numbers = frames[:, :_OF_FRAME]
    of_all = ops.concatenate([ops.mean(numbers, axis=0), ops.std(numbers, axis=0)])
    standard = ops.clip((of_all - _USUAL[:, 0]) / _USUAL[:, 1], -_OUTLIER, _OUTLIER)
    clear = ops.clip((ops.mean(frames[:, _OF_FRAME]) - _BLURRED) / (_CLEAR - _BLURRED), 0.0, 1.0)
    return ops.expand_dims(standard * clear / ops.maximum(ops.norm(standard), 1e-6), 0)


def joined(frames: np.ndarray) -> np.ndarray:
    """What `of_clip` makes of the numbers (F, 21) of a clip's frames: (1, 40) float32."""
    numbers = frames[:, :_OF_FRAME]
    of_all = np.concatenate([numbers.mean(axis=0), numbers.std(axis=0)])
    standard = np.clip((of_all - _USUAL[:, 0]) / _USUAL[:, 1], -_OUTLIER, _OUTLIER)
    clear = np.clip((frames[:, _OF_FRAME].mean() - _BLURRED) / (_CLEAR - _BLURRED), 0.0, 1.0)
    return (standard * clear / max(float(np.linalg.norm(standard)), 1e-6)).astype(np.float32)[None]


def _over_people(values: Any, seen: Any) -> list[Any]:
    """Mean, largest and standard deviation (F,) of values (F, 6) of those who are seen; 0 of nobody."""
    from keras import ops

    count = ops.maximum(ops.sum(seen, axis=1), 1.0)
    mean = ops.sum(values * seen, axis=1) / count
    largest = ops.max(ops.where(seen > 0, values, -_FAR), axis=1) * ops.max(seen, axis=1)
    variance = ops.sum(ops.square(values - mean[:, None]) * seen, axis=1) / count
    return [mean, largest, ops.sqrt(variance)]


def _between(joints: Any, boxes: Any, size: Any, seen: Any) -> list[Any]:
    """Of those two people who are nearest to a blow, numbers (F,).

    The share of one's tips in the other's box; how near they are; how much their boxes overlap; all tips in boxes of
    others; how near a tip is to another's head or torso.
    """
    from keras import ops

    others = 1.0 - np.eye(PEOPLE, dtype=np.float32)
    pairs = seen[:, :, None] * seen[:, None] * others  # (F, who, whom)
    tips = ops.take(joints, _TIPS, axis=2)
    there = ops.cast(tips[..., 2] > _SEEN_JOINT, "float32")[:, :, None] * pairs[..., None]
    y, x = tips[:, :, None, :, 0], tips[:, :, None, :, 1]
    top, left, bottom, right = (boxes[:, None, :, None, i] for i in range(4))
    inside = there * ops.cast((y > top) & (y < bottom) & (x > left) & (x < right), "float32")
    torso = ops.mean(ops.take(joints, _TORSO, axis=2)[..., :2], axis=2)
    away = []
    for aim in (torso, joints[:, :, _HEAD, :2]):
        apart = ops.sqrt(ops.square(y - aim[:, None, :, None, 0]) + ops.square(x - aim[:, None, :, None, 1]))
        away.append(ops.min(ops.where(there > 0, apart, _FAR), axis=-1))
    tip = ops.minimum(away[0], away[1]) / size[:, None]
    tip = ops.minimum(ops.min(ops.where(pairs > 0, tip, _FAR), axis=(1, 2)), _NEAREST_COUNTS)
    a, b = boxes[:, :, None], boxes[:, None]
    sides = ops.relu(ops.minimum(a[..., 2:], b[..., 2:]) - ops.maximum(a[..., :2], b[..., :2]))
    overlap = sides[..., 0] * sides[..., 1]
    extent = ops.maximum(boxes[..., 2:] - boxes[..., :2], _LEAST_WIDTH)
    area = extent[..., 0] * extent[..., 1]
    union = ops.maximum(area[:, :, None] + area[:, None] - overlap, 1e-6)
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    apart = ops.norm(middle[:, :, None] - middle[:, None], axis=-1) / (size[:, :, None] + size[:, None])
    return [
        ops.max(ops.mean(inside, axis=-1), axis=(1, 2)),
        ops.max(ops.exp(-apart) * pairs, axis=(1, 2)),
        ops.max(overlap / union * pairs, axis=(1, 2)),
        ops.sum(inside, axis=(1, 2, 3)),
        ops.exp(-tip),
    ]


def _standing(joints: Any, height: Any, width: Any, size: Any) -> list[Any]:
    """How each person stands, (F, 6): how upright the torso, how tall the box, how high an arm and a leg are."""
    from keras import ops

    def place(of: list[int]) -> Any:
        return ops.take(joints, of, axis=2)[..., :2]

    down = ops.mean(place(_HIPS), axis=2) - ops.mean(place(_SHOULDERS), axis=2)
    length = ops.maximum(ops.norm(down, axis=-1), 1e-6)
    shoulders = ops.mean(place(_SHOULDERS)[..., 0], axis=2)
    ankles = place(_ANKLES)[..., 0]
    return [
        down[..., 0] / length,
        ops.log(height / width),
        (shoulders - ops.min(place(_WRISTS)[..., 0], axis=2)) / size,
        ops.abs(ankles[..., 0] - ankles[..., 1]) / size,
    ]
