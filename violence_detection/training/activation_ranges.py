"""How large what goes into a whole network's convolutions is, so that it may judge with numbers of 8 bits.

<member's folder>/activation_ranges.json    for each convolution the sum of its kernel's magnitudes, the smallest and
                                            the largest number that went into it, see backbones/eight_bits.py

They are measured on plain pictures of clips that the network was trained on. A network without the file judges with 16
bits.
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
#: Clips that are looked at, evenly spread over those of training.
CLIPS = 48


def ensure(folder: Path, clips: Samples) -> None:
    """Write the file of a finished run in `folder` if it is not there. `clips`: those that it was trained on."""
    from violence_detection.training import saved_heads

    if (folder / run_folder.RANGES_NAME).is_file():
        return
    head = saved_heads.load(run_folder.stored(folder / run_folder.BEST_NAME))
    some = clips.take(np.unique(np.linspace(0, len(clips) - 1, CLIPS).round().astype(int)))
    write(folder, head, (next(iter(batch.values())) for batch in some.plain_batches(1)))


def write(folder: Path, head: keras.Model, pictures: Iterable[np.ndarray]) -> None:
    """Write the file of that head. `pictures`: (B, T, S * S * 3) of values 0..255 at a time."""
    storage.write_json(folder / run_folder.RANGES_NAME, eight_bits.as_record(measured(head, pictures)))
    log.info("%s: how large the inputs of its convolutions are", folder / run_folder.RANGES_NAME)


def measured(head: keras.Model, pictures: Iterable[np.ndarray]) -> list[ActivationRange]:
    """The range of each convolution of the head's network, over all the pictures."""
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
