"""Leakage: planted copies and shared sources are found, and the figures without them are those of the other clips."""

from __future__ import annotations

from pathlib import Path

import cv2
import made_up_footage
import numpy as np
import pandas as pd
import pytest
import small_videos
import synthetic

from violence_detection.combine import fingerprint
from violence_detection.errors import UserError
from violence_detection.evaluation import metrics, training_overlap
from violence_detection.evaluation.audits import footage, leakage
from violence_detection.features.cache import FeatureStore
from violence_detection.features.config import FeatureConfig
from violence_detection.models.trained_model import TrainedModel
from violence_detection.training import trained_clips
from violence_detection.training.config import PICTURES_OF
from violence_detection.training.training_data import Samples

INPUT = "efficientnet_lite0.rgb"
STEPS = 2


def audited(
    folder: Path, rows: pd.DataFrame, values: np.ndarray, most: int | None = None, cached: float = 1.0
) -> leakage.LeakageAudit:
    """Audit val of `rows` for a model that was trained on train and is right on three of four val clips."""
    train, val = rows[rows.split == "train"], rows[rows.split == "val"].reset_index(drop=True)
    trained_clips.write(folder / "model", {trained_clips.TRAIN: train})
    record = {"manifest_sha256": "f" * 64}
    model = TrainedModel(folder / "model", (folder / "model",), (), FeatureConfig(), record, (record,))
    store = FeatureStore(folder / "features")
    (folder / "features").mkdir()
    for clip_id, value in list(zip(train.clip_id, values[rows.split == "train"], strict=True))[
        : int(cached * len(train))
    ]:
        store.add(clip_id, {"v0": np.tile(value, (STEPS, 1))}, "made up")
    inputs = {INPUT: np.tile(values[rows.split == "val"][:, None, None], (1, 1, STEPS, 1)).astype(np.float16)}
    is_fight = (val.label == "fight").to_numpy()
    right = np.arange(len(val)) % 4 != 0
    predictions = val.assign(p_violent=np.where(right == is_fight, 0.9, 0.1))
    overlap = training_overlap.compare(model, val, "f" * 64)
    known, _ = training_overlap.known_clips(model)
    samples = Samples(val, dict(inputs), is_fight.astype(np.float32))
    return leakage.audit(predictions, overlap, known, samples, {INPUT: store}, 0.5, most)


@pytest.mark.parametrize("seed", range(10))
def test_a_clean_set_raises_no_alarm(seed: int, tmp_path: Path) -> None:
    rows, values = made_up_footage.world(seed, sources=60, most=5)
    made = audited(tmp_path, rows, values)
    assert made.record["suspicious"] == 0
    assert made.record["by_feature"]["checked"]
    assert made.record["without_suspicious"] is None
    assert made.record["limit"]["state"] == "unknown"  # made-up clips have no fingerprints
    assert "texture" in made.record["limit"]["text"]
    assert len(made.nearest) == (rows.split == "val").sum()
    assert made.nearest.nearest_by_feature.isin(set(rows.clip_id)).all()


def recoded(path: Path, seed: int, kind: int) -> Path:
    """The clip of `seed` encoded again: smaller and darker (kind 0), or larger and with another codec (kind 1)."""
    if not kind:
        return small_videos.write(path, seed, n_frames=36, width=64, height=48, brightness=-12)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12.0, (144, 96))
    for frame in small_videos.frames(seed, 36):
        writer.write(cv2.resize(frame, (144, 96)))
    writer.release()
    return path


