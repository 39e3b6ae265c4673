"""The worst mistakes, with what each member said and where members with attention looked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import synthetic

from violence_detection.evaluation import mistakes, scoring
from violence_detection.models.trained_model import Member, TrainedModel
from violence_detection.training import heads


def model_of(*architectures: str) -> TrainedModel:
    """A model of untrained heads, which make enough mistakes for these tests."""
    shapes = synthetic.samples(2, 0).shapes()
    members = tuple(Member(a, heads.build(a, shapes, synthetic.HEAD), 1.0) for a in architectures)
    return TrainedModel(Path(), (), members, synthetic.FEATURES, {})


def test_attention_is_given_of_the_shown_clips_and_of_members_that_have_it() -> None:
    model = model_of("attention", "gru")
    samples = synthetic.samples(40, 3)
    predictions = scoring.predict_rows(model, samples.rows, samples)
    looked = mistakes.attention(model, samples, predictions)
    records = mistakes.records(predictions, model.threshold, looked)
    assert 0 < len(records) <= mistakes.SHOWN
    steps = next(iter(samples.shapes().values()))[0]
    for record in records:
        assert list(record["attention"]) == ["attention"]
        shares = record["attention"]["attention"]
        assert len(shares) == steps
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert set(record["members"]) == {"attention", "gru"}
        assert record["p_violent"] == pytest.approx(np.mean(list(record["members"].values())))
        assert (record["p_violent"] >= model.threshold) != (record["label"] == "fight")
    distances = [abs(record["p_violent"] - model.threshold) for record in records]
    assert distances == sorted(distances, reverse=True)


def test_of_a_model_without_attention_none_is_given() -> None:
    model = model_of("gru")
    samples = synthetic.samples(20, 3)
    predictions = scoring.predict_rows(model, samples.rows, samples)
    records = mistakes.records(predictions, 0.5, mistakes.attention(model, samples, predictions))
    assert records
    assert all(record["attention"] == {} for record in records)
