"""A network stored as a difference from the published one is restored to within one step per weight."""

from __future__ import annotations

import numpy as np
import pytest
import seeded_i3d

from violence_detection.training import weight_difference
from violence_detection.training.weight_difference import CODES, OFFSETS, STEPS


def test_a_network_of_i3ds_size_takes_few_bits_a_weight_and_errs_by_less_than_a_step() -> None:
    published = [w for name, w in seeded_i3d.weights().items() if name.endswith(("kernel", "/bias"))]
    base = [w for w in published if w.shape[-1] != 400]  # the classifier is not part of it
    rng = np.random.default_rng(0)
    own = [
        w + rng.standard_normal(w.shape, np.float32) * np.float32(0.02 * w.std()) if w.ndim > 1 else w + 1
        for w in base
    ]
    own[0][..., 3] = base[0][..., 3]  # a channel that training has not changed
    kernels = sum(w.size for w in base if w.ndim > 1)
    assert kernels > 12e6
    stored = weight_difference.encode(own, base, 0.9)
    assert sum(v.nbytes for v in stored.values()) * 8 / kernels < 3.5
    found = weight_difference.decode(stored, base)
    steps = stored[STEPS]
    for one, other, start in zip(found, own, base, strict=True):
        assert one.dtype == np.float32
        if one.ndim == 1:
            np.testing.assert_array_equal(one, other)
            continue
        step, steps = np.split(steps, [one.shape[-1]])
        error = (one.astype(np.float64) - other) / step
        assert np.abs(error).max() < 1.01
        assert np.abs(error.reshape(-1, one.shape[-1]).sum(axis=0)).max() < 1, "what is left is carried on"
        moved = float(np.std(other - start))
        assert np.std(one - other) < 0.7 * moved
    np.testing.assert_array_equal(found[0][..., 3], base[0][..., 3])


@pytest.mark.parametrize("part", [CODES, STEPS, OFFSETS])
def test_what_does_not_fit_the_network_is_refused(part: str) -> None:
    rng = np.random.default_rng(0)
    base = [rng.standard_normal((3, 3, 3, 4, 5)).astype(np.float32), np.zeros(5, np.float32)]
    stored = weight_difference.encode(
        [b + 0.1 * rng.random(b.shape).astype(np.float32) for b in base], base, 0.5
    )
    assert len(weight_difference.decode(stored, base)) == 2
    with pytest.raises(ValueError, match=part.replace(".", r"\.")):
        weight_difference.decode({**stored, part: stored[part][:-1]}, base)
    larger = [np.zeros((3, 3, 3, 5, 5), np.float32), base[1]]
    with pytest.raises(ValueError, match="exactly 675 numbers"):
        weight_difference.decode(stored, larger)
    with pytest.raises(ValueError, match=r"damaged|exactly 540"):
        weight_difference.decode({**stored, CODES: np.full(99, 255, np.uint8)}, base)
