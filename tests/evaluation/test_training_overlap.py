"""Sources are compared with those of training only by names that mean the same on both sides."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from violence_detection.combine import fingerprint
from violence_detection.evaluation import training_overlap
from violence_detection.evaluation.training_overlap import Comparison
from violence_detection.features.config import FeatureConfig
from violence_detection.models.trained_model import TrainedModel
from violence_detection.training import trained_clips


@pytest.mark.parametrize(
    ("trained", "judged", "found"),
    [
        ("youtube:10uSOcwS", "youtube:10uSOcwSabc", 1),
        ("youtube:10uSOcwSabc", "youtube:10uSOcwS", 1),
        ("youtube:10uSOcwSabc", "youtube:10uSOcwSxyz", 0),
    ],
)
def test_a_source_is_known_by_its_id_that_was_cut_off(trained: str, judged: str, found: int) -> None:
    """RWF-2000 cuts ids to 8 characters; combined with a set that has the whole id, its clips are named by that."""
    known = pd.DataFrame({"source_group": [trained], "role": ["train"]})
    rows = pd.DataFrame({"dataset": ["rwf_2000"], "source_group": [judged]})
    model: Any = SimpleNamespace(records=[{"manifest_sha256": "theirs"}])
    _, said = training_overlap._by_source(model, known, rows, "ours", "", np.zeros(1, bool))
    assert said.found == found


@pytest.mark.parametrize(
    ("dataset", "source", "compared", "found"),
    [
        ("rwf_2000", "youtube:abc", 1, 1),
        ("rwf_2000", "youtube:xyz", 1, 0),
        ("mine", "mine:cam1", 0, 0),
        ("youtube", "youtube:cam1", 0, 0),  # a user's own set that has the name of a published namespace
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
    touched, said = training_overlap._by_source(model, known, rows, "ours", "", np.zeros(1, bool))
    assert (said.compared, said.found, touched.sum()) == (compared, found, found)
    assert ("own clips are named by their folders" in said.why_not) == (not compared)


@pytest.mark.parametrize(
    ("copy_of", "dataset", "said"),
    [
        ("same clip", "rwf_2000", Comparison(2, 3)),
        ("near copy", "rwf_2000", Comparison(2, 3)),
        ("near copy", "mine", Comparison(2, 0, "own clips")),
    ],
)
def test_a_source_of_which_training_had_a_copy_is_one_that_it_had_whatever_its_name(
    tmp_path: Path, copy_of: str, dataset: str, said: Comparison
) -> None:
    """Combining names joined sources by one of their names, which may not exist in another manifest."""
    prints = [fingerprint.encode(np.random.default_rng(k).normal(0, 20, (8, 24))) for k in range(4)]
    trained_on = pd.DataFrame(
        {"clip_id": ["a"], "source_group": ["youtube:abc"], "fingerprint": prints[0], "dataset": "rwf_2000"}
    )
    trained_clips.write(tmp_path, {trained_clips.TRAIN: trained_on})
    record = {"manifest_sha256": "theirs"}
    model = TrainedModel(tmp_path, (tmp_path,), (), FeatureConfig(), record, (record,))
    first = ("a", prints[1]) if copy_of == "same clip" else ("b", prints[0])
    rows = pd.DataFrame(
        {
            "clip_id": [first[0], "c", "d"],
            "source_group": ["youtube:Abc", "youtube:Abc", "youtube:xyz"],
            "fingerprint": [first[1], *prints[2:]],
            "dataset": dataset,
        }
    )
    overlap = training_overlap.compare(model, rows, "ours")
    assert (overlap.same_source.found, overlap.same_source.compared) == (said.found, said.compared)
    assert said.why_not in overlap.same_source.why_not
    assert {clip: set(ways) for clip, ways in overlap.by_clip.items()} == {
        first[0]: {copy_of, "same source"},
        "c": {"same source"},
    }
    assert overlap.touched == 2
