"""Parts are cut by source whichever data sets are chosen, and nothing that is held out trains or selects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from violence_detection.combine import fingerprint
from violence_detection.ensemble import cross_validation, folds, pool
from violence_detection.errors import UserError
from violence_detection.evaluation import held_out_table
from violence_detection.system import storage


def _frame() -> pd.DataFrame:
    """200 clips of two data sets, 4 per source; as in real data, some sources (every fifth) have clips in both."""
    rng = np.random.default_rng(0)
    source = np.arange(200) // 4
    mixed = (source % 5 == 0) & (np.arange(200) % 4 == 3)
    return pd.DataFrame(
        {
            "clip_id": [f"{i:03x}" for i in range(200)],
            "dataset": np.where((source % 2 == 1) ^ mixed, "b", "a"),
            "source_group": [f"s{g}" for g in source],
            "label": np.where(rng.random(200) < 0.5, "fight", "nonfight"),
            "split": np.where(source < 40, "train", "val"),
            "fingerprint": "",
        }
    )


def _sources(frame: pd.DataFrame, ids: tuple[str, ...]) -> set[str]:
    return set(frame.source_group[frame.clip_id.isin(ids)])


@pytest.mark.parametrize("target", [{"a", "b"}, {"a"}])
def test_each_train_clip_is_held_out_once_and_its_source_neither_trains_nor_selects(target: set[str]) -> None:
    frame = _frame()
    folds_ = folds.cross_validation(frame, target, 4, 0.2, 0)
    held_out = [clip for fold in folds_ for clip in fold.held_out]
    wanted = frame[(frame.split == "train") & frame.dataset.isin(target)]
    assert sorted(held_out) == wanted.clip_id.tolist()
    for fold in [*folds_, folds.official(frame, target, 0.2, 0)]:
        parts = [_sources(frame, ids) for ids in (fold.train, fold.selection, fold.held_out)]
        assert parts[0]
        assert parts[1]
        assert parts[2]
        assert not (parts[0] & parts[1])
        assert not (parts[0] & parts[2])
        assert not (parts[1] & parts[2])


def test_val_is_held_out_by_the_official_cut_and_touched_by_no_fold() -> None:
    frame = _frame()
    val = set(frame.clip_id[frame.split == "val"])
    assert set(folds.official(frame, {"a", "b"}, 0.2, 0).held_out) == val
    for fold in folds.cross_validation(frame, {"a", "b"}, 4, 0.2, 0):
        assert not val & {*fold.train, *fold.selection, *fold.held_out}


def test_a_data_set_that_is_left_out_neither_trains_nor_selects_nor_lends_a_source() -> None:
    frame = _frame()
    dataset = dict(zip(frame.clip_id, frame.dataset, strict=True))
    left_out = folds.leave_one_dataset_out(frame, {"a", "b"}, 0.2, 0)
    assert [fold.name for fold in left_out] == ["without_a", "without_b"]
    for fold, name in zip(left_out, "ab", strict=True):
        assert {dataset[c] for c in fold.held_out} == {name}
        assert (
            sorted(fold.held_out)
            == frame.clip_id[(frame.dataset == name) & (frame.split == "train")].tolist()
        )
        assert name not in {dataset[c] for c in (*fold.train, *fold.selection)}
        assert not _sources(frame, fold.held_out) & _sources(frame, (*fold.train, *fold.selection))
        assert not _sources(frame, fold.train) & _sources(frame, fold.selection)
    with pytest.raises(UserError, match="at least two data sets"):
        folds.leave_one_dataset_out(frame, {"a"}, 0.2, 0)


def _fingerprint(seed: int) -> str:
    spectra = np.random.default_rng(seed).normal(0, 20, (8, fingerprint.N_COEFFICIENTS))
    return fingerprint.encode(spectra)


def test_what_shows_held_out_footage_is_not_trained_on_though_it_counts_as_another_source() -> None:
    """Sources that share footage stay separate if, joined, they would be too large to divide."""
    frame = _frame()
    a, b = (frame.index[(frame.dataset == name) & (frame.split == "train")][0] for name in "ab")
    frame["fingerprint"] = [_fingerprint(i) for i in range(len(frame))]
    frame.loc[b, "fingerprint"] = frame.fingerprint[a]
    one, other = frame.clip_id[a], frame.clip_id[b]
    frame.loc[b, "source_group"] = "another"
    left_out = folds.leave_one_dataset_out(frame, {"a", "b"}, 0.2, 0)
    for fold in (*left_out, *folds.cross_validation(frame, {"a", "b"}, 4, 0.2, 0)):
        seen = {*fold.train, *fold.selection}
        assert not (one in fold.held_out and other in seen), fold.name
        assert not (other in fold.held_out and one in seen), fold.name


@pytest.mark.parametrize("how", ["held_out", "selection"])
@pytest.mark.parametrize("cut", ["cross_validation", "leave_one_dataset_out", "official"])
def test_what_shows_footage_of_a_held_out_or_selecting_clip_is_not_trained_on_though_it_is_added(
    cut: str, how: str
) -> None:
    """A held-out or selecting clip has a copy in the added data set and one in the target's train part."""
    frame = _frame()
    frame["fingerprint"] = [_fingerprint(i) for i in range(len(frame))]

    def cuts(frame: pd.DataFrame) -> list[folds.Fold]:
        if cut == "official":
            return [folds.official(frame, {"a", "b"}, 0.2, 0)]
        if cut == "cross_validation":
            return folds.cross_validation(frame, {"a", "b"}, 4, 0.2, 0)
        return folds.leave_one_dataset_out(frame, {"a", "b"}, 0.2, 0)

    plain = cuts(frame)
    watched = next(iter(getattr(plain[0], how)))
    of_train = next(c for c in plain[0].train if c not in watched)
    row = frame.set_index("clip_id").loc[watched]
    copy = {**frame.iloc[0], "dataset": "c", "split": "train", "fingerprint": row.fingerprint}
    other = {**copy, "clip_id": "c01", "source_group": "c1", "fingerprint": _fingerprint(1001)}
    added = pd.DataFrame([{**copy, "clip_id": "c00", "source_group": "c0"}, other])
    joined = pd.concat([frame, added], ignore_index=True)
    joined.loc[joined.clip_id == of_train, "fingerprint"] = row.fingerprint
    found = cuts(joined)
    assert any(watched in getattr(fold, how) for fold in found)
    for fold in found:
        assert "c01" in fold.train
        apart = {*fold.held_out, *fold.selection}
        shown = set(joined.fingerprint[joined.clip_id.isin(apart)])
        trained = joined[joined.clip_id.isin(fold.train)]
        assert not shown & set(trained.fingerprint), fold.name
        if watched in apart:
            assert "c00" not in fold.train
            assert of_train not in fold.train
        held_out = set(joined.fingerprint[joined.clip_id.isin(fold.held_out)])
        assert not held_out & set(joined.fingerprint[joined.clip_id.isin(fold.selection)])


