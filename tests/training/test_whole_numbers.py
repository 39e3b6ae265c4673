"""Vectors rounded to one byte per number are stored that way without loss, and other vectors are not."""

from __future__ import annotations

import numpy as np

from violence_detection.training import whole_numbers


def test_rounded_vectors_come_back_bit_for_bit_from_a_byte_a_number() -> None:
    rng = np.random.default_rng(0)
    values = (rng.standard_normal((300, 200)) * rng.exponential(1, 200)).astype(np.float32)
    values[:, 7] = 0
    rounded = whole_numbers.rounded(values)
    assert np.abs(rounded - values).max() <= np.abs(values).max() / 127 / 2 * 1.001
    split = whole_numbers.split(rounded)
    assert split is not None
    numbers, step = split
    assert numbers.dtype == np.int8
    np.testing.assert_array_equal(whole_numbers.joined(numbers, step), rounded)
    assert whole_numbers.split(values) is None, "only what loses nothing is kept so"
    assert whole_numbers.split(np.where(values > 1, np.nan, rounded)) is None
