"""Clips that share footage with another part are found by fingerprints that are equal or make a pair."""

from __future__ import annotations

import numpy as np
import pandas as pd

from violence_detection.combine import duplicates, fingerprint
from violence_detection.combine.shared_footage import SharedFootage


def _text(seed: int, noise: float = 0.0) -> str:
    spectra = np.random.default_rng(seed).normal(0, 20, (8, fingerprint.N_COEFFICIENTS))
    return fingerprint.encode(spectra + np.random.default_rng(99).normal(0, noise, spectra.shape))


def _frame(fingerprints: list[str]) -> pd.DataFrame:
    return pd.DataFrame(
        {"clip_id": [f"{i:02d}" for i in range(len(fingerprints))], "fingerprint": fingerprints}
    )


def test_every_copy_of_a_family_is_left_out_whichever_of_it_is_kept_apart() -> None:
    one, near = _text(1), _text(1, noise=1.0)
    assert one != near
    frame = _frame([one, one, one, near, near, _text(2), "", ""])
    shared = SharedFootage(frame)
    for apart in range(5):
        others = frame.drop(index=apart)
        assert shared.without(frame.iloc[[apart]], others).clip_id.tolist() == ["05", "06", "07"], apart


def test_clips_without_a_fingerprint_show_no_footage_of_each_other_and_nothing_kept_apart_takes_nothing() -> (
    None
):
    frame = _frame(["", "", _text(1)])
    shared = SharedFootage(frame)
    assert shared.without(frame.iloc[[0]], frame.iloc[1:]).clip_id.tolist() == ["01", "02"]
    assert len(shared.without(frame.iloc[:0], frame)) == 3


def test_what_shows_a_place_that_is_kept_apart_goes_though_an_index_names_few_of_a_large_family() -> None:
    rng = np.random.default_rng(0)
    place = rng.normal(0, 20, 24)
    family = [
        fingerprint.encode(place + rng.normal(0, 0.5, 24) + rng.normal(0, 1.5, (8, 24))) for _ in range(60)
    ]
    assert max(map(len, duplicates.neighbours(family).values())) < 59, "else an index would do"
    frame = _frame([*family, _text(2)])
    shared = SharedFootage(frame)
    for apart in (frame.iloc[:1], frame.iloc[20:25]):
        assert shared.without(apart, frame.drop(index=apart.index)).clip_id.tolist() == ["60"]
