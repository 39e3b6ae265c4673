"""Ranges of the inputs of a whole network's convolutions, which the network needs to judge in 8 bits.

<member's folder>/activation_ranges.json    for each convolution the sum of its kernel's magnitudes, and the smallest
                                            and the largest number in its inputs, see backbones/eight_bits.py

The ranges are measured on plain pictures of clips that the network was trained on. A network without the file judges
in 16 bits.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from violence_detection.backbones import eight_bits
from violence_detection.backbones.eight_bits import ActivationRange
from violence_detection.system import storage
from violence_detection.training import run_folder

if TYPE_CHECKING:
    import keras

    from violence_detection.training.training_data import Samples

log = logging.getLogger(__name__)
#: The ranges are measured on at most this many train clips, spread evenly over all of them.
CLIPS = 48


def ensure(folder: Path, clips: Samples) -> None:
    """Write the ranges of the finished run in `folder`, unless they are there. `clips`: those it was trained on."""
    from violence_detection.training import saved_heads

    if (folder / run_folder.RANGES_NAME).is_file():
        return
    head = saved_heads.load(run_folder.stored(folder / run_folder.BEST_NAME))
    some = clips.take(np.unique(np.linspace(0, len(clips) - 1, CLIPS).round().astype(int)))
    write(folder, head, (next(iter(batch.values())) for batch in some.plain_batches(1)))


def write(folder: Path, head: keras.Model, pictures: Iterable[np.ndarray]) -> None:
    """Measure the ranges of `head` and write them. `pictures`: batches (B, T, S * S * 3) of values 0..255."""
    storage.write_json(folder / run_folder.RANGES_NAME, eight_bits.as_record(measured(head, pictures)))
    log.info("%s: wrote the input ranges of the network's convolutions", folder / run_folder.RANGES_NAME)


def measured(head: keras.Model, pictures: Iterable[np.ndarray]) -> list[ActivationRange]:
    """Measure the range of the inputs of each convolution in the head's network, over all pictures."""
    import keras
    from keras import layers, ops

    from violence_detection.training import tuned_network
    from violence_detection.training.picture_augmentation import PictureAugmentation

    (shown,) = [layer for layer in head.layers if isinstance(layer, PictureAugmentation)]
    network = head.get_layer(tuned_network.TRUNK).network
    found = [layer for layer in network.layers if isinstance(layer, layers.Conv3D)]
    ends = keras.Model(
        network.inputs, [ops.stack([ops.min(layer.input), ops.max(layer.input)]) for layer in found]
    )
    # (batches, convolutions, 2)
    seen = np.array(
        [
            [ops.convert_to_numpy(end) for end in ends(shown(some.astype(np.float32)), training=False)]
            for some in pictures
        ],
        np.float64,
    )
    return [
        ActivationRange.of(ops.convert_to_numpy(layer.kernel), span[:, 0].min(), span[:, 1].max())
        for layer, span in zip(found, seen.swapaxes(0, 1), strict=True)
    ]
