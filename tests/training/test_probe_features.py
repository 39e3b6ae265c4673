"""benchmarks/probe_features.py beside a network: the network's contribution is measured like that of an input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks import probe_features
from benchmarks.held_out import HeldOut
from benchmarks.probe_features import NETWORK, Probe

LABELS = np.tile([0, 1], 30)


class _MadeUp(Probe):
    """Two data sets of 30 clips, three per source; the margins of the first ten clips and of the last are wrong."""

    def __init__(self, beside: HeldOut) -> None:
        everyone = np.arange(len(LABELS))
        self.beside, self.labels = beside, LABELS
        self.datasets, self.groups = np.repeat(["a", "b"], 30), (everyone // 3).astype(str)
        self.points = {"x.rgb": np.zeros((60, 1))}
        self.left_out = [(everyone[30:], everyone[:30]), (everyone[:30], everyone[30:])]
        self.cuts = [self.left_out]

    def margins(self, inputs: Sequence[str], parts: object) -> np.ndarray:
        assert inputs
        said = (2.0 * LABELS - 1) * np.linspace(0.2, 1, 60)
        return np.where((np.arange(60) < 10) | (np.arange(60) == 59), -said, said)


@pytest.fixture
def probe(tmp_path: Path) -> _MadeUp:
    file = tmp_path / "logits.csv"
    everyone = np.arange(60)
    wrong = ((everyone < 30) & (everyone % 6 == 0)) | (everyone == 58)
    said = np.where(wrong, -3.0, 3.0) * (2 * LABELS - 1)
    rows = [f"{i},{v},{v}" for i, v in enumerate(said)]
    file.write_text("\n".join(["clip_id,elsewhere_0,in_set_0", *rows]))
    return _MadeUp(HeldOut(file, [str(i) for i in range(60)]))


def test_rows_have_the_network_alone_and_all_inputs_without_it(probe: _MadeUp) -> None:
    rows = {name: probe.row(name, inputs) for name, inputs in probe.choices()}
    assert list(rows) == ["all", NETWORK, f"without {NETWORK}"]
    alone, without = rows[NETWORK], rows[f"without {NETWORK}"]
    assert alone["in_set"]["accuracy"] == 0.9, "five of one data set are wrong, and one of the other"
    each = {k: d["accuracy"] for k, d in alone["elsewhere"]["by_dataset"].items()}
    assert each == {"a": round(25 / 30, 4), "b": round(29 / 30, 4)}
    assert without["in_set"]["accuracy"] == round(49 / 60, 4)
    compared = probe.compared(without, list(rows.values()))
    right = rows["all"]["right_in_set"].mean() - without["right_in_set"].mean()
    assert compared["gain_in_set"]["points"] == round(100 * right, 2)
    assert NETWORK in probe_features.table([probe_features.shown(row) for row in rows.values()])