def test_five_percent_of_val_encoded_again_into_train_are_found_and_taken_out(tmp_path: Path) -> None:
    rows, values = made_up_footage.world(3, sources=40, most=8)
    val = rows.index[rows.split == "val"]
    count = max(2, round(0.05 * len(val)))
    planted = val[:: len(val) // count][:count]
    prints = {}
    for i, clip in enumerate(rows.index):  # fingerprints of real files: all of val, some of the others
        if rows.split[clip] == "val" or i % 6 == 0:
            path = small_videos.write(tmp_path / f"{i}.avi", 1000 + i, n_frames=36)
            prints[clip] = fingerprint.of_video(path)[1]
    rows["fingerprint"] = [prints.get(clip, "") for clip in rows.index]
    copies = rows.loc[planted].assign(split="train", source_group=[f"other{i}" for i in range(count)])
    copies["clip_id"] += "c"
    copies["fingerprint"] = [
        fingerprint.of_video(recoded(tmp_path / f"copy{i}.avi", 1000 + i, k % 2))[1]
        for k, i in enumerate(rows.index.get_indexer(planted))
    ]
    # the copies have other features, so that only the fingerprint can find them
    strange = np.random.default_rng(0).permuted(values[planted], axis=1)
    made = audited(tmp_path, pd.concat([rows, copies], ignore_index=True), np.concatenate([values, strange]))
    found = made.nearest[made.nearest.suspicious != ""].set_index("clip_id")
    copied = found[found.suspicious.str.contains("near copy")]
    assert set(copied.index) == set(rows.clip_id[planted])
    assert copied.nearest_by_fingerprint.to_dict() == {i: f"{i}c" for i in copied.index}
    of_their_sources = rows[(rows.split == "val") & rows.source_group.isin(rows.source_group[planted])]
    assert set(found.index) == set(of_their_sources.clip_id)
    assert (made.record["suspicious"], made.record["limit"]["state"]) == (len(found), "alarm")
    assert made.record["without_suspicious"]["n"] == made.record["whole"]["n"] - len(found)


def test_figures_without_the_suspicious_are_those_of_the_other_clips(tmp_path: Path) -> None:
    rows, values = made_up_footage.world(1, sources=60)
    sizes = rows[rows.split == "val"].source_group.value_counts()
    name = sizes.index[sizes >= 8][0]
    half = rows.index[rows.source_group == name][::2]
    rows.loc[half, ["split", "source_group"]] = "train", "another name"
    made = audited(tmp_path, rows, values)
    suspects = set(rows.clip_id[(rows.source_group == name) & (rows.split == "val")])
    assert {s["clip_id"] for s in made.record["suspects"]} == suspects
    (source,) = made.record["by_feature"]["sources"]
    assert (source["source_group"], source["like"]) == (name, "another name")
    assert all(leakage.SOURCE_ALIKE in s["suspicious"] for s in made.record["suspects"])
    val = rows[rows.split == "val"].reset_index(drop=True)
    right = np.arange(len(val)) % 4 != 0
    rest = ~val.clip_id.isin(suspects).to_numpy()
    low, high = metrics.accuracy_interval(right[rest], val.source_group.to_numpy()[rest])
    without = made.record["without_suspicious"]
    assert without["accuracy"] == pytest.approx(right[rest].mean())
    assert without["ci95"] == pytest.approx([low, high])
    assert made.record["whole"]["accuracy"] == pytest.approx(right.mean())


def test_clips_and_sources_that_training_had_are_suspicious_by_name(tmp_path: Path) -> None:
    rows, values = made_up_footage.world(2, sources=60)
    val = rows[rows.split == "val"]
    same = val.iloc[[0]].assign(split="train")
    sibling = (
        rows[rows.split == "train"]
        .iloc[[0]]
        .assign(split="val", clip_id="a sibling", path="val/fight/sibling.avi")
    )
    index = [val.index[0], rows.index[rows.split == "train"][0]]
    made = audited(
        tmp_path, pd.concat([rows, same, sibling], ignore_index=True), np.concatenate([values, values[index]])
    )
    why = {s["clip_id"]: s["suspicious"] for s in made.record["suspects"]}
    assert "same clip" in why[val.clip_id.iloc[0]]
    assert why["a sibling"] == ["same source"]


def test_what_was_not_compared_is_said(tmp_path: Path) -> None:
    rows, values = made_up_footage.world(0, sources=60)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    many = audited(tmp_path / "a", rows, values, most=10).record
    assert not many["by_feature"]["checked"]
    assert "--audit leakage" in many["by_feature"]["not_checked"]
    part = audited(tmp_path / "b", rows, values, cached=0.6).record["by_feature"]
    assert part["checked"]
    assert "are not in the cache" in part["not_checked"]


def test_a_limit_that_nothing_but_a_copy_reaches_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, values = made_up_footage.world(0, sources=60)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert audited(tmp_path / "a", rows, values).record["by_feature"]["not_checked"] == ""
    monkeypatch.setattr(footage, "CLIP_LIMIT", 100.0)
    found = audited(tmp_path / "b", rows, values).record["by_feature"]
    assert {row["limit"] for row in found["datasets"]} == {footage.HIGHEST}
    assert found["checked"]
    assert "to find more than copies" in found["not_checked"]


def test_what_shows_a_place_is_compared_before_what_tells_of_people_alone() -> None:
    poses = "movenet_poses.rgb"
    assert leakage.looked_at([INPUT, f"{INPUT.partition('.')[0]}.motion", poses]) == [INPUT]
    assert leakage.looked_at([poses]) == [poses]
    assert leakage.looked_at([poses, "i3d.motion"]) == ["i3d.motion"]
    of_pictures = next(iter(PICTURES_OF.values()))
    pictures = f"{of_pictures}.rgb"
    assert leakage.looked_at(sorted([poses, pictures])) == [pictures]
    assert leakage.looked_at(sorted([poses, pictures, INPUT])) == [INPUT]


def test_a_damaged_feature_is_named(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    store.add("0123456789abcdef", {"v0": np.ones((STEPS, 40), np.float32)}, "made up")
    synthetic.damage_unseen(store, "0123456789abcdef")
    with pytest.raises(UserError, match=r"0123456789abcdef.*damaged"):
        leakage.cached_descriptors({INPUT: store}, ["0123456789abcdef"], [INPUT])


def test_of_several_training_clips_the_nearest_by_fingerprint_is_named(tmp_path: Path) -> None:
    rows, values = made_up_footage.world(1, sources=60)
    near, farther, _ = rows.index[rows.split == "train"][:3]
    judged, altered = rows.index[rows.split == "val"][:2]
    spectra = np.random.default_rng(0).normal(0, 20, (8, fingerprint.N_COEFFICIENTS))
    rows.loc[[near, judged], "fingerprint"] = fingerprint.encode(spectra)
    rows.loc[farther, "fingerprint"] = fingerprint.encode(spectra.round(-1))
    rows.loc[altered, "fingerprint"] = fingerprint.encode(spectra + 0.5)
    found = audited(tmp_path, rows, values).nearest.set_index("clip_id").loc[rows.clip_id[[judged, altered]]]
    assert found.nearest_by_fingerprint.tolist() == [rows.clip_id[near]] * 2
    assert found.fingerprint_distance.iloc[0] == 0 < found.fingerprint_distance.iloc[1]


def test_judged_clips_with_one_fingerprint_all_have_their_nearest_training_clip(tmp_path: Path) -> None:
    rows, values = made_up_footage.world(1, sources=60)
    trained, judged = rows.index[rows.split == "train"][0], list(rows.index[rows.split == "val"][:2])
    spectra = np.random.default_rng(0).normal(0, 20, (8, fingerprint.N_COEFFICIENTS))
    rows.loc[trained, "fingerprint"] = fingerprint.encode(spectra)
    rows.loc[judged, "fingerprint"] = fingerprint.encode(fingerprint.mirrored(spectra))
    found = audited(tmp_path, rows, values).nearest.set_index("clip_id").loc[rows.clip_id[judged]]
    assert found.suspicious.str.contains("near copy").all()
    assert found.nearest_by_fingerprint.tolist() == [rows.clip_id[trained]] * 2


def test_every_near_copy_of_a_large_family_has_its_nearest_training_clip(tmp_path: Path) -> None:
    """In a large family, such as one fixed camera, the search may pair a judged clip with no training clip."""
    rows, values = made_up_footage.world(1, sources=60)
    trained, judged = rows.index[rows.split == "train"][0], list(rows.index[rows.split == "val"][:60])
    rng = np.random.default_rng(0)
    place = rng.normal(0, 20, 24)
    rows.loc[[trained, *judged], "fingerprint"] = [
        fingerprint.encode(place + rng.normal(0, 0.5, 24) + rng.normal(0, 1.5, (8, 24))) for _ in range(61)
    ]
    found = audited(tmp_path, rows, values).nearest.set_index("clip_id").loc[rows.clip_id[judged]]
    assert found.suspicious.str.contains("near copy").all()
    assert set(found.nearest_by_fingerprint) == {rows.clip_id[trained]}
    assert found.fingerprint_distance.notna().all()
