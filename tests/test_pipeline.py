"""The whole pipeline on generated sample clips: every script, in the order of the README."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import warm_start

from violence_detection.datasets.generated import samples
from violence_detection.system import locks

ROOT = Path(__file__).resolve().parent.parent
SMALL = (
    "--backbone", "efficientnet_lite0", "--streams", "rgb,motion", "--frames", "4", "--augment", "2",
    "--batch-size", "16", "--epochs", "4", "--projection", "32", "--units", "32",
)  # fmt: skip


@dataclass
class Way:
    """A working folder, and what each script wrote to stdout and to stderr."""

    folder: Path
    summaries: dict[str, Any]
    log: dict[str, str] = field(default_factory=dict)

    def goes(self, name: str, *arguments: object, codes: tuple[int, ...] = (0,)) -> Any:
        """Run a script as its user does, from the start of Python to its end, and record its output."""
        command = [sys.executable, str(ROOT / f"{name}.py"), *map(str, arguments)]
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, timeout=600, check=False
        )
        self.summaries[name], self.log[name] = _summary(done, codes), done.stderr
        return self.summaries[name]

    def script(self, name: str, *arguments: object, codes: tuple[int, ...] = (0,)) -> Any:
        """Run a script again with other arguments, without recording its output."""
        return _summary(warm_start.run(ROOT / f"{name}.py", *arguments, cwd=self.folder), codes)


def _summary(done: subprocess.CompletedProcess[str], codes: tuple[int, ...]) -> Any:
    assert done.returncode in codes, f"{done.args}: exit {done.returncode}\n{done.stderr[-3000:]}"
    assert len(done.stdout.splitlines()) == 1
    return json.loads(done.stdout)


@pytest.fixture(scope="module", autouse=True)
def networks_are_kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep converted networks from one script to the next, as on a user's machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIOLENCE_NETWORK_CACHE", str(tmp_path_factory.mktemp("networks")))
        yield


@pytest.fixture(scope="module")
def combined(tmp_path_factory: pytest.TempPathFactory) -> Way:
    """The pipeline up to the combined data set."""
    folder = tmp_path_factory.mktemp("way")
    samples.render_samples(folder / "data", sources=12, clips_per_source=3, seed=3)
    way = Way(folder, {})
    way.goes("find_all_datasets", "--data-root", "data")
    way.goes("combine_all_datasets", "--data-root", "data", codes=(1,))  # one file is broken on purpose
    return way


@pytest.fixture(scope="module")
def single(combined: Way) -> Way:
    """The pipeline up to the features and one model."""
    combined.goes("runpod_train_ultimate", "--data-root", "data", *SMALL, "--log-dir", combined.folder)
    return combined


@pytest.fixture(scope="module")
def trained(single: Way) -> Way:
    """The pipeline up to the ensemble."""
    single.goes(
        "train_ensemble_models", "--data-root", "data", *SMALL, "--show-val", "--log-dir", single.folder
    )
    return single


@pytest.fixture(scope="module")
def way(trained: Way) -> Way:
    """The whole pipeline: the ensemble is evaluated, and the clips are judged like unknown videos."""
    trained.goes(
        "test_ensemble", "--models", "./models_ensemble/", "--data", "data/combined_all/val/", "--output", "r"
    )
    trained.goes("test_violence_model", "--model", "models_ensemble", "data/combined_all/val")
    return trained


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as f:
        return list(csv.DictReader(f))


@pytest.mark.slow
def test_combining_says_what_became_of_the_clips(combined: Way) -> None:
    summary = combined.summaries["combine_all_datasets"]
    assert {"train", "val", "duplicates_removed", "near_duplicate_groups", "unlabelled", "unreadable", "by_dataset",
            "manifest"} <= summary.keys()  # fmt: skip
    assert summary["unreadable"] == 1
    assert summary["duplicates_removed"] == 2


@pytest.mark.slow
def test_training_says_the_fields_others_rely_on(single: Way) -> None:
    summary = single.summaries["runpod_train_ultimate"]
    assert {"model", "selection_accuracy", "val_accuracy", "val_accuracy_ci95", "epochs_run",
            "samples_per_second"} <= summary.keys()  # fmt: skip
    assert summary["val_accuracy"] is summary["val_accuracy_ci95"] is None, "nobody asked for val"
    assert summary["val_n"] is summary["val_by_dataset"] is None
    assert "Not yet evaluated" in (single.folder / "models_ultimate" / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "folder"),
    [
        ("runpod_train_ultimate", "models_ultimate"),
        ("train_ensemble_models", "models_ensemble/deep_lstm"),
    ],
)
def test_a_folder_of_other_settings_is_refused_before_anything_is_extracted(
    trained: Way, script: str, folder: str
) -> None:
    known = sorted((trained.folder / "data" / "features").rglob("*.npz"))
    arguments = ("--data-root", "data", *SMALL, "--augment", "3")
    done = warm_start.run(ROOT / f"{script}.py", *arguments, cwd=trained.folder)
    assert done.returncode == 2
    assert f"{folder} holds a model trained with other settings" in done.stderr
    assert "augment 2 there, 3 asked for" in done.stderr
    assert sorted((trained.folder / "data" / "features").rglob("*.npz")) == known
    with locks.only_one(trained.folder / Path(folder).parts[0], "another run"):
        done = warm_start.run(ROOT / f"{script}.py", *arguments, cwd=trained.folder)
    assert "another run (process" in done.stderr, "to be told to overwrite what is at work would be wrong"


@pytest.mark.slow
def test_the_ensemble_says_its_members(trained: Way) -> None:
    ensemble = trained.summaries["train_ensemble_models"]
    assert [m["name"] for m in ensemble["members"]] == [
        "deep_lstm",
        "bilstm",
        "gru",
        "conv_lstm",
        "attention",
    ]


@pytest.mark.slow
def test_training_and_evaluation_agree_on_the_ensembles_accuracy(way: Way) -> None:
    assert {"accuracy", "ci95", "n", "by_dataset", "members", "report"} <= way.summaries[
        "test_ensemble"
    ].keys()
    assert way.summaries["test_ensemble"]["accuracy"] == pytest.approx(
        way.summaries["train_ensemble_models"]["ensemble_val_accuracy"], abs=1e-4
    )
    assert way.summaries["test_ensemble"]["n"] == way.summaries["combine_all_datasets"]["val"]


@pytest.mark.slow
def test_the_report_knows_the_looks_at_val_and_the_card_its_figures(way: Way) -> None:
    lines = (way.folder / "data" / "combined_all" / "val_ledger.jsonl").read_text().splitlines()
    first, second = (json.loads(line) for line in lines[:2])
    assert first["command"].startswith("python train_ensemble_models.py")
    assert second["command"].startswith("python test_ensemble.py")
    assert first["model_sha256"] == second["model_sha256"]
    written = json.loads((way.folder / "r" / "metrics.json").read_text())
    assert written["val_ledger"]["looks_before"] == 1
    assert written["val_ledger"]["by_command"][0]["command"] == first["command"]
    boxes = {box["name"]: box for box in written["checklist"]}
    assert boxes["Ensemble"]["state"] == boxes["Unseen data"]["state"] == "done"
    assert "looked at once before" in " ".join((way.folder / "r" / "index.html").read_text().split()).lower()
    card = (way.folder / "models_ensemble" / "README.md").read_text()
    assert card == (way.folder / "r" / "model_card.md").read_text()
    assert f"| all | {100 * written['accuracy']:.1f} % |" in card


@pytest.mark.slow
def test_a_clip_is_judged_as_it_was_evaluated(way: Way) -> None:
    evaluated = {r["path"]: float(r["p_violent"]) for r in _rows(way.folder / "r" / "predictions.csv")}
    judged = way.summaries["test_violence_model"]["videos"]
    assert len(judged) == len(evaluated)
    for video in judged:
        path = Path(video["path"]).relative_to("data/combined_all").as_posix()
        assert video["p_violent"] == pytest.approx(evaluated[path], abs=1.1e-4)  # rounded to four digits
        assert bool(video["events"]) == (video["label"] == "fight")


@pytest.mark.slow
def test_numbers_on_sample_clips_are_marked_wherever_they_appear(way: Way) -> None:
    for script in ("runpod_train_ultimate", "train_ensemble_models", "test_ensemble"):
        assert way.summaries[script]["generated_samples"] is True
    assert way.summaries["test_violence_model"]["generated_samples"] is True
    assert "its verdicts say nothing about real videos" in way.log["test_violence_model"]
    for script in ("runpod_train_ultimate", "train_ensemble_models"):
        assert "GENERATED SAMPLE CLIPS" in way.log[script]
    for log in way.folder.glob("training_*.log"):
        assert "GENERATED SAMPLE CLIPS" in log.read_text()
    ledger = way.folder / "data" / "combined_all" / "val_ledger.jsonl"
    assert all(json.loads(line)["generated_samples"] is True for line in ledger.read_text().splitlines())
    assert json.loads((way.folder / "r" / "metrics.json").read_text())["generated_sample_clips"] is True
    assert "generated sample clips" in (way.folder / "r" / "index.html").read_text()


@pytest.mark.slow
def test_no_source_is_on_both_sides_and_the_ensemble_learnt_something(way: Way) -> None:
    rows = _rows(way.folder / "data" / "combined_all" / "manifest.csv")
    sides: dict[str, set[str]] = {}
    for row in rows:
        sides.setdefault(row["source_group"], set()).add(row["split"])
    assert all(len(split) == 1 for split in sides.values())
    assert way.summaries["test_ensemble"]["roc_auc"] > 0.7


@pytest.mark.slow
def test_a_second_evaluation_extracts_nothing_and_says_the_same(way: Way) -> None:
    first = way.summaries["test_ensemble"]
    again = way.script(
        "test_ensemble", "--models", "models_ensemble", "--data-root", "data", "--output", "r2"
    )
    assert {k: v for k, v in again.items() if k != "report"} == {
        k: v for k, v in first.items() if k != "report"
    }
    assert (way.folder / "r2" / "predictions.csv").read_bytes() == (
        way.folder / "r" / "predictions.csv"
    ).read_bytes()


@pytest.mark.slow
def test_evaluating_on_train_says_that_it_was_trained_on(way: Way) -> None:
    summary = way.script("test_ensemble", "--models", "models_ultimate", "--data", "data/combined_all/train",
                         "--output", "rt")  # fmt: skip
    assert summary["clips_trained_on"] == summary["n"]
    assert "trained on" in (way.folder / "rt" / "index.html").read_text()


@pytest.mark.slow
def test_an_unreadable_video_is_named_and_the_others_are_judged(way: Way) -> None:
    broken = way.folder / "broken.mp4"
    broken.write_bytes(b"no video at all" * 100)
    good = next((way.folder / "data" / "combined_all" / "val" / "fight").iterdir())
    summary = way.script("test_violence_model", "--model", "models_ultimate", broken, good, codes=(1,))
    assert [f["path"] for f in summary["failures"]] == [str(broken)]
    assert [v["path"] for v in summary["videos"]] == [str(good)]


@pytest.mark.slow
def test_killed_in_extraction_and_in_training_it_ends_as_if_undisturbed(way: Way) -> None:
    again = way.folder / "again"
    shutil.copytree(way.folder / "data", again / "data")
    for entry in sorted((again / "data" / "features").glob("*/*.npz"))[::3]:
        entry.unlink()
    arguments = ("--data-root", "data", *SMALL, "--log-dir", ".")

    def kill_once(pattern: str) -> None:
        """Run until there is one more file that matches `pattern`, then kill the process with SIGKILL."""
        before = len(sorted(again.glob(pattern)))
        process = warm_start.start(ROOT / "runpod_train_ultimate.py", *arguments, cwd=again)
        while len(sorted(again.glob(pattern))) <= before:
            assert process.poll() is None, process.stderr()[-2000:]
            time.sleep(0.01)
        assert process.kill() == -signal.SIGKILL

    kill_once("data/features/*/*.npz")
    kill_once("models_ultimate/checkpoint/state.json")
    assert not (again / "models_ultimate" / "result.json").exists()
    done = warm_start.run(ROOT / "runpod_train_ultimate.py", *arguments, cwd=again)
    summary, undisturbed = _summary(done, (0,)), way.summaries["runpod_train_ultimate"]
    for key in ("selection_accuracy", "epochs_run"):
        assert summary[key] == undisturbed[key]
    log_name = "models_ultimate/training_log.csv"
    assert (again / log_name).read_bytes() == (way.folder / log_name).read_bytes()
    for entry in sorted((way.folder / "data" / "features").glob("*/*.npz")):
        with np.load(entry) as a, np.load(again / entry.relative_to(way.folder)) as b:
            for variant in b.files:  # the undisturbed cache also has test-time views
                np.testing.assert_array_equal(a[variant], b[variant])


@pytest.mark.slow
def test_with_test_time_views_the_same_clips_are_judged_otherwise(way: Way) -> None:
    summary = way.script("test_ensemble", "--models", "models_ensemble", "--data-root", "data", "--tta", "3",
                         "--output", "rtta")  # fmt: skip
    assert summary["n"] == way.summaries["test_ensemble"]["n"]
    p_tta = [r["p_violent"] for r in _rows(way.folder / "rtta" / "predictions.csv")]
    p_plain = [r["p_violent"] for r in _rows(way.folder / "r" / "predictions.csv")]
    assert p_tta != p_plain
