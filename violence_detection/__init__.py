"""Train a violence detector on public video data sets and measure it so that the number holds.

The modules follow the data: catalogue, download, inventory, fingerprint, duplicates, split, combine, manifest,
video, augment, backbones, weights, features, heads, training, ensemble, evaluation, report, predict.
"""

__version__ = "0.1.0"

#: Class order everywhere: index 0 is nonfight, index 1 is fight; every model's output is P(fight).
CLASS_NAMES = ("nonfight", "fight")
