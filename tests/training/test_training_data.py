"""From manifest and cache to arrays: each clip has its own features, and failed clips are left out by name."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import small_videos
import stand_in

from violence_detection.combine import combine, manifest
from violence_detection.combine.config import CombineConfig
from violence_detection.ensemble import pool
from violence_detection.errors import UserError
from violence_detection.features import extract
from violence_detection.features.cache import FeatureStore
from violence_detection.features.config import ExtractConfig, FeatureConfig
from violence_detection.features.extract import Extraction
from violence_detection.system import storage
from violence_detection.training import training_data


def _rows(count: int) -> pd.DataFrame:
    labels = ["fight" if i % 2 else "nonfight" for i in range(count)]
    return pd.DataFrame({"clip_id": [f"c{i}" for i in range(count)], "path": [f"train/x/{i}.avi" for i in range(count)],
                         "label": labels})  # fmt: skip


def test_features_and_labels_stand_at_their_clip(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    for i in range(5):
        store.add(f"c{i}", {v: np.full((3, 4), 10 * i + j) for j, v in enumerate(("v0", "v1"))}, "test")
    samples = training_data.load({"a.rgb": store}, _rows(5).iloc[::-1], ("v1", "v0"))
    assert samples.inputs["a.rgb"].shape == (5, 2, 3, 4)
    assert samples.inputs["a.rgb"][:, :, 0, 0].tolist() == [[10 * i + 1, 10 * i] for i in (4, 3, 2, 1, 0)]
    assert samples.labels.tolist() == [0, 1, 0, 1, 0]
    assert samples.shapes() == {"a.rgb": (3, 4)}


def test_balanced_batches_show_data_sets_and_classes_alike_and_every_clip_of_a_small_one() -> None:
    counts = {("a", "fight"): 20, ("a", "nonfight"): 12, ("b", "fight"): 3, ("b", "nonfight"): 5}
    pairs = [pair for pair, count in counts.items() for _ in range(count)]
    rows = pd.DataFrame(pairs, columns=["dataset", "label"])
    numbers = np.arange(40, dtype=np.float16)[:, None, None, None]
    samples = training_data.Samples(rows, {"a.rgb": numbers}, np.zeros(40, np.float32))

    def drawn(seed: int) -> list[int]:
        return [int(i) for x, _ in samples.batches(8, seed, 3, balanced=True) for i in x["a.rgb"].ravel()]

    shown = drawn(1)
    assert len(shown) == 40
    assert Counter(pairs[i] for i in shown) == dict.fromkeys(counts, 10)
    assert set(range(32, 40)) <= set(shown)
    assert max(Counter(shown)[i] for i in range(20)) == 1
    assert drawn(1) == shown != drawn(2)


def test_a_missing_feature_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"c0\.npz"):
        training_data.load({"a.rgb": FeatureStore(tmp_path)}, _rows(1), ("v0",))


def test_clips_that_failed_are_left_out_and_the_order_is_by_id(tmp_path: Path) -> None:
    failures = [{"path": str(tmp_path / "train/x/1.avi"), "reason": "broken"}]
    kept = extract.without_failures(_rows(4).iloc[::-1], tmp_path, failures)
    assert kept.clip_id.tolist() == ["c0", "c2", "c3"]


def test_nothing_readable_is_a_user_error() -> None:
    with pytest.raises(UserError, match=r"none of the 2 clips.* --check, with the --data-root and --own of"):
        Extraction({}, [{"path": p, "reason": "broken"} for p in "ab"]).report(2)


def test_augment_counts_the_plain_clip(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--augment"):
        training_data.check(
            FeatureConfig(backbone=("efficientnet_lite0",)), ExtractConfig(data_root=tmp_path, augment=0)
        )


@pytest.mark.parametrize("part", ["train", "selection", "val"])
def test_a_part_without_a_class_is_said_before_anything_is_extracted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    rows = _rows(40).assign(
        split=["train"] * 30 + ["val"] * 10,
        dataset="d",
        source_group=[f"s{i}" for i in range(40)],
        fingerprint="",
    )
    if part == "selection":  # all fights come from one source, which cannot be divided
        rows.loc[(rows.split == "train") & (rows.label == "fight"), "source_group"] = "one"
    else:
        rows.loc[(rows.split == part), "label"] = "nonfight"
    monkeypatch.setattr(training_data.manifest, "read_hashed", lambda _: (rows, "0" * 64))
    monkeypatch.setattr(extract, "ensure", lambda *_: pytest.fail("extracts first"))
    features = FeatureConfig(backbone=("efficientnet_lite0",))
    with pytest.raises(UserError, match=r"the (train|selection|val) part has no fight clip"):
        training_data.prepare(features, ExtractConfig(data_root=tmp_path), 0.2, 0)


def test_what_shows_footage_of_val_or_of_a_selecting_clip_is_not_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Combining does not join sources that share footage if they could not be divided afterwards. Here, the shared
    footage is written into the manifest after combining.
    """
    stand_in.install(monkeypatch.setattr)
    for seed in range(15):
        for offset, label in enumerate(("fight", "nonfight")):
            small_videos.write(tmp_path / "raw/mine" / label / f"{seed}.avi", 100 * offset + seed)
    combine.run(CombineConfig(data_root=tmp_path, own=(f"mine={tmp_path}/raw/mine",), workers=1))

    def parts() -> dict[str, list[str]]:
        data = training_data.prepare(stand_in.CONFIG, ExtractConfig(data_root=tmp_path, augment=1), 0.25, 0)
        return {name: getattr(data, name).rows.clip_id.tolist() for name in ("train", "selection", "val")}

    before = parts()
    table = tmp_path / "combined_all" / manifest.FILE_NAME
    frame = pd.read_csv(table, dtype=str, keep_default_na=False).set_index("clip_id", drop=False)
    copies = [before["train"][0], before["train"][1]]
    frame.loc[copies, "fingerprint"] = [frame.fingerprint[before[n][0]] for n in ("selection", "val")]
    frame.to_csv(table, index=False)
    after = parts()
    assert after["val"] == before["val"]
    assert copies[1] not in {*after["train"], *after["selection"]}
    shown = {name: set(frame.fingerprint[ids]) for name, ids in after.items()}
    assert not shown["train"] & shown["selection"]
    assert not shown["train"] & shown["val"]
    assert not shown["selection"] & shown["val"]


