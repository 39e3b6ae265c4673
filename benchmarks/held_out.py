"""Logits of a whole network on clips that it was not fitted to: inputs can be tried beside it without fitting it.

A CSV file: clip_id, and a column a fit. `elsewhere_<name>`: of each clip by the fit that its data set was left out of;
`in_set_<name>`: by the fold that held it out. i3d_tuned_held_out.csv has those of `i3d_tuned` on the clips of four
data sets (docs/decisions.md, "Fine-tuning"): half of the change elsewhere, three quarters in set.
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
#: Of each part the indices of clips that are fitted to, and of those that it judges.
Parts = Sequence[tuple[np.ndarray, np.ndarray]]


class HeldOut:
    """Of each clip the logits of the fits: `elsewhere` and `in_set`, lists of (N,)."""

    def __init__(self, path: Path, clip_ids: Sequence[str]):
        """Raises UserError where the file is none, has no fit of a kind, or a clip has no logit in it."""
        if not path.is_file():
            raise UserError(f"{path} is not there. Give --beside the CSV file of held-out logits")
        try:
            table = pd.read_csv(
                path, dtype=str, keep_default_na=False, encoding_errors=storage.NAME_ERRORS
            ).set_index("clip_id")
        except (KeyError, ValueError) as e:
            raise UserError(f"{path} is no CSV file with a column clip_id: {e}") from e
        missing = sorted(set(clip_ids) - set(table.index))
        if missing:
            raise UserError(
                f"{path} lacks {len(missing)} of {len(clip_ids)} clips, such as {missing[0]}: it is of other clips"
            )
        table = table.loc[list(clip_ids)].apply(pd.to_numeric, errors="coerce")
        self.elsewhere, self.in_set = (self._columns(path, table, kind) for kind in (ELSEWHERE, IN_SET))

    @staticmethod
    def _columns(path: Path, table: pd.DataFrame, kind: str) -> list[np.ndarray]:
        columns = [table[c].to_numpy(float) for c in table.columns if c.startswith(kind)]
        if not columns or not np.isfinite(columns).all():
            raise UserError(f"{path} needs a column {kind}<name>, and a number in each row of it")
        return columns


def averaged(
    margins: np.ndarray, fits: Sequence[np.ndarray], parts: Parts, labels: np.ndarray
) -> Iterator[np.ndarray]:
    """What is judged by margins (N,) and each fit's logits (N,) together: (N,); 0 is the threshold.

    Both are divided by temperatures that the clips of the other parts give, as members of different kinds are.
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
        raise UserError(f"no temperature of the clips of the other parts: {why}")
    return found
