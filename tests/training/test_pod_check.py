"""The pre-flight check and the presets: what is missing is named with its remedy, and a flag overrides a preset."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import warm_start

from violence_detection.errors import UserError
from violence_detection.features import estimate, extract_ray, key
from violence_detection.features.cache import FeatureStore
from violence_detection.features.config import ExtractConfig, FeatureConfig
from violence_detection.features.extraction_pass import WantedClip
from violence_detection.system import machine, tensorflow_start
from violence_detection.training import pod_check
from violence_detection.training.config import PRESETS, HeadConfig, TrainConfig

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("built_with_cuda", "missing", "remedy"),
    [(True, ["libcudnn.so.9"], "libcudnn.so.9"), (False, [], "and-cuda"), (True, [], "CUDA_VISIBLE_DEVICES"),
     (True, ["libcuda.so.1", "libcudnn.so.9"], "--gpus all")],
)  # fmt: skip
def test_an_unseen_gpu_is_explained(
    monkeypatch: pytest.MonkeyPatch, built_with_cuda: bool, missing: list[str], remedy: str
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(tf.test, "is_built_with_cuda", lambda: built_with_cuda)
    monkeypatch.setattr(pod_check, "missing_libraries", lambda: missing)
    assert remedy in (pod_check.unseen_gpus(2, 1) or "")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert "the machine has 2 GPU(s), of which CUDA_VISIBLE_DEVICES=1 selects 1, but" in (
        pod_check.unseen_gpus(2, 0) or ""
    )


def test_training_says_that_gpus_stand_idle_that_nobody_hid(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(machine, "gpus", lambda: [machine.Gpu("RTX 4080", 0.0, 0.0, 16376.0)] * 2)
    monkeypatch.setattr(tensorflow_start, "may_have_gpus", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    pod_check.warn_of_unseen_gpus(2)
    assert not caplog.records
    pod_check.warn_of_unseen_gpus(0)
    assert "the machine has 2 GPU(s) but TensorFlow sees 0" in caplog.text
    caplog.clear()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    pod_check.warn_of_unseen_gpus(0)
    assert not caplog.records
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    pod_check.warn_of_unseen_gpus(0)
    assert "selects 1, but TensorFlow sees 0" in caplog.text


@pytest.mark.parametrize(
    ("chosen", "seen", "kind", "is_ready"),
    [(None, 2, "GPU", True), (None, 1, "GPU", False), (None, 0, "CPU", False), ("0", 1, "GPU", True),
     ("GPU-8f3c", 1, "GPU", True), ("1, 0", 1, "GPU", False), ("0", 0, "CPU", False), ("", 0, "CPU", True),
     ("-1", 0, "CPU", True)],
)  # fmt: skip
def test_check_expects_the_gpus_that_are_chosen_and_reckons_with_those_that_are_seen(
    monkeypatch: pytest.MonkeyPatch, chosen: str | None, seen: int, kind: str, is_ready: bool
) -> None:
    monkeypatch.setattr(machine, "gpus", lambda: [machine.Gpu("RTX 4080", 0.0, 0.0, 16376.0)] * 2)
    monkeypatch.setattr(tensorflow_start, "gpus", lambda: [f"GPU:{i}" for i in range(seen)])
    monkeypatch.setattr(machine, "free_memory_bytes", lambda: 10**10)
    monkeypatch.setattr(pod_check, "data", lambda how, features, epochs, kind: {"kind": kind})
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    found = pod_check.run(ExtractConfig(), FeatureConfig(), 60)
    assert (found["gpus"], found["gpus_usable"], found["kind"]) == (2, seen, kind)
    assert found["ready"] == is_ready, found["problems"]


def test_missing_libraries_are_those_that_nothing_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_check, "CUDA_LIBRARIES", ("libc.so.6", "libnosuch.so.9"))
    assert pod_check.missing_libraries() == ["libnosuch.so.9"]


@pytest.mark.parametrize(("free", "is_enough"), [(1_999_999_999, False), (2_000_000_000, True)])
def test_less_memory_than_training_takes_is_refused(
    monkeypatch: pytest.MonkeyPatch, free: int, is_enough: bool
) -> None:
    monkeypatch.setattr(machine, "free_memory_bytes", lambda: free)
    if is_enough:
        assert pod_check.memory() == {"memory_free_gb": 2.0}
        return
    with pytest.raises(
        UserError, match=r"^only 2\.0 GB of memory is free; training needs 2 GB\. Close other"
    ):
        pod_check.memory()


def test_driver_report_is_read_with_what_a_gpu_does_not_say() -> None:
    first, second = machine.parse_smi("NVIDIA GeForce RTX 4080, 97, 15000, 16376\nOther, [N/A], 5, 10\n")
    assert (first.name, first.use_percent, first.memory_mb) == ("NVIDIA GeForce RTX 4080", 97.0, 16376.0)
    assert second.use_percent != second.use_percent
    assert machine.free_memory_bytes() > 0


def test_check_counts_what_is_missing_and_ends_with_2_when_it_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {"clip_id": ["a", "b", "c", "d"], "split": ["train", "train", "val", "val"], "dataset": "d",
            "label": ["fight", "nonfight"] * 2, "by_time": False}  # fmt: skip
    monkeypatch.setattr("violence_detection.combine.manifest.read", lambda _: pd.DataFrame(rows))
    where = ExtractConfig(data_root=tmp_path, augment=4)
    features = FeatureConfig(backbone=("efficientnet_lite0",), streams=("rgb",))
    found = pod_check.data(where, features, 60, "CPU")
    assert found["variants_missing"] == 2 * 4 + 2
    assert found["feature_gb_missing"] == round(10 * 20 * 1280 * 2 / 1e9, 2)
    (run,) = key.backbone_runs(features, None)
    cache = key.folder_of(tmp_path, key.record(features, "efficientnet_lite0", "rgb", run.weights))
    estimate.RateRecord(cache, run).note(0.001)
    found = pod_check.data(where, features, 0, "CPU")
    assert found["hours_roughly"] == round(10 / 0.001 / 3600, 2), "as an earlier extraction took"
    both = FeatureConfig(backbone=("efficientnet_lite0", "i3d", "i3d_local"), streams=("rgb", "motion"))
    monkeypatch.setattr("violence_detection.backbones.weights.index_file", lambda *_: Path(__file__))
    found = pod_check.data(where, both, 60, "CPU")
    assert found["feature_gb_missing"] == round(10 * (20 * 1280 * 2 + 4 * 1024 + 8 * 832) * 2 / 1e9, 2)
    film = FeatureConfig(backbone=("videoprism_b",))
    monkeypatch.setattr("violence_detection.backbones.weights.kaggle_file", lambda *_: Path(__file__))
    hours = {kind: pod_check.data(where, film, 0, kind)["hours_roughly"] for kind in ("GPU", "CPU")}
    assert hours["CPU"] == round(10 / (3_000 * 177 / 490), 2), "more than EfficientNet-B4 takes"
    assert hours["GPU"] < hours["CPU"]
    one_class = pd.DataFrame(rows).assign(label=["fight", "nonfight", "fight", "fight"])
    monkeypatch.setattr("violence_detection.combine.manifest.read", lambda _: one_class)
    with pytest.raises(pod_check.UserError, match="the val part has no nonfight clip"):
        pod_check.data(where, features, 60, "CPU")
    monkeypatch.setattr("violence_detection.combine.manifest.read", lambda _: pd.DataFrame(rows))
    monkeypatch.setattr(pod_check, "free_bytes_of", lambda _: 10)
    with pytest.raises(pod_check.UserError, match="--augment"):
        pod_check.data(where, features, 60, "CPU")


def test_features_of_frames_found_by_number_count_as_missing_where_time_stamps_count(tmp_path: Path) -> None:
    """The check and a worker must call features missing exactly where the extraction would compute them again."""
    store = FeatureStore.open(tmp_path, {"backbone": "b", "stream": "rgb"})
    clips = [
        WantedClip(name, Path(f"{name}.mp4"), ("v0", "v1"), name != "constant")
        for name in ("constant", "old", "new")
    ]
    for clip in clips:
        values = {v: np.zeros((2, 3)) for v in clip.variants}
        store.add(clip.clip_id, values, "engine", by_time=clip.clip_id == "new")
    assert [clip.clip_id for clip in pod_check._lacking(store, clips)] == ["old"]
    group = SimpleNamespace(stores={"b.rgb": store})
    assert [extract_ray._is_whole(clip, group) for clip in clips] == [True, False, True]  # type: ignore[arg-type]


def test_check_says_what_is_not_ready_and_trains_nothing(tmp_path: Path) -> None:
    arguments = ("--check", "--data-root", tmp_path, "--log-dir", tmp_path)
    done = warm_start.run(ROOT / "runpod_train_ultimate.py", *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    said = json.loads(done.stdout)
    assert not said["ready"]
    assert any("combine_all_datasets.py" in problem for problem in said["problems"])
    assert "TensorFlow sees" in done.stderr
    assert not (tmp_path / "models_ultimate").exists()


@pytest.mark.parametrize("task", ["--prune", "--features-only", "--preview=2"])
def test_a_check_beside_a_task_is_refused(tmp_path: Path, task: str) -> None:
    arguments = ("--check", task, "--data-root", tmp_path, "--log-dir", tmp_path)
    done = warm_start.run(ROOT / "runpod_train_ultimate.py", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"--check and {task.partition('=')[0]} are tasks of their own" in done.stderr


def test_a_preset_sets_the_defaults_that_help_shows() -> None:
    command = [sys.executable, str(ROOT / "runpod_train_ultimate.py"), "--help"]
    text = {
        name: subprocess.run([*command, "--preset", name], capture_output=True, text=True, check=True).stdout
        for name in ("ultra", "ultimate")
    }
    flat = {name: " ".join(t.split()) for name, t in text.items()}
    assert "(default: vgg19)" in flat["ultra"]
    assert "(default: efficientnet_b4)" in flat["ultimate"]


def test_presets_name_only_settings_that_exist() -> None:
    known = {
        f for c in (ExtractConfig, FeatureConfig, HeadConfig, TrainConfig) for f in c.__dataclass_fields__
    }
    for preset in PRESETS.values():
        assert preset.values.keys() <= known
