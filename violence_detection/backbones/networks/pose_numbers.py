"""Numbers that describe people's poses over a clip: who reaches whom, how bodies stand.

Lengths are relative to the size of the people concerned, so that neither their distance from the camera nor the
resolution matters. How people move is not among the numbers: it added nothing to the others (docs/decisions.md).
"""

from __future__ import annotations

from typing import Any

import numpy as np

PEOPLE, JOINTS = 6, 17
#: Indices of joints. Tips (wrists and ankles) hit and kick; torso and head are what they aim at.
_TIPS = [9, 10, 15, 16]
_TORSO = [5, 6, 11, 12]
_HEAD = 0
_SHOULDERS = [5, 6]
_WRISTS = [9, 10]
_HIPS = [11, 12]
_ANKLES = [15, 16]
#: A person counts with a score above this.
_SEEN_PERSON = 0.15
#: A joint counts with a score above this.
_SEEN_JOINT = 0.15
#: Height, width and size of a person are at least these parts of the picture's side. A person's size is the square root
#: of the box's area.
_LEAST_HEIGHT = 0.03
_LEAST_WIDTH = 0.02
_LEAST_SIZE = 0.04
#: Larger than any real value. Stands for a distance that does not count, and negated for a value that does not.
_FAR = 9.0
#: Distances of a tip from what it may hit, in sizes of a person, are cut off here.
_NEAREST_COUNTS = 2.0
#: Mean score of a person's joints up to which a clip's features have the length 0.
_BLURRED = 0.2
#: Mean score of a person's joints from which they have the length 1.
_CLEAR = 0.6
#: Standardised numbers are cut off at plus and minus this: a person who is hardly visible may look like anything.
_OUTLIER = 3.0
#: Numbers of a frame, without the last one, which says how clearly somebody is seen.
_OF_FRAME = 20
#: Mean and standard deviation of each number of a clip, over 1,273 clips of four data sets. No labels were used.
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
    """The numbers of frames, (F, 21) float32, from the people in them, (F, 6, 56) as movenet.build_people gives them.

    Three say how many people are seen: their number, whether there are two or more, and the highest score. Five say how
    near people are to a blow (`_between`). Twelve say how people stand: mean, largest and standard deviation of each of
    four measures (`_standing`). The last is the mean score of the joints of the person who is seen best.
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
    """The features of a clip, (1, 40) float32, from its frames' numbers (F, 21): mean and deviation, standardised.

    Their direction says what is seen, their length, 0 to 1, how clearly. `joined` does the same in NumPy.
    """
    from keras import ops

    numbers = frames[:, :_OF_FRAME]
    of_all = ops.concatenate([ops.mean(numbers, axis=0), ops.std(numbers, axis=0)])
    standard = ops.clip((of_all - _USUAL[:, 0]) / _USUAL[:, 1], -_OUTLIER, _OUTLIER)
    clear = ops.clip((ops.mean(frames[:, _OF_FRAME]) - _BLURRED) / (_CLEAR - _BLURRED), 0.0, 1.0)
    return ops.expand_dims(standard * clear / ops.maximum(ops.norm(standard), 1e-6), 0)


def joined(frames: np.ndarray) -> np.ndarray:
    """The features of `of_clip`, (1, 40) float32, from the numbers (F, 21) of a clip's frames, in NumPy."""
    numbers = frames[:, :_OF_FRAME]
    of_all = np.concatenate([numbers.mean(axis=0), numbers.std(axis=0)])
    standard = np.clip((of_all - _USUAL[:, 0]) / _USUAL[:, 1], -_OUTLIER, _OUTLIER)
    clear = np.clip((frames[:, _OF_FRAME].mean() - _BLURRED) / (_CLEAR - _BLURRED), 0.0, 1.0)
    return (standard * clear / max(float(np.linalg.norm(standard)), 1e-6)).astype(np.float32)[None]


def _over_people(values: Any, seen: Any) -> list[Any]:
    """Mean, largest and standard deviation, each (F,), of values (F, 6) over the people seen; 0 if there are none."""
    from keras import ops

    count = ops.maximum(ops.sum(seen, axis=1), 1.0)
    mean = ops.sum(values * seen, axis=1) / count
    largest = ops.max(ops.where(seen > 0, values, -_FAR), axis=1) * ops.max(seen, axis=1)
    variance = ops.sum(ops.square(values - mean[:, None]) * seen, axis=1) / count
    return [mean, largest, ops.sqrt(variance)]


def _between(joints: Any, boxes: Any, size: Any, seen: Any) -> list[Any]:
    """How near people are to a blow, as five numbers (F,); all but the fourth are the largest over all pairs of people.

    The share of one person's tips in the other's box; how near the two are; the intersection over union of their boxes;
    the number of tips in boxes of others, over all pairs; how near a tip is to the other's head or torso, in the
    other's size. Nearness is exp(-distance).
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
    """How each person stands, (F, 6): how upright the torso, how tall the box, how high an arm and a leg are raised."""
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
