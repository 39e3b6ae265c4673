"""The roadmap's boxes follow the records: done, done differently, or missing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from violence_detection.combine import val_ledger
from violence_detection.combine.val_ledger import Looks
from violence_detection.datasets import catalogue
from violence_detection.evaluation import checklist
from violence_detection.evaluation.checklist import DIFFERS, DONE, MISSING, Box, Facts
from violence_detection.evaluation.training_overlap import Comparison, Overlap
from violence_detection.models.run_records import MemberRecord, RunRecords
from violence_detection.training import trained_clips

SHA = "5" * 64
ROADMAP = [d.key for d in catalogue.load().values() if d.roadmap]
NOT_LOOKED_FOR = val_ledger.record_unchecked(Path("combined_all"))
OTHERS = val_ledger.record_of_others(2000, Path("combined_all"))
NOTHING_SEEN = Overlap(2000, 8000, 0, Comparison(0, 2000), Comparison(0, 2000), Comparison(0, 2000))


def _manifest(clips: int = 10_000, datasets: list[str] = ROADMAP) -> pd.DataFrame:
    """A manifest of sources of five clips each; every fifth source is in val."""
    return pd.DataFrame(
        {
            "split": ["val" if i // 5 % 5 == 0 else "train" for i in range(clips)],
            "source_group": [f"s{i // 5}" for i in range(clips)],
            "dataset": [datasets[i % len(datasets)] for i in range(clips)],
        }
    )


def _config(**changes: Any) -> dict[str, Any]:
    return {
        "architecture": "bilstm_attention", "augment": 10, "manifest_sha256": SHA, "train": {"epochs": 1000},
        "features": {"backbone": ["efficientnet_b4"], "streams": ["rgb", "motion"]}, **changes,
    }  # fmt: skip


def _run(members: int = 5, **changes: Any) -> RunRecords:
    records = tuple(
        MemberRecord(f"m{i}", 1 / members, _config(**changes), {"epochs_run": 40 + i}) for i in range(members)
    )
    folds = {
        "folds": [{}] * 5,
        "cv_accuracy": 0.94,
        "cv_accuracy_ci95": [0.93, 0.95],
        "cv_n": 8000,
        "cv_n_groups": 1600,
    }
    clips = pd.DataFrame(columns=list(trained_clips.COLUMNS), dtype=str)
    return RunRecords(Path("models"), records, clips, 900, ("m0", "m1"), False, folds, "")


def _coverage(fight: int, nonfight: int) -> dict[str, dict[str, int]]:
    """Coverage of 1,000 clips per class, of which this many were judged."""
    judged = {"fight": fight, "nonfight": nonfight}
    return {name: {"n": 1000, "predicted": n} for name, n in judged.items()}


LEFT_OUT = dataclasses.replace(_run(), cross_validation={**_run().cross_validation, "by_dataset": True})
#: Trained on only two of the manifest's data sets.
OF_TWO_SETS = dataclasses.replace(_run(), clips=pd.DataFrame({"dataset": [*ROADMAP[:2]] * 2}))
NO_FOLDS = dataclasses.replace(_run(), cross_validation={}, no_cross_validation="none")


def _facts(**changes: Any) -> Facts:
    base = Facts(
        run=_run(), manifest=_manifest(), manifest_sha256=SHA, is_val=True, sample_label="", views=4, accuracy=0.95,
        ci95=(0.94, 0.96), n=2000, coverage=_coverage(1000, 1000), overlap=NOTHING_SEEN, looks=Looks(2000),
        val_ledger=OTHERS,
    )  # fmt: skip
    facts = dataclasses.replace(base, **changes)
    return dataclasses.replace(facts, val_ledger=facts.looks.record()) if facts.looks else facts


def _box(name: str, **changes: Any) -> Box:
    (box,) = [box for box in checklist.fill(_facts(**changes)) if box.name == name]
    return box


def test_a_class_of_which_no_clip_could_be_judged_leaves_the_accuracy_unknown() -> None:
    box = _box("Accuracy", accuracy=1.0, ci95=(0.99, 1.0), n=1000, coverage=_coverage(0, 1000))
    assert box.state == MISSING
    assert "not known: no fight clip could be judged" in box.found
    assert "1000 of 1000 fight clips could not be judged" in box.found
    box = _box("Accuracy", coverage=_coverage(990, 997))
    assert box.state == DONE
    assert "10 of 1000 fight clips and 3 of 1000 nonfight clips could not be judged" in box.found
    assert "judged" not in _box("Accuracy").found


def test_a_run_that_is_all_the_roadmap_asks_for_is_done() -> None:
    boxes = checklist.fill(_facts())
    assert [box.name for box in boxes if box.state != DONE] == []
    assert all(box.found and box.evidence for box in boxes)
    assert _box("Epochs").found == "at most 1000; 40-44 ran"
    assert (
        "94.0 % of 8000 clips from 1600 sources (95 % interval 93.0-95.0)" in _box("Cross-validation").found
    )


@pytest.mark.parametrize(
    ("name", "changes", "found"),
    [
        ("Clips", {"manifest": _manifest(1277)}, "1,277 clips: 1,020 train, 257 val"),
        ("Data sets", {"manifest": _manifest(10_000, ROADMAP[:3])}, "Not among them: cctv_fights"),
        ("Split", {"manifest": _manifest().assign(split=["val", "train"] * 5000)}, "2,000 of 2,000 sources on both"),
        ("Augmentation", {"run": _run(augment=3)}, "3, the plain clip"),
        ("Backbone", {"run": _run(features={"backbone": ["i3d"], "streams": ["rgb"]})}, "i3d; streams rgb"),
        ("Architecture", {"run": _run(architecture="gru")}, "gru"),
        ("Epochs", {"run": _run(train={"epochs": 20})}, "at most 20"),
        ("Epochs", {"run": _run(2, architecture="kernel")}, "at once or in a fixed number of steps: m0, m1"),
        ("Epochs", {"run": _run(1, architecture="i3d_tuned")}, "fixed number of steps: m0"),
        ("Epochs", {"run": _run(1, steps={"steps": 90})}, "fixed number of steps: m0"),
        ("Data sets", {"run": OF_TWO_SETS}, "2: hockey_fights, rwf_2000. Not among them: real_life_violence"),
        ("Clips", {"run": OF_TWO_SETS}, "2,858 clips: 2,286 train, 572 val"),
        ("Hard clips", {"run": dataclasses.replace(_run(), tuned=())}, "no member was better"),
        ("Ensemble", {"run": _run(3)}, "3: m0, m1, m2"),
        ("Cross-validation", {"run": LEFT_OUT}, "Each of 5 data sets judged by other models of the same settings"),
        ("Unseen data", {"overlap": dataclasses.replace(NOTHING_SEEN, touched=7)}, "7 of 2000 clips were"),
        ("Hard clips", {"run": dataclasses.replace(_run(), mined=0, tuned_beside=True)}, "beside, in hard/"),
        ("Val looked at once", {"looks": Looks(2000, [{}] * 7)}, "looked at 7 times before"),
        ("Accuracy", {"accuracy": 0.76, "ci95": (0.7, 0.8)}, "76.0 % of 2000 clips (95 % interval 70.0-80.0)"),
        ("Accuracy", {"accuracy": 0.94, "ci95": (0.9, 0.97)}, "does not rule out less than 93 %"),
    ],
)  # fmt: skip
def test_what_is_otherwise_is_said_with_what_it_is(name: str, changes: dict[str, Any], found: str) -> None:
    box = _box(name, **changes)
    assert box.state == DIFFERS
    assert found in box.found


@pytest.mark.parametrize(
    ("name", "changes", "found"),
    [
        ("Clips", {"manifest": None}, "not known"),
        ("Clips", {"manifest": None, "run": OF_TWO_SETS}, "4 clips; how many val had is not known here"),
        ("Split", {"manifest_sha256": "6" * 64}, "not those of the manifest"),
        ("Unseen data", {"overlap": dataclasses.replace(NOTHING_SEEN, same_source=Comparison(0, 0, "lost"))}, "lost"),
        ("Unseen data", {"overlap": dataclasses.replace(NOTHING_SEEN, same_source=Comparison(0, 9, "own"))}, "own"),
        ("Unseen data", {"overlap": dataclasses.replace(NOTHING_SEEN, near_copy=Comparison(0, 9, "black"))}, "black"),
        ("Cross-validation", {"run": NO_FOLDS}, "none"),
        ("TTA", {"views": 1}, "--tta"),
        ("Hard clips", {"run": dataclasses.replace(_run(), mined=0)}, "--fine-tune-hard"),
        ("Val looked at once", {"looks": None}, "none of these 2000 clips is val"),
        ("Val looked at once", {"looks": None, "val_ledger": NOT_LOOKED_FOR}, "not checked whether"),
        ("Val looked at once", {"looks": Looks(2000, unnoted="read-only")}, "read-only"),
        ("Accuracy", {"sample_label": "generated sample clips"}, "generated sample clips"),
        ("Accuracy", {"is_val": False}, "not the val"),
        ("Accuracy", {"overlap": dataclasses.replace(NOTHING_SEEN, touched=7)}, "seen in training"),
        ("Accuracy", {"overlap": dataclasses.replace(NOTHING_SEEN, same_clip=Comparison(0, 0, "lost"))}, "not fully"),
        ("Backbone", {"run": dataclasses.replace(_run(), members=(MemberRecord("x", 1.0, {}, {}),))}, "not known"),
    ],
)  # fmt: skip
def test_what_nobody_can_tell_is_missing_and_why(name: str, changes: dict[str, Any], found: str) -> None:
    box = _box(name, **changes)
    assert box.state == MISSING
    assert found in box.found


def test_clips_enough_are_enough_whatever_was_judged() -> None:
    many = dataclasses.replace(_run(), clips=pd.DataFrame({"dataset": ROADMAP[:1] * 12_000}))
    assert _box("Clips", manifest=None, run=many).state == DONE
    final = dataclasses.replace(OF_TWO_SETS, final_fit={"clips": 4})
    box = _box("Clips", manifest=None, run=final)
    assert (box.state, box.found) == (DIFFERS, "the model was made with 4 clips")


def test_a_final_fits_folds_are_read_in_its_own_record() -> None:
    assert _box("Cross-validation").evidence.startswith("cross_validation.json")
    final = dataclasses.replace(_run(), final_fit={"clips": 8000})
    assert _box("Cross-validation", run=final).evidence == "ensemble.json: final_fit"


def test_the_roadmaps_five_members_have_bilstm_and_attention_between_them() -> None:
    heads = ("deep_lstm", "bilstm", "gru", "conv_lstm", "attention")
    members = tuple(MemberRecord(h, 0.2, _config(architecture=h), {}) for h in heads)
    box = _box("Architecture", run=dataclasses.replace(_run(), members=members))
    assert box.state == DONE
    assert "two members, one with each" in box.found
