"""Held-out logits of a network that was trained end to end, so that inputs can be tried beside it without training it.

They are in a CSV file with one row per clip: clip_id, and one column of logits per fit. A fit is a set of trainings
that judges every clip once. In `elsewhere_<name>` a clip is judged by the network trained without the clip's data set,
in `in_set_<name>` by the network of the fold that held the clip out.

i3d_tuned_held_out.csv contains the logits of `i3d_tuned` on the clips of four data sets (docs/decisions.md,
"Fine-tuning"). Of the change from the published weights, half is kept elsewhere and three quarters in set.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from violence_detection.errors import UserError
from violence_detection.evaluation import temperature
from violence_detection.system import storage

ELSEWHERE, IN_SET = "elsewhere_", "in_set_"
#: Per part: the indices of the clips that are fitted to, and of those that are judged.
Parts = Sequence[tuple[np.ndarray, np.ndarray]]


class HeldOut:
    """The logits of a network's fits on N clips: `elsewhere` and `in_set` are lists with an array (N,) per fit."""

    def __init__(self, path: Path, clip_ids: Sequence[str]):
        """Read the logits of `clip_ids`, in their order, from the CSV file `path`.

        Raises UserError if it is not such a file, has no column of one of the two kinds, or lacks a logit for a clip.
        """
        if not path.is_file():
            raise UserError(f"{path} does not exist. Give --beside the CSV file of held-out logits")
        try:
            table = pd.read_csv(
                path, dtype=str, keep_default_na=False, encoding_errors=storage.NAME_ERRORS
            ).set_index("clip_id")
        except (KeyError, ValueError) as e:
            raise UserError(f"{path} is not a CSV file with a column clip_id: {e}") from e
        missing = sorted(set(clip_ids) - set(table.index))
        if missing:
            raise UserError(
                f"{path} has no row for {len(missing)} of {len(clip_ids)} clips, such as {missing[0]}. "
                "Give --beside a file made from these clips"
            )
        table = table.loc[list(clip_ids)].apply(pd.to_numeric, errors="coerce")
        self.elsewhere, self.in_set = (self._columns(path, table, kind) for kind in (ELSEWHERE, IN_SET))

    @staticmethod
    def _columns(path: Path, table: pd.DataFrame, kind: str) -> list[np.ndarray]:
        columns = [table[c].to_numpy(float) for c in table.columns if c.startswith(kind)]
        if not columns or not np.isfinite(columns).all():
            raise UserError(f"{path} needs at least one column {kind}<name>, with a number in each row")
        return columns


def averaged(
    margins: np.ndarray, fits: Sequence[np.ndarray], parts: Parts, labels: np.ndarray
) -> Iterator[np.ndarray]:
    """Yield, for each fit, the mean (N,) of the `margins` (N,) and its logits (N,); the threshold is 0.

    Before they are averaged, each of the two is divided by its own temperature, as members of different kinds are. For
    the clips that a part judges, the temperature is fitted to the clips that the other parts judge. Raises UserError if
    it cannot be fitted.
    """
    for logits in fits:
        out = np.empty(len(labels))
        for _, judged in parts:
            others = np.setdiff1d(np.concatenate([of for _, of in parts]), judged)
            scaled = [
                given[judged] / _temperature(given[others], labels[others]) for given in (margins, logits)
            ]
            out[judged] = np.mean(scaled, axis=0)
        yield out


def _temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    found, why = temperature.fit(labels == 1, expit(logits))
    if found is None:
        raise UserError(f"cannot fit a temperature to the clips of the other parts: {why}")
    return found