def test_added_data_sets_train_but_neither_select_nor_measure() -> None:
    frame = _frame()
    dataset = dict(zip(frame.clip_id, frame.dataset, strict=True))
    alone = folds.cross_validation(frame[frame.dataset == "a"], {"a"}, 4, 0.2, 0)
    for fold, without in zip(folds.cross_validation(frame, {"a"}, 4, 0.2, 0), alone, strict=True):
        assert {dataset[c] for c in fold.train} == {"a", "b"}
        assert {dataset[c] for c in (*fold.selection, *fold.held_out)} == {"a"}
        # the same parts, so that figures with and without added data can be compared
        assert (fold.selection, fold.held_out) == (without.selection, without.held_out)
        assert set(without.train) < set(fold.train)


def test_data_sets_are_named_or_refused() -> None:
    frame = _frame()
    assert pool.datasets(frame, (), ()) == ({"a", "b"}, set())
    assert pool.datasets(frame, ("a",), ("rest",)) == ({"a"}, {"b"})
    with pytest.raises(UserError, match=r"'c'.*a, b"):
        pool.datasets(frame, ("a",), ("c",))
    with pytest.raises(UserError, match="--add-datasets b would do nothing"):
        pool.datasets(frame, ("a", "b"), ("b",))
    with pytest.raises(UserError, match=r"no clips of data set 'rest'.*There are: a, b"):
        pool.datasets(frame, ("rest",), ())
    with pytest.raises(UserError, match="--add-datasets rest would do nothing: --datasets has all"):
        pool.datasets(frame, ("a", "b"), ("rest",))


