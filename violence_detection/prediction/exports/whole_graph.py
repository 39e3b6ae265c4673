"""A trained model as one graph: from the pictures of a window to P(violent).

In it are: the pictures less what stands still, the backbones with their normalisation, the rounding of features as the
cache holds them, the heads, the members' average, and the temperature. Not in it: decoding, which frames are looked at,
resizing, and where the crop lies (video_windows.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from violence_detection.prediction.exports import portable_layers

if TYPE_CHECKING:
    import keras

    from violence_detection.models.trained_model import BackboneRun, TrainedModel

#: The names of the graph's outputs: (1,) float32, and of each member in their order the logit before any temperature,
#: (M,) float32. Formats sort outputs by name.
OUTPUT, LOGITS = "p_violent", "raw_logits"
#: Streams whose pictures are given; `moving` is made of `rgb` in the graph.
_GIVEN_STREAMS = ("rgb", "crop", "motion")
#: As in models.calibration: added to a probability before its logarithm is taken.
_TINY = 1e-12
#: 2**13 + 1: of the 24 binary digits of float32 11 remain.
_HALF_SPLITTER = 8193.0


@dataclass(frozen=True)
class PictureInput:
    """Pictures that the graph takes: (frames, size, size, 3) uint8 RGB of a stream, as the runs' settings sample it."""

    name: str
    stream: str
    size: int
    run: BackboneRun

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(T, S, S, 3)."""
        return self.run.config.frames, self.size, self.size, 3


def picture_inputs(runs: Sequence[BackboneRun]) -> list[PictureInput]:
    """The pictures that backbones need, in their order."""
    found = []
    for run in runs:
        first = run.backbones[0]
        prefix = first.trunk.name if first.trunk else first.name
        streams = {"rgb" if stream == "moving" else stream for stream in run.config.streams}
        found += [
            PictureInput(f"{prefix}_{stream}", stream, first.input_size, run)
            for stream in _GIVEN_STREAMS
            if stream in streams
        ]
    return found


def trace(model: TrainedModel, runs: Sequence[BackboneRun], two_dimensional: bool) -> Any:
    """The graph, a TensorFlow concrete function of the inputs of `picture_inputs` by name.

    `two_dimensional`: without convolutions and pooling over time, see portable_layers.in_two_dimensions. Raises
    UserError where a layer has no such form.
    """
    import tensorflow as tf

    given = picture_inputs(runs)
    networks = []
    for run in runs:
        network = run.backbone.build(run.weights)
        networks.append(portable_layers.in_two_dimensions(network) if two_dimensional else network)
    heads = [portable_layers.unrolled_logits(member.model, two_dimensional) for member in model.members]

    def whole(**pictures: Any) -> dict[str, Any]:
        by_name = {name: tf.cast(images, tf.float32) for name, images in pictures.items()}
        inputs: dict[str, Any] = {}
        for run, network in zip(runs, networks, strict=True):
            mine = {i.stream: by_name[i.name] for i in given if i.run is run}
            for stream in run.config.streams:
                images = without_still(mine["rgb"]) if stream == "moving" else mine[stream]
                inputs |= run.by_input(stream, network(images, training=False))
        logits = _logits(heads, inputs)
        return {OUTPUT: tf.reshape(_judged(model, logits), (1,)), LOGITS: tf.reshape(logits, (len(logits),))}

    module = tf.Module()
    # what the graph computes with must live as long as it does; saved as models, they would be traced alone
    module.weights = [weight.value for part in (*networks, *heads) for weight in part.weights]
    module.whole = tf.function(whole).get_concrete_function(
        **{i.name: tf.TensorSpec(i.shape, tf.uint8, name=i.name) for i in given}
    )
    module.whole.owner = module
    return module.whole


def without_still(frames: Any) -> Any:
    """As pictures.without_still: (T, S, S, 3) float32 of whole numbers, the same whole numbers."""
    import tensorflow as tf

    count = frames.shape[0]
    by_pixel = tf.transpose(tf.reshape(frames, (count, -1)))
    # from the largest on; the two in the middle are one where the number is odd
    low, high = count // 2, (count - 1) // 2
    largest = tf.math.top_k(by_pixel, k=low + 1).values
    still = tf.floor((largest[:, low] + largest[:, high]) / 2)
    return tf.clip_by_value(frames - tf.reshape(still, frames.shape[1:]) + 127, 0, 255)


def in_half_precision(x: Any) -> Any:
    """Numbers of float32 with the 11 digits that float16 has, by Veltkamp's splitting (Dekker 1971).

    Casts there and back again are what converters take for nothing and leave out.
    """
    scaled = x * _HALF_SPLITTER
    return scaled - (scaled - x)


def _logits(heads: Sequence[keras.Model], features: Mapping[str, Any]) -> list[Any]:
    """What each head says, (1, 1), of features (T, C) by input name."""
    import tensorflow as tf

    inputs = {name: in_half_precision(values)[tf.newaxis] for name, values in features.items()}
    return [head({i.name: inputs[i.name] for i in head.inputs}, training=False) for head in heads]


def _judged(model: TrainedModel, logits: Sequence[Any]) -> Any:
    """P(violent), of shape (1, 1), for the members' logits (1, 1)."""
    import tensorflow as tf

    total = sum(member.weight for member in model.members)
    shares = [member.weight / total for member in model.members]
    own = [logit / (member.temperature or 1.0) for member, logit in zip(model.members, logits, strict=True)]
    temperature = (model.applied.temperature if model.applied else None) or 1.0
    if model.averaged.in_logits:
        mean = tf.add_n([share * logit for share, logit in zip(shares, own, strict=True)])
    else:
        p = tf.add_n([share * tf.sigmoid(logit) for share, logit in zip(shares, own, strict=True)])
        # 1 - p loses its digits in float32 where p is nearly 1
        q = tf.add_n([share * tf.sigmoid(-logit) for share, logit in zip(shares, own, strict=True)])
        mean = tf.math.log(p + _TINY) - tf.math.log(q + _TINY)
    if exits := model.exits:
        first = own[[member.name for member in model.members].index(exits.member)]
        sure = first < math.log(exits.below / (1 - exits.below))
        return tf.sigmoid(tf.where(sure, first, mean / temperature))
    return tf.sigmoid(mean / temperature)
