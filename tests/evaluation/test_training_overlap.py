"""What is said of sources that training had was compared by names that mean the same on both sides."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from violence_detection.evaluation import training_overlap


@pytest.mark.parametrize(
    ("dataset", "source", "compared", "found"),
    [
        ("rwf_2000", "youtube:abc", 1, 1),
        ("rwf_2000", "youtube:xyz", 1, 0),
        ("mine", "mine:cam1", 0, 0),
        ("youtube", "youtube:cam1", 0, 0),  # of one's own, called as published sources are
    ],
)
def test_sources_of_published_sets_alone_are_compared_across_manifests(
    dataset: str, source: str, compared: int, found: int
) -> None:
    model: Any = SimpleNamespace(records=[{"manifest_sha256": "theirs"}])
    known = pd.DataFrame(
        {"source_group": ["youtube:abc", "youtube:cam1", "mine:cam1"], "role": ["train"] * 3}
    )
    rows = pd.DataFrame({"dataset": [dataset], "source_group": [source]})
    touched, said = training_overlap._by_source(model, known, rows, "ours", "")
    assert (said.compared, said.found, touched.sum()) == (compared, found, found)
    assert ("own clips are named by their folders" in said.why_not) == (not compared)
