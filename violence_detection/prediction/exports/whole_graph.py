"""A trained model as one graph: from the pictures of a window to P(violent).

The graph includes the stream `moving` (the frames less what stands still), the backbones with their normalisation, the
rounding of features to half precision as in the feature cache, the heads, the members' average, early exit and
temperature. It does not include decoding, the choice of frames, resizing, the differences of the stream `motion`, the
position of the crop and the closer look: these are in video_windows.py.
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

#: The graph's first output, P(violent), (1,) float32. Formats sort outputs by name.
OUTPUT = "p_violent"
#: The graph's second output: the logit of each member, in their order, before any temperature, (M,) float32.
LOGITS = "raw_logits"
#: Streams whose pictures are inputs; `moving` is computed from `rgb` in the graph.
_GIVEN_STREAMS = ("rgb", "crop", "motion")
#: Added to a probability before taking its logarithm, as in models.calibration.
_TINY = 1e-12
#: 2**13 + 1: the splitting leaves 11 of the 24 binary digits of a float32.
_HALF_SPLITTER = 8193.0


@dataclass(frozen=True)
class PictureInput:
    """One input of the graph: (frames, size, size, 3) uint8 RGB of a stream, sampled by the settings of its run."""

    name: str
    stream: str
    size: int
    run: BackboneRun

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(T, S, S, 3)."""
        return self.run.config.frames, self.size, self.size, 3


def picture_inputs(runs: Sequence[BackboneRun]) -> list[PictureInput]:
    """Return the inputs that the backbones need, in the order of the runs."""
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
    """Trace the graph: a TensorFlow concrete function of the inputs of `picture_inputs`, by name.

    `two_dimensional`: without convolutions and pooling over time, see portable_layers.in_two_dimensions. Raises
    UserError if a layer cannot be rewritten so.
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
    # the weights must live as long as the graph; whole models, when saved, would each be traced separately
    module.weights = [weight.value for part in (*networks, *heads) for weight in part.weights]
    module.whole = tf.function(whole).get_concrete_function(
        **{i.name: tf.TensorSpec(i.shape, tf.uint8, name=i.name) for i in given}
    )
    module.whole.owner = module
    return module.whole


def without_still(frames: Any) -> Any:
    """Compute pictures.without_still in TensorFlow: (T, S, S, 3) float32 of whole numbers to the same."""
    import tensorflow as tf

    count = frames.shape[0]
    by_pixel = tf.transpose(tf.reshape(frames, (count, -1)))
    # the median, from values in descending order; for an odd count `low` and `high` are the same
    low, high = count // 2, (count - 1) // 2
    largest = tf.math.top_k(by_pixel, k=low + 1).values
    still = tf.floor((largest[:, low] + largest[:, high]) / 2)
    return tf.clip_by_value(frames - tf.reshape(still, frames.shape[1:]) + 127, 0, 255)


def in_half_precision(x: Any) -> Any:
    """Round float32 values to the 11 binary digits of float16, by Veltkamp's splitting (Dekker 1971).

    Converters would optimise away a cast to float16 and back.
    """
    scaled = x * _HALF_SPLITTER
    return scaled - (scaled - x)


def _logits(heads: Sequence[keras.Model], features: Mapping[str, Any]) -> list[Any]:
    """The logit of each head, (1, 1), for features (T, C) by input name."""
    import tensorflow as tf

    inputs = {name: in_half_precision(values)[tf.newaxis] for name, values in features.items()}
    return [head({i.name: inputs[i.name] for i in head.inputs}, training=False) for head in heads]


def _judged(model: TrainedModel, logits: Sequence[Any]) -> Any:
    """P(violent), (1, 1), from the members' logits, (1, 1) each."""
    import tensorflow as tf

    total = sum(member.weight for member in model.members)
    shares = [member.weight / total for member in model.members]
    own = [logit / (member.temperature or 1.0) for member, logit in zip(model.members, logits, strict=True)]
    temperature = (model.applied.temperature if model.applied else None) or 1.0
    if model.averaged.in_logits:
        mean = tf.add_n([share * logit for share, logit in zip(shares, own, strict=True)])
    else:
        p = tf.add_n([share * tf.sigmoid(logit) for share, logit in zip(shares, own, strict=True)])
        # computed separately: 1 - p has too few digits in float32 where p is nearly 1
        q = tf.add_n([share * tf.sigmoid(-logit) for share, logit in zip(shares, own, strict=True)])
        mean = tf.math.log(p + _TINY) - tf.math.log(q + _TINY)
    if exits := model.exits:
        first = own[[member.name for member in model.members].index(exits.member)]
        sure = first < math.log(exits.below / (1 - exits.below))
        return tf.sigmoid(tf.where(sure, first, mean / temperature))
    return tf.sigmoid(mean / temperature)
