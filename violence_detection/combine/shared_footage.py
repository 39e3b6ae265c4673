"""Clips of one part that show the footage of another, though they count as other sources.

Combining makes one source of clips that share footage, but not where that would grow too large to be divided. So parts
that are cut by source may still share some.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from violence_detection.combine import duplicates

if TYPE_CHECKING:
    import pandas as pd


class SharedFootage:
    """Which fingerprints of a manifest's rows show the same footage: equal ones, and those that make a pair."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._near = duplicates.neighbours(frame.fingerprint)

    def without(self, apart: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
        """The rows of `others` that show no footage of `apart`; clips without a fingerprint show none."""
        shown = set(apart.fingerprint) - {""}
        near = shown.union(*(self._near[text] for text in shown if text in self._near))
        return others[~others.fingerprint.isin(near)]
