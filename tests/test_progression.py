"""The table of the progression: gains compare the same clips, and their intervals are over sources."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks import progression


@pytest.fixture
def predictions() -> pd.DataFrame:
    """Two seeds of 40 clips from 10 sources. Only the baseline errs, on all clips of three sources."""
    rows = pd.DataFrame(
        {
            "clip_id": [f"c{i}" for i in range(40)],
            "dataset": ["a" if i < 20 else "b" for i in range(40)],
            "source_group": [f"g{i // 4}" for i in range(40)],
            "label": ["fight" if i % 2 else "nonfight" for i in range(40)],
        }
    )
    right = np.where(rows.label == "fight", 0.9, 0.1)
    wrong = rows.source_group.isin(["g0", "g1", "g2"])
    return pd.concat(
        [
            rows.assign(
                seed=seed, stage=stage, p_violent=np.where(wrong & (stage == "baseline"), 1 - right, right)
            )
            for seed in range(2)
            for stage in progression.COMPARED
        ],
        ignore_index=True,
    )


def test_gain_and_interval_are_over_the_same_clips_and_sources(predictions: pd.DataFrame) -> None:
    baseline, ultra = (progression.figures(predictions, name) for name in ("baseline", "ultra"))
    assert (baseline["accuracy"], baseline["by_seed"], baseline["judgements"]) == (0.7, [0.7, 0.7], 80)
    assert baseline["by_dataset"] == {"a": 0.4, "b": 1.0}
    assert "gain" not in baseline
    assert (ultra["compared_with"], ultra["gain"], ultra["accuracy"]) == ("baseline", 0.3, 1.0)
    low, high = ultra["gain_ci95"]
    assert 0 <= low <= 0.1  # ten sources: far wider than for 80 independent clips
    assert 0.5 <= high <= 0.7
    assert progression.figures(predictions, "+ TTA")["gain"] == 0


def test_every_stage_has_a_row_of_the_table(predictions: pd.DataFrame) -> None:
    stages = {name: progression.figures(predictions, name) for name in progression.COMPARED}
    lines = progression.table(stages).splitlines()[2:]
    assert [line.split(" | ")[0].strip("| ") for line in lines] == list(progression.COMPARED)
    assert "| 70.0 (" in lines[0]
    assert "| +30.0 (" in lines[1]
    assert lines[1].endswith("| baseline |")