def test_data_sets_too_small_to_leave_the_others_out_are_named() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "clip_id": [f"{i:03x}" for i in range(124)],
            "dataset": ["a"] * 60 + ["b"] * 60 + ["tiny"] * 4,
            "source_group": [f"s{i}" for i in range(60)] * 2 + ["s0", "s1", "s2", "s3"],
            "label": np.where(rng.random(124) < 0.5, "fight", "nonfight"),
            "split": "train",
            "fingerprint": "",
        }
    )
    apart = frame.assign(
        source_group=[f"{d}{s}" for d, s in zip(frame.dataset, frame.source_group, strict=True)]
    )
    apart.loc[apart.dataset == "tiny", "label"] = "fight"
    assert len(folds.leave_one_dataset_out(apart[apart.dataset != "tiny"], {"a", "b"}, 0.2, 0)) == 2
    two = apart[apart.dataset != "b"]
    with pytest.raises(UserError, match=r"without a, .*: tiny \(4 clips of 4 sources\)\. Add data") as said:
        folds.leave_one_dataset_out(two, {"a", "tiny"}, 0.2, 0)
    assert "fewer folds" not in str(said.value)
    # tiny shares the sources of a and b: if it is held out, nothing is left to train on
    shared = apart.assign(source_group=apart.source_group.where(apart.dataset != "tiny", "a0"))
    shared.loc[shared.dataset == "a", "source_group"] = [f"a{i % 2}" for i in range(60)]
    shared.loc[shared.dataset == "b", "source_group"] = [f"b{i % 2}" for i in range(60)]
    shared.loc[shared.dataset == "tiny", "source_group"] = ["a0", "a1", "b0", "b1"]
    with pytest.raises(UserError, match=r"Leave out tiny \(4 clips of 4 sources\): --datasets a,b$"):
        folds.leave_one_dataset_out(shared, {"a", "b", "tiny"}, 0.5, 0)


def test_too_many_folds_and_a_part_with_one_class_are_user_errors() -> None:
    frame = _frame()
    with pytest.raises(UserError, match=r"--cross-validate 99: .* have \d+ in all\. Use at most \d+"):
        folds.cross_validation(frame, {"a", "b"}, 99, 0.2, 0)
    with pytest.raises(UserError, match="the val part has no nonfight"):
        folds.official(frame.assign(label="fight"), {"a", "b"}, 0.2, 0)


def test_hard_clips_are_drawn_until_they_have_their_share_and_the_others_once() -> None:
    fold = folds.Fold("x", tuple(f"{i:02d}" for i in range(20)), (), ())
    hard = np.arange(20) < 3
    drawn = folds.with_repeats(fold, hard, 0.4)
    counts = [drawn.train.count(c) for c in fold.train]
    assert counts[3:] == [1] * 17
    assert sum(counts[:3]) / len(drawn.train) == pytest.approx(0.4, abs=0.02)
    assert max(counts[:3]) - min(counts[:3]) <= 1
    assert drawn.sha256 != fold.sha256
    # hard clips already exceed their share
    assert folds.with_repeats(fold, np.arange(20) < 15, 0.4).train == fold.train


def test_a_carriage_return_in_a_name_tears_no_table_of_predictions(tmp_path: Path) -> None:
    rows = pd.DataFrame(
        {"clip_id": ["1", "2"], "source_group": ["mine:a\rb", "c"], "p_violent": [0.25, np.nan]}
    )
    rows.index = rows.index + 1
    path = tmp_path / "oof_predictions.csv"
    assert cross_validation._write(path, rows) == storage.sha256_file(path)
    read = held_out_table.parse(path.read_bytes())
    assert read.source_group.tolist() == ["mine:a\rb", "c"]
    cross_validation._write(path, rows.assign(source_group="c"))
    assert path.read_text() == "clip_id,source_group,p_violent\n1,c,0.25\n2,c,\n", "as it always was"
