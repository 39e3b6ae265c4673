"""Made-up features of clips: data sets with a look of their own, places in each data set, and moments in each place."""

from __future__ import annotations

import numpy as np
import pandas as pd

CHANNELS = 160
#: Standard deviations of what a data set, a place (a source) and one clip have in common, and of what fights share.
SET, PLACE, MOMENT, FIGHT = 1.0, 1.0, 0.8, 0.35


def world(seed: int, sources: int = 150, sets: int = 3, most: int = 12) -> tuple[pd.DataFrame, np.ndarray]:
    """Make rows as in a manifest, and features (n, CHANNELS), float32, not below 0, as after a ReLU.

    A source has 1 to `most` clips, which may be of both classes. Every fifth source of a data set is val.
    """
    rng = np.random.default_rng(seed)
    looks = rng.normal(0, SET, (sets, CHANNELS))
    violence = rng.normal(0, 1, CHANNELS)
    rows: list[dict[str, str]] = []
    values = []
    for s in range(sources):
        place = looks[s % sets] + rng.normal(0, PLACE, CHANNELS)
        for _ in range(rng.integers(1, most + 1)):
            is_fight = bool(rng.integers(2))
            values.append(place + rng.normal(0, MOMENT, CHANNELS) + FIGHT * is_fight * violence)
            rows.append(
                {
                    "clip_id": f"{seed:06x}{len(rows):010x}",
                    "dataset": f"set{s % sets}",
                    "source_group": f"set{s % sets}:{s}",
                    "label": "fight" if is_fight else "nonfight",
                    "split": "train" if (s // sets) % 5 else "val",
                    "fingerprint": "",
                }
            )
    frame = pd.DataFrame(rows)
    names = frame.split + "/" + frame.label + "/" + frame.clip_id + ".avi"
    return frame.assign(path=names, source_path="raw/" + names), np.maximum(np.array(values), 0).astype(
        np.float32
    )