@pytest.mark.parametrize("of", ["one model", "an ensemble"])
def test_the_manifest_that_is_recorded_is_the_one_that_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, of: str
) -> None:
    stand_in.install(monkeypatch.setattr)
    for seed in range(8):
        for offset, label in enumerate(("fight", "nonfight")):
            small_videos.write(tmp_path / "raw/mine" / label / f"{seed}.avi", 100 * offset + seed)
    combine.run(CombineConfig(data_root=tmp_path, own=(f"mine={tmp_path}/raw/mine",), workers=1))
    table = tmp_path / "combined_all" / manifest.FILE_NAME
    sha256, clips = storage.sha256_file(table), set(manifest.read(table.parent).clip_id)
    ensure = extract.ensure

    def meanwhile_combined(*args: Any) -> Extraction:
        done = ensure(*args)
        table.write_bytes(b"".join(table.read_bytes().splitlines(keepends=True)[:-1]))
        return done

    monkeypatch.setattr(extract, "ensure", meanwhile_combined)
    how = ExtractConfig(data_root=tmp_path, augment=1)
    if of == "one model":
        data = training_data.prepare(stand_in.CONFIG, how, 0.25, 0)
        found = {c for part in (data.train, data.selection, data.val) for c in part.rows.clip_id}
        recorded = data.manifest_sha256
    else:
        made = pool.open_pool(stand_in.CONFIG, how, pool.Choice(("mine",)))
        found, recorded = set(made.frame.clip_id), made.manifest_sha256
    assert (found, recorded) == (clips, sha256)
    assert "has changed since it was read" in caplog.text
