"""Members are averaged as probabilities, or as logits that were first brought to one scale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from violence_detection.ensemble.config import EnsembleConfig
from violence_detection.errors import UserError
from violence_detection.models import averaging, model_files
from violence_detection.models.averaging import Averaging, EarlyExit
from violence_detection.system import storage


def test_the_mean_is_of_probabilities_or_of_logits() -> None:
    p = {"a": np.array([0.5, 0.9, np.nan]), "b": np.array([0.8, 0.2, 0.5])}
    plain = averaging.together(p, [1, 3], Averaging())
    np.testing.assert_allclose(plain, [0.725, 0.375, np.nan])
    found = averaging.together(p, [1, 3], Averaging(in_logits=True))
    logit = (np.log(0.9 / 0.1) + 3 * np.log(0.2 / 0.8)) / 4
    np.testing.assert_allclose(found, [1 / (1 + 4**-0.75), 1 / (1 + np.exp(-logit)), np.nan])
    surest = dict.fromkeys("ab", np.array([0.0, 1.0]))
    assert np.isfinite(averaging.together(surest, [1, 1], Averaging(in_logits=True))).all()


@pytest.mark.parametrize("in_logits", [False, True])
def test_the_first_member_counts_alone_where_it_is_sure(in_logits: bool) -> None:
    p = {"dear": np.array([0.9, np.nan, 0.2, 0.6]), "first": np.array([0.1, 0.05, 0.95, 0.11])}
    plain = averaging.together(p, [1, 1], Averaging(in_logits))
    found = averaging.together(p, [1, 1], Averaging(in_logits, EarlyExit("first", 0.1)))
    np.testing.assert_array_equal(found, [plain[0], 0.05, plain[2], plain[3]])


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ({"member": "c", "below": 0.1}, "names 'c', which is not one of its members"),
        ({"member": "a", "below": 0.5}, "a number between 0 and 0.5, found 'a', 0.5"),
        ({"member": "a"}, "is not valid"),
        ("a", "is not valid"),
    ],
)
def test_an_early_exit_that_cannot_be_is_refused(tmp_path: Path, stored: object, said: str) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.keras").touch()
    members = [{"name": n, "weight": 0.5, "model": f"{n}.keras"} for n in ("a", "b")]
    storage.write_json(tmp_path / "ensemble.json", {"members": members, "early_exit": stored})
    with pytest.raises(UserError, match=said):
        model_files.early_exit(tmp_path)


@pytest.mark.parametrize(
    ("members", "average", "in_logits"),
    [
        (("gru", "bilstm"), "auto", False),
        (("gru", "kernel"), "auto", True),
        (("kernel", "i3d_tuned"), "auto", True),
        (("kernel", "i3d_tuned"), "probabilities", False),
        (("gru", "bilstm"), "logits", True),
        (("kernel",), "logits", False),
    ],
)
def test_logits_are_averaged_where_members_are_of_different_kinds(
    members: tuple[str, ...], average: str, in_logits: bool
) -> None:
    assert EnsembleConfig(members=members, average=average).averaged.in_logits == in_logits


@pytest.mark.parametrize("temperatures", [(2.0, None), (2.0, 0), (True, 1.0), (1.0, "1")])
def test_an_ensemble_with_half_of_its_temperatures_is_refused(
    tmp_path: Path, temperatures: tuple[object, ...]
) -> None:
    members = [{"name": f"m{i}", "temperature": t} for i, t in enumerate(temperatures)]
    storage.write_json(tmp_path / "ensemble.json", {"members": members})
    with pytest.raises(UserError, match=r"either no member has a temperature"):
        model_files.temperatures(tmp_path)


def test_a_closer_look_counts_as_much_as_the_other_views_together() -> None:
    # two views of the whole picture and one closer look
    views = np.array([[0.2, 0.5, 0.7], [0.4, 0.5, 0.7], [0.9, 0.8, 0.7]])
    np.testing.assert_allclose(averaging.over_views(views), views.mean(axis=0))
    odds = [(0.3 / 0.7 * 9) ** 0.5, 4**0.5]
    expected = [o / (1 + o) for o in odds]
    np.testing.assert_allclose(averaging.over_views(views, closer_look=True), [*expected, 0.7], rtol=1e-9)
    alone = views[:1]
    np.testing.assert_array_equal(averaging.over_views(alone, closer_look=True), alone[0])
    assert np.isnan(averaging.over_views(np.array([[0.5], [np.nan]]), closer_look=True)).all()


def test_where_there_is_nothing_to_see_closer_views_are_averaged_as_without() -> None:
    """The closer look is then the plain view again. It must not count for half of the total."""
    views = np.array([[0.2, 0.2], [0.9, 0.9], [0.7, 0.7], [0.2, 0.5]])
    first, second = averaging.over_views(views, closer_look=True)
    assert first == pytest.approx(0.6)
    assert second == pytest.approx(1.5**0.5 / (1 + 1.5**0.5))


@pytest.mark.parametrize("stored", [None, 1, "yes"])
def test_a_closer_look_is_taken_or_not(tmp_path: Path, stored: object) -> None:
    assert not model_files.closer_look(tmp_path)
    storage.write_json(tmp_path / "ensemble.json", {"members": []})
    assert not model_files.closer_look(tmp_path)
    storage.write_json(tmp_path / "ensemble.json", {"members": [], "closer_look": True})
    assert model_files.closer_look(tmp_path)
    storage.write_json(tmp_path / "ensemble.json", {"members": [], "closer_look": stored})
    with pytest.raises(UserError, match=r"ensemble\.json cannot be used .closer_look must be true or false"):
        model_files.closer_look(tmp_path)
